//! Wakes one thread. Giving a signal that is already given costs one atomic read.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

#[derive(Debug, Default)]
pub(crate) struct Signal {
    given: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Signal {
    /// The calling thread is the one to be woken.
    pub(crate) fn adopt(&self) {
        self.thread.get_or_init(thread::current);
    }

    pub(crate) fn give(&self) {
        if !self.given.load(Ordering::Acquire)
            && !self.given.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits for a signal, at most so long. Returns whether one was given; it is taken then.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        if self.given.swap(false, Ordering::AcqRel) {
            return true;
        }
        thread::park_timeout(longest);
        self.given.swap(false, Ordering::AcqRel)
    }
}
