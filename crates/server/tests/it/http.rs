//! The HTTP door at the socket: logins, limits, hostile clients, the end of the server.

use crate::harness::TestServer;
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LOGIN: &str = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";

async fn start() -> TestServer {
    TestServer::start_with(&[("listeners.http", "127.0.0.1:0")]).await
}

/// Sends these octets, and reads until the server has closed.
async fn exchange(server: &TestServer, request: &str) -> String {
    let mut socket = TcpStream::connect(server.http_address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// One request on a connection of its own, and its answer.
async fn send(server: &TestServer, line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let fixed = format!("Host: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
    exchange(server, &format!("{line} HTTP/1.1\r\n{fixed}{headers}\r\n{body}")).await
}

#[track_caller]
fn check(answer: &str, status: u16, words: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(words), "{answer}");
}

#[tokio::test]
async fn requests_reach_the_broker_as_their_user() {
    let server = start().await;
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions::default();
    channel.queue_declare("plain", options, FieldTable::default()).await.unwrap();
    let answer = send(&server, "POST /v1/queues/absent/jobs", LOGIN, "x").await;
    check(&answer, 404, "/problems/queue-not-found");
    let answer = send(&server, "POST /v1/queues/plain/jobs", LOGIN, "x").await;
    check(&answer, 409, "/problems/not-a-job-queue");
    let answer = send(&server, "GET /v1/jobs/a?vhost=nowhere", LOGIN, "").await;
    check(&answer, 404, "/problems/vhost-not-found");
}

#[tokio::test]
async fn logins_have_the_limits_of_every_other_way_in() {
    let flags = [("listeners.http", "127.0.0.1:0"), ("limits.failed_logins", "2")];
    let server = TestServer::start_with(&flags).await;
    let wrong = "Authorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n";
    let get = "GET /v1/jobs/a?queue=q";
    check(&send(&server, get, "", "").await, 401, "www-authenticate: Basic ");
    for _ in 0..2 {
        check(&send(&server, get, wrong, "").await, 401, "/problems/unauthorized");
    }
    check(&send(&server, get, wrong, "").await, 429, "retry-after: 60");
    check(&send(&server, get, LOGIN, "").await, 404, "/problems/");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = start().await;
    let get = "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n";
    let answer = exchange(&server, &format!("{get}\r\n{get}Connection: close\r\n\r\n")).await;
    assert_eq!(answer.matches("HTTP/1.1 404 Not Found").count(), 2, "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let server = start().await;
    let long = "x".repeat(40_000);
    let many = "A: b\r\n".repeat(101);
    for (request, status) in [
        ("AMQP\0\0\u{9}\u{1}\r\n\r\n".to_owned(), "400"),
        (format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        (format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"), "431"),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
    ] {
        let mut socket = TcpStream::connect(server.http_address()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The server may close before it has read everything, which resets the connection.
        socket.read_to_end(&mut answer).await.ok();
        let answer = String::from_utf8_lossy(&answer);
        let is_refused = answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.is_empty();
        assert!(is_refused, "{request:.40}: {answer}");
    }
    check(&send(&server, "GET /v1/nothing", "", "").await, 404, "no-such-resource");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let flags = [("listeners.http", "127.0.0.1:0"), ("message_bytes_max", "1KiB")];
    let server = TestServer::start_with(&flags).await;
    let head = "POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let request = format!("{head}{LOGIN}Content-Length: 1025\r\nExpect: 100-continue\r\n\r\n");
    let answer = exchange(&server, &request).await;
    check(&answer, 413, "payload-too-large");
    let chunk = "x".repeat(1_025);
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n401\r\n{chunk}\r\n0\r\n\r\n");
    let answer = exchange(&server, &format!("{head}{LOGIN}{chunked}")).await;
    check(&answer, 413, "payload-too-large");
}

#[tokio::test]
async fn a_stranger_is_not_asked_for_his_body() {
    let server = start().await;
    let head = "POST /v1/queues/q/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    let answer = exchange(&server, &request).await;
    check(&answer, 401, "unauthorized");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn a_stop_closes_idle_connections() {
    let server = start().await;
    let mut socket = TcpStream::connect(server.http_address()).await.unwrap();
    let get = "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(get.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    socket.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
    server.stop().await;
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
}

/// A server with a queue of jobs.
async fn start_with_jobs() -> TestServer {
    let server = start().await;
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-jobs".into(), true.into());
    channel.queue_declare("emails", options, arguments).await.unwrap();
    server
}

/// The value of a header of an answer.
#[track_caller]
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let prefix = format!("{name}: ");
    answer.lines().find_map(|it| it.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{answer}"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn a_job_goes_from_its_caller_to_a_worker_and_back() {
    let server = start_with_jobs().await;
    let headers = format!(
        "{LOGIN}Content-Type: application/json\r\nJob-Type: welcome\r\nJob-Attempts: 5\r\n\
         Idempotency-Key: \"order-17\"\r\n"
    );
    let submit = "POST /v1/queues/emails/jobs";
    let answer = send(&server, submit, &headers, "{\"order\":17}").await;
    check(&answer, 202, "\"state\":\"ready\"");
    assert_eq!(header(&answer, "location"), "/v1/jobs/order-17");
    let again = send(&server, submit, &headers, "{\"order\":17}").await;
    check(&again, 202, "\"id\":\"order-17\"");
    check(&send(&server, submit, &headers, "{}").await, 422, "idempotency-key-reused");
    let lease = send(&server, "POST /v1/queues/emails/leases", LOGIN, "").await;
    check(&lease, 200, "{\"order\":17}");
    assert_eq!((header(&lease, "job-id"), header(&lease, "job-type")), ("order-17", "welcome"));
    assert_eq!((header(&lease, "job-attempt"), header(&lease, "job-attempts")), ("1", "5"));
    let path = header(&lease, "location").to_owned();
    let progress = format!("{LOGIN}Content-Type: application/json\r\n");
    let extend = format!("POST {path}/extend");
    let extended = send(&server, &extend, &progress, "{\"seconds\":60,\"progress\":40}").await;
    check(&extended, 200, "\"until\":\"");
    let look = send(&server, "GET /v1/jobs/order-17", LOGIN, "").await;
    check(&look, 200, "\"state\":\"running\"");
    assert!(body(&look).contains("\"percent\":40"), "{look}");
    let parked = format!("{LOGIN}Prefer: wait=30\r\n");
    let waiting = send(&server, "GET /v1/jobs/order-17/result", &parked, "");
    let result = format!("{LOGIN}Content-Type: text/csv\r\n");
    let put = format!("PUT {path}/result");
    let ending = send(&server, &put, &result, "a,b");
    let (waited, ended) = tokio::join!(waiting, ending);
    check(&ended, 204, "");
    check(&waited, 200, "content-type: text/csv");
    assert_eq!(body(&waited), "a,b");
    let late = send(&server, &put, &result, "late").await;
    check(&late, 410, "/problems/lease-lost");
    let list = send(&server, "GET /v1/jobs?queue=emails&state=succeeded", LOGIN, "").await;
    check(&list, 200, "\"id\":\"order-17\"");
    check(&send(&server, "GET /v1/jobs/never", LOGIN, "").await, 404, "unknown-job");
}

#[tokio::test]
async fn a_worker_rejects_releases_and_a_caller_cancels_and_retries() {
    let server = start_with_jobs().await;
    let submit = async |id: &str| {
        let headers = format!("{LOGIN}Job-Id: {id}\r\nJob-Attempts: 1\r\n");
        check(&send(&server, "POST /v1/queues/emails/jobs", &headers, "x").await, 202, "");
    };
    let lease = async || {
        let answer = send(&server, "POST /v1/queues/emails/leases", LOGIN, "").await;
        check(&answer, 200, "job-id");
        header(&answer, "location").to_owned()
    };
    submit("a").await;
    let path = lease().await;
    check(&send(&server, &format!("DELETE {path}"), LOGIN, "").await, 204, "");
    let problem = format!("{LOGIN}Content-Type: application/problem+json\r\n");
    let path = lease().await;
    let said = "{\"detail\":\"no such address\"}";
    check(&send(&server, &format!("PUT {path}/result"), &problem, said).await, 204, "");
    let result = send(&server, "GET /v1/jobs/a/result", LOGIN, "").await;
    check(&result, 502, "/problems/worker-rejected");
    check(&send(&server, "DELETE /v1/jobs/a", LOGIN, "").await, 409, "already-settled");
    check(&send(&server, "POST /v1/jobs/a/retry", LOGIN, "").await, 202, "\"generation\":2");
    check(&send(&server, "DELETE /v1/jobs/a", LOGIN, "").await, 204, "");
    check(&send(&server, "GET /v1/jobs/a/result", LOGIN, "").await, 409, "/problems/cancelled");
    let empty = send(&server, "POST /v1/queues/emails/leases", LOGIN, "").await;
    check(&empty, 204, "");
}

#[tokio::test]
async fn a_stop_ends_the_waits_of_all_clients() {
    let server = start_with_jobs().await;
    let parked = format!("{LOGIN}Prefer: wait=100\r\n");
    let address = server.http_address();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/queues/emails/leases HTTP/1.1\r\nHost: localhost\r\n";
    socket.write_all(format!("{head}{parked}\r\n").as_bytes()).await.unwrap();
    // The same client is answered on another connection, so the wait has begun or will be refused.
    check(&send(&server, "GET /v1/jobs/a", LOGIN, "").await, 404, "unknown-job");
    server.stop().await;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn many_jobs_are_submitted_at_once_and_found_in_their_order() {
    let server = start_with_jobs().await;
    let event = |id: usize| {
        format!(r#"{{"specversion":"1.0","id":"j{id}","source":"/s","type":"t","data":{id}}}"#)
    };
    let lines: Vec<String> = (0..1_000).map(event).collect();
    let headers = format!("{LOGIN}Content-Type: application/x-ndjson\r\n");
    let submit = "POST /v1/queues/emails/jobs";
    let answer = send(&server, submit, &headers, &lines.join("\n")).await;
    check(&answer, 200, "application/x-ndjson");
    for (index, line) in body(&answer).lines().enumerate() {
        assert_eq!(line, format!("{{\"id\":\"j{index}\"}}"));
    }
    let lease = send(&server, "POST /v1/queues/emails/leases", LOGIN, "").await;
    assert_eq!((header(&lease, "job-id"), body(&lease)), ("j0", "0"));
}

/// Jobs do not go to workers that have hung up while they waited. One that hangs up at the very
/// moment may get one all the same, as over any network.
#[tokio::test]
async fn workers_that_have_gone_get_no_job() {
    let server = start_with_jobs().await;
    let parked = format!("{LOGIN}Prefer: wait=100\r\n");
    let head = "POST /v1/queues/emails/leases HTTP/1.1\r\nHost: localhost\r\n";
    for _ in 0..20 {
        let mut socket = TcpStream::connect(server.http_address()).await.unwrap();
        socket.write_all(format!("{head}{parked}\r\n").as_bytes()).await.unwrap();
    }
    let submit = "POST /v1/queues/emails/jobs";
    for attempt in 1.. {
        assert!(attempt < 10, "most of twenty workers that have gone got a job");
        check(&send(&server, submit, LOGIN, "x").await, 202, "");
        let wait = format!("{LOGIN}Prefer: wait=1\r\n");
        let lease = send(&server, "POST /v1/queues/emails/leases", &wait, "").await;
        if lease.starts_with("HTTP/1.1 200 ") {
            break;
        }
        check(&lease, 204, "");
    }
}
