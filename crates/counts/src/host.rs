//! A broker on a spare folder, and what the threads of a node do for it, as calls.

use crate::wire::{NOW, VHOST};
use broker::{Administration, Broker, BrokerOptions, Hooks, OpenSpill, PasswordHash, Restorer};
use model::{LogPosition, limits};
use std::sync::Arc;
use storage::{Log, LogOptions, RealDisk, Space};
use tempfile::TempDir;

pub(crate) const USER: &str = "app";
/// Two, as on the smallest machine with more than one core.
const SHARDS: usize = 2;
/// Small, so that a run meets the change from one to the next.
const SEGMENT_BYTES: u32 = 8 << 20;
/// Batches between two looks at the log's segments.
const BATCHES_PER_HOUSEKEEPING: u64 = 16;

pub(crate) fn log_options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() }
}

/// Spare segments, as many as the log wants.
pub(crate) fn prepare(log: &Log) {
    while log.wants_prepare() {
        let space = log.prepare().expect("the disk works");
        assert_eq!(space, Space::Plenty, "the folder for temporary files is full");
    }
}

struct Quiet;

impl Hooks for Quiet {
    fn sync_wanted(&self) {}

    fn load_wanted(&self) {}

    fn deadline_moved(&self) {}

    fn failed(&self, why: &str) {
        panic!("the log failed: {why}");
    }

    fn damaged(&self, what: &str) {
        panic!("damaged: {what}");
    }
}

/// A running broker and its log.
pub struct Host {
    pub broker: Broker,
    pub log: Arc<Log>,
    /// Goes when this does.
    _folder: TempDir,
}

impl Host {
    /// A new one with a user, on a folder that goes with it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("the system has a place for temporary folders");
        let disk = RealDisk::open(folder.path().join("data")).expect("the folder is new");
        let options = log_options();
        let mut restorer = Restorer::new();
        let (log, recovery) = Log::open(Arc::new(disk), options.clone(), &mut |it| {
            let (position, end) = (LogPosition(it.position.0), LogPosition(it.end.0));
            restorer.record(position, end, it.kind.0, it.payload);
        })
        .expect("an empty folder opens");
        let log = Arc::new(log);
        let broker_options = BrokerOptions {
            shards: SHARDS,
            bodies_bytes_max: limits::BODIES_BYTES_DEFAULT,
            pending_bytes_max: limits::LOG_PENDING_BYTES_MAX,
            orderly: recovery.orderly,
            catalog_damaged: false,
            damaged_segments: Vec::new(),
            seed: [7, 11],
        };
        let spill_folder = folder.path().join("spill");
        let open_spill: OpenSpill = Box::new(move || {
            let disk = RealDisk::open(&spill_folder).map_err(|it| it.to_string())?;
            storage::open_spill(Arc::new(disk), options.clone()).map_err(|it| it.to_string())
        });
        let (broker, _) = Broker::new(
            broker_options,
            Arc::clone(&log),
            open_spill,
            restorer,
            Box::new(Quiet),
            NOW,
        );
        let first = Administration::First {
            user: USER.into(),
            password: PasswordHash::None,
            vhost: VHOST.into(),
        };
        broker.administer(first).expect("the folder is empty");
        let host = Self { broker, log, _folder: folder };
        host.keep_house();
        host.sync();
        host
    }

    /// What the log's thread does: who waits for the disk is told afterwards.
    pub fn sync(&self) {
        if self.log.has_pending() {
            self.log.flush(true).expect("the disk works");
        }
        self.broker.synced(NOW);
    }

    /// What the thread beside it does: dead segments go, spare ones come.
    pub fn keep_house(&self) {
        while self.broker.reclaim(NOW).expect("the log has not failed") {}
        prepare(&self.log);
    }

    /// The same, after so many batches that there may be something to do.
    pub fn keep_house_sometimes(&self, batches: u64) {
        if batches.is_multiple_of(BATCHES_PER_HOUSEKEEPING) {
            self.keep_house();
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}
