//! The messages that wait, in order: one list per level of priority, each cut into chunks of fixed
//! size, so that a long queue is never copied to grow and a message that comes back finds its old
//! place by binary search.

use crate::{
    command::Place,
    entry::{Entry, Item, smaller},
};
use model::{EntryId, Message, Timestamp, policy::Order};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use stdx::seeded::{Seeded, is_sown};

const CHUNK_ENTRIES: usize = 128;
/// A list that runs empty keeps no more than this, because there may be very many quiet queues.
const QUIET_ENTRIES_MAX: usize = 32;

#[derive(Debug)]
struct Chunk {
    entries: VecDeque<Entry>,
    /// Bounds of the log segments of its entries; may be wider than they need be.
    segment_min: u32,
    segment_max: u32,
}

impl Chunk {
    fn new(capacity: usize) -> Self {
        let entries = VecDeque::with_capacity(capacity);
        Self { entries, segment_min: u32::MAX, segment_max: 0 }
    }

    fn widen(&mut self, segment: Option<u32>) {
        if let Some(segment) = segment {
            self.segment_min = self.segment_min.min(segment);
            self.segment_max = self.segment_max.max(segment);
        }
    }

    fn may_touch(&self, segment: u32) -> bool {
        self.segment_min <= segment && segment <= self.segment_max
    }
}

/// Entries by ascending id. No chunk is empty, except one that stands alone.
#[derive(Debug, Default)]
struct List {
    chunks: VecDeque<Chunk>,
}

impl List {
    fn is_empty(&self) -> bool {
        self.front().is_none()
    }

    fn front(&self) -> Option<&Entry> {
        self.chunks.front()?.entries.front()
    }

    fn back(&self) -> Option<&Entry> {
        self.chunks.back()?.entries.back()
    }

    fn push_back(&mut self, entry: Entry) {
        match self.chunks.back() {
            None => self.chunks.push_back(Chunk::new(0)),
            Some(last) if last.entries.len() == CHUNK_ENTRIES => {
                self.chunks.push_back(Chunk::new(CHUNK_ENTRIES));
            }
            Some(_) => {}
        }
        let last = self.chunks.back_mut().expect("one was there or was just added");
        last.widen(entry.segment());
        last.entries.push_back(entry);
    }

    fn insert(&mut self, entry: Entry) {
        if self.back().is_none_or(|it| it.id < entry.id) || is_sown(Seeded::RequeueToTail) {
            return self.push_back(entry);
        }
        let at = self.chunk_of(entry.id);
        if self.chunks[at].entries.len() == CHUNK_ENTRIES {
            self.split(at);
        }
        let at = self.chunk_of(entry.id);
        let chunk = &mut self.chunks[at];
        let index = chunk.entries.partition_point(|it| it.id < entry.id);
        chunk.widen(entry.segment());
        chunk.entries.insert(index, entry);
    }

    /// The chunk in which this id stands or would stand. There must be a chunk.
    fn chunk_of(&self, id: EntryId) -> usize {
        let starts_before = |it: &Chunk| it.entries.front().is_some_and(|it| it.id <= id);
        self.chunks.partition_point(starts_before).saturating_sub(1)
    }

    fn split(&mut self, at: usize) {
        let chunk = &mut self.chunks[at];
        // At the front only one entry is cut off: what comes back to the head comes in a row.
        let keep = if at == 0 { 1 } else { CHUNK_ENTRIES / 2 };
        let mut rest = VecDeque::with_capacity(CHUNK_ENTRIES);
        rest.extend(chunk.entries.drain(keep..));
        let (segment_min, segment_max) = (chunk.segment_min, chunk.segment_max);
        self.chunks.insert(at + 1, Chunk { entries: rest, segment_min, segment_max });
    }

    fn find(&self, id: EntryId) -> Option<(usize, usize)> {
        if self.is_empty() {
            return None;
        }
        let at = self.chunk_of(id);
        let index = self.chunks[at].entries.binary_search_by_key(&id, |it| it.id).ok()?;
        Some((at, index))
    }

    fn remove(&mut self, at: usize, index: usize) -> Option<Entry> {
        let is_alone = self.chunks.len() == 1;
        let chunk = self.chunks.get_mut(at)?;
        let entry = chunk.entries.remove(index)?;
        if chunk.entries.is_empty() {
            if !is_alone || QUIET_ENTRIES_MAX < chunk.entries.capacity() {
                self.chunks.remove(at);
            } else {
                (chunk.segment_min, chunk.segment_max) = (u32::MAX, 0);
            }
        }
        Some(entry)
    }

    fn pop_front(&mut self) -> Option<Entry> {
        self.remove(0, 0)
    }

    fn pop_back(&mut self) -> Option<Entry> {
        let last = self.chunks.len().checked_sub(1)?;
        self.remove(last, self.chunks[last].entries.len().checked_sub(1)?)
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.chunks.iter().flat_map(|it| &it.entries)
    }
}

/// What is known of a waiting message and does not stand in its entry.
#[derive(Clone, Copy, Debug)]
struct Note {
    ttl_ms: Option<u64>,
    acquired: u32,
    failed: u32,
}

fn highest(levels: &[u64; 4]) -> Option<u8> {
    let word = (0..4).rev().find(|it| levels[*it] != 0)?;
    Some((word * 64) as u8 + 63 - levels[word].leading_zeros() as u8)
}

/// All ready messages of a queue.
#[derive(Debug)]
pub(crate) struct Ready {
    order: Order,
    levels: Vec<List>,
    /// One bit for each level that holds something.
    occupied: [u64; 4],
    notes: BTreeMap<EntryId, Note>,
    len: u64,
    bytes: u64,
    resident: u64,
    ahead: usize,
}

impl Ready {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            levels: Vec::new(),
            occupied: [0; 4],
            notes: BTreeMap::new(),
            len: 0,
            bytes: 0,
            resident: 0,
            ahead: 0,
        }
    }

    pub(crate) fn is_lifo(&self) -> bool {
        self.order == Order::Lifo
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Octets of all bodies, in memory or not.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Octets of the bodies in memory.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// Messages whose bodies were read ahead and wait for their delivery.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    fn highest(&self) -> Option<u8> {
        highest(&self.occupied)
    }

    fn lowest(&self) -> Option<u8> {
        let word = (0..4).find(|it| self.occupied[*it] != 0)?;
        Some((word * 64) as u8 + self.occupied[word].trailing_zeros() as u8)
    }

    /// The levels that hold something, highest first.
    pub(crate) fn occupied_levels(&self) -> impl Iterator<Item = u8> + use<> {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let level = highest(&left)?;
            left[usize::from(level / 64)] &= !(1 << (level % 64));
            Some(level)
        })
    }

    /// A message that arrived now at this level would be the next one.
    pub(crate) fn would_be_next(&self, level: u8) -> bool {
        match self.order {
            Order::Fifo => self.highest().is_none_or(|it| it < level),
            Order::Lifo => self.highest().is_none_or(|it| it <= level),
        }
    }

    /// Puts a message in its place, which for a new one is the end.
    pub(crate) fn insert(&mut self, item: Item) {
        let Item { mut entry, level, ttl_ms, acquired, failed } = item;
        let at = usize::from(level);
        // The message itself knows its time to live while it is in memory.
        let is_noted = 0 < acquired || 0 < failed || (ttl_ms.is_some() && entry.message.is_none());
        entry.set_noted(is_noted);
        if is_noted {
            self.notes.insert(entry.id, Note { ttl_ms, acquired, failed });
        }
        self.len += 1;
        self.bytes += u64::from(entry.body_len);
        self.resident += entry.resident();
        self.ahead += usize::from(entry.is_ahead());
        self.occupied[at / 64] |= 1 << (at % 64);
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, List::default);
        }
        self.levels[at].insert(entry);
    }

    fn taken(&mut self, level: u8, entry: Entry) -> Item {
        let at = usize::from(level);
        if self.levels[at].is_empty() {
            self.occupied[at / 64] &= !(1 << (at % 64));
        }
        self.len -= 1;
        self.bytes -= u64::from(entry.body_len);
        self.resident -= entry.resident();
        self.ahead -= usize::from(entry.is_ahead());
        let mut item = Item { level, ttl_ms: None, acquired: 0, failed: 0, entry };
        if item.entry.is_noted()
            && let Some(note) = self.notes.remove(&item.entry.id)
        {
            (item.ttl_ms, item.acquired, item.failed) = (note.ttl_ms, note.acquired, note.failed);
        } else if let Some(message) = &item.entry.message {
            item.ttl_ms = message.ttl_ms;
        }
        item.entry.set_ahead(false);
        item
    }

    /// The message that is delivered next.
    pub(crate) fn next(&self) -> Option<&Entry> {
        let list = &self.levels[usize::from(self.highest()?)];
        match self.order {
            Order::Fifo => list.front(),
            Order::Lifo => list.back(),
        }
    }

    pub(crate) fn pop_next(&mut self) -> Option<Item> {
        let level = self.highest()?;
        let list = &mut self.levels[usize::from(level)];
        let entry = match self.order {
            Order::Fifo => list.pop_front(),
            Order::Lifo => list.pop_back(),
        }?;
        Some(self.taken(level, entry))
    }

    /// Takes the message that a queue without room drops first.
    pub(crate) fn pop_oldest(&mut self) -> Option<Item> {
        self.pop_front(self.lowest()?)
    }

    pub(crate) fn pop_front(&mut self, level: u8) -> Option<Item> {
        let entry = self.levels[usize::from(level)].pop_front()?;
        Some(self.taken(level, entry))
    }

    pub(crate) fn pop_back(&mut self, level: u8) -> Option<Item> {
        let entry = self.levels[usize::from(level)].pop_back()?;
        Some(self.taken(level, entry))
    }

    /// The oldest message of a level.
    pub(crate) fn front(&self, level: u8) -> Option<&Entry> {
        self.levels.get(usize::from(level))?.front()
    }

    /// The newest message of a level.
    pub(crate) fn back(&self, level: u8) -> Option<&Entry> {
        self.levels.get(usize::from(level))?.back()
    }

    fn find(&self, id: EntryId) -> Option<(u8, usize, usize)> {
        self.occupied_levels().find_map(|level| {
            let (at, index) = self.levels[usize::from(level)].find(id)?;
            Some((level, at, index))
        })
    }

    pub(crate) fn get(&self, id: EntryId) -> Option<&Entry> {
        let (level, at, index) = self.find(id)?;
        Some(&self.levels[usize::from(level)].chunks[at].entries[index])
    }

    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Item> {
        let (level, at, index) = self.find(id)?;
        let entry = self.levels[usize::from(level)].remove(at, index)?;
        Some(self.taken(level, entry))
    }

    /// Gives a message its body back, which was read ahead.
    pub(crate) fn attach(&mut self, id: EntryId, message: Arc<Message>) {
        let Some((level, at, index)) = self.find(id) else { return };
        let entry = &mut self.levels[usize::from(level)].chunks[at].entries[index];
        if entry.message.is_none() {
            self.ahead += 1;
            entry.message = Some(message);
            self.resident += entry.resident();
            entry.set_ahead(true);
            entry.set_fleeting();
        }
    }

    pub(crate) fn relocate(&mut self, id: EntryId, to: Place) {
        let Some((level, at, index)) = self.find(id) else { return };
        let chunk = &mut self.levels[usize::from(level)].chunks[at];
        chunk.entries[index].set_place(to);
        chunk.widen(chunk.entries[index].segment());
    }

    /// Times that a waiting message was delivered and failed.
    pub(crate) fn counters(&self, entry: &Entry) -> (u32, u32) {
        let note = entry.is_noted().then(|| self.notes.get(&entry.id)).flatten();
        note.map_or((0, 0), |it| (it.acquired, it.failed))
    }

    /// The time when this message expires in a queue with this time to live.
    pub(crate) fn deadline(&self, entry: &Entry, queue_ttl_ms: Option<u64>) -> Option<Timestamp> {
        let own_ttl_ms = if !entry.has_ttl() {
            None
        } else if entry.is_noted() {
            self.notes.get(&entry.id).and_then(|it| it.ttl_ms)
        } else {
            entry.message.as_ref().and_then(|it| it.ttl_ms)
        };
        Some(entry.arrived().plus_ms(smaller(queue_ttl_ms, own_ttl_ms)?))
    }

    /// Every ready message, the next one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.occupied_levels().flat_map(|level| {
            let list = &self.levels[usize::from(level)];
            let (fifo, lifo) = match self.order {
                Order::Fifo => (Some(list.iter()), None),
                Order::Lifo => (None, Some(list.iter().rev())),
            };
            fifo.into_iter().flatten().chain(lifo.into_iter().flatten())
        })
    }

    /// Every ready message that lies in this log segment.
    pub(crate) fn in_segment(&self, segment: u32) -> impl Iterator<Item = &Entry> {
        let chunks = self.levels.iter().flat_map(|it| &it.chunks);
        let entries = chunks.filter(move |it| it.may_touch(segment)).flat_map(|it| &it.entries);
        entries.filter(move |it| it.segment() == Some(segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LogPosition;

    fn item(id: u64, level: u8, segment: u64) -> Item {
        let position = LogPosition(segment << 32);
        let place = Place::Log { position, end: position };
        let entry = Entry::new(EntryId(id), place, 1, Timestamp(0));
        Item { entry, level, ttl_ms: None, acquired: 0, failed: 0 }
    }

    fn drained(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop_next()).map(|it| it.entry.id.0).collect()
    }

    #[test]
    fn what_comes_back_finds_its_old_place() {
        let mut ready = Ready::new(Order::Fifo);
        // Odd ones first, then even ones in a shuffled order.
        (0..5_000).map(|it| it * 2 + 1).for_each(|it| ready.insert(item(it, 0, 0)));
        (0..5_000).map(|it| it * 1_777 % 5_000 * 2).for_each(|it| ready.insert(item(it, 0, 0)));
        assert_eq!(ready.len(), 10_000);
        assert_eq!(drained(&mut ready), (0..10_000).collect::<Vec<_>>());
        assert_eq!((ready.len(), ready.bytes()), (0, 0));
    }

    #[test]
    fn higher_levels_come_first_and_lifo_turns_each_level_around() {
        let mut ready = Ready::new(Order::Lifo);
        for (id, level) in [(1, 3), (2, 255), (3, 3), (4, 0), (5, 255), (6, 64)] {
            ready.insert(item(id, level, 0));
        }
        assert_eq!(ready.iter().map(|it| it.id.0).collect::<Vec<_>>(), [5, 2, 6, 3, 1, 4]);
        assert_eq!(ready.pop_oldest().map(|it| it.entry.id), Some(EntryId(4)));
        assert_eq!(drained(&mut ready), [5, 2, 6, 3, 1]);
    }

    #[test]
    fn messages_of_a_segment_are_found_after_moves() {
        let mut ready = Ready::new(Order::Fifo);
        (0..1_000).for_each(|it| ready.insert(item(it, (it % 2) as u8, it / 100)));
        let position = LogPosition(42 << 32 | 7);
        ready.relocate(EntryId(250), Place::Log { position, end: position });
        let found = |segment| ready.in_segment(segment).map(|it| it.id.0).collect::<Vec<_>>();
        assert_eq!(found(42), [250]);
        assert_eq!(found(2).len(), 99);
        assert!(found(11).is_empty());
    }

    #[test]
    fn entry_can_be_taken_from_the_middle() {
        let mut ready = Ready::new(Order::Fifo);
        (0..300).for_each(|it| ready.insert(item(it, 0, 0)));
        for id in 100..299 {
            assert!(ready.remove(EntryId(id)).is_some());
            assert!(ready.remove(EntryId(id)).is_none());
        }
        let expected: Vec<_> = (0..100).chain([299]).collect();
        assert_eq!(drained(&mut ready), expected);
    }
}
