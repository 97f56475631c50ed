//! A server on a node: its listeners and connections, from the first to the last.

use crate::{
    admission::Admission,
    config::{Config, Identity},
    connection::{Phase, STOPPING, Shared},
    http,
    listen::{self, BindError, Service},
    tls::{Tls, TlsError},
};
use amqp091::config::SessionConfig;
use model::Refusal;
use node::Node;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// Longer than what a connection takes to say goodbye, so that only those are cut off that hang.
const CUT_OFF_GRACE: Duration = Duration::from_millis(200);

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// An address that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub address: SocketAddr,
    pub service: Service,
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    phase: watch::Sender<Phase>,
    loops: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds all listeners and begins to accept. Must be called within a runtime of tokio.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub fn start(
        config: &Config,
        node: Arc<Node>,
        files_max: Option<u64>,
    ) -> Result<Self, StartError> {
        let tls = Tls::open(config)?;
        let mut bound = Vec::new();
        for (listeners, service) in [
            (&config.listeners_tcp, Service::Amqp),
            (&config.listeners_tls, Service::AmqpTls),
            (&config.listeners_http, Service::Http),
            (&config.listeners_https, Service::HttpTls),
        ] {
            for listen in listeners {
                bound.extend(listen::bind(*listen, service)?);
            }
        }
        let (phase, watched) = watch::channel(Phase::Running);
        let admission = Admission::new(config, files_max);
        let session = session_config(config);
        let shared = Arc::new(Shared::new(config, session, node, admission, tls, watched));
        let endpoint = http::endpoint(Arc::clone(&shared), config.message_bytes_max);
        let listening: Vec<_> =
            bound.iter().map(|it| Listening { address: it.address, service: it.service }).collect();
        let patience = config.shutdown_timeout + CUT_OFF_GRACE;
        let loops = bound
            .into_iter()
            .map(|it| {
                let endpoint = endpoint.clone();
                tokio::spawn(listen::accept(Arc::clone(&shared), endpoint, it, patience))
            })
            .collect();
        Ok(Self { shared, listening, phase, loops })
    }

    /// The addresses as they were bound.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Reads the files of TLS again.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.shared.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Accepts nobody any more and tells everybody that the server stops.
    pub fn begin_stop(&self) {
        self.phase.send_modify(|it| *it = Phase::Stopping.max(*it));
        self.shared.node.broker().close_sessions(&Refusal::Forced(STOPPING.to_owned()));
    }

    /// What makes a stop wait for nobody any more.
    pub fn hurrier(&self) -> impl Fn() + Send + use<> {
        let phase = self.phase.clone();
        move || {
            phase.send_replace(Phase::Hurrying);
        }
    }

    /// Waits until all connections have ended, at most for the configured time.
    pub async fn wait_stopped(&mut self) {
        for accept in &mut self.loops {
            accept.await.ok();
        }
        self.loops.clear();
    }

    /// Stops in order. The node can be closed afterwards.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.wait_stopped().await;
    }
}

fn session_config(config: &Config) -> SessionConfig {
    let seconds = config.heartbeat.as_secs();
    SessionConfig {
        identity: match config.identity {
            Identity::Ferrymq => amqp091::config::Identity::Ferrymq,
            Identity::Rabbitmq => amqp091::config::Identity::Rabbitmq,
        },
        cluster_name: config.cluster_name.clone().unwrap_or_else(default_cluster_name),
        frame_max: u32::try_from(config.frame_max).unwrap_or(u32::MAX),
        channel_max: u16::try_from(config.channel_max).unwrap_or(u16::MAX),
        heartbeat_s: u16::try_from(seconds).unwrap_or(u16::MAX),
        message_bytes_max: config.message_bytes_max,
        ..SessionConfig::default()
    }
}

fn default_cluster_name() -> String {
    let machine = rustix::system::uname();
    let name = machine.nodename().to_string_lossy();
    format!("ferrymq@{name}")
}
