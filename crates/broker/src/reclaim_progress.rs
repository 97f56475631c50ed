//! What reclaim remembers between two looks.

use crate::occupancy::Messages;
use model::{LogPosition, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(crate) struct Reclaim(pub(crate) Mutex<Progress>);

#[derive(Default)]
pub(crate) struct Progress {
    /// Segments that go as soon as this position is durable.
    pub(crate) condemned: BTreeMap<u32, LogPosition>,
    /// Segments whose live content has been written again.
    pub(crate) evacuated: BTreeSet<u32>,
    /// What was counted in a segment, and since when that has not changed.
    pub(crate) counted: BTreeMap<u32, (Messages, Timestamp)>,
}

/// A segment in which nothing has changed for so long is not about to empty by itself.
const RESTING_MS: u64 = 5_000;

impl Progress {
    /// Nothing has been consumed from the segment for a while.
    pub(crate) fn is_resting(&mut self, segment: u32, messages: Messages, now: Timestamp) -> bool {
        let (before, since) = self.counted.entry(segment).or_insert((messages, now));
        if *before != messages {
            (*before, *since) = (messages, now);
        }
        since.plus_ms(RESTING_MS) <= now
    }
}
