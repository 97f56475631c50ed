//! What can go wrong, in types: opening, appending and flushing, reading.

use std::io;
use std::sync::Arc;

use crate::position::{Kind, Position, SegmentId};

/// The first write or sync that failed. Nothing becomes durable after it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {action} {file} at byte {offset}: {error}; everything before {durable} is safe; \
     restart after the disk is repaired"
)]
pub struct Failure {
    /// What was tried: `write`, `sync`, ….
    pub action: &'static str,
    /// Name of the file in the folder.
    pub file: String,
    /// Byte offset in the file; 0 where none applies.
    pub offset: u64,
    /// The error of the operating system.
    #[source]
    pub error: io::Error,
    /// The durable position when it happened.
    pub durable: Position,
}

/// Why an append or a flush did not happen.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A write or sync failed, now or earlier; the process must end and a fresh one recover.
    #[error(transparent)]
    Poisoned(#[from] Arc<Failure>),
    /// Not even the emergency reserve has room. Nothing was appended; the log goes on.
    #[error("no space left for a record of {bytes} bytes, the reserve is used up")]
    NoSpace {
        /// Size of the record that found no room.
        bytes: u64,
    },
    /// The record is larger than any segment can be.
    #[error("a record of {bytes} bytes is too large")]
    TooLarge {
        /// Size of the record.
        bytes: u64,
    },
    /// The log was closed in order.
    #[error("the log is closed")]
    Closed,
    /// The segment cannot be retired: unknown, not sealed, or the only copy of damaged bytes.
    #[error("segment {0} is kept: {1}")]
    Kept(SegmentId, &'static str),
}

/// Why a folder was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder.
    #[error("another process holds the data folder")]
    Locked,
    /// The folder was written by a newer version.
    #[error("{file} has format version {version}, this program knows up to {known}")]
    NewerFormat {
        /// Name of the file.
        file: String,
        /// Its format version.
        version: u16,
        /// The newest version this program reads.
        known: u16,
    },
    /// The folder cannot be read or written.
    #[error("cannot {action} {file}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Name of the file, or empty for the folder.
        file: String,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
    /// The first append after recovery failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a record could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes at this position are not the record that was written there.
    #[error("damaged record at {position}: {reason}")]
    Damaged {
        /// Where the record should be.
        position: Position,
        /// Length of the bad bytes where the header still tells, or 0.
        bytes: u32,
        /// Its kind where the header still tells.
        kind: Option<Kind>,
        /// What is wrong.
        reason: Damage,
    },
    /// The segment is not there (any more).
    #[error("no segment for {0}")]
    Absent(Position),
    /// The operating system failed to read.
    #[error("cannot read {position}: {error}")]
    Io {
        /// What was to be read.
        position: Position,
        /// The error of the operating system.
        error: Arc<io::Error>,
    },
}

/// What is wrong with a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No valid header where one must be.
    Header,
    /// The header is good, the body is not.
    Body,
    /// The header of the segment is bad; its records may still be good.
    SegmentHeader,
    /// The segment cannot be read at all.
    Unreadable,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Header => "bad header",
            Self::Body => "bad body",
            Self::SegmentHeader => "bad segment header",
            Self::Unreadable => "unreadable",
        })
    }
}
