//! What a log may be told: sizes, reserve, and whether it syncs.

/// How a log behaves. `Default` is the log of a data folder.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of a segment file. Where the disk is small, a sixteenth of it is used instead, but at
    /// least 1 MiB. 4 KiB at least.
    pub segment_bytes: u32,
    /// `false` only for spill logs: nothing is ever synced, nothing survives a start.
    pub sync: bool,
    /// From this many bytes that are appended and not written, `begin` waits for the log thread.
    pub pending_bytes_max: u64,
    /// Prepared segments that are kept for acks, deletes, stop and boot when the disk is full. The
    /// emergency reserve is this many times the size of a segment.
    pub reserve_segments: usize,
    /// How many zeros one call of `prepare` writes at most.
    pub prepare_bytes: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            sync: true,
            pending_bytes_max: 64 << 20,
            reserve_segments: 2,
            prepare_bytes: 4 << 20,
        }
    }
}

/// Smallest segment a small disk leads to.
const SEGMENT_BYTES_MIN_AUTO: u64 = 1 << 20;
const SEGMENT_BYTES_MIN: u32 = 4096;

impl LogOptions {
    /// The segment size on a disk of `total_bytes`.
    #[must_use]
    pub fn segment_bytes_on(&self, total_bytes: u64) -> u32 {
        let share = (total_bytes / 16).max(SEGMENT_BYTES_MIN_AUTO);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        self.segment_bytes.min(share).max(SEGMENT_BYTES_MIN) & !7
    }
}

/// Is there room to go on publishing?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Yes.
    Plenty,
    /// No spare segment could be prepared; only the emergency reserve is left.
    Low,
}
