//! Empty segments prepared ahead: their blocks are reserved and filled before a record needs them,
//! so a full disk meets a preparation and never a record.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use stdx::seeded::{Seeded, is_sown};

use crate::disk::{Disk, DiskFile, is_full};
use crate::options::{LogOptions, Space};
use crate::position::SegmentId;
use crate::segment::{FIRST, Segment, encode_header, scratch_name, segment_name};

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Why a segment could not be prepared.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No room; nothing is broken.
    Full,
    /// A write or sync failed. A sync that reports a full disk is a failed sync.
    Failed { action: &'static str, file: String, error: io::Error },
}

impl Trouble {
    /// The same once more, of what nothing can follow.
    fn again(&self) -> Option<Self> {
        let Self::Failed { action, file, error } = self else { return None };
        let error = match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        Some(Self::Failed { action, file: file.clone(), error })
    }
}

/// For what only takes space and may be tried again.
fn reserving<'a>(action: &'static str, file: &'a str) -> impl FnOnce(io::Error) -> Trouble + 'a {
    move |error| {
        if is_full(&error) { Trouble::Full } else { failed(action, file)(error) }
    }
}

fn failed<'a>(action: &'static str, file: &'a str) -> impl FnOnce(io::Error) -> Trouble + 'a {
    move |error| {
        if is_sown(Seeded::FullDiskFromSync) && is_full(&error) {
            return Trouble::Full;
        }
        Trouble::Failed { action, file: file.to_owned(), error }
    }
}

struct Filling {
    name: String,
    file: Arc<dyn DiskFile>,
    filled: u32,
    /// Bytes it is to have.
    bytes: u32,
}

/// What a step of preparing is for.
#[derive(Clone, Copy)]
enum Pace {
    /// Nobody waits: a little of a whole segment.
    Ahead,
    /// The log waits, and everybody with it: the shortest way to a segment, whatever is filled.
    Awaited,
}

struct Work {
    filling: Option<Filling>,
    /// Number of the next segment to be made.
    next: u32,
    /// The first failure. The log hears of it only after `work` is free again: whoever comes in
    /// between must not go on as if a sync that failed once had not been.
    failure: Option<Trouble>,
}

impl Work {
    fn check(&self) -> Result<(), Trouble> {
        self.failure.as_ref().and_then(Trouble::again).map_or(Ok(()), Err)
    }

    fn keep_failure<T>(&mut self, done: Result<T, Trouble>) -> Result<T, Trouble> {
        if let Err(trouble) = &done
            && self.failure.is_none()
        {
            self.failure = trouble.again();
        }
        done
    }
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
    /// Segments that were entered, the one that was found included.
    entered: AtomicU32,
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
        is_begun: bool,
        segment_bytes: u32,
        options: &LogOptions,
    ) -> Self {
        Self {
            disk,
            queue: Mutex::new(ready.into()),
            work: Mutex::new(Work { filling: None, next, failure: None }),
            low: AtomicBool::new(false),
            entered: AtomicU32::new(is_begun.into()),
            segment_bytes,
            step_bytes: options.prepare_bytes.max(4096),
            reserve: options.reserve_segments,
            sync: options.sync,
        }
    }

    /// Size of a segment that nobody waits for.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.into()
    }

    pub(crate) fn space(&self) -> Space {
        if self.low.load(Ordering::Acquire) { Space::Low } else { Space::Plenty }
    }

    /// Does the queue want another segment?
    pub(crate) fn wants_more(&self) -> bool {
        self.queue.lock().len() <= self.reserve
    }

    /// Is the log using up what was prepared? The first segment of a start does not count before a
    /// good part of a step is in it: an idle log has time.
    pub(crate) fn is_behind(&self, offset: u32) -> bool {
        let is_first = self.entered.load(Ordering::Relaxed) <= 1;
        self.wants_more() && !(is_first && offset < self.step_bytes / 4)
    }

    /// Takes the next segment, with room for `bytes` bytes. Slow only where none is ready or none
    /// is large enough.
    pub(crate) fn take(&self, bytes: u32) -> Result<Segment, Trouble> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        let ready = self.queue.lock().pop_front();
        let segment = match ready {
            Some(segment) => segment,
            None => self.make()?,
        };
        if segment.capacity >= bytes {
            return Ok(segment);
        }
        let extended = self.extend(segment, bytes);
        if extended.is_err() {
            self.queue.lock().push_front(segment);
        }
        extended
    }

    fn make(&self) -> Result<Segment, Trouble> {
        loop {
            let mut work = self.work.lock();
            // `prepare` may have finished one while this thread waited for it.
            if let Some(segment) = self.queue.lock().pop_front() {
                return Ok(segment);
            }
            self.step(&mut work, Pace::Awaited)?;
        }
    }

    fn extend(&self, segment: Segment, bytes: u32) -> Result<Segment, Trouble> {
        let name = segment_name(segment.id);
        let file = self.disk.open(&name).map_err(failed("open", &name))?;
        file.allocate(u64::from(bytes)).map_err(reserving("extend", &name))?;
        if self.sync {
            fill(&*file, segment.capacity, bytes).map_err(reserving("extend", &name))?;
            file.sync_data().map_err(failed("sync", &name))?;
        }
        Ok(Segment { capacity: bytes, ..segment })
    }

    /// Prepares a little. A full disk is an answer, not an error.
    pub(crate) fn prepare(&self) -> Result<Space, Trouble> {
        let mut work = self.work.lock();
        if self.wants_more() {
            match self.step(&mut work, Pace::Ahead) {
                Ok(()) => {}
                Err(Trouble::Full) => {
                    self.low.store(true, Ordering::Release);
                    return Ok(Space::Low);
                }
                Err(failed) => return Err(failed),
            }
        }
        if !self.wants_more() {
            self.low.store(false, Ordering::Release);
        }
        Ok(self.space())
    }

    /// One step of preparing a segment; the last one puts it into the queue.
    fn step(&self, work: &mut Work, pace: Pace) -> Result<(), Trouble> {
        work.check()?;
        let done = self.fill_further(work, pace);
        work.keep_failure(done)
    }

    fn fill_further(&self, work: &mut Work, pace: Pace) -> Result<(), Trouble> {
        let mut filling = match (work.filling.take(), pace) {
            (Some(filling), _) => filling,
            (None, Pace::Ahead) => self.start(work.next, self.segment_bytes)?,
            // A small one now is better than a whole one later.
            (None, Pace::Awaited) => self.start(work.next, self.step_bytes)?,
        };
        let step = match pace {
            Pace::Awaited if filling.filled > 0 => 0,
            _ => self.step_bytes,
        };
        let to = filling.bytes.min(filling.filled.saturating_add(step));
        let whole = to == filling.bytes || matches!(pace, Pace::Awaited);
        let done = self.fill_to(&mut filling, to, whole).and_then(|()| {
            if !whole {
                return Ok(());
            }
            let capacity = self.reserved(&filling)?;
            self.activate(work, &filling.name, &*filling.file, capacity, false)
        });
        if matches!(done, Err(Trouble::Full)) {
            self.give_back(&filling.name)?;
        }
        if done.is_ok() && !whole {
            work.filling = Some(filling);
        }
        done
    }

    /// Bytes that records may take. What was reserved and not filled serves as well, only more
    /// slowly: its syncs have to note each block that was never written.
    fn reserved(&self, filling: &Filling) -> Result<u32, Trouble> {
        if filling.filled == filling.bytes || !self.sync {
            return Ok(filling.bytes);
        }
        // A file system that cannot reserve has left the file as long as it was filled.
        let long = filling.file.bytes().map_err(failed("measure", &filling.name))?;
        Ok(filling.bytes.min(u32::try_from(long).unwrap_or(u32::MAX)))
    }

    fn start(&self, number: u32, bytes_max: u32) -> Result<Filling, Trouble> {
        let name = scratch_name(number);
        let bytes = self.segment_bytes.min(bytes_max);
        let file = self.disk.create(&name).map_err(reserving("create", &name))?;
        match file.allocate(u64::from(bytes)).map_err(reserving("allocate", &name)) {
            Ok(()) => Ok(Filling { name, file, filled: 0, bytes }),
            Err(trouble) => {
                self.give_back(&name)?;
                Err(trouble)
            }
        }
    }

    /// Zeros are synced step by step: one sync of a whole segment would hold up those of the log.
    /// Those of the last step are synced with the header.
    fn fill_to(&self, filling: &mut Filling, to: u32, is_last: bool) -> Result<(), Trouble> {
        if self.sync && filling.filled < to {
            let Filling { name, file, filled, .. } = filling;
            fill(&**file, *filled, to).map_err(reserving("fill", name))?;
            if !is_last {
                file.sync_data().map_err(failed("sync", name))?;
            }
        }
        filling.filled = to;
        Ok(())
    }

    fn give_back(&self, name: &str) -> Result<(), Trouble> {
        self.disk.remove(name).map_err(failed("remove", name))?;
        self.sync_names()
    }

    /// Gives a filled file its header and its name.
    fn activate(
        &self,
        work: &mut Work,
        name: &str,
        file: &dyn DiskFile,
        capacity: u32,
        recycled: bool,
    ) -> Result<(), Trouble> {
        let salt = self.disk.random().map_err(failed("salt", name))? as u32;
        let segment = Segment {
            id: SegmentId(work.next),
            salt,
            capacity,
            end: FIRST,
            sealed: false,
            recycled,
            kept: false,
            open_ended: false,
        };
        file.write_at(&encode_header(&segment), 0).map_err(reserving("write", name))?;
        if self.sync && !is_sown(Seeded::RenameBeforeSync) {
            file.sync_data().map_err(failed("sync", name))?;
        }
        self.disk.rename(name, &segment_name(segment.id)).map_err(reserving("rename", name))?;
        if !is_sown(Seeded::FolderNotSynced) {
            self.sync_names()?;
        }
        work.next += 1;
        self.queue.lock().push_back(segment);
        Ok(())
    }

    /// Takes a retired file back as a spare, or removes it where none is wanted.
    pub(crate) fn recycle(&self, retired: Segment) -> Result<(), Trouble> {
        let mut work = self.work.lock();
        work.check()?;
        let done = self.take_back(&mut work, retired);
        work.keep_failure(done)
    }

    fn take_back(&self, work: &mut Work, retired: Segment) -> Result<(), Trouble> {
        let name = segment_name(retired.id);
        let reusable = retired.capacity == self.segment_bytes && self.sync;
        let scratch = scratch_name(work.next);
        if !reusable
            || !self.wants_more()
            || work.filling.is_some()
            || self.disk.rename(&name, &scratch).is_err()
        {
            return self.give_back(&name);
        }
        // The old name must be gone before the old header is.
        self.sync_names()?;
        let file = self.disk.open(&scratch).map_err(failed("open", &scratch))?;
        match self.activate(work, &scratch, &*file, retired.capacity, true) {
            Err(Trouble::Full) => self.give_back(&scratch),
            other => other,
        }
    }

    /// The log ends: what is not ready is of no use to the next start. Whatever fails here leaves a
    /// file that the next start removes.
    pub(crate) fn abandon(&self) {
        if let Some(filling) = self.work.lock().filling.take() {
            let _ = self.disk.remove(&filling.name);
        }
    }

    fn sync_names(&self) -> Result<(), Trouble> {
        if self.sync { self.disk.sync_dir("").map_err(failed("sync", "")) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Fault, FaultKind, MemoryDisk};

    fn spares(disk: &MemoryDisk) -> Spares {
        spares_of(disk, 8192)
    }

    fn spares_of(disk: &MemoryDisk, segment_bytes: u32) -> Spares {
        let options = LogOptions { prepare_bytes: 4096, ..LogOptions::default() };
        Spares::new(Arc::new(disk.clone()), Vec::new(), 1, false, segment_bytes, &options)
    }

    fn told(trouble: Trouble) -> String {
        match trouble {
            Trouble::Full => "full".to_owned(),
            Trouble::Failed { action, file, error } => format!("{action} {file} {error}"),
        }
    }

    /// On a slow disk the rest of a segment takes longer than clients wait.
    #[test]
    fn whoever_waits_does_not_wait_for_zeros() {
        let disk = MemoryDisk::new();
        let spares = spares_of(&disk, 64 * 4096);
        let awaited = |bytes| {
            let before = disk.operations();
            let capacity = spares.take(bytes).map_err(told).unwrap().capacity;
            (capacity, disk.operations() - before)
        };
        let (small, small_took) = awaited(1);
        assert_eq!(small, 4096);
        spares.prepare().map_err(told).unwrap();
        let (begun, begun_took) = awaited(1);
        assert_eq!(begun, 64 * 4096, "what was reserved is of use");
        assert!(begun_took < small_took, "{begun_took} operations instead of {small_took}");
        spares.prepare().map_err(told).unwrap();
        let (_, large_took) = awaited(63 * 4096);
        assert!(large_took < small_took, "{large_took} operations instead of {small_took}");
    }

    #[test]
    fn whoever_comes_after_a_failure_is_told_of_that_one() {
        let disk = MemoryDisk::new();
        spares(&disk).take(1).map_err(told).unwrap();
        let operations = disk.operations();
        let mut failures = 0;
        for at in 0..operations {
            let disk = MemoryDisk::new();
            disk.fail(Fault { at, kind: FaultKind::Eio, forever: false });
            let spares = spares(&disk);
            let Err(first) = spares.prepare().and_then(|_| spares.prepare()) else { continue };
            failures += 1;
            let first = told(first);
            assert_eq!(spares.take(1).map_err(told).unwrap_err(), first);
            assert_eq!(spares.prepare().map_err(told).unwrap_err(), first);
        }
        assert!(5 < failures, "{failures} of {operations}");
    }
}
