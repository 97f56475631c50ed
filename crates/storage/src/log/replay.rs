//! Sealed segments again: for reclaim, for the next checkpoint, and to see whether they are whole.

use std::sync::Arc;

use super::Log;
use crate::checkpoint::{CheckpointError, CheckpointReader, Checkpoints, Head, Writer, give_up};
use crate::error::ReadError;
use crate::inventory::{Found, read_segment};
use crate::options::Space;
use crate::position::{Position, Record, SegmentId};
use crate::recovery::Quarantined;
use crate::scan::{Image, Scanner, Unit};
use crate::segment::{FIRST, Segment, SegmentHeader};
use crate::stream::{Streamed, stream};

/// Room that a checkpoint leaves, in segments.
const SPARED: u64 = 4;

/// The newest checkpoint on the disk.
#[derive(Debug, Default)]
pub(super) struct Known {
    name: Option<&'static str>,
    head: Head,
    bytes: u64,
    sequence_max: u64,
}

impl Known {
    pub(super) fn new(found: &Checkpoints) -> Self {
        let sequence_max = found.sequence_max;
        match &found.newest {
            Some(it) => {
                let (name, head, bytes) = (Some(it.name), it.head.clone(), it.bytes);
                Self { name, head, bytes, sequence_max }
            }
            None => Self { sequence_max, ..Self::default() },
        }
    }
}

/// What a replay shows.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next record.
    Record(Record<'a>),
    /// A segment has been shown to its end, and no unit is open: a checkpoint may end here. The
    /// answer `true` ends the replay.
    Boundary {
        /// No complete segment follows.
        is_last: bool,
    },
}

/// How far a replay came.
#[derive(Debug)]
pub struct Replay {
    head: Head,
}

/// What a sealed segment showed.
struct Shown {
    unit: Unit,
    records: u64,
    retired: Vec<SegmentId>,
    damaged: Vec<Quarantined>,
    /// Its end is missing.
    is_cut: bool,
}

impl Log {
    /// Shows all good records of a sealed segment, for reclaim. Records of a unit that a crash cut
    /// are shown as well; nothing that recovery showed refers to them. Damaged bytes are passed
    /// over; the next [`Log::prepare`] copies them to quarantine, and until then the segment is
    /// kept.
    ///
    /// # Errors
    /// [`ReadError`] where the segment is absent or cannot be read.
    pub fn scan(&self, id: SegmentId, visit: &mut dyn FnMut(Record<'_>)) -> Result<(), ReadError> {
        let at = Position::new(id, FIRST);
        let segment = self.table.get(id).ok_or(ReadError::Absent(at))?;
        let shown = self.show(segment, None, visit)?;
        self.suspect(id, shown.damaged);
        Ok(())
    }

    /// Reads a sealed segment and tells what of it is damaged. Damaged bytes are treated as those
    /// that [`Log::scan`] meets.
    ///
    /// # Errors
    /// As [`Log::scan`].
    pub fn verify(&self, id: SegmentId) -> Result<Vec<Quarantined>, ReadError> {
        let at = Position::new(id, FIRST);
        let segment = self.table.get(id).ok_or(ReadError::Absent(at))?;
        let shown = self.show(segment, None, &mut |_| {})?;
        self.suspect(id, shown.damaged.clone());
        Ok(shown.damaged)
    }

    fn suspect(&self, id: SegmentId, damaged: Vec<Quarantined>) {
        if !damaged.is_empty() && self.table.get(id).is_some() {
            self.table.keep(id, true);
            self.suspects.lock().extend(damaged);
        }
    }

    /// Shows the records of one segment. `unit`: what the segments before it left open; `None`
    /// shows records of units as they come.
    fn show(
        &self,
        segment: Segment,
        unit: Option<Unit>,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<Shown, ReadError> {
        let id = segment.id;
        let at = Position::new(id, FIRST);
        let io_error = |error| ReadError::Io { position: at, error: Arc::new(error) };
        let mut scanner = Scanner::new(visit);
        match unit {
            Some(unit) => scanner.unit = unit,
            None => scanner.units_are_shown(),
        }
        let mut is_known = true;
        let file = self.table.file(id).map_err(io_error)?;
        if let Streamed::Until(from) = stream(&*file, id, segment.salt, &mut scanner) {
            let (header, file_bytes) = (SegmentHeader::Bad, u64::from(segment.capacity));
            let found = Found { id, file_bytes, header, begun: true };
            let mut image = Vec::new();
            read_segment(&*self.disk, &found, false, &mut image).map_err(io_error)?;
            let image = Image {
                id,
                salt: segment.salt,
                bytes: &image,
                sealed: true,
                recycled: segment.recycled,
                known_end: Some(segment.end),
            };
            // A record of a newer version would have kept the folder from being opened, if a start
            // had read it.
            is_known = scanner.scan_from(&image, from as usize).is_ok();
        }
        Ok(Shown {
            unit: std::mem::take(&mut scanner.unit),
            records: scanner.recovery.records,
            retired: scanner.retired.into_iter().collect(),
            is_cut: !is_known || !scanner.recovery.missing.is_empty(),
            damaged: scanner.recovery.quarantined,
        })
    }

    /// The segments that the newest checkpoint stands for end before this one.
    pub fn checkpointed(&self) -> SegmentId {
        self.checkpoint.lock().head.before
    }

    /// Size of the newest checkpoint, and of the complete segments that it does not stand for.
    pub fn unchecked(&self) -> (u64, u64) {
        let (before, bytes) = {
            let known = self.checkpoint.lock();
            (known.head.before, known.bytes)
        };
        let sealed = self.sealed_from(before);
        (bytes, sealed.iter().map(|segment| u64::from(segment.end)).sum())
    }

    /// Durable to their last byte, from `from` on.
    fn sealed_from(&self, from: SegmentId) -> Vec<Segment> {
        let current = self.durable().segment();
        let infos = self.table.infos();
        let ids = infos.iter().filter(|it| it.sealed && from <= it.id && it.id < current);
        ids.filter_map(|it| self.table.get(it.id)).collect()
    }

    /// The newest checkpoint, to be built upon. `None`: there is none.
    ///
    /// # Errors
    /// [`CheckpointError`]: it cannot be read any more.
    pub fn read_checkpoint(&self) -> Result<Option<CheckpointReader>, CheckpointError> {
        let (name, head) = {
            let known = self.checkpoint.lock();
            (known.name, known.head.clone())
        };
        let Some(name) = name else { return Ok(None) };
        let reader = CheckpointReader::open(&*self.disk, name)?;
        Ok(reader.filter(|it| *it.head() == head))
    }

    /// The checkpoint on the disk is of no use: the next one is built from the log alone.
    pub fn forget_checkpoint(&self) {
        let mut known = self.checkpoint.lock();
        let sequence_max = known.sequence_max.max(known.head.sequence);
        *known = Known { sequence_max, ..Known::default() };
    }

    /// Shows what the complete segments say that the newest checkpoint does not stand for, until
    /// `visit` ends it. `None`: the segments have no boundary where a checkpoint may end, or none
    /// that `visit` wanted, or are damaged; a checkpoint never stands for damaged segments.
    ///
    /// # Errors
    /// [`ReadError`] where a segment cannot be read.
    pub fn replay(
        &self,
        visit: &mut dyn FnMut(Step<'_>) -> bool,
    ) -> Result<Option<Replay>, ReadError> {
        let mut head = self.checkpoint.lock().head.clone();
        let mut unit = Unit::default();
        let mut segments = self.sealed_from(head.before).into_iter().peekable();
        while let Some(segment) = segments.next() {
            // It was retired while those before it were read: nothing in it counts.
            if self.table.get(segment.id).is_none() {
                continue;
            }
            let shown = self.show(segment, Some(std::mem::take(&mut unit)), &mut |record| {
                visit(Step::Record(record));
            })?;
            let is_whole = !shown.is_cut && shown.damaged.is_empty() && !segment.kept;
            self.suspect(segment.id, shown.damaged);
            if !is_whole {
                return Ok(None);
            }
            unit = shown.unit;
            head.records += shown.records;
            head.retired.retain(|id| !shown.retired.contains(id));
            head.retired.extend(shown.retired);
            let is_last = segments.peek().is_none();
            if !unit.is_open() && visit(Step::Boundary { is_last }) {
                head.before = SegmentId(segment.id.0 + 1);
                return Ok(Some(Replay { head }));
            }
        }
        Ok(None)
    }

    /// Is there room for a checkpoint, with which no segment would be short of any? A log that does
    /// not sync has none, because nothing in it is surely there.
    pub fn has_room_for_checkpoint(&self) -> bool {
        if !self.options.sync || self.space() == Space::Low {
            return false;
        }
        // What comes is not much larger than twice what is there.
        let needed = 2 * self.checkpoint.lock().bytes + SPARED * self.spares.segment_bytes();
        self.disk.free_bytes().is_ok_and(|free| needed <= free)
    }

    /// Begins the checkpoint that ends where the replay did. `None`: there is no room on the disk
    /// to be given to it.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn begin_checkpoint(
        &self,
        replay: Replay,
    ) -> Result<Option<NewCheckpoint<'_>>, CheckpointError> {
        if !self.has_room_for_checkpoint() {
            return Ok(None);
        }
        let mut head = replay.head;
        let sequence_max = {
            let known = self.checkpoint.lock();
            known.sequence_max.max(known.head.sequence)
        };
        head.sequence = sequence_max + 1;
        let infos = self.table.infos();
        let ids = infos.iter().filter(|it| it.sealed && it.id < head.before);
        let segments = ids.filter_map(|it| self.table.get(it.id));
        head.segments = segments.map(|it| it.listed()).collect();
        let writer = Writer::begin(&*self.disk, &head)?;
        Ok(Some(NewCheckpoint { log: self, head, writer: Some(writer) }))
    }
}

/// A checkpoint being written. Dropped before it is finished, it never was.
pub struct NewCheckpoint<'l> {
    log: &'l Log,
    head: Head,
    writer: Option<Writer<'l>>,
}

impl NewCheckpoint<'_> {
    /// Does the segment still exist? What lies in others is not to be written down.
    pub fn has_segment(&self, id: SegmentId) -> bool {
        self.head.segments.binary_search_by_key(&id, |it| it.id).is_ok()
    }

    /// The segments that it stands for and that still exist.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.head.segments.iter().map(|it| it.id)
    }

    /// Adds a part.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn part(&mut self, payload: &[u8]) -> Result<(), CheckpointError> {
        match &mut self.writer {
            Some(writer) => writer.part(payload),
            None => Ok(()),
        }
    }

    /// From here on the checkpoint counts.
    ///
    /// # Errors
    /// [`CheckpointError`]: the one before it counts.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let finished = writer.finish();
        let mut known = self.log.checkpoint.lock();
        known.sequence_max = self.head.sequence;
        match finished {
            Ok((name, bytes)) => {
                let head = std::mem::take(&mut self.head);
                *known = Known { name: Some(name), sequence_max: head.sequence, head, bytes };
                Ok(())
            }
            Err(CheckpointError::Folder(error)) => {
                // This sync may have been told of a name that another one waits for.
                let copy = std::io::Error::new(error.kind(), error.to_string());
                self.log.poison("sync", "the folder", 0, copy);
                self.log.wake_appenders();
                Err(CheckpointError::Folder(error))
            }
            Err(error) => {
                give_up(&*self.log.disk);
                Err(error)
            }
        }
    }
}

impl Drop for NewCheckpoint<'_> {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            give_up(&*self.log.disk);
        }
    }
}
