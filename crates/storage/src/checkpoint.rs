//! Checkpoints: what the segments before a certain one amount to, so that a start need not read
//! them. The storage knows the frame of the file; what its parts say is the caller's.
//!
//! A checkpoint is written to a name of its own, synced, and then renamed over the older one of
//! two, so the newer one is never touched. It only saves time: without one, or with one that does
//! not fit the log, a start reads the whole log.

use std::io;
use std::sync::Arc;

use stdx::seeded::{Seeded, is_sown};

use crate::disk::{Disk, DiskFile};
use crate::frame;
use crate::position::{Kind, Position, SegmentId};
use crate::segment::{CHECKPOINT_SCRATCH, CHECKPOINTS, List, Listed};

const VERSION: u64 = 1;
/// A part is never larger; a length that says so is damage.
const PART_BYTES_MAX: usize = 64 << 20;
/// Retired segments that a checkpoint still names: those whose files may not be gone, and those
/// that the older manifest may still list.
const RETIRED_MAX: usize = 1024;
const HEAD_BYTES: usize = 32;

/// Why a checkpoint cannot be read or written. The log is not concerned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system said no.
    #[error("checkpoint {file}: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// The names of the folder could not be synced, those of the log among them: the log is
    /// poisoned.
    #[error("the folder cannot be synced: {0}")]
    Folder(io::Error),
    /// Its bytes are not what was written.
    #[error("checkpoint {file} is damaged at byte {offset}")]
    Damaged {
        /// Which file.
        file: String,
        /// Where.
        offset: u64,
    },
    /// A program that is newer wrote it.
    #[error("checkpoint {file} is of a newer version")]
    Newer {
        /// Which file.
        file: String,
    },
}

fn io_error(file: &str) -> impl FnOnce(io::Error) -> CheckpointError {
    move |error| CheckpointError::Io { file: file.to_owned(), error }
}

/// What the storage itself must know of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The higher one of two is the newer.
    pub(crate) sequence: u64,
    /// It stands for all segments with a lower number.
    pub(crate) before: SegmentId,
    /// Records that those segments showed.
    pub(crate) records: u64,
    /// Those segments that were there when it was written.
    pub(crate) segments: Vec<Listed>,
    /// Segments whose retirement those segments tell of, the latest last.
    pub(crate) retired: Vec<SegmentId>,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let retired = &self.retired[self.retired.len().saturating_sub(RETIRED_MAX)..];
        let mut bytes = Vec::new();
        for number in [VERSION, self.sequence, self.records, retired.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for id in retired {
            bytes.extend_from_slice(&id.0.to_le_bytes());
        }
        let sealed = self.segments.clone();
        bytes.extend(List { sequence: self.sequence, active: self.before, sealed }.encode());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let retired_end = usize::try_from(word(bytes, 24)?).ok()?.checked_mul(4)? + HEAD_BYTES;
        let retired = bytes.get(HEAD_BYTES..retired_end)?.chunks_exact(4);
        let number = |it: &[u8]| SegmentId(u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
        let list = List::decode(bytes.get(retired_end..)?)?;
        Some(Self {
            sequence: word(bytes, 8)?,
            before: list.active,
            records: word(bytes, 16)?,
            segments: list.sealed,
            retired: retired.map(number).collect(),
        })
    }
}

/// Reads a checkpoint part by part; each is checked before anybody sees it.
pub struct CheckpointReader {
    name: String,
    file: Arc<dyn DiskFile>,
    salt: u32,
    offset: u64,
    parts: u64,
    head: Head,
    at_end: bool,
}

impl CheckpointReader {
    /// Opens the file and reads its head. `None`: there is no such file.
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Option<Self>, CheckpointError> {
        let file = match disk.open(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(name)(error)),
        };
        let mut salt = [0; 4];
        file.read_at(&mut salt, 12).map_err(io_error(name))?;
        let mut reader = Self {
            name: name.to_owned(),
            file,
            salt: u32::from_le_bytes(salt),
            offset: 0,
            parts: 0,
            head: Head::default(),
            at_end: false,
        };
        let (kind, payload) = reader.record()?;
        let is_newer = word(&payload, 0).is_some_and(|it| VERSION < it);
        if kind == Kind::CHECKPOINT && is_newer {
            return Err(CheckpointError::Newer { file: name.to_owned() });
        }
        match Head::decode(&payload).filter(|_| kind == Kind::CHECKPOINT) {
            Some(head) => reader.head = head,
            None => return Err(CheckpointError::Damaged { file: name.to_owned(), offset: 0 }),
        }
        Ok(Some(reader))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The next part; `None` at the end, when all of the file was good.
    ///
    /// # Errors
    /// [`CheckpointError`]: nothing of this checkpoint may be used.
    pub fn part(&mut self) -> Result<Option<Vec<u8>>, CheckpointError> {
        if self.at_end {
            return Ok(None);
        }
        let at = self.offset;
        let (kind, payload) = self.record()?;
        match kind {
            Kind::CHECKPOINT_PART => {
                self.parts += 1;
                Ok(Some(payload))
            }
            Kind::CHECKPOINT_END if word(&payload, 0) == Some(self.parts) => {
                self.at_end = true;
                Ok(None)
            }
            _ => Err(self.damaged(at)),
        }
    }

    fn damaged(&self, offset: u64) -> CheckpointError {
        CheckpointError::Damaged { file: self.name.clone(), offset }
    }

    fn record(&mut self) -> Result<(Kind, Vec<u8>), CheckpointError> {
        let at = self.offset;
        let mut head = [0; frame::HEADER];
        let count = self.file.read_at(&mut head, at).map_err(io_error(&self.name))?;
        let header = frame::decode(&head[..count]).ok_or_else(|| self.damaged(at))?;
        let is_here = header.position == Position(at) && header.salt == self.salt;
        let length = header.length as usize;
        if !is_here || header.version > frame::VERSION || PART_BYTES_MAX < length {
            return Err(self.damaged(at));
        }
        let mut body = vec![0; (header.size() - frame::HEADER as u64) as usize];
        let from = at + frame::HEADER as u64;
        let count = self.file.read_at(&mut body, from).map_err(io_error(&self.name))?;
        let fits = header.fits(&body) || is_sown(Seeded::CheckpointUnchecked);
        if count < body.len() || !fits {
            return Err(self.damaged(at));
        }
        body.truncate(length);
        self.offset = at + header.size();
        Ok((header.kind, body))
    }
}

/// A whole checkpoint, checked to its end.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) name: &'static str,
    pub(crate) head: Head,
    pub(crate) bytes: u64,
    /// What the caller put in, in order.
    pub parts: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// It stands for all segments with a lower number than this.
    pub fn before(&self) -> SegmentId {
        self.head.before
    }
}

/// The checkpoints of a folder.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub(crate) newest: Option<Checkpoint>,
    /// What was wrong with others.
    pub(crate) faults: Vec<String>,
    /// The highest number that any of them names: no new segment may have it.
    pub(crate) before_max: SegmentId,
    pub(crate) sequence_max: u64,
}

/// Reads the newest good checkpoint.
pub(crate) fn load(disk: &dyn Disk) -> Checkpoints {
    let mut found = Checkpoints::default();
    let mut readers = Vec::new();
    for name in CHECKPOINTS {
        match CheckpointReader::open(disk, name) {
            Ok(Some(reader)) => {
                found.before_max = found.before_max.max(reader.head.before);
                found.sequence_max = found.sequence_max.max(reader.head.sequence);
                readers.push((name, reader));
            }
            Ok(None) => {}
            Err(error) => found.faults.push(error.to_string()),
        }
    }
    readers.sort_unstable_by_key(|(_, reader)| std::cmp::Reverse(reader.head.sequence));
    for (name, mut reader) in readers {
        match read_all(&mut reader) {
            Ok(parts) => {
                let (head, bytes) = (reader.head, reader.offset);
                found.newest = Some(Checkpoint { name, head, bytes, parts });
                break;
            }
            Err(error) => found.faults.push(error.to_string()),
        }
    }
    found
}

fn read_all(reader: &mut CheckpointReader) -> Result<Vec<Vec<u8>>, CheckpointError> {
    let mut parts = Vec::new();
    while let Some(part) = reader.part()? {
        parts.push(part);
    }
    Ok(parts)
}

/// A checkpoint being written. Dropped before [`Writer::finish`], it never was.
pub(crate) struct Writer<'d> {
    disk: &'d dyn Disk,
    file: Arc<dyn DiskFile>,
    salt: u32,
    pending: Vec<u8>,
    written: u64,
    parts: u64,
    sequence: u64,
}

/// What is written at a time.
const WRITE_BYTES: usize = 1 << 20;

impl<'d> Writer<'d> {
    pub(crate) fn begin(disk: &'d dyn Disk, head: &Head) -> Result<Self, CheckpointError> {
        // Of an attempt that did not come to its end.
        let _ = disk.remove(CHECKPOINT_SCRATCH);
        let file = disk.create(CHECKPOINT_SCRATCH).map_err(io_error(CHECKPOINT_SCRATCH))?;
        let salt = disk.random().map_err(io_error(CHECKPOINT_SCRATCH))? as u32;
        let (pending, written, parts, sequence) = (Vec::new(), 0, 0, head.sequence);
        let mut writer = Self { disk, file, salt, pending, written, parts, sequence };
        writer.record(Kind::CHECKPOINT, &head.encode())?;
        Ok(writer)
    }

    pub(crate) fn part(&mut self, payload: &[u8]) -> Result<(), CheckpointError> {
        assert!(payload.len() <= PART_BYTES_MAX, "parts are small");
        self.parts += 1;
        self.record(Kind::CHECKPOINT_PART, payload)
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> Result<(), CheckpointError> {
        let position = Position(self.written + self.pending.len() as u64);
        frame::append(&mut self.pending, kind, 0, self.salt, position, &[payload]);
        if self.pending.len() < WRITE_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), CheckpointError> {
        self.file.write_at(&self.pending, self.written).map_err(io_error(CHECKPOINT_SCRATCH))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// From here on the checkpoint counts. Returns its name and its size.
    pub(crate) fn finish(mut self) -> Result<(&'static str, u64), CheckpointError> {
        let parts = self.parts.to_le_bytes();
        self.record(Kind::CHECKPOINT_END, &parts)?;
        self.write()?;
        if !is_sown(Seeded::CheckpointBeforeSync) {
            self.file.sync_data().map_err(io_error(CHECKPOINT_SCRATCH))?;
        }
        let name = CHECKPOINTS[(self.sequence % 2) as usize];
        self.disk.rename(CHECKPOINT_SCRATCH, name).map_err(io_error(name))?;
        self.disk.sync_dir("").map_err(CheckpointError::Folder)?;
        Ok((name, self.written))
    }
}

/// Takes back what an attempt left that did not come to its end.
pub(crate) fn give_up(disk: &dyn Disk) {
    let _ = disk.remove(CHECKPOINT_SCRATCH);
}
