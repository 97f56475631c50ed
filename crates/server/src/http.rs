//! Connections that speak HTTP: bounded in time and size, each request answered by the door of
//! `api` with the logins and sessions of every other way in.

use crate::{
    admission::{Seat, Ticket},
    auth::Denied,
    connection::{Phase, STOPPING, Shared, wait_for_phase},
    patience::Patient,
};
use api::{
    door::{self, Credentials, Door, JobSession, Pending},
    router::Endpoint,
    visit::{Api, Peer, Settings},
};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{
    Refusal, Timestamp,
    job::{JobAnswer, JobAsk},
};
use node::{LocalError, LocalSession};
use parking_lot::Mutex;
use std::{
    convert::Infallible,
    error::Error,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// How long a client may take for the head of a request, the first one or the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of a head at which no more of it is read. What was read last may be as much again, so
/// that a head has 32 KiB at most.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Headers of a head.
const HEADERS_MAX: usize = 100;

/// The broker as the HTTP door sees it.
struct House(Arc<Shared>);

/// What answers the requests of all connections.
pub(crate) fn endpoint(shared: Arc<Shared>, payload_bytes_max: u64) -> Endpoint {
    let settings = Settings { payload_bytes_max, ..Settings::default() };
    Endpoint::new(Api::new(Arc::new(House(shared)), settings))
}

impl Door for House {
    fn now(&self) -> Timestamp {
        self.0.node.now()
    }

    fn log_in(
        &self,
        credentials: Credentials,
        address: IpAddr,
    ) -> Pending<Result<(), door::Denied>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let Credentials { user, password } = credentials;
            let result = shared.log_in(&user.into(), &password, address).await;
            result.map_err(|denied| match denied {
                Denied::Wrong | Denied::LoopbackOnly | Denied::NoCertificate => door::Denied::Wrong,
                Denied::TooManyFailures => door::Denied::TooMany,
                Denied::Stopping => door::Denied::Stopping,
            })
        })
    }

    fn enter(
        &self,
        user: &str,
        vhost: &str,
        from: SocketAddr,
    ) -> Result<Box<dyn JobSession>, Refusal> {
        if self.0.is_stopping() {
            return Err(Refusal::Forced(STOPPING.to_owned()));
        }
        let session = self.0.node.connect_for(vhost, user, from.to_string());
        session.map(|it| Box::new(Session(it)) as Box<dyn JobSession>).map_err(refusal)
    }
}

fn refusal(error: LocalError) -> Refusal {
    match error {
        LocalError::Refused(it) | LocalError::Closed(it) => it,
        other => Refusal::Internal(other.to_string()),
    }
}

struct Session(LocalSession);

impl JobSession for Session {
    fn ask(&self, ask: JobAsk) -> Pending<Result<JobAnswer, Refusal>> {
        let reply = self.0.ask_about_jobs(ask);
        Box::pin(async move { reply.await.map_err(refusal) })
    }
}

/// Serves one accepted socket until it ends. `_seat` counts it meanwhile.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    socket: TcpStream,
    peer: SocketAddr,
    is_tls: bool,
    _seat: Seat,
) {
    let mut phase = shared.phase.clone();
    let ticket = tokio::select! {
        biased;
        () = wait_for_phase(&mut phase, Phase::Stopping) => return,
        ticket = shared.admission.ticket(peer.ip()) => ticket,
    };
    let Some(ticket) = ticket else { return };
    if !is_tls {
        return converse(&shared, endpoint, socket, peer, ticket).await;
    }
    let stream = tokio::select! {
        biased;
        () = wait_for_phase(&mut phase, Phase::Stopping) => return,
        stream = shared.shake_hands(socket) => stream,
    };
    match stream {
        Some(stream) => converse(&shared, endpoint, stream, peer, ticket).await,
        None => tracing::debug!(%peer, "TLS handshake failed"),
    }
}

/// Answers the requests of one client.
async fn converse<S>(
    shared: &Shared,
    endpoint: Endpoint,
    stream: S,
    peer: SocketAddr,
    ticket: Ticket,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut phase = shared.phase.clone();
    // Who has logged in once is no stranger any more.
    let ticket: Arc<Mutex<Option<Ticket>>> = Arc::new(Mutex::new(Some(ticket)));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (endpoint, ticket) = (endpoint.clone(), Arc::clone(&ticket));
        request.extensions_mut().insert(Peer(peer));
        async move {
            let method = request.method().clone();
            let response = endpoint.answer(request).await;
            let status = response.status();
            if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) {
                ticket.lock().take();
            }
            tracing::debug!(%peer, %method, status = status.as_u16(), "request");
            Ok::<_, Infallible>(response)
        }
    });
    let stream = TokioIo::new(Patient::new(stream, shared.write_timeout()));
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(stream, service);
    run(connection, &mut phase).await;
}

/// Serves until the client has gone; when the server stops, until what is under way is answered.
async fn run<I, B, S>(connection: Connection<I, S>, phase: &mut tokio::sync::watch::Receiver<Phase>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = wait_for_phase(phase, Phase::Stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}
