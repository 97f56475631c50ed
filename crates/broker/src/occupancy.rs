//! Which segments of the log still hold something needed. Two things keep a segment: messages that
//! some queue has, and notes (removals, counters) about messages whose own segment still exists.

use model::LogPosition;
use std::collections::BTreeMap;

/// Counts per segment, kept by each shard for its own queues and added up by reclaim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Occupancy {
    /// Segment → messages of it.
    segments: BTreeMap<u32, Messages>,
    /// Segment → segments that notes in it speak about.
    notes: BTreeMap<u32, BTreeMap<u32, u64>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    /// Held by a queue now; a message in two queues counts twice.
    pub(crate) live: u64,
    /// Held by a queue at some time since the start.
    pub(crate) ever: u64,
}

impl Occupancy {
    #[inline]
    pub(crate) fn arrive(&mut self, position: LogPosition) {
        let messages = self.segments.entry(position.segment()).or_default();
        messages.live += 1;
        messages.ever += 1;
    }

    /// Like [`Occupancy::arrive`] for messages that the start found: they are among those it had.
    pub(crate) fn arrive_again(&mut self, segment: u32, count: u64) {
        if 0 < count {
            self.segments.entry(segment).or_default().live += count;
        }
    }

    /// So many notes in segment `at` speak about segment `about`.
    #[inline]
    pub(crate) fn noted(&mut self, at: u32, about: u32, count: u64) {
        if at != about {
            *self.notes.entry(at).or_default().entry(about).or_default() += count;
        }
    }

    /// So many messages were in the segment before the start.
    pub(crate) fn had(&mut self, segment: u32, ever: u64) {
        self.segments.entry(segment).or_default().ever += ever;
    }

    #[inline]
    pub(crate) fn leave(&mut self, position: LogPosition) {
        if let Some(messages) = self.segments.get_mut(&position.segment()) {
            debug_assert!(0 < messages.live, "what leaves had arrived");
            messages.live = messages.live.saturating_sub(1);
        }
    }

    /// A note in segment `at` speaks about a message in segment `about`.
    #[inline]
    pub(crate) fn note(&mut self, at: u32, about: u32) {
        self.noted(at, about, 1);
    }

    /// The segment exists no more.
    pub(crate) fn retired(&mut self, segment: u32) {
        self.segments.remove(&segment);
        self.notes.remove(&segment);
        self.notes.retain(|_, about| {
            about.remove(&segment);
            !about.is_empty()
        });
    }

    pub(crate) fn messages(&self, segment: u32) -> Messages {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    /// Notes in the segment about segments that still exist.
    pub(crate) fn notes(&self, segment: u32) -> u64 {
        self.notes.get(&segment).map_or(0, |about| about.values().sum())
    }

    /// Adds what another shard counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (segment, messages) in &other.segments {
            let sum = self.segments.entry(*segment).or_default();
            sum.live += messages.live;
            sum.ever += messages.ever;
        }
        for (at, about) in &other.notes {
            let sums = self.notes.entry(*at).or_default();
            for (segment, count) in about {
                *sums.entry(*segment).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64) -> LogPosition {
        LogPosition(segment << 32 | 64)
    }

    #[test]
    fn note_keeps_its_segment_until_what_it_speaks_about_is_gone() {
        let mut occupancy = Occupancy::default();
        occupancy.arrive(at(1));
        occupancy.arrive(at(2));
        occupancy.leave(at(1));
        occupancy.note(2, 1);
        occupancy.leave(at(2));
        occupancy.note(2, 2);
        assert_eq!(occupancy.messages(1), Messages { live: 0, ever: 1 });
        assert_eq!(occupancy.notes(2), 1);
        occupancy.retired(1);
        assert_eq!(occupancy.notes(2), 0);
    }
}
