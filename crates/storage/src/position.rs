//! The words of the log: where a record lies and what kind it is.

use std::fmt;

/// Number of a segment. Numbers grow over the life of a folder and are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:010}", self.0)
    }
}

/// Start of a record, or end of a range: segment number in the upper 32 bits, byte offset in the
/// segment file in the lower 32. Totally ordered; grows over the life of the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The byte at `offset` of `segment`.
    #[must_use]
    pub const fn new(segment: SegmentId, offset: u32) -> Self {
        Self((segment.0 as u64) << 32 | offset as u64)
    }

    /// The segment this position lies in.
    #[must_use]
    pub const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 32) as u32)
    }

    /// The byte offset in the file of the segment.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.segment(), self.offset())
    }
}

/// What a record is. 0 to 15 belong to the log itself, the others to whoever appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// First kind that a user of the log may append.
    pub const FIRST_FREE: Self = Self(16);
    /// Begins what one flush writes; carries the durable position before it.
    pub(crate) const BATCH: Self = Self(0);
    /// Ends an atomic unit.
    pub(crate) const UNIT_END: Self = Self(1);
    /// Fills a gap.
    pub(crate) const PADDING: Self = Self(2);
    /// Ends a sealed segment.
    pub(crate) const FOOTER: Self = Self(3);
    /// The log was closed in order.
    pub(crate) const CLEAN_STOP: Self = Self(4);
    /// A segment holds nothing live any more.
    pub(crate) const RETIRED: Self = Self(5);
    /// The body of a manifest file.
    pub(crate) const MANIFEST: Self = Self(6);
    /// The log was opened; an unfinished unit before it never happened.
    pub(crate) const OPENED: Self = Self(7);
    /// First record of a checkpoint file.
    pub(crate) const CHECKPOINT: Self = Self(8);
    /// A part of what a checkpoint holds.
    pub(crate) const CHECKPOINT_PART: Self = Self(9);
    /// Last record of a checkpoint file.
    pub(crate) const CHECKPOINT_END: Self = Self(10);

    /// Does the kind belong to the log itself?
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_FREE.0
    }
}

/// One good record, as recovery and scans show it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub position: Position,
    /// Where it ends: once this is durable, the record is.
    pub end: Position,
    /// What it is, 16 to 255.
    pub kind: Kind,
    /// Its bytes, checked.
    pub payload: &'a [u8],
}

/// One good record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Where it starts.
    pub position: Position,
    /// Where it ends.
    pub end: Position,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, checked; a slice of the buffer that was read.
    pub payload: bytes::Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_by_segment_then_offset() {
        let low = Position::new(SegmentId(1), u32::MAX);
        let high = Position::new(SegmentId(2), 0);
        assert!(low < high);
        assert_eq!((high.segment(), high.offset()), (SegmentId(2), 0));
    }
}
