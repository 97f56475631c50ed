//! The log: appended to in batches, made durable by one thread, read from anywhere.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use stdx::seeded::{Seeded, is_sown};

use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, DiskFile, DiskLock};
use crate::error::{Failure, LogError, OpenError, ReadError};
use crate::inventory::io_error;
use crate::manifest::Manifests;
use crate::options::{LogOptions, Space};
use crate::position::{Kind, OwnedRecord, Position, Record, SegmentId};
use crate::read;
use crate::recover::{Nameless, Recovered, Survey, copy_aside, recover, survey};
use crate::recovery::{Quarantined, Recovery};
use crate::segment::{FIRST, segment_name};
use crate::spares::{Spares, Trouble};
use crate::table::{SegmentInfo, Table};
use crate::tail::{Chunk, Tail};

mod append;
mod replay;

pub use append::Appender;
use replay::Known;
pub use replay::{NewCheckpoint, Replay, Step};

/// What the log thread keeps between flushes.
#[derive(Default)]
struct Flusher {
    file: Option<(SegmentId, Arc<dyn DiskFile>)>,
    /// Written since the last sync?
    dirty: bool,
}

/// A segment whose file goes once its retirement is durable.
#[derive(Clone, Copy, Debug)]
struct Retiring {
    id: SegmentId,
    after: Position,
}

/// One ordered log per folder. Share it as `Arc<Log>`.
///
/// Any thread may append and read; one thread, the log thread, calls [`Log::flush`] and
/// [`Log::prepare`].
pub struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    tail: Mutex<Tail>,
    room: Condvar,
    table: Table,
    spares: Spares,
    manifests: Manifests,
    flusher: Mutex<Flusher>,
    retiring: Mutex<Vec<Retiring>>,
    suspects: Mutex<Vec<Quarantined>>,
    checkpoint: Mutex<Known>,
    nameless: Mutex<Nameless>,
    durable: AtomicU64,
    written: AtomicU64,
    end: AtomicU64,
    pending: AtomicU64,
    failure: OnceLock<Arc<Failure>>,
    _lock: DiskLock,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// A folder that is locked and has been looked at. Nothing has been changed.
pub struct Opening {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    lock: DiskLock,
    survey: Survey,
}

impl Opening {
    /// The state of the log before the records that [`Opening::finish`] will show.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.survey.checkpoints.newest.as_ref()
    }

    /// Every record is to be shown. `why`: what the checkpoint lacks, if it lacks anything.
    pub fn ignore_checkpoint(&mut self, why: Option<String>) {
        let name = self.survey.checkpoints.newest.take().map(|it| it.name);
        if let (Some(name), Some(why)) = (name, why) {
            self.survey.checkpoints.faults.push(format!("{name} is not used: {why}"));
        }
    }

    /// Recovers the log. `visit` sees each good record from the checkpoint on once, in log order.
    ///
    /// When this returns, everything `visit` saw is durable.
    ///
    /// # Errors
    /// [`OpenError`]: the folder was written by a newer version, or cannot be read or written.
    pub fn finish(self, visit: &mut dyn FnMut(Record<'_>)) -> Result<(Log, Recovery), OpenError> {
        let mut recovered = recover(&*self.disk, self.survey, visit)?;
        let report = std::mem::take(&mut recovered.report);
        let log = Log::build(self.disk, self.options, self.lock, recovered)?;
        log.mark_opened()?;
        Ok((log, report))
    }
}

impl Log {
    /// Locks a folder and looks at what it holds.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is locked, was written by a newer version, or cannot be read.
    pub fn begin_open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<Opening, OpenError> {
        let lock = disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked,
            _ => io_error("lock", "")(error),
        })?;
        let survey = survey(&*disk)?;
        Ok(Opening { disk, options, lock, survey })
    }

    /// Opens a folder and recovers it from the log alone. `visit` sees each good record once, in
    /// log order.
    ///
    /// # Errors
    /// As [`Log::begin_open`] and [`Opening::finish`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> Result<(Self, Recovery), OpenError> {
        let mut opening = Self::begin_open(disk, options)?;
        opening.ignore_checkpoint(None);
        opening.finish(visit)
    }

    fn build(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        lock: DiskLock,
        recovered: Recovered,
    ) -> Result<Self, OpenError> {
        let total = disk.total_bytes().map_err(io_error("measure", ""))?;
        let segment_bytes = options.segment_bytes_on(total);
        let active = recovered.segments.last().copied().filter(|_| recovered.active);
        let table = Table::new(disk.clone(), &recovered.segments);
        let end = recovered
            .segments
            .last()
            .map_or_else(Position::default, |last| Position::new(last.id, last.end));
        let tail = Tail::new(active, table.sealed_count());
        let retiring =
            recovered.retired.iter().map(|id| Retiring { id: *id, after: end }).collect();
        let listed = recovered.segments.last().map_or(SegmentId(0), |last| last.id);
        Ok(Self {
            spares: Spares::new(
                disk.clone(),
                recovered.ready,
                recovered.next,
                active.is_some(),
                segment_bytes,
                &options,
            ),
            manifests: Manifests::new(disk.clone(), recovered.sequence, listed),
            disk,
            options,
            tail: Mutex::new(tail),
            room: Condvar::new(),
            table,
            flusher: Mutex::default(),
            retiring: Mutex::new(retiring),
            suspects: Mutex::default(),
            checkpoint: Mutex::new(Known::new(&recovered.checkpoints)),
            nameless: Mutex::new(recovered.nameless),
            durable: AtomicU64::new(end.0),
            written: AtomicU64::new(end.0),
            end: AtomicU64::new(end.0),
            pending: AtomicU64::new(0),
            failure: OnceLock::new(),
            _lock: lock,
        })
    }

    /// Leaves a mark that the log was opened, durably: the next start must not take the last stop
    /// for the end, and a unit that a crash cut stays cut. On a disk so full that not even this
    /// fits, the log opens without it.
    fn mark_opened(&self) -> Result<(), OpenError> {
        match self.internal(Kind::OPENED, &[], false) {
            Ok(_) | Err(LogError::NoSpace { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.flush(true)?;
        if self.options.sync {
            for _ in 0..2 {
                self.write_manifest()?;
            }
        }
        Ok(())
    }

    /// Everything below is durable: `fdatasync` returned. In a spill log: written.
    pub fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// Everything below is in the files, perhaps only in the page cache.
    pub fn written(&self) -> Position {
        Position(self.written.load(Ordering::Acquire))
    }

    /// End of the last batch that was appended.
    pub fn end(&self) -> Position {
        Position(self.end.load(Ordering::Acquire))
    }

    /// Bytes appended and not yet written.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    /// Is there something appended and not yet durable?
    pub fn has_pending(&self) -> bool {
        self.end() > self.durable()
    }

    /// Gives back the buffers kept for appends to come: the caller has nothing to append for a
    /// while.
    pub fn rest(&self) {
        self.tail.lock().rest();
    }

    /// Is there room to go on publishing?
    pub fn space(&self) -> Space {
        self.spares.space()
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.get().cloned()
    }

    fn check(&self) -> Result<(), LogError> {
        match self.failure.get() {
            Some(failure) => Err(LogError::Poisoned(failure.clone())),
            None => Ok(()),
        }
    }

    /// Keeps the first failure and returns it.
    fn poison(&self, action: &'static str, file: &str, offset: u64, error: io::Error) -> LogError {
        let durable = self.durable();
        let failure = Failure { action, file: file.to_owned(), offset, error, durable };
        LogError::Poisoned(self.failure.get_or_init(|| Arc::new(failure)).clone())
    }

    fn poison_by(&self, trouble: Trouble) -> LogError {
        match trouble {
            Trouble::Full => LogError::NoSpace { bytes: 0 },
            Trouble::Failed { action, file, error } => self.poison(action, &file, 0, error),
        }
    }

    /// The log thread's step: writes all that is appended and, if `sync`, makes it durable.
    /// Returns the durable position. At most one runs at a time.
    ///
    /// # Errors
    /// The first failed write or sync poisons the log: this and every later call of `flush` and
    /// `begin` return that first failure, and [`Log::durable`] never moves again.
    pub fn flush(&self, sync: bool) -> Result<Position, LogError> {
        let result = self.flush_once(sync);
        if result.is_err() {
            self.wake_appenders();
        }
        result
    }

    /// Under the lock, so that nobody begins to wait between looking and waiting.
    fn wake_appenders(&self) {
        let _tail = self.tail.lock();
        self.room.notify_all();
    }

    fn flush_once(&self, sync: bool) -> Result<Position, LogError> {
        let mut flusher = self.flusher.lock();
        self.check()?;
        let (chunks, end) = {
            let mut tail = self.tail.lock();
            if tail.is_empty() {
                (None, self.end())
            } else {
                let end = self.end();
                let known = if is_sown(Seeded::PositionBeforeData) { end } else { self.durable() };
                (Some(tail.take(known)), end)
            }
        };
        if let Some(chunks) = chunks {
            for chunk in chunks.iter() {
                self.write(&mut flusher, chunk)?;
            }
            self.written.store(end.0, Ordering::Release);
            let mut tail = self.tail.lock();
            tail.written(chunks);
            self.pending.store(tail.pending_bytes(), Ordering::Release);
            self.room.notify_all();
        }
        if sync || !self.options.sync {
            self.sync(&mut flusher)?;
            self.durable.store(end.0, Ordering::Release);
        }
        Ok(self.durable())
    }

    fn write(&self, flusher: &mut Flusher, chunk: &Chunk) -> Result<(), LogError> {
        let name = segment_name(chunk.segment);
        let current = flusher.file.as_ref().filter(|(id, _)| *id == chunk.segment);
        let file = match current {
            Some((_, file)) => file.clone(),
            None => {
                self.enter(flusher, chunk)?;
                let file = self
                    .table
                    .file(chunk.segment)
                    .map_err(|error| self.poison("open", &name, 0, error))?;
                flusher.file = Some((chunk.segment, file.clone()));
                file
            }
        };
        flusher.dirty = true;
        file.write_at(&chunk.bytes, u64::from(chunk.offset))
            .map_err(|error| self.poison("write", &name, u64::from(chunk.offset), error))?;
        self.written.store(chunk.end().0, Ordering::Release);
        Ok(())
    }

    /// Before the first byte of a segment is written, the one before it is durable and a manifest
    /// says so. The durable position moves at the end of the flush only: here it could lie inside a
    /// unit, of which recovery would show nothing.
    fn enter(&self, flusher: &mut Flusher, chunk: &Chunk) -> Result<(), LogError> {
        if !self.options.sync {
            return Ok(());
        }
        self.sync(flusher)?;
        if chunk.offset == FIRST {
            self.manifests.enter(chunk.segment);
            self.write_manifest()?;
        }
        Ok(())
    }

    fn write_manifest(&self) -> Result<bool, LogError> {
        self.manifests
            .write(&self.table)
            .map_err(|(name, error)| self.poison("write", name, 0, error))
    }

    fn sync(&self, flusher: &mut Flusher) -> Result<(), LogError> {
        if flusher.dirty
            && self.options.sync
            && let Some((id, file)) = &flusher.file
        {
            file.sync_data().map_err(|error| {
                let offset = u64::from(self.written().offset());
                self.poison("sync", &segment_name(*id), offset, error)
            })?;
        }
        flusher.dirty = false;
        Ok(())
    }

    /// Reads and checks one record, also one that is not written yet.
    ///
    /// # Errors
    /// [`ReadError`]; damaged bytes are copied to quarantine by the next [`Log::prepare`].
    pub fn read(&self, at: Position) -> Result<OwnedRecord, ReadError> {
        if let Some(record) = self.read_pending(at) {
            return record;
        }
        let segment = self.table.get(at.segment()).ok_or(ReadError::Absent(at))?;
        let io_error = |error| ReadError::Io { position: at, error: Arc::new(error) };
        let file = self.table.file(at.segment()).map_err(io_error)?;
        let result = read::from_file(&*file, segment.salt, at);
        self.judge(at, result)
    }

    fn read_pending(&self, at: Position) -> Option<Result<OwnedRecord, ReadError>> {
        if at < self.written() {
            return None;
        }
        let tail = self.tail.lock();
        tail.find(at).map(|(salt, bytes)| read::from_memory(bytes, salt, at))
    }

    /// Damage is remembered, unless the segment was retired while it was read.
    fn judge(
        &self,
        at: Position,
        result: Result<OwnedRecord, ReadError>,
    ) -> Result<OwnedRecord, ReadError> {
        let Err(ReadError::Damaged { bytes, kind, reason, .. }) = &result else { return result };
        if self.table.get(at.segment()).is_none() {
            return Err(ReadError::Absent(at));
        }
        self.table.keep(at.segment(), true);
        self.suspects.lock().push(Quarantined {
            segment: at.segment(),
            offset: at.offset(),
            bytes: (*bytes).max(crate::frame::HEADER as u32),
            kind: *kind,
            reason: *reason,
            torn: false,
            copied: false,
        });
        result
    }

    /// Reads many records, neighbours together. `out` gets one result for each of `at`, in order.
    pub fn read_many(&self, at: &[Position], out: &mut Vec<Result<OwnedRecord, ReadError>>) {
        let mut results: Vec<Option<Result<OwnedRecord, ReadError>>> = Vec::new();
        results.resize_with(at.len(), || None);
        let mut wanted = Vec::with_capacity(at.len());
        for (place, position) in at.iter().enumerate() {
            match self.read_pending(*position) {
                Some(record) => results[place] = Some(record),
                None => wanted.push((*position, place)),
            }
        }
        wanted.sort_unstable();
        for of_one in wanted.chunk_by(|a, b| a.0.segment() == b.0.segment()) {
            let id = of_one[0].0.segment();
            if let (Some(segment), Ok(file)) = (self.table.get(id), self.table.file(id)) {
                read::many_from_file(&*file, segment.salt, of_one, &mut results);
            }
        }
        for (place, result) in results.into_iter().enumerate() {
            out.push(match result {
                Some(result) => self.judge(at[place], result),
                None => self.read(at[place]),
            });
        }
    }

    /// Segments that were not retired. What a retired one says does not count, although a crash may
    /// have left its file behind: records about its messages may have gone.
    pub fn lasting_segments(&self) -> impl Iterator<Item = SegmentId> {
        let retiring: Vec<SegmentId> = self.retiring.lock().iter().map(|it| it.id).collect();
        let segments = self.segments().into_iter().map(|it| it.id);
        segments.filter(move |it| !retiring.contains(it))
    }

    /// The segments that hold records, in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let mut infos = self.table.infos();
        if let Some(info) = infos.last_mut()
            && !info.sealed
            && self.end().segment() == info.id
        {
            info.bytes = self.end().offset();
        }
        infos
    }

    /// The segment holds nothing live any more, and whatever replaced it is durable. Appends that
    /// it is retired; once a later flush made this durable, [`Log::prepare`] recycles or removes
    /// the file.
    ///
    /// # Errors
    /// [`LogError::Kept`] where the segment is not sealed, not there, retired already, ends a unit
    /// of the one before it, or holds the only copy of damaged bytes; otherwise as an append.
    pub fn retire(&self, id: SegmentId) -> Result<(), LogError> {
        let segment = self.table.get(id).ok_or(LogError::Kept(id, "it is not there"))?;
        if !segment.sealed {
            return Err(LogError::Kept(id, "it is not sealed"));
        }
        if segment.kept {
            return Err(LogError::Kept(id, "it holds the only copy of damaged bytes"));
        }
        if self.table.is_joined(id) {
            return Err(LogError::Kept(id, "it ends a unit of the segment before it"));
        }
        if self.retiring.lock().iter().any(|retiring| retiring.id == id) {
            return Err(LogError::Kept(id, "it is being retired"));
        }
        let after = if self.options.sync {
            self.internal(Kind::RETIRED, &[&u64::from(id.0).to_le_bytes()], false)?
        } else {
            Position::default()
        };
        self.retiring.lock().push(Retiring { id, after });
        Ok(())
    }

    /// Prepares a spare segment a little further, takes retired files back, copies damaged bytes
    /// to quarantine. Writes at most `prepare_bytes` of zeros. To be called while this is
    /// [`Space::Low`], after every flush that sealed a segment, and by a slow ticker.
    ///
    /// # Errors
    /// Anything but a full disk poisons the log.
    pub fn prepare(&self) -> Result<Space, LogError> {
        self.check()?;
        self.quarantine_suspects();
        let result = self
            .drop_retired()
            .and_then(|()| self.spares.prepare().map_err(|trouble| self.poison_by(trouble)));
        if result.is_err() {
            self.wake_appenders();
        }
        result
    }

    /// Lets go of files that the start has removed: the system gives their blocks back now.
    pub fn release_removed(&self) {
        let nameless = std::mem::take(&mut *self.nameless.lock());
        drop(nameless);
    }

    /// Would another call of [`Log::prepare`] find something to do? It may still be of no avail
    /// while the disk is full: a loop must end at [`Space::Low`] and try again later.
    pub fn wants_prepare(&self) -> bool {
        let durable = self.durable();
        self.spares.wants_more()
            || self.retiring.lock().iter().any(|retiring| retiring.after <= durable)
            || !self.suspects.lock().is_empty()
    }

    /// Is the log being written faster than segments are prepared? Then [`Log::prepare`] is to be
    /// called again at once, unless this is [`Space::Low`]: an append that finds no segment makes
    /// one itself while all others wait, and on a full disk eats up the reserve unnoticed.
    pub fn is_behind(&self) -> bool {
        self.spares.is_behind(self.end().offset())
    }

    fn quarantine_suspects(&self) {
        let suspects = std::mem::take(&mut *self.suspects.lock());
        for range in suspects {
            if copy_aside(&*self.disk, &range).is_ok() {
                self.table.keep(range.segment, false);
            } else {
                self.suspects.lock().push(range);
            }
        }
    }

    fn drop_retired(&self) -> Result<(), LogError> {
        let durable = self.durable();
        loop {
            let due = {
                let retiring = self.retiring.lock();
                retiring.iter().copied().find(|retiring| retiring.after <= durable)
            };
            let Some(due) = due else { return Ok(()) };
            let Some(segment) = self.table.get(due.id) else {
                self.retiring.lock().retain(|retiring| retiring.id != due.id);
                continue;
            };
            self.table.remove(due.id);
            if self.options.sync && !self.write_manifest()? {
                // No room for a manifest without it: the file stays for now.
                self.table.add(segment);
                return Ok(());
            }
            self.retiring.lock().retain(|retiring| retiring.id != due.id);
            self.tail.lock().sealed_count = self.table.sealed_count();
            self.spares.recycle(segment).map_err(|trouble| self.poison_by(trouble))?;
        }
    }

    /// Makes the last batch proven: appends an empty one that carries the durable position. For
    /// the log thread to call when the log has been idle for a while; then damage there can be
    /// told from a torn tail.
    pub fn prove_durable(&self) -> Result<(), LogError> {
        self.internal(Kind::PADDING, &[], false)?;
        self.flush(true).map(|_| ())
    }

    /// Writes what is appended and the mark of an orderly stop, twice, and syncs. Later appends
    /// are refused. To be called by the log thread, as its last act.
    ///
    /// # Errors
    /// As [`Log::flush`]. Without room even in the reserve the mark is left out: the next start
    /// then takes this for a crash and loses nothing.
    pub fn close_in_order(&self) -> Result<Position, LogError> {
        self.flush(true)?;
        match self.internal(Kind::CLEAN_STOP, &[], true) {
            Ok(_) | Err(LogError::NoSpace { .. }) => {}
            Err(error) => return Err(error),
        }
        self.tail.lock().closed = true;
        let end = self.flush(true)?;
        self.spares.abandon();
        Ok(end)
    }
}
