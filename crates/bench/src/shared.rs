//! What the threads of one run tell each other: how far they are, and when to end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running = 0,
    /// Everything that was expected has come; who gets nothing more may end.
    Complete = 1,
    /// Nobody waits any longer.
    Abandoned = 2,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set by a signal.
    interrupted: Arc<AtomicBool>,
    phase: AtomicU8,
    published: AtomicU64,
    confirmed: AtomicU64,
    consumed: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) consumed: u64,
}

impl Shared {
    pub(crate) fn new(interrupted: &Arc<AtomicBool>) -> Self {
        Self { interrupted: Arc::clone(interrupted), ..Self::default() }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            _ if self.is_interrupted() => Phase::Abandoned,
            0 => Phase::Running,
            1 => Phase::Complete,
            _ => Phase::Abandoned,
        }
    }

    /// A phase never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
    }

    pub(crate) fn add_published(&self, count: u64) {
        self.published.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_confirmed(&self, count: u64) {
        self.confirmed.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_consumed(&self, count: u64) {
        self.consumed.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            published: self.published.load(Ordering::Relaxed),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            consumed: self.consumed.load(Ordering::Relaxed),
        }
    }
}
