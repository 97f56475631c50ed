//! Wakes one thread. Giving a signal that is already given costs one atomic read.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};
use stdx::seeded::{Seeded, is_sown};

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
        if self.given.swap(false, Ordering::AcqRel) && !is_sown(Seeded::WakeUpLost) {
            return true;
        }
        thread::park_timeout(longest);
        self.given.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Instant};

    /// Far longer than a wake-up takes: whoever waits so long has missed a signal.
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn signal_that_comes_before_the_wait_ends_it_at_once() {
        let signal = Signal::default();
        signal.adopt();
        signal.give();
        let started = Instant::now();
        assert!(signal.wait(LONG));
        assert!(started.elapsed() < LONG, "it was slept over");
        assert!(!signal.wait(Duration::from_millis(1)), "it is taken once");
    }

    /// Whenever it comes: before, while and after the other one looks.
    #[test]
    fn no_signal_of_ten_thousand_is_lost() {
        let ours = Arc::new(Signal::default());
        let theirs = Arc::new(Signal::default());
        ours.adopt();
        let (to_us, to_them) = (Arc::clone(&ours), Arc::clone(&theirs));
        let other = thread::spawn(move || {
            to_them.adopt();
            for round in 0..10_000_u32 {
                if !wait_all(&to_them) {
                    return false;
                }
                for _ in 0..round % 97 * 7 {
                    std::hint::spin_loop();
                }
                to_us.give();
            }
            true
        });
        while theirs.thread.get().is_none() {
            thread::yield_now();
        }
        for round in 0..10_000_u32 {
            theirs.give();
            for _ in 0..round % 89 * 7 {
                std::hint::spin_loop();
            }
            assert!(wait_all(&ours), "round {round}");
        }
        assert!(other.join().is_ok_and(|all| all));
    }

    /// A thread may be woken for nothing; a signal is lost when none is seen for long.
    fn wait_all(signal: &Signal) -> bool {
        let started = Instant::now();
        while started.elapsed() < LONG {
            if signal.wait(LONG) {
                return true;
            }
        }
        false
    }
}
