//! One life of a broker on a simulated disk: what threads of a node would do are steps here.

use crate::random::Random;
use broker::{
    Administration, Broker, BrokerOptions, Checkpointed, Checkpointer, Hooks, OpenSpill,
    PasswordHash, Restoration, Restorer,
};
use model::Timestamp;
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use storage::{Log, LogOptions, MemoryDisk, Recovery, Space};

/// The user and the virtual host of every simulation.
pub const USER: &str = "app";
/// See [`USER`].
pub const VHOST: &str = "/";

/// Sizes, small so that everything happens often.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub shards: usize,
    pub segment_bytes: u32,
    pub bodies_bytes_max: u64,
    /// The log is also synced in the middle of a turn, once in so many wishes; 0: never.
    pub sync_within: u64,
    /// Looks away where defects are known, so that others are found.
    pub is_lenient: bool,
}

#[derive(Default)]
struct Heard {
    failed: Option<String>,
    damaged: Option<String>,
}

struct SimHooks {
    heard: Arc<Mutex<Heard>>,
    log: Arc<Log>,
    random: Mutex<Random>,
    sync_within: u64,
}

impl Hooks for SimHooks {
    /// The sync thread may run at any moment, also between the turns of two shards.
    fn sync_wanted(&self) {
        if 0 < self.sync_within
            && self.random.lock().once_in(self.sync_within)
            && let Err(error) = self.log.flush(true)
        {
            self.failed(&error.to_string());
        }
    }

    fn load_wanted(&self) {}

    fn deadline_moved(&self) {}

    fn failed(&self, why: &str) {
        self.heard.lock().failed.get_or_insert_with(|| why.to_owned());
    }

    fn damaged(&self, what: &str) {
        self.heard.lock().damaged.get_or_insert_with(|| what.to_owned());
    }
}

/// A running broker, its log and its disk.
pub struct Host {
    pub disk: MemoryDisk,
    pub log: Arc<Log>,
    pub broker: Broker,
    pub now: Timestamp,
    /// Publishers are held back.
    pub is_blocked: bool,
    pub recovery: Recovery,
    pub restoration: Restoration,
    checkpointer: Mutex<Checkpointer>,
    heard: Arc<Mutex<Heard>>,
    is_lenient: bool,
}

impl Host {
    /// Opens the disk and recovers what is on it.
    ///
    /// # Errors
    /// A text, when the log does not open.
    pub fn open(disk: MemoryDisk, sizes: Sizes, now: Timestamp, seed: u64) -> Result<Self, String> {
        let options = LogOptions {
            segment_bytes: sizes.segment_bytes,
            reserve_segments: 1,
            prepare_bytes: 4096,
            ..LogOptions::default()
        };
        let whole = disk.twin();
        let (log, recovery, mut restorer) =
            broker::recover(Arc::new(disk.clone()), options.clone(), false, &|_| ())
                .map_err(|error| format!("does not open: {error}"))?;
        if recovery.checkpoint.is_some() {
            compare(&log, &mut restorer, whole, &options)?;
        }
        let open_spill: OpenSpill = Box::new(move || {
            let disk = Arc::new(MemoryDisk::new());
            storage::open_spill(disk, options.clone()).map_err(|error| error.to_string())
        });
        let log = Arc::new(log);
        let damaged = recovery.quarantined.iter().filter(|it| !it.torn);
        let broker_options = BrokerOptions {
            shards: sizes.shards,
            bodies_bytes_max: sizes.bodies_bytes_max,
            pending_bytes_max: 8 << 20,
            orderly: recovery.orderly,
            catalog_damaged: recovery.is_log_damaged(),
            damaged_segments: damaged.map(|it| it.segment.0).collect(),
            seed: [seed, !seed],
        };
        let heard = Arc::default();
        let hooks = SimHooks {
            heard: Arc::clone(&heard),
            log: Arc::clone(&log),
            random: Mutex::new(Random::new(seed)),
            sync_within: sizes.sync_within,
        };
        let log_too = Arc::clone(&log);
        let (broker, restoration) =
            Broker::new(broker_options, log_too, open_spill, restorer, Box::new(hooks), now);
        Ok(Self {
            checkpointer: Mutex::new(Checkpointer::new(Arc::clone(&log))),
            disk,
            log,
            broker,
            now,
            is_blocked: false,
            recovery,
            restoration,
            heard,
            is_lenient: sizes.is_lenient,
        })
    }

    /// Makes user and virtual host on an empty disk.
    ///
    /// # Errors
    /// A text, when it cannot.
    pub fn found(&self) -> Result<(), String> {
        let first = Administration::First {
            user: USER.into(),
            password: PasswordHash::None,
            vhost: VHOST.into(),
        };
        self.broker.administer(first).map_err(|it| it.to_string())?;
        self.flush(true)
    }

    /// Writes what is appended, and syncs it.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn flush(&self, sync: bool) -> Result<(), String> {
        if let Some(spill) = self.broker.spill() {
            spill.flush(false).map_err(|it| it.to_string())?;
        }
        self.log.flush(sync).map(drop).map_err(|it| it.to_string())
    }

    /// Tells those who wait what has become durable.
    pub fn synced(&self) {
        self.broker.synced(self.now);
    }

    /// Reads one load of bodies; false when none is wanted.
    pub fn load(&self) -> bool {
        self.broker.serve_load(self.now)
    }

    /// Lets time pass, and timers run.
    pub fn pass(&mut self, millis: u64) {
        self.now = self.now.plus_ms(millis);
        if self.broker.deadline() <= self.now {
            self.broker.tick(self.now);
        }
    }

    /// One look at dead segments; true when there is more to do.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn reclaim(&self) -> Result<bool, String> {
        self.broker.reclaim(self.now).map_err(|it| it.to_string())
    }

    /// Writes a checkpoint, if there is anything new for one; true when it did.
    ///
    /// # Errors
    /// A text, when it cannot be written.
    pub fn checkpoint(&self) -> Result<bool, String> {
        self.checkpointer.lock().write(&|| false)
    }

    /// One look of the thread that keeps checkpoints.
    ///
    /// # Errors
    /// A text, when a checkpoint cannot be written.
    pub fn look(&self) -> Result<(), String> {
        if let Checkpointed::Verified(lines) = self.checkpointer.lock().look(&|| false)? {
            let mut heard = self.heard.lock();
            heard.damaged = heard.damaged.take().or_else(|| lines.into_iter().next());
        }
        Ok(())
    }

    /// One step of preparing segments.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn prepare(&mut self) -> Result<(), String> {
        let log = self.log.prepare().map_err(|it| it.to_string())?;
        if let Some(spill) = self.broker.spill() {
            spill.prepare().map_err(|it| it.to_string())?;
        }
        let low = log == Space::Low;
        self.is_blocked = low;
        self.broker.block_publishers(low.then_some("low on disk"));
        Ok(())
    }

    /// Until nothing is left to do.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn settle_down(&self) -> Result<(), String> {
        loop {
            let mut more = false;
            while self.load() {
                more = true;
            }
            if self.log.has_pending() {
                self.flush(true)?;
            }
            self.synced();
            if !more && !self.log.has_pending() {
                return Ok(());
            }
        }
    }

    /// Stops in order. Sessions must have been closed.
    ///
    /// # Errors
    /// A text, when the log has failed.
    pub fn stop(&self) -> Result<(), String> {
        if self.is_lenient {
            while self.load() {}
        }
        self.broker.stop(self.now).map_err(|it| it.to_string())?;
        if let Some(why) = self.failure().filter(|_| self.is_lenient) {
            return Err(why);
        }
        self.log.flush(true).map_err(|it| it.to_string())?;
        self.log.close_in_order().map(drop).map_err(|it| it.to_string())
    }

    /// Why the log has failed, once it has.
    pub fn failure(&self) -> Option<String> {
        self.heard.lock().failed.clone()
    }

    /// What must not be there on a disk that nobody damaged.
    pub fn complaint(&self) -> Option<String> {
        if self.recovery.has_damage() {
            return Some(format!("recovery finds damage: {:?}", self.recovery));
        }
        let is_readable = self.restoration.unreadable.is_empty() || self.is_lenient;
        if !is_readable || self.restoration.orphans != 0 {
            return Some(format!("restoration complains: {:?}", self.restoration));
        }
        self.heard.lock().damaged.as_ref().map(|it| format!("damage while serving: {it}"))
    }
}

/// A checkpoint and what follows it say the same as the whole log.
fn compare(
    log: &Log,
    restorer: &mut Restorer,
    whole: MemoryDisk,
    options: &LogOptions,
) -> Result<(), String> {
    let (_, _, mut other) = broker::recover(Arc::new(whole), options.clone(), true, &|_| ())
        .map_err(|error| format!("does not open without its checkpoint: {error}"))?;
    let exists: BTreeSet<u32> = log.segments().iter().map(|it| it.id.0).collect();
    let (one, other) = (restorer.describe(exists.clone()), other.describe(exists));
    let more = one.iter().find(|it| !other.contains(it));
    let less = other.iter().find(|it| !one.contains(it));
    if more.is_some() || less.is_some() || one.len() != other.len() {
        let wrong = "the checkpoint says other things than the log";
        return Err(format!("{wrong}: it has {more:?} and lacks {less:?}"));
    }
    Ok(())
}
