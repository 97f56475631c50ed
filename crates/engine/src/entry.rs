//! One message in a queue. There may be very many, so the fields of an entry are packed and what
//! few messages have stands beside the list; where a list is long, `packed` makes them smaller
//! still.

use crate::command::Place;
use model::{EntryId, LogPosition, Message, Timestamp};
use std::{collections::BTreeMap, sync::Arc};

const LOGGED: u64 = 1;
const SPILLED: u64 = 1 << 1;
const REDELIVERED: u64 = 1 << 2;
/// The message has a time to live of its own.
const HAS_TTL: u64 = 1 << 3;
/// The body leaves memory with the delivery: it can be read again, and there is no room for it.
const FLEETING: u64 = 1 << 4;
/// The body was read ahead for the next deliveries.
const AHEAD: u64 = 1 << 5;
/// Something is noted beside the list.
const NOTED: u64 = 1 << 6;
const PLACES: u64 = LOGGED | SPILLED;

/// What a message in memory costs beside its octets: its own fields, two allocations, and its entry
/// in the queue.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 192;

const SEGMENTS_SHIFT: u32 = 8;
const SEGMENTS_MASK: u64 = 0xff << SEGMENTS_SHIFT;
const ARRIVED_SHIFT: u32 = 16;

/// A message as it stands in the list of ready ones.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    /// Absent when the body is on disk only.
    pub(crate) message: Option<Arc<Message>>,
    pub(crate) position: LogPosition,
    pub(crate) end_offset: u32,
    /// Octets of the body; what length limits count.
    pub(crate) body_len: u32,
    /// Time of arrival (48 bits), segments from the position to the end (8 bits), flags (8 bits).
    pub(crate) packed: u64,
}

const _: () = assert!(size_of::<Entry>() == 40);

impl Entry {
    #[inline]
    pub(crate) fn new(id: EntryId, place: Place, body_len: u64, arrived: Timestamp) -> Self {
        let mut entry = Self {
            id,
            message: None,
            position: LogPosition(0),
            end_offset: 0,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            // 48 bits of milliseconds last for nine thousand years.
            packed: arrived.0.min((1 << 48) - 1) << ARRIVED_SHIFT,
        };
        entry.set_place(place);
        entry
    }

    #[inline]
    pub(crate) fn place(&self) -> Place {
        let position = self.position;
        match self.packed & PLACES {
            LOGGED => Place::Log { position, end: self.logged_end() },
            SPILLED => Place::Spill { position },
            _ => Place::Memory,
        }
    }

    #[inline]
    fn logged_end(&self) -> LogPosition {
        let more = (self.packed & SEGMENTS_MASK) >> SEGMENTS_SHIFT;
        let segment = u64::from(self.position.segment()) + more;
        LogPosition((segment << 32) | u64::from(self.end_offset))
    }

    /// The end of its record in the log, if it has one.
    pub(crate) fn end(&self) -> Option<LogPosition> {
        (self.packed & LOGGED != 0).then(|| self.logged_end())
    }

    #[inline]
    pub(crate) fn set_place(&mut self, place: Place) {
        self.packed &= !(PLACES | SEGMENTS_MASK);
        match place {
            Place::Memory => {}
            Place::Log { position, end } => {
                assert!(position <= end, "a record ends behind its start");
                let more = end.segment() - position.segment();
                assert!(more <= 0xff, "a record's end lies within 255 segments of its start");
                self.position = position;
                self.end_offset = end.offset();
                self.packed |= LOGGED | (u64::from(more) << SEGMENTS_SHIFT);
            }
            Place::Spill { position } => {
                self.position = position;
                self.packed |= SPILLED;
            }
        }
    }

    /// The log segment it lies in.
    pub(crate) fn segment(&self) -> Option<u32> {
        (self.packed & LOGGED != 0).then(|| self.position.segment())
    }

    /// Its position, if it survives a restart.
    #[inline]
    pub(crate) fn kept_at(&self) -> Option<LogPosition> {
        (self.packed & LOGGED != 0).then_some(self.position)
    }

    pub(crate) fn arrived(&self) -> Timestamp {
        Timestamp(self.packed >> ARRIVED_SHIFT)
    }

    /// Octets that its message costs in memory.
    #[inline]
    pub(crate) fn resident(&self) -> u64 {
        self.message.as_ref().map_or(0, |it| it.size() + MESSAGE_OVERHEAD_BYTES)
    }

    fn set(&mut self, flag: u64, is_set: bool) {
        self.packed = if is_set { self.packed | flag } else { self.packed & !flag };
    }

    pub(crate) fn is_redelivered(&self) -> bool {
        self.packed & REDELIVERED != 0
    }

    pub(crate) fn set_redelivered(&mut self) {
        self.set(REDELIVERED, true);
    }

    pub(crate) fn has_ttl(&self) -> bool {
        self.packed & HAS_TTL != 0
    }

    pub(crate) fn set_has_ttl(&mut self) {
        self.set(HAS_TTL, true);
    }

    pub(crate) fn is_fleeting(&self) -> bool {
        self.packed & FLEETING != 0
    }

    pub(crate) fn set_fleeting(&mut self) {
        self.set(FLEETING, true);
    }

    pub(crate) fn is_ahead(&self) -> bool {
        self.packed & AHEAD != 0
    }

    pub(crate) fn set_ahead(&mut self, is_ahead: bool) {
        self.set(AHEAD, is_ahead);
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.packed & NOTED != 0
    }

    pub(crate) fn set_noted(&mut self, is_noted: bool) {
        self.set(NOTED, is_noted);
    }
}

/// A message outside the list of ready ones, with all that its queue knows of it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// Its level of priority.
    pub(crate) level: u8,
    /// Its own time to live.
    pub(crate) ttl_ms: Option<u64>,
    /// Times it was delivered.
    pub(crate) acquired: u32,
    /// Times it came back as failed.
    pub(crate) failed: u32,
}

/// What is known of a waiting message and does not stand in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) acquired: u32,
    pub(crate) failed: u32,
}

/// What is noted of messages whose entries say so.
pub(crate) type Notes = BTreeMap<EntryId, Note>;

/// The smaller one of those that there are.
pub(crate) fn smaller(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(segment: u64, offset: u64) -> LogPosition {
        LogPosition((segment << 32) | offset)
    }

    #[test]
    fn places_come_back_as_they_were() {
        let log = |position, end| Place::Log { position, end };
        let places = [
            Place::Memory,
            Place::Spill { position: position(7, 9) },
            log(position(3, 100), position(3, 220)),
            log(position(3, u64::from(u32::MAX)), position(4, 0)),
            log(position(u64::from(u32::MAX) - 255, 5), position(u64::from(u32::MAX), 6)),
        ];
        let mut entry = Entry::new(EntryId(1), Place::Memory, 10, Timestamp(1_800_000_000_000));
        entry.set_redelivered();
        for place in places {
            entry.set_place(place);
            assert_eq!(entry.place(), place);
            assert_eq!(entry.arrived(), Timestamp(1_800_000_000_000));
            assert!(entry.is_redelivered() && !entry.is_fleeting());
        }
    }
}
