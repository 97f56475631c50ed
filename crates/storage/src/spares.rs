//! Empty segments prepared ahead: their blocks are reserved and filled before a record needs them,
//! so a full disk meets a preparation and never a record.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, is_full};
use crate::options::Space;
use crate::position::SegmentId;
use crate::segment::{FIRST, Segment, encode_header, scratch_name, segment_name};

const ZEROS: [u8; 1 << 16] = [0; 1 << 16];

struct Filling {
    name: String,
    file: Arc<dyn DiskFile>,
    filled: u32,
}

struct Work {
    filling: Option<Filling>,
    /// Number of the next segment to be made.
    next: u32,
}

/// The queue of prepared segments and the one being prepared.
///
/// Lock order: an appender may hold the append lock when it takes `work`; whoever holds `work`
/// takes only `queue`.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    queue: Mutex<VecDeque<Segment>>,
    work: Mutex<Work>,
    low: AtomicBool,
    segment_bytes: u32,
    step_bytes: u32,
    reserve: usize,
    sync: bool,
}

impl Spares {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        ready: Vec<Segment>,
        next: u32,
        segment_bytes: u32,
        options: &crate::options::LogOptions,
    ) -> Self {
        Self {
            disk,
            queue: Mutex::new(ready.into()),
            work: Mutex::new(Work { filling: None, next }),
            low: AtomicBool::new(false),
            segment_bytes,
            step_bytes: options.prepare_bytes.max(4096),
            reserve: options.reserve_segments,
            sync: options.sync,
        }
    }

    pub(crate) fn space(&self) -> Space {
        if self.low.load(Ordering::Acquire) { Space::Low } else { Space::Plenty }
    }

    /// Does the queue want another segment?
    pub(crate) fn wants_more(&self) -> bool {
        self.queue.lock().len() <= self.reserve
    }

    /// Takes the next segment, with room for `bytes` bytes. Slow only where none is ready or none
    /// is large enough.
    pub(crate) fn take(&self, bytes: u32) -> io::Result<Segment> {
        let ready = self.queue.lock().pop_front();
        let segment = match ready {
            Some(segment) => segment,
            None => self.make()?,
        };
        if segment.capacity >= bytes {
            return Ok(segment);
        }
        match self.extend(segment, bytes) {
            Ok(larger) => Ok(larger),
            Err(error) => {
                self.queue.lock().push_front(segment);
                Err(error)
            }
        }
    }

    fn make(&self) -> io::Result<Segment> {
        loop {
            let mut work = self.work.lock();
            // `prepare` may have finished one while this thread waited for it.
            if let Some(segment) = self.queue.lock().pop_front() {
                return Ok(segment);
            }
            self.step(&mut work)?;
        }
    }

    fn extend(&self, segment: Segment, bytes: u32) -> io::Result<Segment> {
        let file = self.disk.open(&segment_name(segment.id))?;
        file.allocate(u64::from(bytes))?;
        if self.sync {
            fill(&*file, segment.capacity, bytes)?;
            file.sync_data()?;
        }
        Ok(Segment { capacity: bytes, ..segment })
    }

    /// Prepares a little. Errors other than a full disk are returned.
    pub(crate) fn prepare(&self) -> io::Result<Space> {
        let mut work = self.work.lock();
        if self.wants_more() {
            match self.step(&mut work) {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.low.store(true, Ordering::Release);
                    return Ok(Space::Low);
                }
                Err(error) => return Err(error),
            }
        }
        if !self.wants_more() {
            self.low.store(false, Ordering::Release);
        }
        Ok(self.space())
    }

    /// One step of preparing a segment; the last one puts it into the queue.
    fn step(&self, work: &mut Work) -> io::Result<()> {
        let mut filling = match work.filling.take() {
            Some(filling) => filling,
            None => self.start(work.next)?,
        };
        let to = self.segment_bytes.min(filling.filled.saturating_add(self.step_bytes));
        if self.sync
            && let Err(error) = fill(&*filling.file, filling.filled, to)
        {
            if is_full(&error) {
                self.give_back(&filling.name)?;
            }
            return Err(error);
        }
        filling.filled = to;
        if to < self.segment_bytes {
            work.filling = Some(filling);
            return Ok(());
        }
        self.activate(work, &filling.name, &*filling.file, false)
    }

    fn start(&self, number: u32) -> io::Result<Filling> {
        let name = scratch_name(number);
        let file = self.disk.create(&name)?;
        match file.allocate(u64::from(self.segment_bytes)) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                self.give_back(&name)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let filled = if self.sync { 0 } else { self.segment_bytes };
        Ok(Filling { name, file, filled })
    }

    fn give_back(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)?;
        self.disk.sync_dir("")
    }

    /// Gives a filled file its header and its name.
    fn activate(
        &self,
        work: &mut Work,
        name: &str,
        file: &dyn DiskFile,
        recycled: bool,
    ) -> io::Result<()> {
        let segment = Segment {
            id: SegmentId(work.next),
            salt: self.disk.random()? as u32,
            capacity: self.segment_bytes,
            end: FIRST,
            sealed: false,
            recycled,
            kept: false,
        };
        file.write_at(&encode_header(&segment), 0)?;
        if self.sync {
            file.sync_data()?;
        }
        self.disk.rename(name, &segment_name(segment.id))?;
        if self.sync {
            self.disk.sync_dir("")?;
        }
        work.next += 1;
        self.queue.lock().push_back(segment);
        Ok(())
    }

    /// Takes a retired file back as a spare, or removes it where none is wanted.
    pub(crate) fn recycle(&self, retired: Segment) -> io::Result<()> {
        let mut work = self.work.lock();
        let name = segment_name(retired.id);
        let reusable = retired.capacity == self.segment_bytes && self.sync;
        if !reusable || !self.wants_more() || work.filling.is_some() {
            self.disk.remove(&name)?;
            return self.sync_names();
        }
        let scratch = scratch_name(work.next);
        self.disk.rename(&name, &scratch)?;
        self.sync_names()?;
        let file = self.disk.open(&scratch)?;
        self.activate(&mut work, &scratch, &*file, true)
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.sync { self.disk.sync_dir("") } else { Ok(()) }
    }
}

/// Writes zeros from `from` to `to`.
fn fill(file: &dyn DiskFile, from: u32, to: u32) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let count = (to - at).min(ZEROS.len() as u32);
        file.write_at(&ZEROS[..count as usize], u64::from(at))?;
        at += count;
    }
    Ok(())
}
