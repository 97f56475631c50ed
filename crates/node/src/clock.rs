//! The one place that reads a clock.

use model::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch that never go back: the machine's clock at the start, and the time
/// since. A step of the machine's clock moves no deadline.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// Reads the machine's clock once.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self { started: Instant::now(), started_ms }
    }

    pub fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.started_ms.saturating_add(passed))
    }
}
