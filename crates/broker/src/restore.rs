//! From the records of the log back to catalog and queues. What the log does not contradict is
//! there again: a message lives until a record says that it left.

use catalog::{Catalog, Change};
use engine::{Place, Queue, Record, Restored, record::MessageFacts, record::kind};
use foldhash::HashMap;
use model::{EntryId, LogPosition, QueueId, Timestamp};
use std::collections::BTreeMap;
use stdx::seeded::{Seeded, is_sown};

/// One message as the log knows it.
#[derive(Clone, Debug)]
struct Entry {
    position: LogPosition,
    end: LogPosition,
    origin: LogPosition,
    arrived: Timestamp,
    size: u64,
    facts: MessageFacts,
    acquired: u32,
    failed: u32,
    redelivered: bool,
    gone: bool,
}

/// The messages of one queue in log order, and how many of them have gone.
#[derive(Clone, Debug, Default)]
struct Entries {
    list: Vec<Entry>,
    gone: usize,
}

/// Gone messages that are carried along before a queue is cleaned.
const GONE_MIN: usize = 1_024;

impl Entries {
    fn find(&mut self, position: LogPosition) -> Option<&mut Entry> {
        let at = self.list.binary_search_by_key(&position, |it| it.position).ok()?;
        self.list.get_mut(at)
    }

    fn remove(&mut self, position: LogPosition) {
        // A removal that names nothing is none: its message went with its segment.
        let Some(entry) = self.find(position).filter(|it| !it.gone) else { return };
        entry.gone = true;
        self.gone += 1;
        // A queue that lives on few messages would otherwise carry its whole past along.
        if GONE_MIN < self.gone && self.list.len() < 2 * self.gone {
            self.clean();
        }
    }

    fn clean(&mut self) {
        self.list.retain(|it| !it.gone);
        self.gone = 0;
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

/// Collects records in log order.
#[derive(Default)]
pub struct Restorer {
    catalog: Option<Catalog>,
    /// Parts of a snapshot of the catalog that is not complete yet.
    snapshot: Option<(Catalog, Vec<u32>)>,
    queues: HashMap<QueueId, Entries>,
    /// Messages per segment, whether they still count or not.
    ever: HashMap<u32, u64>,
    /// Of the last record if it is one of a clean stop.
    stopped: HashMap<QueueId, Vec<LogPosition>>,
    /// Segment of a note, segment it speaks about.
    notes: HashMap<(u32, u32), u64>,
    catalog_segments: Vec<u32>,
    /// Changes that could not be applied. A snapshot that follows makes up for them: what they
    /// build on may have gone with its segment.
    unapplied: Vec<(LogPosition, String)>,
    found: Restoration,
}

/// A queue to be put back.
pub(crate) struct RestoredQueues {
    pub(crate) catalog: Catalog,
    entries: HashMap<QueueId, Entries>,
    pub(crate) ever: HashMap<u32, u64>,
    stopped: HashMap<QueueId, Vec<LogPosition>>,
    orderly: bool,
    pub(crate) notes: HashMap<(u32, u32), u64>,
    /// Segments that hold what rebuilds the catalog.
    pub(crate) catalog_segments: Vec<u32>,
    /// Segments that hold orphans, which nobody may retire.
    pub(crate) orphan_segments: Vec<u32>,
    pub(crate) found: Restoration,
}

impl Restorer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record of the log.
    pub fn record(&mut self, position: LogPosition, end: LogPosition, kind: u8, payload: &[u8]) {
        let taken = match kind {
            kind::CATALOG_CHANGE => self.change(position, payload),
            kind::CATALOG_SNAPSHOT => self.snapshot_part(position, payload),
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
        self.catalog_segments.push(position.segment());
        let catalog = self.catalog.get_or_insert_with(Catalog::empty);
        catalog.apply(&change).map_err(|it| it.to_string())
    }

    /// Parts begin with one octet: 0 more follow, 1 this is the last, 2 begins anew (and more
    /// follow), 3 both; then changes, each behind its length.
    fn snapshot_part(&mut self, position: LogPosition, payload: &[u8]) -> Result<(), String> {
        let (flags, mut rest) = payload.split_first().ok_or("snapshot part without octets")?;
        if flags & SNAPSHOT_FIRST != 0 {
            self.snapshot = Some((Catalog::empty(), Vec::new()));
        }
        let Some((snapshot, segments)) = &mut self.snapshot else {
            return Err("snapshot part without its beginning".to_owned());
        };
        segments.push(position.segment());
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let (change, more) = more.split_at_checked(length).ok_or("snapshot part is cut")?;
            let change = Change::decode(change).map_err(|it| it.to_string())?;
            snapshot.apply(&change).map_err(|it| it.to_string())?;
            rest = more;
        }
        if flags & SNAPSHOT_LAST != 0
            && let Some((catalog, segments)) = self.snapshot.take()
        {
            self.catalog = Some(catalog);
            self.catalog_segments = segments;
            self.unapplied.clear();
        }
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
                    self.queues.entry(target.queue).or_default().list.push(Entry {
                        position,
                        end,
                        origin: arrival,
                        arrived: record.arrived,
                        size,
                        facts,
                        acquired: target.acquired,
                        failed: target.failed,
                        redelivered: target.redelivered,
                        gone: false,
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
                if let Some(entry) = self.entry(queue, about) {
                    // Reclaim may write an old count again behind a newer one; counts only grow.
                    entry.acquired = entry.acquired.max(acquired);
                    entry.failed = entry.failed.max(failed);
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

    fn entry(&mut self, queue: QueueId, position: LogPosition) -> Option<&mut Entry> {
        self.queues.get_mut(&queue)?.find(position)
    }

    fn remove(&mut self, at: LogPosition, queue: QueueId, position: LogPosition) {
        self.note(at, position);
        if let Some(entries) = self.queues.get_mut(&queue) {
            entries.remove(position);
        }
    }

    /// Ends the collection. `orderly`: the log was closed in order. `catalog_damaged`: records of
    /// the catalog were lost, so a queue without declaration is not a deleted one.
    pub(crate) fn finish(mut self, orderly: bool, catalog_damaged: bool) -> RestoredQueues {
        let catalog = self.catalog.take().unwrap_or_else(Catalog::empty);
        self.found.unreadable.append(&mut self.unapplied);
        let mut orphan_segments = Vec::new();
        self.queues.retain(|queue, entries| {
            entries.clean();
            let known = catalog.queue(*queue).is_some();
            if !known && catalog_damaged && !is_sown(Seeded::MissingQueueForgotten) {
                self.found.orphans += entries.list.len() as u64;
                orphan_segments.extend(entries.list.iter().map(|it| it.position.segment()));
            }
            known
        });
        orphan_segments.sort_unstable();
        orphan_segments.dedup();
        for entries in self.queues.values_mut() {
            entries.list.sort_unstable_by_key(|it| it.origin);
            self.found.messages += entries.list.len() as u64;
        }
        for positions in self.stopped.values_mut() {
            positions.sort_unstable();
        }
        RestoredQueues {
            catalog,
            entries: self.queues,
            ever: self.ever,
            stopped: self.stopped,
            orderly,
            notes: self.notes,
            catalog_segments: self.catalog_segments,
            orphan_segments,
            found: self.found,
        }
    }
}

/// First part of a snapshot of the catalog.
pub(crate) const SNAPSHOT_FIRST: u8 = 2;
/// Its last part.
pub(crate) const SNAPSHOT_LAST: u8 = 1;

impl RestoredQueues {
    /// Puts the messages of the queue back and tells the position of each. Returns where copied
    /// ones first lay.
    pub(crate) fn fill(
        &mut self,
        queue: &mut Queue,
        now: Timestamp,
        each: &mut dyn FnMut(LogPosition),
    ) -> BTreeMap<EntryId, LogPosition> {
        let id = queue.policy().queue;
        let stopped = self.stopped.remove(&id).unwrap_or_default();
        let mut origins = BTreeMap::new();
        // A queue numbers what is put back from 1 on.
        for (entry, it) in (1..).zip(self.entries.remove(&id).unwrap_or_default().list) {
            // After a crash nobody knows who got what: only an orderly stop has told.
            let orderly = self.orderly || is_sown(Seeded::NotRedelivered);
            let redelivered =
                it.redelivered || !orderly || stopped.binary_search(&it.position).is_ok();
            let restored = Restored {
                place: Place::Log { position: it.position, end: it.end },
                origin: it.origin,
                size: it.size,
                facts: it.facts,
                arrived: it.arrived,
                redelivered,
                acquired: it.acquired,
                failed: it.failed,
            };
            if it.origin != it.position {
                origins.insert(EntryId(entry), it.origin);
            }
            each(it.position);
            queue.restore(restored, now);
        }
        origins
    }
}
