//! `ferrymq serve`: from the configuration to the exit status.

use crate::{
    auth::password,
    config::{Config, ListenAddress, Loaded},
    exit,
    listen::Service,
    logging,
    server::{Server, StartError},
};
use model::Name;
use node::scheduling::run_in_short_slices;
use node::{NewPassword, NewUser, Node, NodeOptions, OpenError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// After the log has failed, the process ends within this time, whatever hangs.
const FAILED_EXIT_TIMEOUT: Duration = Duration::from_secs(4);
/// What tasks that still run at the end may take.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The log cannot be written any more; the line names file, offset, error and position.
    #[error("the log cannot be synced any more, it has failed: {0}")]
    LogFailed(String),
}

impl RunError {
    /// Status that the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open(error) => open_exit_code(error),
            Self::Start(StartError::Tls(_)) => exit::CONFIGURATION,
            Self::Start(StartError::Bind(error)) => error.exit_code(),
            Self::System(_) => exit::INTERNAL,
            Self::LogFailed(_) => exit::IO,
        }
    }
}

/// Status for a data folder that does not open.
pub fn open_exit_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Locked(_) => exit::UNAVAILABLE,
        OpenError::Newer { .. } => exit::CONFIGURATION,
        _ => exit::IO,
    }
}

/// Serves until a signal ends it. Blocks.
///
/// # Errors
/// [`RunError`]
pub fn run(loaded: &Loaded) -> Result<(), RunError> {
    let config = &loaded.config;
    logging::start(config.log_level, config.log_format);
    let files_max = raise_files_max();
    let data_dir = std::path::absolute(&config.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        data_dir = %data_dir.display(),
        config_files = ?loaded.files,
        "FerryMQ starts"
    );
    warn_of_risks(config);
    let node = Arc::new(Node::open(node_options(config, &data_dir))?);
    log_recovery(&node);
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("worker")
        .on_thread_start(|| {
            run_in_short_slices();
        })
        .build()?;
    let result = runtime.block_on(serve(config, &node, files_max));
    stop(runtime, &node, result)
}

/// The node that the configuration describes; the password is only hashed for a new folder.
pub fn node_options(config: &Config, data_dir: &Path) -> NodeOptions {
    let mut options = NodeOptions::new(data_dir);
    if let Some(shards) = config.shards.and_then(|it| usize::try_from(it).ok()) {
        options.shards = shards;
    }
    options.bodies_bytes_max = config.memory_bodies;
    options.segment_bytes = config.segment_bytes.and_then(|it| u32::try_from(it).ok());
    options.unsafe_no_sync = config.unsafe_no_sync;
    let password = password::Configured(config.default_pass.clone());
    options.administrator = Some(NewUser {
        name: Name::new(&config.default_user),
        password: NewPassword::plain(password),
        vhost: Name::new(&config.default_vhost),
    });
    options
}

/// As many files as the system allows; returns how many that are, if it is known.
fn raise_files_max() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

fn warn_of_risks(config: &Config) {
    let open: Vec<String> = config
        .listeners_tcp
        .iter()
        .chain(&config.listeners_http)
        .filter(|it| !it.is_loopback())
        .map(ListenAddress::to_string)
        .collect();
    if !open.is_empty() {
        tracing::warn!(listeners = ?open, "passwords travel in clear text; prefer listeners.tls");
    }
    if config.unsafe_no_sync {
        tracing::warn!("unsafe_no_sync is set: a crash loses confirmed messages");
    }
}

fn log_recovery(node: &Node) {
    let (recovery, restoration) = (node.recovery(), node.restoration());
    tracing::info!(
        queues = restoration.queues,
        messages = restoration.messages,
        is_orderly = recovery.orderly,
        torn_tail_bytes = recovery.torn_tail_bytes,
        read_from_segment = recovery.checkpoint.map_or(0, |it| it.0),
        "data folder recovered"
    );
    log_damage(node);
}

/// Damaged places named one by one; beyond these they are counted only.
const DAMAGE_LINES_MAX: usize = 100;

/// One line for each place that an operator may have to look at.
fn log_damage(node: &Node) {
    let (recovery, restoration) = (node.recovery(), node.restoration());
    for it in recovery.quarantined.iter().take(DAMAGE_LINES_MAX) {
        tracing::error!(
            code = "FMQ-0101",
            segment = it.segment.0,
            offset = it.offset,
            bytes = it.bytes,
            kind = it.kind.map(|kind| kind.0),
            reason = %it.reason,
            is_torn_tail = it.torn,
            is_copied_aside = it.copied,
            "damaged bytes quarantined"
        );
    }
    for it in recovery.missing.iter().take(DAMAGE_LINES_MAX) {
        tracing::error!(
            code = "FMQ-0101",
            from = %it.from,
            to = %it.to,
            "bytes of the log are missing: it was truncated, or a segment was removed"
        );
    }
    for (position, why) in restoration.unreadable.iter().take(DAMAGE_LINES_MAX) {
        tracing::error!(code = "FMQ-0101", %position, %why, "damaged record skipped");
    }
    for why in recovery.checkpoint_faults.iter().take(DAMAGE_LINES_MAX) {
        tracing::error!(code = "FMQ-0101", %why, "no checkpoint: more of the log was read");
    }
    if recovery.has_damage() {
        tracing::error!(
            quarantined = recovery.quarantined.len(),
            missing = recovery.missing.len(),
            orphans = restoration.orphans,
            "the data folder was damaged; everything else is served"
        );
    }
}

/// The two signals that end a server.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn serve(config: &Config, node: &Arc<Node>, files_max: Option<u64>) -> Result<(), RunError> {
    let mut stop_signals = StopSignals::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut server = Server::start(config, Arc::clone(node), files_max)?;
    for listening in server.listening() {
        let kind = match listening.service {
            Service::Amqp => "TCP",
            Service::AmqpTls => "TLS (SSL)",
            Service::Http => "HTTP",
            Service::HttpTls => "HTTPS",
        };
        tracing::info!("started {kind} listener on {}", listening.address);
    }
    tracing::info!("Server startup complete; 0 plugins started.");
    let failed = node.failed();
    tokio::pin!(failed);
    loop {
        tokio::select! {
            why = &mut failed => return Err(RunError::LogFailed(why)),
            name = stop_signals.next() => {
                tracing::info!(signal = name, "stopping");
                break;
            }
            _ = hang_up.recv() => reload(&server),
        }
    }
    server.begin_stop();
    let hurry = server.hurrier();
    let stopped = server.wait_stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            why = &mut failed => return Err(RunError::LogFailed(why)),
            () = &mut stopped => return Ok(()),
            _ = stop_signals.next() => hurry(),
        }
    }
}

fn reload(server: &Server) {
    match server.reload_tls() {
        Ok(()) => tracing::info!("certificates read again; other changes need a restart"),
        Err(error) => tracing::error!(%error, "certificates stay as they were"),
    }
}

/// Ends the threads and closes the folder. When its log has failed, nothing may delay the end.
fn stop(runtime: Runtime, node: &Node, result: Result<(), RunError>) -> Result<(), RunError> {
    if let Err(error @ RunError::LogFailed(_)) = &result {
        tracing::error!("{error}");
        end_soon();
        runtime.shutdown_background();
        return result;
    }
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    let closed = node.close();
    result?;
    closed.map_err(|error| RunError::LogFailed(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// Ends the process after a while even if something hangs in the system.
fn end_soon() {
    let watch = std::thread::Builder::new().name("end".to_owned());
    let spawned = watch.spawn(|| {
        std::thread::sleep(FAILED_EXIT_TIMEOUT);
        std::process::exit(exit::IO.into());
    });
    if spawned.is_err() {
        std::process::exit(exit::IO.into());
    }
}
