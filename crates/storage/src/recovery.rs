//! What a start found: the report of recovery.

use crate::error::Damage;
use crate::position::{Kind, Position, SegmentId};

/// Bad bytes that were set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The segment they lie in.
    pub segment: SegmentId,
    /// Offset of the first bad byte.
    pub offset: u32,
    /// How many bytes are bad.
    pub bytes: u32,
    /// Kind of the record, where its header is still readable.
    pub kind: Option<Kind>,
    /// What is wrong.
    pub reason: Damage,
    /// The bytes are the unfinished end of the log after a crash: no sync that covered them is
    /// known to have returned.
    pub torn: bool,
    /// The bytes are copied to `quarantine/`, synced. While they are not, the segment is kept.
    pub copied: bool,
}

/// A synced range that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its first byte.
    pub from: Position,
    /// Its end; offset 0 of the next segment where the true end is unknown.
    pub to: Position,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log was closed in order, or is new.
    pub orderly: bool,
    /// Good records shown.
    pub records: u64,
    /// Bad bytes, in log order.
    pub quarantined: Vec<Quarantined>,
    /// Ranges known to have been synced that are gone.
    pub missing: Vec<Missing>,
    /// Bytes after the end of the log that an unfinished write left.
    pub torn_tail_bytes: u64,
    /// Records of a unit that the crash cut; they never happened.
    pub cut_unit_records: u64,
    /// A manifest file was absent or damaged and has been rebuilt.
    pub manifest_rebuilt: bool,
    /// Files that do not belong to the log; they were left alone.
    pub foreign: Vec<String>,
    /// Segments with a lower number were not read: a checkpoint stands for them.
    pub checkpoint: Option<SegmentId>,
    /// Why other checkpoints were of no use. They cost time, never a message.
    pub checkpoint_faults: Vec<String>,
    /// End of the last good record.
    pub end: Position,
    /// The unproven tail was read past the page cache and written again.
    pub rewritten: bool,
}

impl Recovery {
    /// Did the start find anything an operator must know?
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.is_log_damaged() || !self.checkpoint_faults.is_empty()
    }

    /// Is there anything that was written and synced, and that the log does not say any more?
    #[must_use]
    pub fn is_log_damaged(&self) -> bool {
        !self.missing.is_empty()
            || self.manifest_rebuilt
            || self.quarantined.iter().any(|range| !range.torn)
    }
}
