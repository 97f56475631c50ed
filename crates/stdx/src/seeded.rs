//! Faults put in on purpose: each shows that the tests would see the defect it stands for.
//!
//! With the feature `seeded-faults`, which only a build with debug assertions can have, one of them
//! is chosen by its number in the environment variable `SEEDED_FAULT`. Without it every question is
//! answered no at compile time, and nothing of this is left in the program. `cargo xtask faults`
//! sows each of them and demands that the case named for it fails.

#[cfg(all(feature = "seeded-faults", not(debug_assertions)))]
compile_error!("seeded faults are for tests: no optimised build has them");

/// The faults by their numbers. S14 and S15 are missing: they need votes and followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// What waits for the disk leaves without waiting.
    ConfirmBeforeSync = 1,
    /// The name of a new segment is not synced.
    FolderNotSynced = 2,
    /// A file is renamed before its content is synced.
    RenameBeforeSync = 3,
    /// The checksum of a body is not looked at when it is read to be delivered.
    ReadUnchecked = 4,
    /// The header of a record is under no checksum.
    HeaderUnchecked = 5,
    /// Recovery ends the log at the first bad record.
    TruncateAtDamage = 6,
    /// A sync that failed is tried again and then believed.
    SyncRetried = 7,
    /// Removals are written apart from messages, and may lag behind them.
    RemovalsApart = 8,
    /// The end of the log is where the blocks of its file end.
    EndByBlocks = 9,
    /// After a crash nothing is marked as delivered before.
    NotRedelivered = 10,
    /// What is requeued goes to the end of its queue.
    RequeueToTail = 11,
    /// A run of confirms is extended over one that still waits for the disk.
    ConfirmPastWaiting = 12,
    /// A mandatory message that nobody takes is not returned.
    NotReturned = 13,
    /// A batch claims that its own position is durable.
    PositionBeforeData = 16,
    /// A manifest is believed without its checksum.
    ManifestUnchecked = 17,
    /// A signal that comes while its thread is busy is forgotten.
    WakeUpLost = 18,
    /// A header is taken for its whole record.
    VisibleBeforeComplete = 19,
    /// A sync that reports no space is taken for a full disk.
    FullDiskFromSync = 20,
    /// Messages whose queue is missing after damage are given up, as if it had been deleted.
    MissingQueueForgotten = 21,
    /// A checkpoint is believed without its checksums.
    CheckpointUnchecked = 22,
    /// A checkpoint gets its name before its content is synced.
    CheckpointBeforeSync = 23,
    /// What the log says after a checkpoint takes nothing away from it.
    CheckpointNotChanged = 24,
}

/// Has this fault been sown?
#[cfg(not(feature = "seeded-faults"))]
#[inline(always)]
pub const fn is_sown(_: Seeded) -> bool {
    false
}

/// Has this fault been sown?
#[cfg(feature = "seeded-faults")]
pub fn is_sown(fault: Seeded) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<u8>> =
        std::sync::LazyLock::new(|| std::env::var("SEEDED_FAULT").ok()?.parse().ok());
    *CHOSEN == Some(fault as u8)
}
