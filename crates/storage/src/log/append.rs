//! Appending: a batch of records under one hold of the append lock.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Log;
use crate::error::LogError;
use crate::frame;
use crate::position::{Kind, Position};
use crate::segment::{FIRST, list_size};
use crate::spares::Trouble;
use crate::tail::Tail;

const BATCH_BYTES: u64 = frame::size(8);
const UNIT_END_BYTES: u64 = frame::size(16);
const BLOCK: u32 = 4096;

/// A batch being appended; holds the append lock until it is dropped.
#[derive(Debug)]
pub struct Appender<'a> {
    log: &'a Log,
    tail: MutexGuard<'a, Tail>,
    flags: u16,
    unit_records: u64,
    unit_start: Position,
    /// A record of the unit found no room: none of it may ever be shown.
    is_void: bool,
}

impl Log {
    /// Begins a batch. Waits while more than `pending_bytes_max` are not yet written, so it must
    /// not be called by the log thread.
    ///
    /// # Errors
    /// [`LogError::Poisoned`] after a failure, [`LogError::Closed`] after `close_in_order`.
    pub fn begin(&self) -> Result<Appender<'_>, LogError> {
        let mut tail = self.tail.lock();
        while self.pending_bytes() > self.options.pending_bytes_max && self.failure.get().is_none()
        {
            self.room.wait(&mut tail);
        }
        self.appender(tail)
    }

    fn appender<'a>(&'a self, tail: MutexGuard<'a, Tail>) -> Result<Appender<'a>, LogError> {
        self.check()?;
        if tail.closed {
            return Err(LogError::Closed);
        }
        let (flags, unit_records, unit_start) = (0, 0, Position::default());
        Ok(Appender { log: self, tail, flags, unit_records, unit_start, is_void: false })
    }

    /// Appends a record of the log's own, never waiting; returns its end.
    pub(super) fn internal(
        &self,
        kind: Kind,
        parts: &[&[u8]],
        twice: bool,
    ) -> Result<Position, LogError> {
        let mut appender = self.appender(self.tail.lock())?;
        let (_, end) =
            if twice { appender.put_twice(kind, parts)? } else { appender.put(kind, parts)? };
        Ok(end)
    }
}

impl Appender<'_> {
    /// Appends one record, the `parts` joined. Returns its start and end.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] or [`LogError::TooLarge`]: this record was not appended, the batch
    /// goes on, and recovery will show nothing of the unit it was to be in.
    /// [`LogError::Poisoned`] after a failure.
    ///
    /// # Panics
    /// If `kind` is one of the log's own.
    pub fn record(
        &mut self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<(Position, Position), LogError> {
        assert!(!kind.is_reserved(), "kinds below 16 belong to the log");
        self.put(kind, parts)
    }

    /// Appends one record twice, in different blocks of 4 KiB, so that damage to one copy loses
    /// nothing. Recovery shows it once. Returns the start of the first and the end of the second.
    ///
    /// # Errors
    /// As [`Appender::record`].
    ///
    /// # Panics
    /// If `kind` is one of the log's own.
    pub fn record_twice(
        &mut self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<(Position, Position), LogError> {
        assert!(!kind.is_reserved(), "kinds below 16 belong to the log");
        self.put_twice(kind, parts)
    }

    /// All records from here to the end of the batch are one unit: after a crash, recovery shows
    /// all of them or none. (Damage is no crash: a damaged record does not hide the others.)
    pub fn atomic(&mut self) {
        self.flags |= frame::IN_UNIT;
    }

    /// Where the next record will start at the earliest.
    #[must_use]
    pub fn end(&self) -> Position {
        self.tail.end().unwrap_or_default()
    }

    fn put(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(Position, Position), LogError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.make_room(frame::size(length as u64))?;
        Ok(self.put_here(kind, 0, length, parts))
    }

    fn put_here(
        &mut self,
        kind: Kind,
        flags: u16,
        length: usize,
        parts: &[&[u8]],
    ) -> (Position, Position) {
        let (start, end) = self.tail.put(kind, self.flags | flags, length, parts);
        if self.flags & frame::IN_UNIT != 0 {
            if self.unit_records == 0 {
                self.unit_start = start;
            }
            self.unit_records += 1;
        }
        (start, end)
    }

    pub(super) fn put_twice(
        &mut self,
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<(Position, Position), LogError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let size = frame::size(length as u64);
        self.make_room(size * 2 + u64::from(BLOCK) + 2 * frame::HEADER as u64)?;
        let (start, end) = self.put_here(kind, frame::FIRST_COPY, length, parts);
        let gap = end.offset().next_multiple_of(BLOCK) - end.offset();
        if gap > 0 {
            let header = frame::HEADER as u32;
            let gap = if gap < header { gap + BLOCK } else { gap };
            let zeros = [0; BLOCK as usize + frame::HEADER];
            let length = (gap - header) as usize;
            self.tail.put(Kind::PADDING, 0, length, &[&zeros[..length]]);
        }
        let (_, end) = self.put_here(kind, frame::SECOND_COPY, length, parts);
        Ok((start, end))
    }

    /// Makes sure that `bytes` fit into the current segment, beside the end of a unit and a
    /// footer; begins a batch where none is open.
    fn make_room(&mut self, bytes: u64) -> Result<(), LogError> {
        let room = self.find_room(bytes);
        self.is_void |= room.is_err() && self.flags & frame::IN_UNIT != 0;
        room
    }

    fn find_room(&mut self, bytes: u64) -> Result<(), LogError> {
        self.log.check()?;
        let own = bytes + BATCH_BYTES + UNIT_END_BYTES;
        let footer = list_size(self.tail.sealed_count + 1);
        let fits = self.tail.segment.is_some_and(|segment| {
            u64::from(segment.end) + own + footer <= u64::from(segment.capacity)
        });
        if !fits {
            // One more segment is sealed when the new one is, so its own footer is longer.
            self.roll(own + list_size(self.tail.sealed_count + 2), bytes)?;
        }
        if !self.tail.batch_open {
            let durable = self.log.durable().0.to_le_bytes();
            self.tail.put(Kind::BATCH, 0, 8, &[&durable]);
            self.tail.batch_open = true;
        }
        Ok(())
    }

    fn roll(&mut self, room: u64, bytes: u64) -> Result<(), LogError> {
        let capacity =
            u32::try_from(room + u64::from(FIRST)).map_err(|_| LogError::TooLarge { bytes })?;
        let next = self.log.spares.take(capacity).map_err(|trouble| match trouble {
            Trouble::Full => LogError::NoSpace { bytes },
            failed => self.log.poison_by(failed),
        })?;
        if let Some(current) = self.tail.segment {
            self.log.table.seal(current.id, current.end, 0 < self.unit_records);
            let list = self.log.table.list(0, next.id).encode();
            self.tail.put(Kind::FOOTER, 0, list.len(), &[&list]);
        }
        self.log.table.add(next);
        self.tail.segment = Some(next);
        self.tail.sealed_count = self.log.table.sealed_count();
        self.tail.batch_open = false;
        Ok(())
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        if self.unit_records > 0 {
            let count = if self.is_void { 0 } else { self.unit_records }.to_le_bytes();
            let start = self.unit_start.0.to_le_bytes();
            // `make_room` left room for this.
            self.tail.put(Kind::UNIT_END, 0, 16, &[&count, &start]);
        }
        let Some(end) = self.tail.end() else { return };
        let bytes = self.tail.pending_bytes();
        self.log.end.store(end.0, Ordering::Release);
        self.log.pending.store(bytes, Ordering::Release);
        if self.log.failure.get().is_some() {
            self.log.room.notify_all();
        }
    }
}
