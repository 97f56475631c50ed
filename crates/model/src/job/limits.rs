//! How many jobs may run at a time and how fast they may start: what a queue lays down. The
//! counting is the engine's.

const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// Starts per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Between two starts, rounded up: never too many.
    interval_ns: u64,
    /// Starts at once after a rest: one second's worth and at least one.
    burst: u64,
}

impl Rate {
    /// `starts` in `period_ms` milliseconds. `None` where one of them is zero or a start would
    /// take less than a nanosecond.
    pub fn new(starts: u64, period_ms: u64) -> Option<Self> {
        let period_ns = period_ms.checked_mul(NANOSECONDS_PER_MS).filter(|it| 0 < *it)?;
        if starts == 0 || period_ns < starts {
            return None;
        }
        let burst = u128::from(starts) * 1_000 / u128::from(period_ms);
        Some(Self {
            interval_ns: period_ns.div_ceil(starts),
            burst: u64::try_from(burst).unwrap_or(u64::MAX).max(1),
        })
    }

    /// Nanoseconds between two starts.
    pub fn interval_ns(self) -> u64 {
        self.interval_ns
    }

    /// Starts at once after a rest.
    pub fn burst(self) -> u64 {
        self.burst
    }
}

/// The limits of a queue; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that run at a time.
    pub concurrency: Option<u64>,
    /// Jobs of one key that run at a time.
    pub key_concurrency: Option<u64>,
    pub rate: Option<Rate>,
    /// Starts of one key.
    pub key_rate: Option<Rate>,
}
