//! What every part of a broker needs: the logs, the catalog's newest snapshot, the budget, and whom
//! to wake. No queue and no session is in here.

use crate::{budget::Budget, replies::Replies, spill::Spill};
use arc_swap::ArcSwap;
use catalog::Catalog;
use engine::{
    Place,
    record::{MessageRecord, kind},
};
use model::{LogPosition, Message};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};
use stdx::seeded::{Seeded, is_sown};
use storage::{Appender, Kind, Log, LogError};

/// How the broker, which has no threads, asks for those of its node. Each call returns at once.
pub trait Hooks: Send + Sync {
    /// Somebody waits for what is in the log but not on the disk.
    fn sync_wanted(&self);
    /// [`crate::Broker::take_load`] has something.
    fn load_wanted(&self);
    /// [`crate::Broker::deadline`] is nearer than it was.
    fn deadline_moved(&self);
    /// The log is poisoned: the process is to end. Called once or more.
    fn failed(&self, why: &str);
    /// Something on the disk is damaged; the operator is to know.
    fn damaged(&self, what: &str);
}

pub(crate) struct Shared {
    pub(crate) log: Arc<Log>,
    /// Bodies of transient messages for which memory is short.
    pub(crate) spill: Spill,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) budget: Budget,
    pub(crate) hooks: Box<dyn Hooks>,
    /// Octets of the log's backlog at which publishers are held back.
    pub(crate) pending_bytes_max: u64,
    pub(crate) replies: Replies,
    /// Nobody can guess it: what is made of it is secret as well.
    pub(crate) key: [u64; 2],
    wanted: AtomicU64,
    failed: AtomicBool,
    held_back: Mutex<Vec<Waker>>,
}

impl Shared {
    pub(crate) fn new(
        log: Arc<Log>,
        spill: Spill,
        catalog: Catalog,
        budget: Budget,
        pending_bytes_max: u64,
        key: [u64; 2],
        hooks: Box<dyn Hooks>,
    ) -> Self {
        Self {
            log,
            spill,
            catalog: ArcSwap::from_pointee(catalog),
            budget,
            hooks,
            pending_bytes_max,
            replies: Replies::new(key),
            key,
            wanted: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            held_back: Mutex::default(),
        }
    }

    /// Writes a message to the log; `front` says for whom. Returns where it lies.
    pub(crate) fn append_message(
        &self,
        front: &MessageRecord,
        message: &Message,
    ) -> Result<(LogPosition, LogPosition), LogError> {
        let mut prefix = Vec::with_capacity(64);
        front.encode(message, &mut prefix);
        append(&mut self.log.begin()?, &prefix, message)
    }

    /// The spill file, opened if it was not yet.
    pub(crate) fn spill(&self) -> Option<&Arc<Log>> {
        self.spill.log(|why| self.hooks.damaged(why))
    }

    /// Writes a transient message to the spill file.
    pub(crate) fn spill_message(&self, message: &Message) -> Result<Place, LogError> {
        let Some(spill) = self.spill() else { return Ok(Place::Memory) };
        let mut prefix = Vec::with_capacity(64);
        MessageRecord::default().encode(message, &mut prefix);
        let (position, _) = append(&mut spill.begin()?, &prefix, message)?;
        Ok(Place::Spill { position })
    }

    /// Everything in the log below this is on the disk.
    pub(crate) fn durable(&self) -> LogPosition {
        if is_sown(Seeded::ConfirmBeforeSync) {
            return LogPosition(self.log.end().0);
        }
        LogPosition(self.log.durable().0)
    }

    /// Somebody waits for this position.
    pub(crate) fn want_durable(&self, position: LogPosition) {
        let before = self.wanted.fetch_max(position.0, Ordering::AcqRel);
        if before < position.0 || self.durable() < position {
            self.hooks.sync_wanted();
        }
    }

    /// The newest position that somebody waits for.
    pub(crate) fn wanted(&self) -> LogPosition {
        LogPosition(self.wanted.load(Ordering::Acquire))
    }

    /// Nothing is confirmed any more; the process is to end.
    pub(crate) fn fail(&self, error: &LogError) {
        self.failed.store(true, Ordering::Release);
        self.hooks.failed(&error.to_string());
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn is_congested(&self) -> bool {
        self.pending_bytes_max <= self.log.pending_bytes()
    }

    /// Ready when the log's backlog lets publishers go on.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_congested() {
            return Poll::Ready(());
        }
        self.hold_back(context.waker());
        // The log may have caught up before the waker was in the list.
        if !self.is_congested() {
            return Poll::Ready(());
        }
        self.hooks.sync_wanted();
        Poll::Pending
    }

    /// Wakes this one when publishers may go on.
    pub(crate) fn hold_back(&self, waker: &Waker) {
        let mut held_back = self.held_back.lock();
        if !held_back.iter().any(|it| it.will_wake(waker)) {
            held_back.push(waker.clone());
        }
    }

    pub(crate) fn wake_held_back(&self) {
        let wakers = std::mem::take(&mut *self.held_back.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The log has written what it had; who was held back looks again.
    pub(crate) fn relieve(&self) {
        if !self.is_congested() {
            self.wake_held_back();
        }
    }
}

/// Writes a message behind its encoded front through an appender.
pub(crate) fn append(
    appender: &mut Appender<'_>,
    prefix: &[u8],
    message: &Message,
) -> Result<(LogPosition, LogPosition), LogError> {
    let kind = Kind(kind::MESSAGE);
    let mut parts: SmallVec<[&[u8]; 8]> = SmallVec::new();
    parts.extend([prefix, message.address(), message.properties()]);
    parts.extend(message.body_parts());
    let (position, end) = appender.record(kind, &parts)?;
    Ok((LogPosition(position.0), LogPosition(end.0)))
}
