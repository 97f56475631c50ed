//! Requests that the server sends, against real sockets on loopback.

use api::{
    destination::{BadUrl, Forbidden, Network, Rules},
    outgoing::{Answer, Bounds, Outgoing, Resolve, Resolving, SendError},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer},
};

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), answer_bytes_max: 1_000 };

/// Answers each look-up with the next list, and the last one for ever.
struct Names {
    answers: Vec<Vec<&'static str>>,
    asked: AtomicUsize,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers.get(asked).or_else(|| self.answers.last());
        let found = answer.map(|it| it.iter().map(|it| it.parse().unwrap()).collect());
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

fn names(answers: &[&[&'static str]]) -> Arc<Names> {
    let answers = answers.iter().map(|it| it.to_vec()).collect();
    Arc::new(Names { answers, asked: AtomicUsize::new(0) })
}

fn loopback() -> Rules {
    let allowed: Network = "127.0.0.0/8".parse().unwrap();
    Rules { allowed: vec![allowed], allows_http: true }
}

fn outgoing(rules: Rules, names: &Arc<Names>) -> Outgoing {
    Outgoing::new(rules, Arc::clone(names) as Arc<dyn Resolve>, &RootCertStore::empty()).unwrap()
}

/// Reads one request whole and answers it.
async fn answer_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut request = Vec::new();
    let whole = |it: &[u8]| {
        let text = String::from_utf8_lossy(it).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let line = head.lines().find_map(|it| it.strip_prefix("content-length: "));
        (line?.parse() == Ok(body.len())).then_some(())
    };
    while whole(&request).is_none() {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request is cut");
    }
    // A client that has read enough may be gone.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(request).unwrap()
}

/// A server on loopback that answers its first request.
async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer_one(stream, answer).await
    });
    (port, served)
}

async fn post(outgoing: &Outgoing, url: &str, bounds: Bounds) -> Result<Answer, SendError> {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("one"));
    outgoing.post(url, headers, Bytes::from_static(b"{\"a\":1}"), bounds).await
}

#[tokio::test]
async fn a_request_arrives_whole_and_its_answer_comes_back() {
    let (port, served) = server("HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\ndone").await;
    let sender = outgoing(loopback(), &names(&[&["127.0.0.1"]]));
    let url = format!("http://example.org:{port}/hook/1?a=b%20c");
    let answer = post(&sender, &url, BOUNDS).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::CREATED, &b"done"[..]));
    let request = served.await.unwrap();
    assert!(request.starts_with("POST /hook/1?a=b%20c HTTP/1.1\r\n"), "{request}");
    for line in [&format!("host: example.org:{port}"), "webhook-id: one", "content-length: 7"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} is not in {request}");
    }
    assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_before_anything_is_sent() {
    for inside in [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "ff02::1",
    ] {
        // The public address comes first: it is not enough that one of them is.
        let names = names(&[&["93.184.215.14", inside]]);
        let sender = outgoing(Rules { allows_http: true, ..Rules::default() }, &names);
        match post(&sender, "http://example.org/", BOUNDS).await {
            Err(SendError::Forbidden { address, .. }) => {
                assert_eq!(address, inside.parse::<IpAddr>().unwrap());
            }
            other => panic!("{inside}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_connected() {
    let (port, served) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    // A second look-up would lead to where nobody listens for it.
    let names = names(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let sender = outgoing(loopback(), &names);
    let answer = post(&sender, &format!("http://moving.example:{port}/"), BOUNDS).await.unwrap();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(names.asked.load(Ordering::Relaxed), 1, "one look-up");
    served.await.unwrap();
    match post(&sender, &format!("http://moving.example:{port}/"), BOUNDS).await {
        Err(SendError::Forbidden { why: Forbidden::Private, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (there, unvisited) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let redirect: &'static str = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{there}/\r\ncontent-length: 0\r\n\r\n"
    )
    .leak();
    let (port, served) = server(redirect).await;
    let sender = outgoing(loopback(), &names(&[]));
    let answer = post(&sender, &format!("http://127.0.0.1:{port}/"), BOUNDS).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    served.await.unwrap();
    assert!(!unvisited.is_finished());
    unvisited.abort();
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n".to_owned() + &"x".repeat(4_000);
    let (port, _served) = server(endless.leak()).await;
    let sender = outgoing(loopback(), &names(&[]));
    match post(&sender, &format!("http://127.0.0.1:{port}/"), BOUNDS).await {
        Err(SendError::TooLarge(1_000)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sender = outgoing(loopback(), &names(&[]));
    let bounds = Bounds { time: Duration::from_millis(50), ..BOUNDS };
    match post(&sender, &format!("http://127.0.0.1:{port}/"), bounds).await {
        Err(SendError::TimedOut(_)) => {}
        other => panic!("{other:?}"),
    }
    drop(listener);
    match post(&sender, &format!("http://127.0.0.1:{port}/"), BOUNDS).await {
        Err(SendError::Connect { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    for answer in ["220 mail.example ESMTP\r\n", "", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]
    {
        let (port, _served) = server(answer).await;
        let sender = outgoing(loopback(), &names(&[]));
        match post(&sender, &format!("http://127.0.0.1:{port}/"), BOUNDS).await {
            Err(SendError::Http(_)) => {}
            other => panic!("{answer:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn http_is_refused_unless_it_is_allowed() {
    let sender = outgoing(Rules { allows_http: false, ..loopback() }, &names(&[&["127.0.0.1"]]));
    match post(&sender, "http://example.org/", BOUNDS).await {
        Err(SendError::Url(BadUrl::Scheme)) => {}
        other => panic!("{other:?}"),
    }
    let unknown = post(&outgoing(loopback(), &names(&[])), "https://example.org/", BOUNDS).await;
    assert!(matches!(unknown, Err(SendError::Resolve { .. })), "{unknown:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_who_owns_the_name_and_with_nobody_else() {
    let certified = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                return answer_one(stream, answer).await;
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let resolver = names(&[&["127.0.0.1"]]) as Arc<dyn Resolve>;
    let trusting = Outgoing::new(loopback(), Arc::clone(&resolver), &roots).unwrap();
    let strict = Outgoing::new(loopback(), resolver, &RootCertStore::empty()).unwrap();
    for (sender, host) in [(&strict, "example.org"), (&trusting, "example.com")] {
        match post(sender, &format!("https://{host}:{port}/"), BOUNDS).await {
            Err(SendError::Connect { .. }) => {}
            other => panic!("{host}: {other:?}"),
        }
    }
    let answer = post(&trusting, &format!("https://example.org:{port}/"), BOUNDS).await.unwrap();
    assert_eq!(&answer.body[..], b"ok");
    served.await.unwrap();
}
