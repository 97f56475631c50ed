//! The messages that wait: one list per level of priority, what is noted of some of them, and sums.

use crate::{
    command::Place,
    entry::{Entry, Item, Note, Notes, smaller},
    list::List,
};
use model::{EntryId, Message, Timestamp, policy::Order};
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

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
    /// Of messages in chunks that are not packed.
    notes: Notes,
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
            notes: Notes::new(),
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
        self.levels[at].insert(entry, &mut self.notes);
    }

    /// Notes something of a message that is about to come.
    pub(crate) fn note_down(&mut self, id: EntryId, note: Note) {
        self.notes.insert(id, note);
    }

    /// Puts messages behind all others of a level, and leaves `entries` without them. They have
    /// just been numbered, what there is to note of them has been noted, and none is in memory.
    pub(crate) fn append(&mut self, level: u8, entries: &mut VecDeque<Entry>) {
        if entries.is_empty() {
            return;
        }
        let at = usize::from(level);
        self.len += entries.len() as u64;
        self.bytes += entries.iter().map(|it| u64::from(it.body_len)).sum::<u64>();
        self.occupied[at / 64] |= 1 << (at % 64);
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, List::default);
        }
        self.levels[at].append(entries, &mut self.notes);
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
            Order::Fifo => list.pop_front(&mut self.notes),
            Order::Lifo => list.pop_back(&mut self.notes),
        }?;
        Some(self.taken(level, entry))
    }

    /// Takes the message that a queue without room drops first.
    pub(crate) fn pop_oldest(&mut self) -> Option<Item> {
        self.pop_front(self.lowest()?)
    }

    pub(crate) fn pop_front(&mut self, level: u8) -> Option<Item> {
        let entry = self.levels[usize::from(level)].pop_front(&mut self.notes)?;
        Some(self.taken(level, entry))
    }

    pub(crate) fn pop_back(&mut self, level: u8) -> Option<Item> {
        let entry = self.levels[usize::from(level)].pop_back(&mut self.notes)?;
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

    fn find(&self, id: EntryId) -> Option<(u8, (usize, usize))> {
        let mut levels = self.occupied_levels();
        levels.find_map(|level| Some((level, self.levels[usize::from(level)].find(id)?)))
    }

    /// Lets `look` see a waiting message, and how often it was delivered and failed.
    pub(crate) fn look<T>(
        &self,
        id: EntryId,
        look: impl FnOnce(&Entry, (u32, u32)) -> T,
    ) -> Option<T> {
        let (level, found) = self.find(id)?;
        self.levels[usize::from(level)].look(found, |entry, note| {
            let note = note.or_else(|| self.note(entry));
            look(entry, note.map_or((0, 0), |it| (it.acquired, it.failed)))
        })
    }

    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Item> {
        let (level, found) = self.find(id)?;
        let entry = self.levels[usize::from(level)].take(found, &mut self.notes)?;
        Some(self.taken(level, entry))
    }

    /// Gives a message its body back, which was read ahead.
    pub(crate) fn attach(&mut self, id: EntryId, message: Arc<Message>) {
        let Some((level, found)) = self.find(id) else { return };
        self.levels[usize::from(level)].change(found, &mut self.notes, |entry| {
            if entry.message.is_none() {
                self.ahead += 1;
                entry.message = Some(message);
                self.resident += entry.resident();
                entry.set_ahead(true);
                entry.set_fleeting();
            }
        });
    }

    pub(crate) fn relocate(&mut self, id: EntryId, to: Place) {
        let Some((level, found)) = self.find(id) else { return };
        self.levels[usize::from(level)].change(found, &mut self.notes, |it| it.set_place(to));
    }

    fn note(&self, entry: &Entry) -> Option<Note> {
        entry.is_noted().then(|| self.notes.get(&entry.id).copied()).flatten()
    }

    /// The time when this message, at an end of its level, expires in a queue with this time to
    /// live.
    pub(crate) fn deadline(&self, entry: &Entry, queue_ttl_ms: Option<u64>) -> Option<Timestamp> {
        let own_ttl_ms = if !entry.has_ttl() {
            None
        } else if entry.is_noted() {
            self.note(entry).and_then(|it| it.ttl_ms)
        } else {
            entry.message.as_ref().and_then(|it| it.ttl_ms)
        };
        Some(entry.arrived().plus_ms(smaller(queue_ttl_ms, own_ttl_ms)?))
    }

    /// Unpacks so many of the messages that are next: they are looked at, and then needed.
    pub(crate) fn unpack_next(&mut self, entries: usize) {
        if let Some(level) = self.highest().filter(|_| !self.is_lifo()) {
            self.levels[usize::from(level)].open_first(entries, &mut self.notes);
        }
    }

    /// Shows every ready message, the next one first, until `visit` has seen enough.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Entry) -> ControlFlow<()>) {
        for level in self.occupied_levels() {
            let list = &self.levels[usize::from(level)];
            if list.visit(self.is_lifo(), &mut visit).is_break() {
                return;
            }
        }
    }

    /// Shows every ready message that lies in this log segment.
    pub(crate) fn visit_segment(&self, segment: u32, mut visit: impl FnMut(&Entry)) {
        self.levels.iter().for_each(|it| it.visit_segment(segment, &mut visit));
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

    fn seen(ready: &Ready) -> Vec<u64> {
        let mut seen = Vec::new();
        ready.visit(|it| {
            seen.push(it.id.0);
            ControlFlow::Continue(())
        });
        seen
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
        assert_eq!(seen(&ready), [5, 2, 6, 3, 1, 4]);
        assert_eq!(ready.pop_oldest().map(|it| it.entry.id), Some(EntryId(4)));
        assert_eq!(drained(&mut ready), [5, 2, 6, 3, 1]);
    }

    #[test]
    fn messages_of_a_segment_are_found_after_moves() {
        let mut ready = Ready::new(Order::Fifo);
        (0..1_000).for_each(|it| ready.insert(item(it, (it % 2) as u8, it / 100)));
        let position = LogPosition(42 << 32 | 7);
        ready.relocate(EntryId(250), Place::Log { position, end: position });
        let found = |segment| {
            let mut found = Vec::new();
            ready.visit_segment(segment, |it| found.push(it.id.0));
            found
        };
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
