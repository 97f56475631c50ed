//! When each message is due at a fixed rate. Latency is counted from there and not from when the
//! message could be sent, so that a broker which stalls the generator does not hide the wait of
//! the messages behind (coordinated omission).

use crate::clock::{Nanos, SECOND};

/// The schedule of one publisher; message 0 is due first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: Nanos,
    per_second: f64,
    /// Part of an interval by which this publisher is behind the others, so that they alternate.
    phase: f64,
}

impl Pace {
    pub(crate) fn new(start: Nanos, per_second: f64, phase: f64) -> Self {
        Self { start, per_second, phase }
    }

    pub(crate) fn due_at(&self, sequence: u64) -> Nanos {
        let after = (sequence as f64 + self.phase) * SECOND as f64 / self.per_second;
        self.start + after as Nanos
    }

    /// How many messages are due, of all from the beginning.
    pub(crate) fn due_count(&self, now: Nanos) -> u64 {
        let Some(passed) = now.checked_sub(self.start) else { return 0 };
        let intervals = passed as f64 * self.per_second / SECOND as f64 - self.phase;
        if intervals < 0.0 { 0 } else { intervals as u64 + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::MILLISECOND, histogram::Latency};

    #[test]
    fn due_times_and_counts_agree() {
        for (rate, phase) in [(1.0, 0.0), (5_000.0, 0.25), (333.3, 0.5), (1e6, 0.9)] {
            let pace = Pace::new(7, rate, phase);
            for sequence in [0, 1, 2, 10, 9_999] {
                let due = pace.due_at(sequence);
                assert!(sequence < pace.due_count(due + 2), "{rate} {phase} {sequence}");
                assert!(pace.due_count(due.saturating_sub(2)) <= sequence);
            }
        }
        assert_eq!(Pace::new(100, 10.0, 0.0).due_count(99), 0);
    }

    /// A broker that answers at once but for one second in ten, when it answers nothing: a tenth
    /// of the messages waits, on average half a second.
    #[test]
    fn stall_shows_in_the_percentiles_although_the_generator_was_stalled() {
        let pace = Pace::new(0, 1_000.0, 0.0);
        let (mut latency, mut sent, mut now) = (Latency::default(), 0, 0);
        while sent < 10_000 {
            if (5 * SECOND..6 * SECOND).contains(&now) {
                now = 6 * SECOND;
            }
            let due = pace.due_count(now).min(10_000);
            (sent..due).for_each(|it| latency.record(now - pace.due_at(it)));
            sent = due;
            now += MILLISECOND;
        }
        let found = latency.percentiles().unwrap();
        assert!(found.p50 < 2_000.0, "{found:?}");
        assert!(found.p99 > 850_000.0, "a hundredth waited for nine tenths of it: {found:?}");
        assert!(found.max > 990_000.0, "{found:?}");
    }
}
