//! Requests that the server sends: callbacks, and jobs pushed to workers. The name is resolved
//! once, every address is checked, and the checked one is connected; no redirect is followed, and
//! neither time nor answer is unbounded.

use crate::destination::{BadUrl, Destination, Forbidden, Host, Rules};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, HOST},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls_native_certs::load_native_certs;
use std::{fmt, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName, version::TLS12,
        version::TLS13,
    },
};

/// Octets of an answer's header fields and of the buffer they are read into.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Turns a name into addresses.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// Addresses to come.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// As the system resolves names.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|it| it.ip()).collect())
        })
    }
}

/// What came back, of whatever status: a redirect is an answer like any other.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the URL must be {0}")]
    Url(#[from] BadUrl),
    #[error("'{host}' has no address: {error}")]
    Resolve { host: String, error: io::Error },
    #[error("'{host}' leads to {address}, which {why}")]
    Forbidden { host: String, address: IpAddr, why: Forbidden },
    #[error("no connection to {host}: {error}")]
    Connect { host: String, error: io::Error },
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the answer has more than {0} octets")]
    TooLarge(usize),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
}

/// What limits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From the look-up of the name to the last octet of the answer.
    pub time: Duration,
    /// Octets of the answer's body.
    pub answer_bytes_max: usize,
}

/// Sends requests to where the rules allow it.
#[derive(Clone)]
pub struct Outgoing {
    rules: Arc<Rules>,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Trusts the certificate authorities that the system trusts, and `own`.
    ///
    /// # Errors
    /// A certificate of `own` that cannot be used. Those of the system that cannot are passed
    /// over, as other programs do.
    pub fn new(
        rules: Rules,
        resolver: Arc<dyn Resolve>,
        own: &RootCertStore,
    ) -> Result<Self, tokio_rustls::rustls::Error> {
        let mut roots = own.clone();
        roots.add_parsable_certificates(load_native_certs().certs);
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { rules: Arc::new(rules), resolver, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Posts a body. Header fields of the connection are added.
    ///
    /// # Errors
    /// [`SendError`]: nothing was sent for the first three, and it is not known for the others.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, SendError> {
        let destination = self.rules.check_url(url)?;
        let exchange = self.exchange(&destination, headers, body, bounds.answer_bytes_max);
        timeout(bounds.time, exchange).await.map_err(|_| SendError::TimedOut(bounds.time))?
    }

    async fn exchange(
        &self,
        destination: &Destination,
        headers: HeaderMap,
        body: Bytes,
        answer_bytes_max: usize,
    ) -> Result<Answer, SendError> {
        let request = request(destination, headers, body);
        let stream = self.connect(destination).await?;
        if !destination.is_https {
            return speak(stream, request, answer_bytes_max).await;
        }
        let refused = |error| SendError::Connect { host: destination.host.to_string(), error };
        let name = match &destination.host {
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| refused(io::Error::other(error)))?,
            Host::Address(it) => ServerName::IpAddress((*it).into()),
        };
        let stream = self.tls.connect(name, stream).await.map_err(refused)?;
        speak(stream, request, answer_bytes_max).await
    }

    /// Connects to the first address that takes the connection, once all of them are allowed: a
    /// name with one inner address is somebody's attempt to get there.
    async fn connect(&self, destination: &Destination) -> Result<TcpStream, SendError> {
        let host = destination.host.to_string();
        let addresses = match &destination.host {
            Host::Address(it) => vec![*it],
            Host::Name(name) => self
                .resolver
                .resolve(name)
                .await
                .map_err(|error| SendError::Resolve { host: host.clone(), error })?,
        };
        for address in &addresses {
            if let Err(why) = self.rules.check_address(*address) {
                return Err(SendError::Forbidden { host, address: *address, why });
            }
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect((address, destination.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(SendError::Connect { host, error: last })
    }
}

fn request(destination: &Destination, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    // It was part of a URL, so it is one by itself.
    *request.uri_mut() = destination.path.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    let usual = if destination.is_https { 443 } else { 80 };
    let authority = match destination.port == usual {
        true => destination.host.to_string(),
        false => format!("{}:{}", destination.host, destination.port),
    };
    if let Ok(authority) = HeaderValue::try_from(authority) {
        request.headers_mut().insert(HOST, authority);
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

/// One request and its answer over a connection that ends with it.
async fn speak<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    answer_bytes_max: usize,
) -> Result<Answer, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, answer_bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return SendError::TooLarge(answer_bytes_max);
            }
            match error.downcast::<hyper::Error>() {
                Ok(error) => SendError::Http(*error),
                Err(error) => SendError::Connect {
                    host: "the connection".to_owned(),
                    error: io::Error::other(error),
                },
            }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    tokio::pin!(connection, exchange);
    let mut is_open = true;
    // The connection moves the octets; it has nothing to say of its own that the exchange does
    // not say as well.
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
