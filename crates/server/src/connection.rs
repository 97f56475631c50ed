//! One task per connection, from the accepted socket to its end: TLS, login, virtual host, traffic.

use crate::{
    admission::{Admission, Seat, Ticket},
    auth::{Authenticator, Denied, Login},
    config::{Config, LoginFrom, Secret},
    logging::Throttle,
    text::Shown,
    tls::{self, Tls},
    traffic::{End, Step, Traffic},
};
use amqp091::{
    Event, Session,
    config::{Mechanism, SessionConfig},
};
use broker::{Connect, SessionHandle};
use bytes::Bytes;
use model::{Name, Refusal};
use node::Node;
use std::{
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;

/// TLS handshakes at a time.
const TLS_HANDSHAKES_MAX: usize = 256;
/// Before a refused client that cannot be told so is disconnected.
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);
/// How long what is left at the end may take: to be written, and to be read by the client.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);
/// What a client hears when the server stops.
pub(crate) const STOPPING: &str = "broker forced connection closure with reason 'shutdown'";

/// How far the server's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// No new connections; existing ones are being closed.
    Stopping,
    /// Nobody is waited for any more.
    Hurrying,
}

/// Waits until the server's end has come so far, or there is no server any more.
pub(crate) async fn wait_for_phase(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    phase.wait_for(|it| at_least <= *it).await.map(drop).ok();
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) tls: Option<Tls>,
    pub(crate) phase: watch::Receiver<Phase>,
    authenticator: Authenticator,
    /// As they were configured.
    first_user: String,
    first_password: Secret,
    tls_handshakes: Semaphore,
    plain: Arc<SessionConfig>,
    /// For clients with a certificate that names a user.
    with_certificate: Arc<SessionConfig>,
    login_from: LoginFrom,
    handshake_timeout: Duration,
    tls_handshake_timeout: Duration,
    write_timeout: Duration,
    lines: Lines,
}

/// Kinds of log lines that clients can cause.
struct Lines {
    opened: Throttle,
    closed: Throttle,
    refused: Throttle,
    failed: Throttle,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        session: SessionConfig,
        node: Arc<Node>,
        admission: Arc<Admission>,
        tls: Option<Tls>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let mut with_certificate = session.clone();
        with_certificate.mechanisms.push(Mechanism::External);
        Self {
            node,
            admission,
            tls,
            phase,
            authenticator: Authenticator::new(config),
            first_user: config.default_user.clone(),
            first_password: config.default_pass.clone(),
            tls_handshakes: Semaphore::new(TLS_HANDSHAKES_MAX),
            plain: Arc::new(session),
            with_certificate: Arc::new(with_certificate),
            login_from: config.tls_login_from,
            handshake_timeout: config.handshake_timeout,
            tls_handshake_timeout: config.tls_handshake_timeout,
            write_timeout: config.write_timeout,
            lines: Lines {
                opened: Throttle::default(),
                closed: Throttle::default(),
                refused: Throttle::default(),
                failed: Throttle::default(),
            },
        }
    }

    /// What the start has found out about the configured password is as good as a login.
    fn remember_known_password(&self) {
        if let Some(record) = self.node.take_known_password() {
            let password = self.first_password.expose().as_bytes();
            self.authenticator.remember(&self.first_user, password, &record, self.node.now());
        }
    }

    /// Checks a login with a password, by the limits that hold for every way in.
    pub(crate) async fn log_in(
        &self,
        user: &Name,
        password: &[u8],
        address: IpAddr,
    ) -> Result<(), Denied> {
        if **user == *self.first_user
            && let Some(comparison) = self.node.take_comparison()
        {
            spawn_blocking(move || comparison.join()).await.ok();
        }
        self.remember_known_password();
        let record = self.node.broker().user(user);
        let login = Login { user, password, address, now: self.node.now() };
        let record = record.as_ref().map(|it| &it.password);
        self.authenticator.login(login, record).await
    }

    /// Shakes hands for TLS, when it is its turn; `None` when that fails or takes too long.
    pub(crate) async fn shake_hands(&self, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
        let tls = self.tls.as_ref()?;
        let _turn = self.tls_handshakes.acquire().await.ok()?;
        let handshake = tls.acceptor().accept(socket);
        timeout(self.tls_handshake_timeout, handshake).await.ok()?.ok()
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }
}

/// A connection before and after its login.
struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    is_tls: bool,
    /// The user that the client's certificate names.
    certificate: Option<Name>,
    user: Name,
}

/// Serves one accepted socket until it ends. `_seat` counts it meanwhile.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    is_tls: bool,
    _seat: Seat,
) {
    let mut deadline = pin!(sleep(shared.handshake_timeout));
    let mut phase = shared.phase.clone();
    let user = Name::default();
    let mut connection = Connection { shared, peer, is_tls, certificate: None, user };
    let entered = tokio::select! {
        biased;
        () = wait_for_phase(&mut phase, Phase::Stopping) => return,
        () = &mut deadline => {
            connection.log_failure("it took too long before it could begin");
            return;
        }
        entered = connection.enter(socket) => entered,
    };
    match entered {
        Some((ticket, Transport::Plain(socket))) => {
            connection.converse(socket, ticket, deadline).await;
        }
        Some((ticket, Transport::Tls(stream))) => {
            connection.converse(*stream, ticket, deadline).await;
        }
        None => {}
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Waits for its turn and, where it is due, shakes hands for TLS.
    async fn enter(&mut self, socket: TcpStream) -> Option<(Ticket, Transport)> {
        let Some(ticket) = self.shared.admission.ticket(self.peer.ip()).await else {
            self.log_failure("too many connections of this address have not logged in");
            return None;
        };
        if !self.is_tls {
            return Some((ticket, Transport::Plain(socket)));
        }
        let shared = Arc::clone(&self.shared);
        let tls = shared.tls.as_ref()?;
        let _turn = shared.tls_handshakes.acquire().await.ok()?;
        let handshake = async {
            let mut first = [0];
            socket.peek(&mut first).await?;
            if first == *b"A" {
                let problem = "the client speaks AMQP without TLS to a listener with it";
                return Err(std::io::Error::other(problem));
            }
            tls.acceptor().accept(socket).await
        };
        match timeout(shared.tls_handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let first = certificates.first();
                self.certificate = first.and_then(|it| tls::login_name(it, shared.login_from));
                Some((ticket, Transport::Tls(Box::new(stream))))
            }
            Ok(Err(error)) => {
                self.log_failure(&format!("TLS handshake failed: {error}"));
                None
            }
            Err(_) => {
                self.log_failure("the TLS handshake took too long");
                None
            }
        }
    }

    async fn converse<S>(&mut self, stream: S, ticket: Ticket, deadline: Pin<&mut Sleep>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = Arc::clone(&self.shared);
        let config =
            if self.certificate.is_some() { &shared.with_certificate } else { &shared.plain };
        let session = Session::new(Arc::clone(config), random());
        let mut traffic = Traffic::new(stream, session, shared.node.clock(), shared.write_timeout);
        let mut phase = shared.phase.clone();
        let opened = tokio::select! {
            biased;
            () = wait_for_phase(&mut phase, Phase::Stopping) => return,
            () = deadline => {
                self.log_failure("it did not log in and open a virtual host in time");
                return;
            }
            opened = self.log_in(&mut traffic) => opened,
        };
        drop(ticket);
        let ended = match opened {
            Err(ended) => {
                self.log_early_end(&traffic, ended.as_ref());
                ended
            }
            Ok(()) => {
                self.log_opened(&traffic);
                if shared.is_stopping() {
                    // It may have come after everybody was told.
                    traffic.close(Refusal::Forced(STOPPING.to_owned()));
                }
                let ended = run(&mut traffic).await;
                self.log_closed(&traffic, ended.as_ref());
                ended
            }
        };
        self.part(traffic, ended).await;
    }

    /// Goes on until the virtual host is open. `Err` with how it ended when it did before.
    async fn log_in<S>(&mut self, traffic: &mut Traffic<S>) -> Result<(), Option<End>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut answered = None;
        loop {
            let step = match answered.take() {
                Some(event) => Step::Event(event),
                None => traffic.step().await,
            };
            answered = match step {
                Step::Event(Event::Login { mechanism, user, password }) => {
                    let result = self.authenticate(user, password).await;
                    if let Err(denied) = result {
                        self.log_denied(mechanism, denied);
                    }
                    let user = self.shared.node.broker().user(&self.user);
                    let channels_max = user.and_then(|it| it.limits.channels_max);
                    let channels_max = channels_max.and_then(|it| u32::try_from(it).ok());
                    traffic.logged_in(result.is_ok(), channels_max)
                }
                Step::Event(Event::Open { vhost }) => {
                    let result = self.open(vhost);
                    if let Err(refusal) = &result {
                        let reason = refusal.to_string();
                        self.log_failure(&Shown(&reason).to_string());
                    }
                    let event = traffic.opened(result);
                    if traffic.session().is_open() {
                        return Ok(());
                    }
                    event
                }
                Step::Event(Event::Finished) => return Err(None),
                Step::Ended(end) => return Err(Some(end)),
            };
        }
    }

    async fn authenticate(&mut self, user: Name, password: Option<Bytes>) -> Result<(), Denied> {
        let shared = Arc::clone(&self.shared);
        let address = self.peer.ip();
        match password {
            Some(password) => {
                self.user = user;
                shared.log_in(&self.user, &password, address).await
            }
            None => {
                self.user = self.certificate.clone().ok_or(Denied::NoCertificate)?;
                shared.authenticator.check_loopback(&self.user, address)?;
                let record = shared.node.broker().user(&self.user);
                record.map(|_| ()).ok_or(Denied::Wrong)
            }
        }
    }

    fn open(&self, vhost: Name) -> Result<SessionHandle, Refusal> {
        if self.shared.is_stopping() {
            return Err(Refusal::Forced(STOPPING.to_owned()));
        }
        let (user, peer) = (self.user.clone(), self.peer.to_string());
        self.shared.node.broker().connect(Connect { user, vhost, peer })
    }

    /// Ends the socket so that the client gets what it is still owed.
    async fn part<S>(&self, mut traffic: Traffic<S>, ended: Option<End>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match ended {
            None if traffic.session().is_silent() => {}
            None => {
                if traffic.session().disconnect().is_some_and(|it| it.is_delayed()) {
                    sleep(SILENT_CLOSE_DELAY).await;
                }
                if let Ok(Ok(())) = timeout(DRAIN_TIMEOUT, traffic.drain()).await {
                    linger(traffic.stream()).await;
                }
            }
            Some(_) => {}
        }
    }
}

/// Lets requests and notices pass until the connection ends; `None`: its session has ended it.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(traffic: &mut Traffic<S>) -> Option<End> {
    loop {
        match traffic.step().await {
            Step::Event(Event::Finished) => return None,
            Step::Ended(end) => return Some(end),
            // Both belong to the handshake, which is over.
            Step::Event(Event::Login { .. } | Event::Open { .. }) => {}
        }
    }
}

/// Waits until the client has read everything: no reset may overtake the last frame.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let until_closed = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while 0 < stream.read(&mut rest).await? {}
        Ok::<_, std::io::Error>(())
    };
    timeout(LINGER, until_closed).await.ok();
}

fn random() -> u64 {
    let mut octets = [0; 8];
    crate::random::fill(&mut octets);
    u64::from_le_bytes(octets)
}

/// Log lines.
impl Connection {
    fn log_opened<S>(&self, traffic: &Traffic<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(suppressed) = self.shared.lines.opened.admit(self.shared.node.now()) else {
            return;
        };
        let (session, is_tls) = (traffic.session(), self.is_tls);
        let client = session.negotiated().map(|it| &it.client);
        let name = client.and_then(|it| it.connection_name.as_deref()).unwrap_or_default();
        let product = client.and_then(|it| it.product.as_deref()).unwrap_or_default();
        tracing::info!(
            peer = %self.peer,
            user = %Shown(&self.user),
            vhost = %Shown(session.vhost()),
            name = %Shown(name),
            product = %Shown(product),
            is_tls,
            suppressed,
            "connection opened"
        );
    }

    fn log_closed<S>(&self, traffic: &Traffic<S>, ended: Option<&End>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(suppressed) = self.shared.lines.closed.admit(self.shared.node.now()) else {
            return;
        };
        let reason = match ended {
            Some(end) => end.to_string(),
            None if traffic.session().is_silent() => "missed heartbeats of the client".to_owned(),
            None => "closed in order".to_owned(),
        };
        tracing::info!(
            peer = %self.peer,
            user = %Shown(&self.user),
            reason = %Shown(&reason),
            suppressed,
            "connection closed"
        );
    }

    fn log_early_end<S>(&self, traffic: &Traffic<S>, ended: Option<&End>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match (ended, traffic.session().disconnect()) {
            // Probes of load balancers do that all the time.
            (Some(end), _) if end.is_by_client() => {
                tracing::debug!(peer = %self.peer, "connection was a probe");
            }
            (Some(end), _) => self.log_failure(&end.to_string()),
            (None, Some(disconnect)) => self.log_failure(&disconnect.to_string()),
            (None, None) => self.log_failure("the handshake was not finished"),
        }
    }

    fn log_denied(&self, mechanism: &'static str, denied: Denied) {
        let Some(suppressed) = self.shared.lines.refused.admit(self.shared.node.now()) else {
            return;
        };
        tracing::warn!(
            peer = %self.peer,
            user = %Shown(&self.user),
            mechanism,
            reason = %denied,
            suppressed,
            "login refused"
        );
    }

    fn log_failure(&self, reason: &str) {
        let Some(suppressed) = self.shared.lines.failed.admit(self.shared.node.now()) else {
            return;
        };
        tracing::warn!(peer = %self.peer, reason, suppressed, "connection not opened");
    }
}
