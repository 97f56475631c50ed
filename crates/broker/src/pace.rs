//! Whether the consumers of a queue could catch up with its publishers, and how long these pause so
//! that they do.

use crate::mailbox::Pressure;
use engine::Queue;
use model::Timestamp;

/// Octets of waiting messages at which publishers do well to let the consumers catch up: what waits
/// costs more than what goes straight through.
const BACKLOG_BYTES_MIN: u64 = 512 * 1024;
/// A publisher pauses a millisecond longer for each of these, but not longer than this.
const BACKLOG_BYTES_PER_MS: u64 = 2 * 1024 * 1024;
const BACKLOG_PAUSE_MS_MAX: u8 = 5;
/// Consumers that take less than this part of what comes are not waited for: they are slow for
/// another reason than the processor.
const PACE_PART: u64 = 4;
/// How long arrivals and deliveries are counted before they are compared.
const PACE_MS: u64 = 50;

/// How fast consumers are beside publishers.
pub(crate) struct Pace {
    since: Timestamp,
    arrivals: u64,
    gone: u64,
    /// The consumers are near enough to catch up.
    is_near: bool,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { since: Timestamp(0), arrivals: 0, gone: 0, is_near: true }
    }

    /// Much waits for consumers that could catch up.
    pub(crate) fn backlog(&mut self, queue: &Queue, now: Timestamp) -> Option<Pressure> {
        let waiting = queue.waiting_bytes();
        if waiting < BACKLOG_BYTES_MIN || queue.depth().consumers == 0 || !self.look(queue, now) {
            return None;
        }
        let pause_ms = (1 + waiting / BACKLOG_BYTES_PER_MS).min(BACKLOG_PAUSE_MS_MAX.into());
        Some(Pressure::Backlog { pause_ms: pause_ms as u8 })
    }

    /// Compares what has come with what has gone since the last time.
    fn look(&mut self, queue: &Queue, now: Timestamp) -> bool {
        if now < self.since.plus_ms(PACE_MS) {
            return self.is_near;
        }
        let arrivals = queue.arrivals();
        let gone = arrivals.saturating_sub(queue.depth().ready);
        let (came, went) = (arrivals.saturating_sub(self.arrivals), gone.saturating_sub(self.gone));
        let is_near = came <= went.saturating_mul(PACE_PART);
        *self = Self { since: now, arrivals, gone, is_near };
        is_near
    }
}
