//! Listeners: bound with a clear word when that fails, and loops that accept.

use crate::{
    admission::Seat,
    config::ListenAddress,
    connection::{self, Phase, Shared, wait_for_phase},
    exit, http,
    logging::Throttle,
};
use api::router::Endpoint;
use model::Timestamp;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

const BACKLOG: i32 = 1024;
/// Before the next try when the process has no file left for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);
/// A peer that is gone without a word is noticed although it has no heartbeats.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {0}: another process listens there; stop it, or choose another address \
         with --{1}"
    )]
    Taken(SocketAddr, &'static str),
    #[error(
        "cannot listen on {0}: this user may not; choose a port above 1023 with --{1}, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Forbidden(SocketAddr, &'static str),
    #[error(
        "cannot listen on {0}: this machine does not have the address; choose one of its own with \
         --{1}"
    )]
    Foreign(SocketAddr, &'static str),
    #[error("cannot listen on {0}: {2}; choose another address with --{1}")]
    Other(SocketAddr, &'static str, io::Error),
}

impl BindError {
    fn of(address: SocketAddr, service: Service, error: io::Error) -> Self {
        let flag = service.flag();
        match error.kind() {
            ErrorKind::AddrInUse => Self::Taken(address, flag),
            ErrorKind::PermissionDenied => Self::Forbidden(address, flag),
            ErrorKind::AddrNotAvailable => Self::Foreign(address, flag),
            _ => Self::Other(address, flag, error),
        }
    }

    /// Status that the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Taken(..) => exit::UNAVAILABLE,
            Self::Forbidden(..) => exit::PERMISSION,
            Self::Foreign(..) | Self::Other(..) => exit::CONFIGURATION,
        }
    }
}

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Amqp,
    AmqpTls,
    Http,
    HttpTls,
}

impl Service {
    fn flag(self) -> &'static str {
        match self {
            Self::Amqp => "listen",
            Self::AmqpTls => "listen-tls",
            Self::Http => "listen-http",
            Self::HttpTls => "listen-https",
        }
    }
}

/// A listener that is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
}

/// Binds everything that one entry of the configuration means.
pub(crate) fn bind(listen: ListenAddress, service: Service) -> Result<Vec<Bound>, BindError> {
    let (candidates, one_suffices) = listen.candidates();
    let mut bound = Vec::new();
    let mut missing = None;
    for address in candidates {
        match bind_one(address) {
            Ok((listener, address)) => bound.push(Bound { listener, address, service }),
            Err(error) if one_suffices && is_absent(&error) => missing = Some((address, error)),
            Err(error)
                if listen == ListenAddress::Everywhere(address.port()) && is_absent(&error) =>
            {
                let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                let (listener, address) =
                    bind_one(four).map_err(|error| BindError::of(four, service, error))?;
                bound.push(Bound { listener, address, service });
            }
            Err(error) => return Err(BindError::of(address, service, error)),
        }
    }
    match missing {
        Some((address, error)) if bound.is_empty() => Err(BindError::of(address, service, error)),
        _ => Ok(bound),
    }
}

/// The machine does not have this kind of address at all.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn bind_one(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if domain == Domain::IPV6 {
        // `[::]` takes IPv4 too, whatever the machine's default is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts until the server stops, then waits for the connections, but not longer than `patience`
/// and not when it is to hurry.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    bound: Bound,
    patience: Duration,
) {
    let mut phase = shared.phase.clone();
    let mut tasks = JoinSet::new();
    let lines = Throttle::default();
    loop {
        tokio::select! {
            biased;
            () = wait_for_phase(&mut phase, Phase::Stopping) => break,
            Some(ended) = tasks.join_next() => report(ended),
            accepted = bound.listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if let Some(admitted) = admit(&shared, &lines, socket, peer) {
                        spawn(&shared, &endpoint, &mut tasks, admitted, bound.service);
                    }
                }
                Err(error) => pause(&error, &lines, bound.address, shared.node.now()).await,
            },
        }
    }
    drop(bound.listener);
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    tokio::select! {
        () = wait_for_phase(&mut phase, Phase::Hurrying) => {}
        _ = timeout(patience, all_ended) => {}
    }
    tasks.shutdown().await;
}

/// Counts a connection and makes its socket ready; `None` when there is no room or it has gone.
fn admit(
    shared: &Shared,
    lines: &Throttle,
    socket: TcpStream,
    peer: SocketAddr,
) -> Option<(TcpStream, SocketAddr, Seat)> {
    let Some(seat) = shared.admission.seat() else {
        if let Some(suppressed) = lines.admit(shared.node.now()) {
            let connections_max = shared.admission.connections_max();
            tracing::warn!(%peer, connections_max, suppressed, "too many connections");
        }
        return None;
    };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if let Err(error) = tune(&socket) {
        tracing::debug!(%peer, %error, "connection was gone before it began");
        return None;
    }
    Some((socket, peer, seat))
}

fn spawn(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    tasks: &mut JoinSet<()>,
    (socket, peer, seat): (TcpStream, SocketAddr, Seat),
    service: Service,
) {
    let shared = Arc::clone(shared);
    match service {
        Service::Amqp | Service::AmqpTls => {
            let is_tls = service == Service::AmqpTls;
            tasks.spawn(connection::serve(shared, socket, peer, is_tls, seat));
        }
        Service::Http | Service::HttpTls => {
            let is_tls = service == Service::HttpTls;
            tasks.spawn(http::serve(shared, endpoint.clone(), socket, peer, is_tls, seat));
        }
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// A connection that failed before it was accepted is its own matter; without files or memory the
/// loop would spin.
async fn pause(error: &io::Error, lines: &Throttle, address: SocketAddr, now: Timestamp) {
    let gone = matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    );
    if gone {
        return;
    }
    if let Some(suppressed) = lines.admit(now) {
        tracing::error!(%address, %error, suppressed, "cannot accept connections for a moment");
    }
    sleep(EXHAUSTED_PAUSE).await;
}

/// A panic ends one connection and nothing else; the panic itself has been written to stderr.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a bug; please report the lines on stderr");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_address_and_cure() {
        let taken =
            bind("127.0.0.1:0".parse().map(ListenAddress::At).unwrap(), Service::Amqp).unwrap();
        let address = taken[0].address;
        let error = bind(ListenAddress::At(address), Service::Amqp).unwrap_err();
        let expected = format!(
            "cannot listen on {address}: another process listens there; stop it, or choose another \
             address with --listen"
        );
        assert_eq!((error.to_string(), error.exit_code()), (expected, exit::UNAVAILABLE));
    }

    #[tokio::test]
    async fn a_foreign_address_names_address_and_cure() {
        let foreign = ListenAddress::At("192.0.2.1:0".parse().unwrap());
        let error = bind(foreign, Service::AmqpTls).unwrap_err();
        let expected = "cannot listen on 192.0.2.1:0: this machine does not have the address; \
             choose one of its own with --listen-tls";
        assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 78));
    }

    #[tokio::test]
    async fn everywhere_and_loopback_bind_at_least_one_address() {
        assert_eq!(bind(ListenAddress::Everywhere(0), Service::Http).unwrap().len(), 1);
        assert!(!bind(ListenAddress::Loopback(0), Service::Http).unwrap().is_empty());
    }
}
