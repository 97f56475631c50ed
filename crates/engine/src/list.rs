//! The messages of one level, in order, cut into chunks of fixed size, so that a long queue is
//! never copied to grow and a message that comes back finds its old place by binary search. Chunks
//! far from both ends are packed while nobody touches them, so that a long queue costs little.

use crate::{
    entry::{Entry, Note, Notes},
    packed::Packed,
};
use model::EntryId;
use std::{collections::VecDeque, ops::ControlFlow};
use stdx::seeded::{Seeded, is_sown};

/// Entries of a chunk at most; few under test, so that short lives have packed ones.
pub(crate) const CHUNK_ENTRIES: usize = if cfg!(test) { 8 } else { 128 };
/// Chunks at either end that are not packed, so that taking and bringing back does not pack and
/// unpack the same one again and again.
const OPEN_CHUNKS: usize = 2;
/// Messages of a packed chunk that may be in memory: where there are more, their bodies weigh more
/// than their entries.
const PACKED_HERE_MAX: usize = CHUNK_ENTRIES / 8;
/// A list that runs empty keeps no more than this, because there may be very many quiet queues.
const QUIET_ENTRIES_MAX: usize = 32;

#[derive(Debug)]
enum Content {
    Open(VecDeque<Entry>),
    Packed(Packed),
}

#[derive(Debug)]
struct Chunk {
    content: Content,
    /// Bounds of the log segments of its entries; may be wider than they need be.
    segment_min: u32,
    segment_max: u32,
}

impl Chunk {
    fn new(entries: VecDeque<Entry>) -> Self {
        Self { content: Content::Open(entries), segment_min: u32::MAX, segment_max: 0 }
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

    fn first(&self) -> Option<EntryId> {
        match &self.content {
            Content::Open(entries) => entries.front().map(|it| it.id),
            Content::Packed(packed) => Some(packed.first()),
        }
    }

    fn open(&self) -> Option<&VecDeque<Entry>> {
        match &self.content {
            Content::Open(entries) => Some(entries),
            Content::Packed(_) => None,
        }
    }

    fn open_mut(&mut self) -> &mut VecDeque<Entry> {
        match &mut self.content {
            Content::Open(entries) => entries,
            Content::Packed(_) => unreachable!("a chunk is opened before it is changed"),
        }
    }

    fn index_of(&self, id: EntryId) -> Option<usize> {
        match &self.content {
            Content::Open(entries) => entries.binary_search_by_key(&id, |it| it.id).ok(),
            Content::Packed(packed) => {
                let mut from_there = packed.iter().enumerate().skip_while(|(_, it)| it.id < id);
                from_there.next().filter(|(_, it)| it.id == id).map(|(index, _)| index)
            }
        }
    }

    fn visit(
        &self,
        is_reversed: bool,
        visit: &mut impl FnMut(&Entry) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match (&self.content, is_reversed) {
            (Content::Open(entries), false) => entries.iter().try_for_each(visit),
            (Content::Open(entries), true) => entries.iter().rev().try_for_each(visit),
            (Content::Packed(packed), false) => packed.iter().try_for_each(|it| visit(&it)),
            (Content::Packed(packed), true) => {
                packed.iter().collect::<Vec<_>>().iter().rev().try_for_each(visit)
            }
        }
    }
}

/// Entries by ascending id. No chunk is empty, except one that stands alone; the first and the last
/// one are not packed.
#[derive(Debug, Default)]
pub(crate) struct List {
    chunks: VecDeque<Chunk>,
    /// The first id of the chunk that was opened or changed last: it stays open until another is.
    touched: Option<EntryId>,
}

impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.front().is_none()
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.chunks.front()?.open()?.front()
    }

    pub(crate) fn back(&self) -> Option<&Entry> {
        self.chunks.back()?.open()?.back()
    }

    fn push_back(&mut self, entry: Entry, notes: &mut Notes) {
        match self.chunks.back().and_then(Chunk::open) {
            None => self.chunks.push_back(Chunk::new(VecDeque::new())),
            Some(last) if last.len() == CHUNK_ENTRIES => self.add_chunk(notes),
            Some(_) => {}
        }
        let last = self.chunks.back_mut().expect("one was there or was just added");
        last.widen(entry.segment());
        last.open_mut().push_back(entry);
    }

    /// Adds a chunk at the end; the one that is far enough from it now gives its room for that.
    #[cold]
    fn add_chunk(&mut self, notes: &mut Notes) {
        self.chunks.push_back(Chunk::new(VecDeque::new()));
        let far = self.chunks.len().checked_sub(OPEN_CHUNKS + 1);
        let room = far.and_then(|at| self.pack(at, notes));
        let room = room.unwrap_or_else(|| VecDeque::with_capacity(CHUNK_ENTRIES));
        let last = self.chunks.back_mut().expect("it was just added");
        last.content = Content::Open(room);
    }

    /// Adds entries of ascending ids behind all others, and leaves `entries` without them. A whole
    /// chunk of them is taken as it is.
    pub(crate) fn append(&mut self, entries: &mut VecDeque<Entry>, notes: &mut Notes) {
        let last = self.chunks.back().and_then(Chunk::open);
        let begins_chunk = last.is_none_or(|it| it.len() == CHUNK_ENTRIES);
        if entries.len() < CHUNK_ENTRIES || !begins_chunk {
            return entries.drain(..).for_each(|it| self.push_back(it, notes));
        }
        self.add_chunk(notes);
        let last = self.chunks.back_mut().expect("it was just added");
        entries.iter().for_each(|it| last.widen(it.segment()));
        std::mem::swap(last.open_mut(), entries);
    }

    /// Packs a chunk if it lies far from both ends and few of its messages are in memory. Returns
    /// the room that it leaves.
    fn pack(&mut self, at: usize, notes: &mut Notes) -> Option<VecDeque<Entry>> {
        let is_far = OPEN_CHUNKS <= at && at + OPEN_CHUNKS < self.chunks.len();
        let chunk = self.chunks.get_mut(at).filter(|_| is_far)?;
        let Content::Open(entries) = &mut chunk.content else { return None };
        let here = entries.iter().filter(|it| it.message.is_some()).count();
        if PACKED_HERE_MAX < here || entries.is_empty() {
            return None;
        }
        let packed = Packed::pack(entries, notes);
        match std::mem::replace(&mut chunk.content, Content::Packed(packed)) {
            Content::Open(room) => Some(room),
            Content::Packed(_) => None,
        }
    }

    #[cold]
    fn unpack(&mut self, at: usize, room: VecDeque<Entry>, notes: &mut Notes) {
        let chunk = &mut self.chunks[at];
        if let Content::Packed(packed) = &chunk.content {
            let mut entries = room;
            packed.unpack_to(&mut entries, notes);
            chunk.content = Content::Open(entries);
        }
    }

    /// Opens a chunk that is to be changed, and packs the one that was before it.
    fn touch(&mut self, at: usize, notes: &mut Notes) {
        let first = self.chunks[at].first();
        let mut room = None;
        if self.touched != first
            && let Some(before) = std::mem::replace(&mut self.touched, first)
        {
            let before = self.chunk_of(before);
            room = if before == at { None } else { self.pack(before, notes) };
        }
        if self.chunks[at].open().is_none() {
            self.unpack(at, room.unwrap_or_default(), notes);
        }
    }

    /// Opens the chunks that have the first so many entries: they are looked at, and then needed.
    pub(crate) fn open_first(&mut self, entries: usize, notes: &mut Notes) {
        let mut seen = 0;
        for at in 0..self.chunks.len() {
            if entries <= seen {
                return;
            }
            if self.chunks[at].open().is_none() {
                self.unpack(at, VecDeque::new(), notes);
            }
            seen += self.chunks[at].open_mut().len();
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry, notes: &mut Notes) {
        if self.back().is_none_or(|it| it.id < entry.id) || is_sown(Seeded::RequeueToTail) {
            return self.push_back(entry, notes);
        }
        let mut at = self.chunk_of(entry.id);
        self.touch(at, notes);
        if self.chunks[at].open_mut().len() == CHUNK_ENTRIES {
            self.split(at);
            let halves = [at, at + 1];
            at = self.chunk_of(entry.id);
            self.touched = self.chunks[at].first();
            for it in halves.into_iter().chain([OPEN_CHUNKS]).filter(|it| *it != at) {
                self.pack(it, notes);
            }
        }
        let chunk = &mut self.chunks[at];
        chunk.widen(entry.segment());
        let entries = chunk.open_mut();
        let index = entries.partition_point(|it| it.id < entry.id);
        entries.insert(index, entry);
    }

    /// The chunk in which this id stands or would stand. There must be a chunk.
    fn chunk_of(&self, id: EntryId) -> usize {
        let starts_before = |it: &Chunk| it.first().is_some_and(|it| it <= id);
        self.chunks.partition_point(starts_before).saturating_sub(1)
    }

    fn split(&mut self, at: usize) {
        let chunk = &mut self.chunks[at];
        let (segment_min, segment_max) = (chunk.segment_min, chunk.segment_max);
        // At the front only one entry is cut off: what comes back to the head comes in a row.
        let keep = if at == 0 { 1 } else { CHUNK_ENTRIES / 2 };
        let mut rest = VecDeque::with_capacity(CHUNK_ENTRIES);
        rest.extend(chunk.open_mut().drain(keep..));
        let content = Content::Open(rest);
        self.chunks.insert(at + 1, Chunk { content, segment_min, segment_max });
    }

    /// Where an entry stands: its chunk, and its place in it.
    pub(crate) fn find(&self, id: EntryId) -> Option<(usize, usize)> {
        if self.is_empty() {
            return None;
        }
        let at = self.chunk_of(id);
        Some((at, self.chunks[at].index_of(id)?))
    }

    /// Lets `look` see the entry that was found there, and what was noted of it if it is packed.
    pub(crate) fn look<T>(
        &self,
        (at, index): (usize, usize),
        look: impl FnOnce(&Entry, Option<Note>) -> T,
    ) -> Option<T> {
        match &self.chunks.get(at)?.content {
            Content::Open(entries) => Some(look(entries.get(index)?, None)),
            Content::Packed(packed) => {
                let mut unpacking = packed.iter();
                let entry = unpacking.nth(index)?;
                Some(look(&entry, unpacking.note(&entry)))
            }
        }
    }

    /// Lets `change` change all but the id of the entry that was found there.
    pub(crate) fn change(
        &mut self,
        (at, index): (usize, usize),
        notes: &mut Notes,
        change: impl FnOnce(&mut Entry),
    ) {
        self.touch(at, notes);
        let chunk = &mut self.chunks[at];
        let entry = &mut chunk.open_mut()[index];
        change(entry);
        let segment = entry.segment();
        chunk.widen(segment);
    }

    /// Takes the entry that was found there.
    pub(crate) fn take(&mut self, (at, index): (usize, usize), notes: &mut Notes) -> Option<Entry> {
        self.touch(at, notes);
        self.remove(at, index, notes)
    }

    fn remove(&mut self, at: usize, index: usize, notes: &mut Notes) -> Option<Entry> {
        let is_alone = self.chunks.len() == 1;
        let chunk = self.chunks.get_mut(at)?;
        let entries = chunk.open_mut();
        let entry = entries.remove(index)?;
        if entries.is_empty() {
            if !is_alone || QUIET_ENTRIES_MAX < entries.capacity() {
                let room = std::mem::take(entries);
                self.chunks.remove(at);
                self.open_ends(room, notes);
            } else {
                (chunk.segment_min, chunk.segment_max) = (u32::MAX, 0);
            }
        }
        Some(entry)
    }

    fn open_ends(&mut self, mut room: VecDeque<Entry>, notes: &mut Notes) {
        let Some(last) = self.chunks.len().checked_sub(1) else { return };
        for at in [0, last] {
            if self.chunks[at].open().is_none() {
                self.unpack(at, std::mem::take(&mut room), notes);
            }
        }
    }

    pub(crate) fn pop_front(&mut self, notes: &mut Notes) -> Option<Entry> {
        self.remove(0, 0, notes)
    }

    pub(crate) fn pop_back(&mut self, notes: &mut Notes) -> Option<Entry> {
        let last = self.chunks.len().checked_sub(1)?;
        let index = self.chunks[last].open()?.len().checked_sub(1)?;
        self.remove(last, index, notes)
    }

    /// Shows every entry, until `visit` has seen enough.
    pub(crate) fn visit(
        &self,
        is_reversed: bool,
        visit: &mut impl FnMut(&Entry) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match is_reversed {
            false => self.chunks.iter().try_for_each(|it| it.visit(false, visit)),
            true => self.chunks.iter().rev().try_for_each(|it| it.visit(true, visit)),
        }
    }

    /// Shows every entry that lies in this log segment.
    pub(crate) fn visit_segment(&self, segment: u32, visit: &mut impl FnMut(&Entry)) {
        for chunk in self.chunks.iter().filter(|it| it.may_touch(segment)) {
            let _ = chunk.visit(false, &mut |it| {
                if it.segment() == Some(segment) {
                    visit(it);
                }
                ControlFlow::Continue(())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Place;
    use model::{LogPosition, Message, Timestamp};
    use proptest::{collection::vec, prelude::*};
    use std::{collections::BTreeMap, sync::Arc};

    /// What is known of an entry beside its id.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Known {
        place: Place,
        is_here: bool,
        note: Option<Note>,
    }

    fn log_place(segment: u64, offset: u64) -> Place {
        let position = LogPosition(segment << 32 | offset);
        Place::Log { position, end: LogPosition(position.0 + 100) }
    }

    #[derive(Default)]
    struct World {
        list: List,
        notes: Notes,
        plain: BTreeMap<u64, Known>,
        newest: u64,
        has_packed: bool,
    }

    impl World {
        fn insert(&mut self, id: u64, known: Known) {
            self.newest = self.newest.max(id);
            let mut entry = Entry::new(EntryId(id), known.place, id % 7, Timestamp(id * 3));
            entry.message = known.is_here.then(|| Arc::new(Message::empty()));
            entry.set_noted(known.note.is_some());
            self.notes.extend(known.note.map(|it| (EntryId(id), it)));
            self.list.insert(entry, &mut self.notes);
            self.plain.insert(id, known);
        }

        fn drawn(draw: u64) -> Known {
            let note = Note { ttl_ms: Some(draw / 3 % 5), acquired: 1, failed: 0 };
            let place = if draw.is_multiple_of(11) {
                Place::Memory
            } else {
                log_place(draw % 5, draw % 900)
            };
            Known {
                place,
                is_here: draw.is_multiple_of(17),
                note: draw.is_multiple_of(4).then_some(note),
            }
        }

        /// Takes an entry out of both, and compares.
        fn gone(&mut self, entry: Option<Entry>, expected: Option<u64>) {
            assert_eq!(entry.as_ref().map(|it| it.id.0), expected);
            let Some(entry) = entry else { return };
            let note = self.notes.remove(&entry.id);
            let found = Known { place: entry.place(), is_here: entry.message.is_some(), note };
            assert_eq!(self.plain.remove(&entry.id.0), Some(found));
        }

        fn step(&mut self, draw: u64) {
            let (kind, draw) = (draw % 100, draw / 100);
            let id = draw % (self.newest + 2);
            match kind {
                0..30 => {
                    for it in 0..draw % 6 {
                        self.insert(self.newest + 1 + draw % 3, Self::drawn(draw / 7 + it));
                    }
                }
                30..45 if !self.plain.contains_key(&id) => self.insert(id, Self::drawn(draw)),
                45..55 => {
                    let entry = self.list.pop_front(&mut self.notes);
                    self.gone(entry, self.plain.keys().next().copied());
                }
                55..65 => {
                    let entry = self.list.pop_back(&mut self.notes);
                    self.gone(entry, self.plain.keys().next_back().copied());
                }
                65..75 => {
                    let found = self.list.find(EntryId(id));
                    let entry = found.and_then(|it| self.list.take(it, &mut self.notes));
                    self.gone(entry, self.plain.contains_key(&id).then_some(id));
                }
                _ => {
                    let place = log_place(draw % 7, draw % 100);
                    let Some(found) = self.list.find(EntryId(id)) else { return };
                    self.list.change(found, &mut self.notes, |it| it.set_place(place));
                    self.plain.get_mut(&id).expect("both have it").place = place;
                }
            }
        }

        fn check(&mut self) {
            let ids: Vec<_> = self.plain.keys().copied().collect();
            let seen = |is_reversed| {
                let mut seen = Vec::new();
                let end = self.list.visit(is_reversed, &mut |it| {
                    seen.push(it.id.0);
                    ControlFlow::Continue(())
                });
                assert!(end.is_continue());
                seen
            };
            assert_eq!(seen(false), ids);
            assert_eq!(seen(true), ids.iter().rev().copied().collect::<Vec<_>>());
            for (id, known) in &self.plain {
                let found = self.list.find(EntryId(*id)).expect("is there");
                let look = |it: &Entry, note: Option<Note>| {
                    let note = note.or_else(|| self.notes.get(&it.id).copied());
                    Known { place: it.place(), is_here: it.message.is_some(), note }
                };
                assert_eq!(self.list.look(found, look), Some(*known), "{id}");
            }
            assert!(self.list.find(EntryId(self.newest + 1)).is_none());
            for segment in 0..7 {
                let mut seen = Vec::new();
                self.list.visit_segment(segment, &mut |it| seen.push(it.id.0));
                let is_there = |it: &Known| match it.place {
                    Place::Log { position, .. } => position.segment() == segment,
                    _ => false,
                };
                let there = self.plain.iter().filter(|(_, it)| is_there(it));
                assert_eq!(seen, there.map(|(id, _)| *id).collect::<Vec<_>>());
            }
            self.check_shape();
        }

        fn check_shape(&mut self) {
            let chunks = &self.list.chunks;
            for end in chunks.front().into_iter().chain(chunks.back()) {
                assert!(end.open().is_some(), "the ends are open");
            }
            let is_empty = |it: &Chunk| it.first().is_none();
            assert!(chunks.len() < 2 || !chunks.iter().any(is_empty), "no chunk is empty");
            let open = chunks.iter().filter_map(Chunk::open).flatten();
            let noted = open.filter(|it| it.is_noted()).map(|it| it.id);
            assert_eq!(noted.collect::<Vec<_>>(), self.notes.keys().copied().collect::<Vec<_>>());
            self.has_packed |= chunks.iter().any(|it| it.open().is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 128,
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn list_behaves_like_a_plain_map(draws in vec(any::<u64>(), 1..80), start in 0..120_u64) {
            let mut world = World::default();
            (1..=start).for_each(|it| world.insert(it * 2, World::drawn(it)));
            for draw in draws {
                world.step(draw);
                world.check();
            }
            prop_assert!(start < 80 || world.has_packed);
            while let Some(entry) = world.list.pop_front(&mut world.notes) {
                let expected = world.plain.keys().next().copied();
                world.gone(Some(entry), expected);
            }
            prop_assert!(world.plain.is_empty() && world.notes.is_empty());
        }
    }

    fn open_chunks(list: &List) -> usize {
        list.chunks.iter().filter(|it| it.open().is_some()).count()
    }

    #[test]
    fn chunks_between_the_ends_are_packed_whatever_comes_back_or_moves() {
        const LEN: u64 = 1_000;
        let known = Known { place: log_place(1, 1), is_here: false, note: None };
        let mut world = World::default();
        let orders: [fn(u64) -> u64; 4] =
            [|it| it, |it| LEN - 1 - it, |it| it * 377 % LEN, |it| LEN - 1 - it * 377 % LEN];
        for order in orders {
            (0..LEN).for_each(|it| world.insert(order(it), known));
            world.check();
            let least = 2 * OPEN_CHUNKS + 1;
            assert!(open_chunks(&world.list) <= least + 1, "{}", open_chunks(&world.list));
            for id in (0..LEN).map(order) {
                let found = world.list.find(EntryId(id)).expect("is there");
                world.list.change(found, &mut world.notes, |it| it.set_place(log_place(2, id)));
            }
            assert!(open_chunks(&world.list) <= least + 1, "{}", open_chunks(&world.list));
            world.list = List::default();
            world.plain.clear();
        }
    }
}
