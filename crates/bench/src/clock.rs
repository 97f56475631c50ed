//! Time of a run: nanoseconds since it began, the same for all of its threads.

use std::{num::NonZeroU64, time::Instant};

/// Nanoseconds since the clock was started, or between two such times.
pub(crate) type Nanos = u64;

pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.started.elapsed().as_nanos() as Nanos
    }
}

pub(crate) fn nanos_of_seconds(seconds: f64) -> Nanos {
    (seconds * SECOND as f64) as Nanos
}

pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

/// How many a second, of so many between two times.
pub(crate) fn per_second(count: u64, from: Nanos, to: Nanos) -> f64 {
    count as f64 / seconds(to.saturating_sub(from).max(1))
}

/// Linux lets a timer of this thread be 50 µs late unless it is told otherwise, which would show
/// in every latency at a fixed rate.
pub(crate) fn want_precise_timers() {
    // Where it is refused, latencies are a little larger.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}
