//! Opens a data folder and keeps a broker running on it.

use crate::{
    clock::Clock,
    first_user::{FirstUser, NewUser},
    threads::{NodeHooks, Signals, Threads},
};
use broker::{Broker, BrokerOptions, Checkpointer, OpenSpill, PasswordHash, Restoration, Restorer};
use model::{Timestamp, limits};
use parking_lot::Mutex;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};
use storage::{Disk, Log, LogError, LogOptions, RealDisk, Recovery};

/// Bodies of transient messages for which memory is short; emptied at every start.
const SPILL_FOLDER: &str = "spill";

/// Opens a folder when it is needed.
type OpenDisk = Box<dyn Fn() -> std::io::Result<Arc<dyn Disk>> + Send + Sync>;

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Made when it is not there.
    pub data_dir: PathBuf,
    /// Loops that own queues; at least 1. As many as cores is a good number.
    pub shards: usize,
    /// Octets of message bodies kept in memory.
    pub bodies_bytes_max: u64,
    /// Size of the log's files; `None`: the default, less on a small disk.
    pub segment_bytes: Option<u32>,
    /// Confirms without waiting for the disk. A power cut then loses what was confirmed.
    pub unsafe_no_sync: bool,
    /// Made on an empty folder, with every right in its virtual host.
    pub administrator: Option<NewUser>,
    /// Reads every byte of the log instead of beginning with a checkpoint.
    pub thorough: bool,
}

impl NodeOptions {
    /// The defaults, on this folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir: data_dir.into(),
            shards: cores,
            bodies_bytes_max: limits::BODIES_BYTES_DEFAULT,
            segment_bytes: None,
            unsafe_no_sync: false,
            administrator: None,
            thorough: false,
        }
    }
}

/// Why a folder cannot be opened. Nothing of it has been touched, save for `Failed`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(
        "data folder {0} is in use by another FerryMQ; stop that one, or choose another folder \
         with --data-dir"
    )]
    Locked(PathBuf),
    #[error(
        "data folder {folder} was written by a newer FerryMQ: {what}; start that version, or \
         choose another folder with --data-dir"
    )]
    Newer { folder: PathBuf, what: String },
    #[error(
        "data folder {folder} cannot be used: {what}; check that it exists and that this user may \
         write to it"
    )]
    Io { folder: PathBuf, what: String },
    #[error("data folder {folder} cannot be recovered: {what}")]
    Failed { folder: PathBuf, what: String },
}

impl OpenError {
    fn of(folder: &Path, error: &storage::OpenError) -> Self {
        let folder = folder.to_owned();
        let what = error.to_string();
        match error {
            storage::OpenError::Locked => Self::Locked(folder),
            storage::OpenError::NewerFormat { .. } => Self::Newer { folder, what },
            storage::OpenError::Io { .. } => Self::Io { folder, what },
            _ => Self::Failed { folder, what },
        }
    }
}

/// A running broker.
pub struct Node {
    broker: Broker,
    log: Arc<Log>,
    clock: Clock,
    signals: Arc<Signals>,
    threads: Mutex<Threads>,
    recovery: Recovery,
    restoration: Restoration,
    first_user: FirstUser,
}

impl Node {
    /// Opens the folder, recovers what is in it, and starts the threads. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]: in use, newer, or not to be read or written.
    pub fn open(options: NodeOptions) -> Result<Self, OpenError> {
        let folder = &options.data_dir;
        let unusable = |error: std::io::Error| OpenError::Io {
            folder: folder.clone(),
            what: error.to_string(),
        };
        let disk = RealDisk::open(folder).map_err(unusable)?;
        let spill_folder = folder.join(SPILL_FOLDER);
        let open_spill_disk: OpenDisk =
            Box::new(move || Ok(Arc::new(RealDisk::open(&spill_folder)?)));
        Self::on_disk(Arc::new(disk), open_spill_disk, &options).map_err(|error| {
            let folder = folder.clone();
            match error {
                StartError::Open(error) => OpenError::of(&folder, &error),
                StartError::Failed(what) => OpenError::Failed { folder, what },
            }
        })
    }

    fn on_disk(
        disk: Arc<dyn Disk>,
        open_spill_disk: OpenDisk,
        options: &NodeOptions,
    ) -> Result<Self, StartError> {
        let clock = Clock::start();
        let mut log_options = LogOptions { sync: !options.unsafe_no_sync, ..LogOptions::default() };
        if let Some(bytes) = options.segment_bytes {
            log_options.segment_bytes = bytes;
        }
        let first_user = FirstUser::default();
        let begun = |restorer: &Restorer| {
            if let Some(user) = &options.administrator
                && let Some(record) = restorer.password(&user.name)
            {
                first_user.compare(user, record);
            }
        };
        let (log, recovery, restorer) =
            broker::recover(disk, log_options.clone(), options.thorough, &begun)?;
        let log = Arc::new(log);
        storage::empty_spill(&*open_spill_disk().map_err(failed)?)?;
        let open_spill: OpenSpill = Box::new(move || {
            let disk = open_spill_disk().map_err(|it| it.to_string())?;
            storage::open_spill(disk, log_options.clone()).map_err(|it| it.to_string())
        });
        let signals = Arc::new(Signals::default());
        let broker_options = BrokerOptions {
            shards: options.shards,
            bodies_bytes_max: options.bodies_bytes_max,
            pending_bytes_max: limits::LOG_PENDING_BYTES_MAX,
            orderly: recovery.orderly,
            catalog_damaged: recovery.is_log_damaged(),
            damaged_segments: damaged_segments(&recovery),
            seed: random(),
        };
        let hooks = Box::new(NodeHooks(Arc::clone(&signals)));
        let log_too = Arc::clone(&log);
        let (broker, restoration) =
            Broker::new(broker_options, log_too, open_spill, restorer, hooks, clock.now());
        if let Some(user) = &options.administrator
            && first_user.make(user, &broker).map_err(failed)?
        {
            log.flush(true).map_err(failed)?;
        }
        let threads = Threads::start(&broker, &log, clock, &signals).map_err(failed)?;
        let threads = Mutex::new(threads);
        Ok(Self { broker, log, clock, signals, threads, recovery, restoration, first_user })
    }

    /// The handle through which everything goes.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The broker's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock itself, for whoever needs the time often.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What the log's recovery found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What was put back from it.
    pub fn restoration(&self) -> &Restoration {
        &self.restoration
    }

    /// The record of the configured user, once, if this start has found that the configured
    /// password is the right one for it, or has made it so. It may come only after a while, and
    /// another one may follow when a new password has been hashed.
    pub fn take_known_password(&self) -> Option<PasswordHash> {
        self.first_user.take_known()
    }

    /// The thread that still compares the configured password with its user's record, once: to wait
    /// for it is sooner than to compare again.
    pub fn take_comparison(&self) -> Option<JoinHandle<()>> {
        self.first_user.take_comparison()
    }

    /// Resolves when the log has failed, with the reason: one line that names file, offset, error
    /// and the durable position. Nothing is confirmed any more, and the process is to end.
    pub async fn failed(&self) -> String {
        self.signals.failed().await
    }

    /// Stops in order: what waits is written, and the next start knows exactly who got what.
    /// Sessions must have been closed. Blocks.
    ///
    /// # Errors
    /// [`LogError`], when the last writes fail; the folder is then as after a crash.
    pub fn close(&self) -> Result<(), LogError> {
        self.first_user.join();
        self.threads.lock().stop();
        self.broker.stop(self.now())?;
        self.log.flush(true)?;
        self.log.close_in_order()?;
        // The folder is closed: what follows only spares the next start some reading.
        if let Err(error) = Checkpointer::new(Arc::clone(&self.log)).write_last() {
            tracing::warn!(%error, "no checkpoint: the next start reads more of the log");
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.first_user.join();
        self.threads.lock().stop();
    }
}

/// The segments that an operator may want to look at.
fn damaged_segments(recovery: &Recovery) -> Vec<u32> {
    let quarantined = recovery.quarantined.iter().map(|it| it.segment.0);
    let missing = recovery.missing.iter().map(|it| it.from.segment().0);
    quarantined.chain(missing).collect()
}

enum StartError {
    Open(storage::OpenError),
    Failed(String),
}

impl From<storage::OpenError> for StartError {
    fn from(error: storage::OpenError) -> Self {
        Self::Open(error)
    }
}

fn failed(error: impl std::fmt::Display) -> StartError {
    StartError::Failed(error.to_string())
}

/// Numbers that nobody can guess: the standard library's hash keys come from the system.
fn random() -> [u64; 2] {
    [0_u64, 1].map(|it| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(it);
        hasher.finish()
    })
}
