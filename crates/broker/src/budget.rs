//! Memory for bodies: one number for the whole node. Shards report what their queues hold; the gate
//! asks whether there is room for more.

use std::sync::atomic::{AtomicI64, Ordering};

/// A queue that holds this part of the budget has a hand in its end.
const LARGE_PART: i64 = 4;

#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: i64,
    held: AtomicI64,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max: i64::try_from(bytes_max).unwrap_or(i64::MAX), held: AtomicI64::new(0) }
    }

    /// Whether bodies may be kept that could also be read back.
    pub(crate) fn has_room(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.bytes_max
    }

    /// Whether one queue that holds so much has more than its part when there is no room.
    pub(crate) fn is_large(&self, bytes: u64) -> bool {
        self.bytes_max / LARGE_PART <= i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// A queue holds more, or fewer, octets than before.
    pub(crate) fn add(&self, bytes: i64) {
        if bytes != 0 {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Octets of bodies in memory.
    pub(crate) fn held(&self) -> u64 {
        u64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
