//! Makes checkpoints: what the complete segments of the log amount to, so that a start reads the
//! rest only. They are made from the log and from the checkpoint before, by the code that recovers,
//! and never from queues at work: nobody is held up, and a checkpoint cannot say what the log does
//! not.

use crate::{
    restore::{PART_RUNS, Restorer},
    runs::{Run, RunWriter},
};
use model::LogPosition;
use std::{collections::BTreeSet, sync::Arc};
use storage::{
    CheckpointError, CheckpointReader, Disk, Log, LogOptions, NewCheckpoint, OpenError, ReadError,
    Recovery, Replay, SegmentId, Step,
};

/// A new checkpoint is worth its while when the log has grown by so many times the size of the last
/// one.
const GROWTH: u64 = 8;
/// Nor is less than this worth one while the log grows: much of it will be gone before long.
const GROWTH_BYTES_MIN: u64 = 256 << 20;
/// A log that has not grown at so many looks rests.
const LOOKS_AT_REST: u32 = 4;
/// Messages that came or went which one checkpoint takes in at most, beyond its first segment: a
/// bound of its memory.
const MESSAGES_MAX: usize = 200_000;
/// Octets of a part.
const PART_BYTES: usize = 256 * 1024;

/// Opens a log and takes in what it says, from its newest checkpoint on; all of it if `thorough`.
/// `begun` sees what a checkpoint has told before the rest of the log is read; without one, what
/// the whole log has told.
///
/// # Errors
/// [`OpenError`]
pub fn recover(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    thorough: bool,
    begun: &dyn Fn(&Restorer),
) -> Result<(Log, Recovery, Restorer), OpenError> {
    let mut opening = Log::begin_open(disk, options)?;
    if thorough {
        opening.ignore_checkpoint(None);
    }
    let mut restorer = Restorer::new();
    if let Some(checkpoint) = opening.checkpoint() {
        match Restorer::begin(checkpoint.before().0, &checkpoint.parts) {
            Ok(from_checkpoint) => restorer = from_checkpoint,
            Err(why) => opening.ignore_checkpoint(Some(why)),
        }
    }
    let has_begun = opening.checkpoint().is_some();
    if has_begun {
        begun(&restorer);
    }
    let (log, recovery) = opening.finish(&mut |it| {
        let (position, end) = (LogPosition(it.position.0), LogPosition(it.end.0));
        restorer.record(position, end, it.kind.0, it.payload);
    })?;
    if !has_begun {
        begun(&restorer);
    }
    Ok((log, recovery, restorer))
}

/// What a look has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpointed {
    /// There was nothing to do.
    Nothing,
    /// A checkpoint was written; there may be more to do.
    Written,
    /// A segment that the last start did not read has been looked through. Lines about what is
    /// damaged in it.
    Verified(Vec<String>),
}

/// Makes the checkpoints of one log, on a thread of its own.
pub struct Checkpointer {
    log: Arc<Log>,
    /// Complete bytes at the last look, and at how many looks they were the same.
    seen: (u64, u32),
    /// Segments that the start did not read and nobody has looked through since.
    unread: Vec<SegmentId>,
    /// Nothing is tried while the log does not grow: the last attempt was of no avail.
    tried: Option<u64>,
}

impl Checkpointer {
    /// For a log that has just been opened.
    pub fn new(log: Arc<Log>) -> Self {
        let before = log.checkpointed();
        let mut unread: Vec<_> =
            log.segments().iter().map(|it| it.id).filter(|it| *it < before).collect();
        unread.reverse();
        Self { log, seen: (0, 0), unread, tried: None }
    }

    /// One look at the log: writes a checkpoint if it is time for one, else looks through one
    /// segment that the start has not read. It contents itself with less while `is_hurried`.
    ///
    /// # Errors
    /// What is wrong with the checkpoint. The log is not concerned, and the checkpoint before
    /// counts.
    pub fn look(&mut self, is_hurried: &dyn Fn() -> bool) -> Result<Checkpointed, String> {
        self.log.release_removed();
        let (size, unchecked) = self.log.unchecked();
        self.seen =
            if self.seen.0 == unchecked { (unchecked, self.seen.1 + 1) } else { (unchecked, 0) };
        let is_due =
            GROWTH_BYTES_MIN.max(GROWTH * size) <= unchecked || LOOKS_AT_REST <= self.seen.1;
        let has_news = 0 < unchecked && self.tried != Some(unchecked);
        if has_news && is_due && self.log.has_room_for_checkpoint() {
            self.tried = Some(unchecked);
            if self.write(is_hurried)? {
                self.tried = None;
                return Ok(Checkpointed::Written);
            }
        }
        Ok(self.verify_next())
    }

    fn verify_next(&mut self) -> Checkpointed {
        let Some(segment) = self.unread.pop() else { return Checkpointed::Nothing };
        let lines = match self.log.verify(segment) {
            Ok(damaged) => {
                let line = |it: storage::recovery::Quarantined| {
                    let (offset, bytes, reason) = (it.offset, it.bytes, it.reason);
                    let place = format!("segment {segment}, offset {offset}, {bytes} bytes");
                    format!("damaged bytes quarantined: {place}: {reason}")
                };
                damaged.into_iter().map(line).collect()
            }
            // It was retired meanwhile.
            Err(ReadError::Absent(_)) => Vec::new(),
            Err(error) => vec![format!("segment {segment} cannot be read: {error}")],
        };
        Checkpointed::Verified(lines)
    }

    /// Writes what a start would otherwise read from the complete segments, before a log that has
    /// been closed in order is left: unless the checkpoint itself is as much to read.
    ///
    /// # Errors
    /// As [`Checkpointer::look`].
    pub fn write_last(&mut self) -> Result<(), String> {
        loop {
            let (size, unchecked) = self.log.unchecked();
            let is_worth_it = 0 < unchecked && size <= unchecked;
            if !is_worth_it || !self.log.has_room_for_checkpoint() || !self.write(&|| false)? {
                return Ok(());
            }
        }
    }

    /// Writes a checkpoint, unless there is no place in the log where it could end.
    ///
    /// # Errors
    /// As [`Checkpointer::look`].
    pub fn write(&mut self, is_hurried: &dyn Fn() -> bool) -> Result<bool, String> {
        self.try_write(is_hurried).map_err(|error| {
            if let Trouble::Unusable(_) = error {
                // The next attempt builds on the log alone.
                self.log.forget_checkpoint();
            }
            error.to_string()
        })
    }

    fn try_write(&self, is_hurried: &dyn Fn() -> bool) -> Result<bool, Trouble> {
        let mut reader = self.log.read_checkpoint().map_err(unusable)?;
        let before = if reader.is_some() { self.log.checkpointed() } else { SegmentId(0) };
        if reader.is_none() {
            self.log.forget_checkpoint();
        }
        let mut restorer = Restorer::on_base(before.0);
        let mut part = None;
        if let Some(reader) = &mut reader {
            part = reader.part().map_err(unusable)?;
            while let Some(octets) = part.take_if(|it| it.first() != Some(&PART_RUNS)) {
                restorer.base_part(&octets).map_err(Trouble::Unusable)?;
                part = reader.part().map_err(unusable)?;
            }
        }
        let replay = self.log.replay(&mut |step| match step {
            Step::Record(it) => {
                let (position, end) = (LogPosition(it.position.0), LogPosition(it.end.0));
                restorer.record(position, end, it.kind.0, it.payload);
                false
            }
            Step::Boundary { is_last } => {
                let is_enough = is_last || MESSAGES_MAX <= restorer.taken() || is_hurried();
                restorer.is_settled() && is_enough
            }
        })?;
        let Some(replay) = replay else { return Ok(false) };
        self.write_behind(replay, restorer, reader, part)
    }

    /// Writes what the replay has come to: the messages of the checkpoint before that are still
    /// there, then those that came since.
    fn write_behind(
        &self,
        replay: Replay,
        mut restorer: Restorer,
        mut reader: Option<CheckpointReader>,
        mut part: Option<Vec<u8>>,
    ) -> Result<bool, Trouble> {
        let Some(mut new) = self.log.begin_checkpoint(replay)? else { return Ok(false) };
        let exists: BTreeSet<u32> = new.segments().map(|it| it.0).collect();
        for octets in restorer.save(&|it| exists.contains(&it)) {
            new.part(&octets)?;
        }
        restorer.settle(exists);
        let mut writer = RunWriter::default();
        while let (Some(octets), Some(reader)) = (part, &mut reader) {
            let (kind, mut rest) = octets.split_first().unwrap_or((&PART_RUNS, &[]));
            if *kind != PART_RUNS {
                return Err(Trouble::Unusable("its parts are in disorder".to_owned()));
            }
            while !rest.is_empty() {
                let (run, more) = Run::read(rest).map_err(unusable)?;
                if restorer.is_untouched(&run) {
                    writer.put_run(&run);
                } else {
                    for kept in restorer.remaining(run) {
                        writer.put(run.queue, &kept.map_err(unusable)?);
                    }
                }
                flush(&mut writer, &mut new, PART_BYTES)?;
                rest = more;
            }
            part = reader.part().map_err(unusable)?;
        }
        for (queue, kept) in restorer.later() {
            if new.has_segment(SegmentId(kept.position.segment())) {
                writer.put(queue, &kept);
                flush(&mut writer, &mut new, PART_BYTES)?;
            }
        }
        flush(&mut writer, &mut new, 0)?;
        new.finish()?;
        Ok(true)
    }
}

fn flush(
    writer: &mut RunWriter,
    new: &mut NewCheckpoint<'_>,
    bytes_min: usize,
) -> Result<(), CheckpointError> {
    if writer.len() < bytes_min {
        return Ok(());
    }
    let runs = writer.take();
    if runs.is_empty() {
        return Ok(());
    }
    let mut part = Vec::with_capacity(1 + runs.len());
    part.push(PART_RUNS);
    part.extend_from_slice(&runs);
    new.part(&part)
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    New(#[from] CheckpointError),
    #[error("segments cannot be read for a checkpoint: {0}")]
    Read(#[from] ReadError),
    #[error("the checkpoint before cannot be used: {0}")]
    Unusable(String),
}

fn unusable(error: impl std::fmt::Display) -> Trouble {
    Trouble::Unusable(error.to_string())
}
