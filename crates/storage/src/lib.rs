//! One ordered, checksummed, segmented log per data folder: opaque records, bytes and positions.
//!
//! The `mod` lines are the reading order; a module uses only modules above it. What the bytes on
//! disk look like is drawn in `docs/disk-format.md`.

pub mod position;
pub mod disk;
pub mod error;
mod frame;
mod segment;
pub mod recovery;
mod scan;
mod stream;
mod inventory;
mod checkpoint;
mod recover;
pub mod options;
mod table;
mod manifest;
mod spares;
mod tail;
mod read;
pub mod log;
pub mod spill;

pub use checkpoint::{Checkpoint, CheckpointError, CheckpointReader};
pub use disk::{Disk, DiskFile, DiskLock, Fault, FaultKind, MemoryDisk, RealDisk};
pub use error::{Damage, Failure, LogError, OpenError, ReadError};
pub use log::{Appender, Log, NewCheckpoint, Opening, Replay, Step};
pub use options::{LogOptions, Space};
pub use position::{Kind, OwnedRecord, Position, Record, SegmentId};
pub use recovery::{Missing, Quarantined, Recovery};
pub use spill::{empty_spill, open_spill};
pub use table::SegmentInfo;
