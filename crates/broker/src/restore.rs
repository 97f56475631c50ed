//! From the records of the log back to catalog and queues. What the log does not contradict is
//! there again: a message lives until a record says that it left.

use crate::{
    base::{Base, Sorted},
    changes::{SNAPSHOT_FIRST, SNAPSHOT_LAST, apply_all, listed_changes},
    runs::{Kept, Run},
};
use catalog::{Catalog, Change, PasswordHash};
use engine::{
    Effect, JobQueue, Place, Queue, Record, Restored, RestoredJob, Restoring,
    job::JobRecord,
    record::{MessageFacts, Reader, RecordError, kind, put},
};
use foldhash::HashMap;
use model::{EntryId, LogPosition, Message, QueueId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use stdx::seeded::{Seeded, is_sown};

/// First octet of the parts of a checkpoint.
const PART_FACTS: u8 = 1;
const PART_CATALOG: u8 = 2;
pub(crate) const PART_RUNS: u8 = 3;
const PART_JOBS: u8 = 4;
/// Octets of a part with states of jobs, but for the last of them.
const PART_JOBS_BYTES: usize = 64 * 1024;

/// Messages of jobs that are read at a time.
const READ_MESSAGES: usize = 256;

const GONE: u8 = 1;
const PERSISTENT: u8 = 1 << 1;
const REDELIVERED: u8 = 1 << 2;
const HAS_PRIORITY: u8 = 1 << 3;

/// What few messages have.
#[derive(Clone, Copy, Debug, Default)]
struct Rare {
    origin: Option<LogPosition>,
    ttl_ms: Option<u64>,
    acquired: u32,
    failed: u32,
}

/// One message as the log knows it, small, because there may be very many.
#[derive(Clone, Copy, Debug)]
struct Entry {
    position: LogPosition,
    arrived: Timestamp,
    length: u32,
    size: u32,
    /// Its number in the list of what few have, from 1 on.
    rare: u32,
    flags: u8,
    priority: u8,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// The messages of one queue in log order, and how many of them have gone.
#[derive(Clone, Debug, Default)]
struct Entries {
    list: Vec<Entry>,
    rare: Vec<Rare>,
    gone: usize,
}

/// Gone messages that are carried along before a queue is cleaned.
const GONE_MIN: usize = 1_024;

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Entries {
    fn push(&mut self, kept: &Kept) {
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        let mut entry = Entry {
            position: kept.position,
            arrived: kept.arrived,
            length: narrow(kept.end.0.saturating_sub(kept.position.0)),
            size: narrow(kept.size),
            rare: 0,
            flags: flag(PERSISTENT, kept.facts.persistent)
                | flag(REDELIVERED, kept.redelivered)
                | flag(HAS_PRIORITY, kept.facts.priority.is_some()),
            priority: kept.facts.priority.unwrap_or(0),
        };
        let rare = Rare {
            origin: (kept.origin != kept.position).then_some(kept.origin),
            ttl_ms: kept.facts.ttl_ms,
            acquired: kept.acquired,
            failed: kept.failed,
        };
        if rare.origin.is_some() || rare.ttl_ms.is_some() || 0 < rare.acquired | rare.failed {
            self.rare.push(rare);
            entry.rare = narrow(self.rare.len() as u64);
        }
        self.list.push(entry);
    }

    fn rare(&self, entry: &Entry) -> Rare {
        let at = (entry.rare as usize).checked_sub(1);
        at.and_then(|it| self.rare.get(it)).copied().unwrap_or_default()
    }

    fn kept(&self, entry: &Entry) -> Kept {
        let rare = self.rare(entry);
        let has = |flag| entry.flags & flag != 0;
        Kept {
            position: entry.position,
            end: LogPosition(entry.position.0 + u64::from(entry.length)),
            origin: rare.origin.unwrap_or(entry.position),
            arrived: entry.arrived,
            size: entry.size.into(),
            facts: MessageFacts {
                persistent: has(PERSISTENT),
                priority: has(HAS_PRIORITY).then_some(entry.priority),
                ttl_ms: rare.ttl_ms,
            },
            redelivered: has(REDELIVERED),
            acquired: rare.acquired,
            failed: rare.failed,
        }
    }

    fn find(&self, position: LogPosition) -> Option<usize> {
        self.list.binary_search_by_key(&position, |it| it.position).ok()
    }

    fn remove(&mut self, position: LogPosition) {
        // A removal that names nothing is none: its message went with its segment.
        let Some(at) = self.find(position).filter(|it| self.list[*it].flags & GONE == 0) else {
            return;
        };
        self.list[at].flags |= GONE;
        self.gone += 1;
        // A queue that lives on few messages would otherwise carry its whole past along.
        if GONE_MIN < self.gone && self.list.len() < 2 * self.gone {
            self.clean();
        }
    }

    /// Reclaim may write an old count again behind a newer one; counts only grow.
    fn count(&mut self, position: LogPosition, acquired: u32, failed: u32) {
        let Some(at) = self.find(position) else { return };
        let mut rare = self.rare(&self.list[at]);
        rare.acquired = rare.acquired.max(acquired);
        rare.failed = rare.failed.max(failed);
        match self.list[at].rare {
            0 => {
                self.rare.push(rare);
                self.list[at].rare = narrow(self.rare.len() as u64);
            }
            number => self.rare[number as usize - 1] = rare,
        }
    }

    fn remove_absent(&mut self, exists: &BTreeSet<u32>) {
        for entry in &mut self.list {
            if entry.flags & GONE == 0 && !exists.contains(&entry.position.segment()) {
                entry.flags |= GONE;
                self.gone += 1;
            }
        }
    }

    fn clean(&mut self) {
        let mut rare = Vec::new();
        let before = std::mem::take(&mut self.rare);
        self.list.retain_mut(|it| {
            if it.flags & GONE == 0 && 0 < it.rare {
                rare.push(before[it.rare as usize - 1]);
                it.rare = narrow(rare.len() as u64);
            }
            it.flags & GONE == 0
        });
        (self.rare, self.gone) = (rare, 0);
    }

    fn messages(&self) -> impl Iterator<Item = Kept> {
        self.list.iter().filter(|it| it.flags & GONE == 0).map(|it| self.kept(it))
    }
}

/// What recovery has found, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restoration {
    pub queues: u64,
    pub messages: u64,
    /// Messages of queues that no catalog record names although none says that they were deleted:
    /// kept in the log, not served. Only after damage to the catalog.
    pub orphans: u64,
    /// Records that do not decode although their checksum holds, with their positions.
    pub unreadable: Vec<(LogPosition, String)>,
}

/// Records of jobs without their results, and where they lie.
pub(crate) type Jobs = BTreeMap<(QueueId, LogPosition), (JobRecord, LogPosition)>;

/// Reads the messages at these positions, or says why one cannot be read.
pub(crate) type ReadMessages<'a> = &'a dyn Fn(&[LogPosition]) -> Vec<Result<Message, String>>;

/// Collects records in log order.
#[derive(Default)]
pub struct Restorer {
    catalog: Option<Catalog>,
    /// Parts of a snapshot of the catalog that is not complete yet.
    snapshot: Option<(Catalog, BTreeSet<u32>)>,
    queues: HashMap<QueueId, Entries>,
    /// Messages per segment, whether they still count or not.
    ever: HashMap<u32, u64>,
    /// Of the last record if it is one of a clean stop.
    stopped: HashMap<QueueId, Vec<LogPosition>>,
    /// Segment of a note, segment it speaks about.
    notes: HashMap<(u32, u32), u64>,
    catalog_segments: BTreeSet<u32>,
    /// Changes that could not be applied. A snapshot that follows makes up for them: what they
    /// build on may have gone with its segment.
    unapplied: Vec<(LogPosition, String)>,
    found: Restoration,
    /// The newest record of each job, by queue and origin.
    jobs: Jobs,
    /// What a checkpoint says of the log before the first record.
    base: Base,
    /// Messages taken, as a measure of the memory they need.
    taken: usize,
}

/// A queue to be put back.
pub(crate) struct RestoredQueues {
    pub(crate) catalog: Catalog,
    base: Base,
    entries: HashMap<QueueId, Entries>,
    jobs: Jobs,
    pub(crate) ever: HashMap<u32, u64>,
    stopped: HashMap<QueueId, Vec<LogPosition>>,
    orderly: bool,
    pub(crate) notes: HashMap<(u32, u32), u64>,
    /// Segments that hold what rebuilds the catalog.
    pub(crate) catalog_segments: BTreeSet<u32>,
    /// Segments that hold orphans, which nobody may retire.
    pub(crate) orphan_segments: Vec<u32>,
    pub(crate) found: Restoration,
}

impl Restorer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins with what a checkpoint says of the segments before this one. `Err`: it cannot be
    /// used, and every record of the log is needed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn begin(before: u32, parts: &[Vec<u8>]) -> Result<Self, String> {
        let mut restorer = Self::on_base(before);
        for part in parts {
            restorer.base_part(part)?;
            if part.first() == Some(&PART_RUNS) {
                restorer.base.part(part.clone()).map_err(|it| it.to_string())?;
            }
        }
        restorer.catalog.is_some().then_some(restorer).ok_or_else(|| "no catalog".to_owned())
    }

    /// Begins behind a checkpoint whose messages are read elsewhere.
    pub(crate) fn on_base(before: u32) -> Self {
        Self { base: Base::before(before), ..Self::default() }
    }

    /// Takes a part that does not hold messages.
    pub(crate) fn base_part(&mut self, part: &[u8]) -> Result<(), String> {
        let (kind, octets) = part.split_first().ok_or("a part without octets")?;
        match *kind {
            PART_FACTS => self.base_facts(octets).map_err(|it| it.to_string()),
            PART_CATALOG => apply_all(self.catalog.get_or_insert_with(Catalog::empty), octets),
            PART_RUNS => Ok(()),
            PART_JOBS => self.base_jobs(octets).map_err(|it| it.to_string()),
            other => Err(format!("a part of unknown kind {other}")),
        }
    }

    fn base_facts(&mut self, octets: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader(octets);
        let mut narrow =
            || reader.number().and_then(|it| u32::try_from(it).map_err(|_| RecordError::Truncated));
        for _ in 0..narrow()? {
            let (segment, ever) = (narrow()?, narrow()?);
            self.ever.insert(segment, ever.into());
        }
        for _ in 0..narrow()? {
            let (at, about, count) = (narrow()?, narrow()?, narrow()?);
            self.notes.insert((at, about), count.into());
        }
        for _ in 0..narrow()? {
            self.catalog_segments.insert(narrow()?);
        }
        Ok(())
    }

    fn base_jobs(&mut self, octets: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader(octets);
        while !reader.0.is_empty() {
            let position = LogPosition(reader.number()?);
            let length = usize::try_from(reader.number()?).map_err(|_| RecordError::Truncated)?;
            let (payload, rest) =
                reader.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
            reader.0 = rest;
            let record = JobRecord::decode(payload)?;
            self.jobs.insert((record.queue, record.origin), (record, position));
        }
        Ok(())
    }

    fn saved_jobs(&self, exists: &dyn Fn(u32) -> bool, parts: &mut Vec<Vec<u8>>) {
        let mut part = vec![PART_JOBS];
        let mut payload = Vec::new();
        for (record, position) in self.jobs.values().filter(|it| exists(it.1.segment())) {
            payload.clear();
            record.encode(&mut payload);
            put(&mut part, position.0);
            put(&mut part, payload.len() as u64);
            part.extend_from_slice(&payload);
            if PART_JOBS_BYTES <= part.len() {
                parts.push(std::mem::replace(&mut part, vec![PART_JOBS]));
            }
        }
        if 1 < part.len() {
            parts.push(part);
        }
    }

    /// What [`Restorer::base_part`] takes: numbers of the segments that there are, and the catalog.
    pub(crate) fn save(&self, exists: &dyn Fn(u32) -> bool) -> Vec<Vec<u8>> {
        let mut facts = vec![PART_FACTS];
        let mut ever: Vec<_> = self.ever.iter().filter(|it| exists(*it.0)).collect();
        ever.sort_unstable();
        put(&mut facts, ever.len() as u64);
        for (segment, ever) in ever {
            put(&mut facts, u64::from(*segment));
            put(&mut facts, (*ever).min(u64::from(u32::MAX)));
        }
        let both = |it: &(&(u32, u32), &u64)| exists(it.0.0) && exists(it.0.1);
        let mut notes: Vec<_> = self.notes.iter().filter(both).collect();
        notes.sort_unstable();
        put(&mut facts, notes.len() as u64);
        for ((at, about), count) in notes {
            put(&mut facts, u64::from(*at));
            put(&mut facts, u64::from(*about));
            put(&mut facts, (*count).min(u64::from(u32::MAX)));
        }
        let segments: Vec<_> = self.catalog_segments.iter().filter(|it| exists(**it)).collect();
        put(&mut facts, segments.len() as u64);
        segments.into_iter().for_each(|it| put(&mut facts, u64::from(*it)));
        let mut parts = vec![facts];
        let empty = Catalog::empty();
        let catalog = self.catalog.as_ref().unwrap_or(&empty);
        parts.extend(listed_changes(catalog).into_iter().map(|mut part| {
            part[0] = PART_CATALOG;
            part
        }));
        self.saved_jobs(exists, &mut parts);
        parts
    }

    /// Nothing waits for a record that is still to come, and all that came could be read: the state
    /// is one that a checkpoint can hold.
    pub(crate) fn is_settled(&self) -> bool {
        self.snapshot.is_none()
            && self.stopped.is_empty()
            && self.unapplied.is_empty()
            && self.found.unreadable.is_empty()
    }

    /// Messages that came or went since the beginning.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// All records have come; `exists`: the segments that are there.
    pub(crate) fn settle(&mut self, exists: BTreeSet<u32>) {
        self.base.settle(exists);
    }

    /// Everything that was found, line by line, to be compared: a checkpoint and what follows it
    /// must say the same as the whole log. `exists`: the segments that are there.
    pub fn describe(&mut self, exists: BTreeSet<u32>) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.catalog.iter().flat_map(Catalog::changes).map(|it| format!("{it:?}")));
        let segments = self.catalog_segments.intersection(&exists);
        lines.push(format!("catalog in {:?}", segments.collect::<Vec<_>>()));
        let is_there =
            |it: &(u32, u32)| it.0 != it.1 && exists.contains(&it.0) && exists.contains(&it.1);
        let notes: BTreeMap<_, _> = self.notes.iter().filter(|it| is_there(it.0)).collect();
        lines.push(format!("notes {notes:?}"));
        let ever: BTreeMap<_, _> = self.ever.iter().filter(|it| exists.contains(it.0)).collect();
        lines.push(format!("messages ever {ever:?}"));
        self.settle(exists);
        let later = self.later().filter(|it| self.is_known(it.0));
        let mut messages: Vec<_> = later.map(|(queue, it)| (queue, Ok(it))).collect();
        for queue in self.base.queues().filter(|it| self.is_known(*it)) {
            messages.extend(self.base.messages(queue).map(|it| (queue, it)));
        }
        let origins: BTreeSet<_> = messages
            .iter()
            .filter_map(|(queue, it)| Some((*queue, it.as_ref().ok()?.origin)))
            .collect();
        let jobs = self.jobs.iter().filter(|(of, _)| origins.contains(of));
        lines.extend(jobs.map(|it| format!("{it:?}")));
        messages.sort_by_key(|(queue, it)| (*queue, it.as_ref().ok().map(|it| it.position)));
        lines.extend(messages.iter().map(|it| format!("{it:?}")));
        lines
    }

    /// Of a run of the checkpoint, the messages that are still there. Whether there is such a queue
    /// is not asked: what tells of it may stand in a later segment only.
    pub(crate) fn remaining<'a>(
        &'a self,
        run: Run<'a>,
    ) -> impl Iterator<Item = Result<Kept, RecordError>> + 'a {
        self.base.remaining(run)
    }

    /// Can a run of the checkpoint be written again as it is?
    pub(crate) fn is_untouched(&self, run: &Run<'_>) -> bool {
        self.base.is_untouched(run)
    }

    /// The messages that came since the checkpoint and are still there, queue by queue.
    pub(crate) fn later(&self) -> impl Iterator<Item = (QueueId, Kept)> {
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_unstable_by_key(|it| *it.0);
        queues.into_iter().flat_map(|(queue, entries)| entries.messages().map(|it| (*queue, it)))
    }

    /// What the log says of the password of a user, if it knows the user.
    pub fn password(&self, user: &str) -> Option<PasswordHash> {
        self.catalog.as_ref()?.user(user).map(|it| it.password.clone())
    }

    fn is_known(&self, queue: QueueId) -> bool {
        self.catalog.as_ref().is_some_and(|it| it.queue(queue).is_some())
    }

    /// Takes the next record of the log.
    pub fn record(&mut self, position: LogPosition, end: LogPosition, kind: u8, payload: &[u8]) {
        let taken = match kind {
            kind::CATALOG_CHANGE => self.change(position, payload),
            kind::CATALOG_SNAPSHOT => self.snapshot_part(position, payload),
            kind::JOB => self.job_record(position, payload),
            _ => self.message_record(position, end, kind, payload),
        };
        if let Err(why) = taken {
            match kind {
                kind::CATALOG_CHANGE => self.unapplied.push((position, why)),
                _ => self.found.unreadable.push((position, why)),
            }
        }
        if kind != kind::STOPPED {
            self.stopped.clear();
        }
    }

    fn change(&mut self, position: LogPosition, payload: &[u8]) -> Result<(), String> {
        let change = Change::decode(payload).map_err(|it| it.to_string())?;
        if let Change::QueueDeleted { queue, .. } = &change {
            self.queues.remove(queue);
            self.base.delete(*queue);
            self.jobs.retain(|(of, _), _| of != queue);
        }
        self.catalog_segments.insert(position.segment());
        let catalog = self.catalog.get_or_insert_with(Catalog::empty);
        catalog.apply(&change).map_err(|it| it.to_string())
    }

    /// Parts begin with one octet: 0 more follow, 1 this is the last, 2 begins anew (and more
    /// follow), 3 both; then changes, each behind its length.
    fn snapshot_part(&mut self, position: LogPosition, payload: &[u8]) -> Result<(), String> {
        let (flags, rest) = payload.split_first().ok_or("snapshot part without octets")?;
        if flags & SNAPSHOT_FIRST != 0 {
            self.snapshot = Some((Catalog::empty(), BTreeSet::new()));
        }
        let Some((snapshot, segments)) = &mut self.snapshot else {
            return Err("snapshot part without its beginning".to_owned());
        };
        segments.insert(position.segment());
        apply_all(snapshot, rest)?;
        if flags & SNAPSHOT_LAST != 0
            && let Some((catalog, segments)) = self.snapshot.take()
        {
            self.catalog = Some(catalog);
            self.catalog_segments = segments;
            self.unapplied.clear();
        }
        Ok(())
    }

    fn job_record(&mut self, position: LogPosition, payload: &[u8]) -> Result<(), String> {
        let mut record = JobRecord::decode(payload).map_err(|it| it.to_string())?;
        if let Some(result) = &mut record.result {
            // That there is one is known; it is read when it is wanted.
            result.body = Default::default();
        }
        *self.ever.entry(position.segment()).or_default() += 1;
        self.taken += 1;
        self.jobs.insert((record.queue, record.origin), (record, position));
        Ok(())
    }

    fn message_record(
        &mut self,
        position: LogPosition,
        end: LogPosition,
        kind: u8,
        payload: &[u8],
    ) -> Result<(), String> {
        match Record::decode(kind, payload).map_err(|it| it.to_string())? {
            Record::Message { record, size, facts } => {
                for target in &record.targets {
                    let arrival = if target.origin.0 == 0 { position } else { target.origin };
                    *self.ever.entry(position.segment()).or_default() += 1;
                    self.taken += 1;
                    self.queues.entry(target.queue).or_default().push(&Kept {
                        position,
                        end,
                        origin: arrival,
                        arrived: record.arrived,
                        size,
                        facts,
                        acquired: target.acquired,
                        failed: target.failed,
                        redelivered: target.redelivered,
                    });
                }
                for (queue, replaced) in &record.replaces {
                    self.remove(position, *queue, *replaced);
                }
            }
            Record::Removed { queue, positions } => {
                positions.iter().for_each(|it| self.remove(position, queue, *it));
            }
            Record::Counted { queue, position: about, acquired, failed } => {
                self.note(position, about);
                if self.base.covers(about) {
                    self.base.count(queue, about, acquired, failed);
                } else if let Some(entries) = self.queues.get_mut(&queue) {
                    entries.count(about, acquired, failed);
                }
            }
            Record::Stopped { queue, redelivered } => {
                self.stopped.entry(queue).or_default().extend(redelivered);
            }
        }
        Ok(())
    }

    fn note(&mut self, at: LogPosition, about: LogPosition) {
        *self.notes.entry((at.segment(), about.segment())).or_default() += 1;
    }

    fn remove(&mut self, at: LogPosition, queue: QueueId, position: LogPosition) {
        self.note(at, position);
        if self.base.covers(position) {
            self.taken += 1;
            self.base.remove(queue, position);
        } else if let Some(entries) = self.queues.get_mut(&queue) {
            entries.remove(position);
        }
    }

    /// Ends the collection. `orderly`: the log was closed in order. `catalog_damaged`: records of
    /// the catalog were lost, so a queue without declaration is not a deleted one. `exists`: the
    /// segments that are there and not retired; what is said of others is of no use, because the
    /// records of its removal may have gone.
    pub(crate) fn finish(
        mut self,
        orderly: bool,
        catalog_damaged: bool,
        exists: BTreeSet<u32>,
    ) -> RestoredQueues {
        let catalog = self.catalog.take().unwrap_or_else(Catalog::empty);
        self.found.unreadable.append(&mut self.unapplied);
        if self.ever.keys().any(|it| !exists.contains(it)) {
            self.queues.values_mut().for_each(|it| it.remove_absent(&exists));
        }
        self.base.settle(exists);
        let mut orphan_segments = BTreeSet::new();
        let mut orphans = 0;
        let mut orphan = |kept: Kept| {
            orphans += 1;
            orphan_segments.insert(kept.position.segment());
        };
        self.queues.retain(|queue, entries| {
            let known = catalog.queue(*queue).is_some();
            if !known && catalog_damaged && !is_sown(Seeded::MissingQueueForgotten) {
                entries.messages().for_each(&mut orphan);
            }
            known
        });
        if catalog_damaged {
            let unknown: Vec<_> =
                self.base.queues().filter(|it| catalog.queue(*it).is_none()).collect();
            for queue in unknown {
                self.base.messages(queue).filter_map(Result::ok).for_each(&mut orphan);
            }
        }
        self.found.orphans = orphans;
        for positions in self.stopped.values_mut() {
            positions.sort_unstable();
        }
        RestoredQueues {
            catalog,
            base: self.base,
            entries: self.queues,
            jobs: self.jobs,
            ever: self.ever,
            stopped: self.stopped,
            orderly,
            notes: self.notes,
            catalog_segments: self.catalog_segments,
            orphan_segments: orphan_segments.into_iter().collect(),
            found: self.found,
        }
    }
}

/// Messages on their way back into their queue.
struct PuttingBack<'q> {
    restoring: Restoring<'q>,
    stopped: Sorted<'q>,
    orderly: bool,
    /// A queue numbers what is put back from 1 on.
    entry: u64,
    /// Where copied ones first lay.
    origins: BTreeMap<EntryId, LogPosition>,
    unreadable: Vec<(LogPosition, String)>,
}

impl PuttingBack<'_> {
    // Inlined, what was decoded stays in registers: there may be millions.
    #[inline(always)]
    fn put(&mut self, it: Result<Kept, RecordError>, each: &mut impl FnMut(LogPosition)) {
        let it = match it {
            Ok(it) => it,
            Err(error) => return self.unreadable.push((LogPosition(0), error.to_string())),
        };
        self.entry += 1;
        if it.origin != it.position {
            self.origins.insert(EntryId(self.entry), it.origin);
        }
        each(it.position);
        self.restoring.put(Restored {
            place: Place::Log { position: it.position, end: it.end },
            origin: it.origin,
            size: it.size,
            facts: it.facts,
            arrived: it.arrived,
            // After a crash nobody knows who got what: only an orderly stop has told.
            redelivered: it.redelivered || !self.orderly || self.stopped.has(it.position),
            acquired: it.acquired,
            failed: it.failed,
        });
    }
}

impl RestoredQueues {
    /// Puts the jobs of the queue back, whose messages `read` reads, and tells the positions of
    /// their messages and records.
    pub(crate) fn fill_jobs(
        &mut self,
        queue: &mut JobQueue,
        now: Timestamp,
        read: ReadMessages<'_>,
        mut each: impl FnMut(LogPosition),
    ) -> Vec<Effect> {
        let id = queue.policy().queue;
        let stopped = self.stopped.remove(&id).unwrap_or_default();
        let mut stopped = Sorted::new(&stopped);
        let later = self.entries.remove(&id).unwrap_or_default();
        let orderly = self.orderly || is_sown(Seeded::NotRedelivered);
        let mut all: Vec<Kept> = Vec::new();
        for it in self.base.messages(id).chain(later.messages().map(Ok)) {
            match it {
                Ok(kept) => all.push(kept),
                Err(error) => self.found.unreadable.push((LogPosition(0), error.to_string())),
            }
        }
        // A copy that reclaim made stands where the first one stood.
        all.sort_by_key(|it| it.origin);
        let mut effects = Vec::new();
        for batch in all.chunks(READ_MESSAGES) {
            let positions: Vec<_> = batch.iter().map(|it| it.position).collect();
            for (it, message) in batch.iter().zip(read(&positions)) {
                let message = match message {
                    Ok(message) => message,
                    Err(why) => {
                        self.found.unreadable.push((it.position, why));
                        continue;
                    }
                };
                let record = self.jobs.remove(&(id, it.origin));
                each(it.position);
                if let Some((_, at)) = &record {
                    each(*at);
                }
                self.found.messages += 1;
                let restored = Restored {
                    place: Place::Log { position: it.position, end: it.end },
                    origin: it.origin,
                    size: it.size,
                    facts: it.facts,
                    arrived: it.arrived,
                    redelivered: it.redelivered || !orderly || stopped.has(it.position),
                    acquired: it.acquired,
                    failed: it.failed,
                };
                let job = RestoredJob { restored, message: &message, record };
                queue.restore(job, now, &mut effects);
            }
        }
        self.base.forget(id);
        effects
    }

    /// Puts the messages of the queue back and tells the position of each. Returns where copied
    /// ones first lay.
    pub(crate) fn fill(
        &mut self,
        queue: &mut Queue,
        mut each: impl FnMut(LogPosition),
    ) -> BTreeMap<EntryId, LogPosition> {
        let id = queue.policy().queue;
        let stopped = self.stopped.remove(&id).unwrap_or_default();
        let later = self.entries.remove(&id).unwrap_or_default();
        let mut putting = PuttingBack {
            restoring: queue.restoring(),
            stopped: Sorted::new(&stopped),
            orderly: self.orderly || is_sown(Seeded::NotRedelivered),
            entry: 0,
            origins: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        let later_copies = later.rare.iter().any(|it| it.origin.is_some());
        let has_copies = self.base.has_copies(id) || later_copies;
        if has_copies {
            // A copy that reclaim made stands where the first one stood.
            let mut all: Vec<_> = self.base.messages(id).chain(later.messages().map(Ok)).collect();
            all.sort_by_key(|it| it.as_ref().map_or(LogPosition(0), |it| it.origin));
            all.into_iter().for_each(|it| putting.put(it, &mut each));
        } else {
            self.base.for_each_message(id, |it| putting.put(it, &mut each));
            later.messages().for_each(|it| putting.put(Ok(it), &mut each));
        }
        putting.restoring.finish();
        self.found.messages += putting.entry;
        self.found.unreadable.append(&mut putting.unreadable);
        let origins = putting.origins;
        self.base.forget(id);
        origins
    }
}
