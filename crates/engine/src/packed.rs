//! Waiting messages that nobody needs soon, in few octets: what follows from the message before is
//! not written down. A message of a steady publisher takes one octet, one among messages of other
//! queues four or so, instead of an [`Entry`].

use crate::{
    entry::{Entry, Note, Notes},
    record::{Reader, put},
};
use model::{EntryId, LogPosition, Message};
use std::{collections::VecDeque, sync::Arc};

/// What follows the octet that says which of these differ from what was expected.
const ID: u8 = 1;
/// The distance from the end of the message before.
const GAP: u8 = 1 << 1;
const BODY_LEN: u8 = 1 << 2;
/// Octets of the record beside the body.
const BESIDE: u8 = 1 << 3;
const ARRIVED: u8 = 1 << 4;
/// Flags, and segments from the position to the end.
const FLAGS: u8 = 1 << 5;
const NOTE: u8 = 1 << 6;
/// The message is in memory.
const HERE: u8 = 1 << 7;

/// Octets that a message takes in the common case, for a first guess.
const MESSAGE_BYTES: usize = 4;
/// How an entry keeps its flags and its time of arrival in one word.
const FLAGS_BITS: u32 = 16;
const FLAGS_MASK: u64 = (1 << FLAGS_BITS) - 1;
/// What stands for no time to live.
const NO_TTL: u64 = u64::MAX;

/// A run of entries by ascending id.
#[derive(Debug)]
pub(crate) struct Packed {
    octets: Box<[u8]>,
    /// Those that are in memory, in order: they must be few.
    messages: Box<[Arc<Message>]>,
    first: EntryId,
    count: u32,
}

impl Packed {
    /// Packs entries and what is noted of them, and leaves both without them. There must be one.
    pub(crate) fn pack(entries: &mut VecDeque<Entry>, notes: &mut Notes) -> Self {
        let first = entries.front().expect("a chunk that is packed is not empty").id;
        let count = u32::try_from(entries.len()).expect("a chunk is small");
        let mut octets = Vec::with_capacity(entries.len() * MESSAGE_BYTES);
        let mut messages = Vec::new();
        let mut expected = Expected::from(first);
        let (front, back) = entries.as_slices();
        for entry in front.iter().chain(back) {
            if expected.is(entry) {
                octets.push(0);
                expected.go_on(entry);
                continue;
            }
            let note = entry.is_noted().then(|| notes.remove(&entry.id)).flatten();
            expected.write(entry, note, &mut octets);
            messages.extend(entry.message.clone());
        }
        entries.clear();
        Self { octets: octets.into(), messages: messages.into(), first, count }
    }

    /// Puts the entries back at the end of `entries`, and what was noted of them.
    pub(crate) fn unpack_to(&self, entries: &mut VecDeque<Entry>, notes: &mut Notes) {
        let mut unpacking = self.iter();
        entries.reserve(self.len());
        while let Some(entry) = unpacking.next() {
            if let Some(note) = unpacking.note(&entry) {
                notes.insert(entry.id, note);
            }
            entries.push_back(entry);
        }
    }

    pub(crate) fn first(&self) -> EntryId {
        self.first
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// The entries, made anew one after the other.
    pub(crate) fn iter(&self) -> Unpacking<'_> {
        let expected = Expected::from(self.first);
        Unpacking { octets: &self.octets, messages: self.messages.iter(), expected }
    }
}

/// What the next entry is expected to be, from those before it.
#[derive(Clone, Copy, Debug)]
struct Expected {
    id: u64,
    /// Where the record before ends.
    end: u64,
    gap: u64,
    body_len: u32,
    beside: u32,
    /// Time of arrival and flags, as an entry has them.
    packed: u64,
    note: Option<Note>,
}

impl Expected {
    fn from(first: EntryId) -> Self {
        Self { id: first.0, end: 0, gap: 0, body_len: 0, beside: 0, packed: 0, note: None }
    }

    /// Whether an entry is just this one, with nothing beside it.
    fn is(&self, entry: &Entry) -> bool {
        entry.id.0 == self.id
            && entry.position.0.wrapping_sub(self.end) == self.gap
            && entry.packed == self.packed
            && entry.body_len == self.body_len
            && Self::beside(entry) == self.beside
            && entry.message.is_none()
            && !entry.is_noted()
    }

    /// Octets of its record beside its body, if it lies in one segment.
    fn beside(entry: &Entry) -> u32 {
        entry.end_offset.wrapping_sub(entry.position.offset()).wrapping_sub(entry.body_len)
    }

    #[inline(never)]
    fn write(&mut self, entry: &Entry, note: Option<Note>, out: &mut Vec<u8>) {
        let at = out.len();
        out.push(0);
        let mut differs = if entry.message.is_some() { HERE } else { 0 };
        if entry.id.0 != self.id {
            differs |= ID;
            put(out, entry.id.0.wrapping_sub(self.id));
        }
        let gap = entry.position.0.wrapping_sub(self.end);
        if gap != self.gap {
            differs |= GAP;
            put(out, zigzag(gap));
        }
        if entry.body_len != self.body_len {
            differs |= BODY_LEN;
            put(out, entry.body_len.into());
        }
        let beside = Self::beside(entry);
        if beside != self.beside {
            differs |= BESIDE;
            put(out, beside.into());
        }
        let (arrived, flags) = (entry.packed >> FLAGS_BITS, entry.packed & FLAGS_MASK);
        let arrived_before = self.packed >> FLAGS_BITS;
        if arrived != arrived_before {
            differs |= ARRIVED;
            put(out, zigzag(arrived.wrapping_sub(arrived_before)));
        }
        if flags != self.packed & FLAGS_MASK {
            differs |= FLAGS;
            put(out, flags);
        }
        if let Some(note) = note
            && self.note != Some(note)
        {
            differs |= NOTE;
            self.note = Some(note);
            put(out, note.ttl_ms.unwrap_or(NO_TTL).wrapping_add(1));
            put(out, note.acquired.into());
            put(out, note.failed.into());
        }
        out[at] = differs;
        self.body_len = entry.body_len;
        self.beside = beside;
        self.packed = entry.packed;
        self.gap = gap;
        self.go_on(entry);
    }

    fn go_on(&mut self, entry: &Entry) {
        self.id = entry.id.0.wrapping_add(1);
        self.end = match entry.end() {
            Some(end) => end.0,
            None => entry.position.0.wrapping_add(entry.body_len.into()),
        };
    }

    /// Reads what differs into the expectation, which then is the entry.
    #[inline(never)]
    fn read(&mut self, differs: u8, octets: &mut &[u8]) {
        if differs & ID != 0 {
            self.id = self.id.wrapping_add(read_number(octets));
        }
        if differs & GAP != 0 {
            self.gap = unzigzag(read_number(octets));
        }
        if differs & BODY_LEN != 0 {
            self.body_len = read_number(octets) as u32;
        }
        if differs & BESIDE != 0 {
            self.beside = read_number(octets) as u32;
        }
        if differs & ARRIVED != 0 {
            let more = unzigzag(read_number(octets)) << FLAGS_BITS;
            self.packed = self.packed.wrapping_add(more);
        }
        if differs & FLAGS != 0 {
            self.packed = self.packed & !FLAGS_MASK | read_number(octets);
        }
        if differs & NOTE != 0 {
            let ttl_ms = Some(read_number(octets).wrapping_sub(1)).filter(|it| *it != NO_TTL);
            let (acquired, failed) = (read_number(octets) as u32, read_number(octets) as u32);
            self.note = Some(Note { ttl_ms, acquired, failed });
        }
    }
}

/// Entries of a packed run, in order.
#[derive(Clone, Debug)]
pub(crate) struct Unpacking<'a> {
    octets: &'a [u8],
    messages: std::slice::Iter<'a, Arc<Message>>,
    expected: Expected,
}

impl Unpacking<'_> {
    /// What is noted of the entry that came last.
    pub(crate) fn note(&self, last: &Entry) -> Option<Note> {
        self.expected.note.filter(|_| last.is_noted())
    }
}

impl Iterator for Unpacking<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (differs, rest) = self.octets.split_first()?;
        self.octets = rest;
        let expected = &mut self.expected;
        if differs & !HERE != 0 {
            expected.read(*differs, &mut self.octets);
        }
        let position = LogPosition(expected.end.wrapping_add(expected.gap));
        let end_offset =
            position.offset().wrapping_add(expected.body_len).wrapping_add(expected.beside);
        let mut entry = Entry {
            id: EntryId(expected.id),
            message: None,
            position,
            end_offset,
            body_len: expected.body_len,
            packed: expected.packed,
        };
        if differs & HERE != 0 {
            entry.message = self.messages.next().cloned();
        }
        expected.go_on(&entry);
        Some(entry)
    }
}

/// Small for numbers near zero on either side.
fn zigzag(number: u64) -> u64 {
    let number = number.cast_signed();
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

fn read_number(octets: &mut &[u8]) -> u64 {
    let mut reader = Reader(octets);
    let number = reader.number().expect("what was packed here is read as it was written");
    *octets = reader.0;
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Place;
    use model::Timestamp;
    use proptest::{collection::vec, prelude::*};

    /// An entry and its note by what can be seen of them.
    type Seen = (u64, Place, u32, u64, u64, bool, Option<Note>);

    fn flags(entry: &Entry) -> u64 {
        entry.packed & FLAGS_MASK
    }

    fn seen(entry: &Entry, note: Option<Note>) -> Seen {
        let arrived = entry.arrived().0;
        let is_here = entry.message.is_some();
        (entry.id.0, entry.place(), entry.body_len, arrived, flags(entry), is_here, note)
    }

    fn edges() -> impl Strategy<Value = u64> {
        let near = prop_oneof![Just(0), Just(1), Just(63), Just(64), Just(127), Just(128)];
        let far = any::<u32>().prop_map(u64::from);
        prop_oneof![near, 0..5_000_u64, Just(u64::from(u32::MAX)), far]
    }

    prop_compose! {
        fn place()(
            kind in 0..4,
            segment in edges(),
            offset in edges(),
            len in edges(),
            more in 0..3,
        ) -> Place
        {
            let segment = segment.min(u64::from(u32::MAX) - 2);
            let position = LogPosition(segment << 32 | offset);
            let end = match more {
                0 => position.0 | len,
                more => (segment + more as u64) << 32 | len,
            };
            match kind {
                0 => Place::Memory,
                1 => Place::Spill { position },
                _ => Place::Log { position, end: LogPosition(end) },
            }
        }
    }

    prop_compose! {
        fn note()(ttl in edges(), no_ttl: bool, longest: bool, counts: [u32; 2]) -> Note {
            let ttl_ms = if longest { u64::MAX - 1 } else { ttl };
            Note { ttl_ms: (!no_ttl).then_some(ttl_ms), acquired: counts[0], failed: counts[1] }
        }
    }

    prop_compose! {
        fn entry()(
            jump in edges(),
            place in place(),
            body_len in edges(),
            arrived in edges(),
            marks: [bool; 6],
            note in note(),
        ) -> (u64, Entry, Option<Note>) {
            let mut entry = Entry::new(EntryId(0), place, body_len, Timestamp(arrived << 16));
            let [redelivered, ttl, fleeting, ahead, noted, here] = marks;
            if redelivered { entry.set_redelivered(); }
            if ttl { entry.set_has_ttl(); }
            if fleeting { entry.set_fleeting(); }
            entry.set_ahead(ahead);
            entry.set_noted(noted);
            entry.message = here.then(|| Arc::new(Message::empty()));
            (jump, entry, noted.then_some(note))
        }
    }

    fn there_and_back(made: Vec<(u64, Entry, Option<Note>)>) {
        let mut entries = VecDeque::new();
        let mut notes = Notes::new();
        let mut expected = Vec::new();
        let mut id = u64::from(u32::MAX);
        for (jump, mut entry, note) in made {
            id += 1 + jump;
            entry.id = EntryId(id);
            expected.push(seen(&entry, note));
            notes.extend(note.map(|it| (entry.id, it)));
            entries.push_back(entry);
        }
        let packed = Packed::pack(&mut entries, &mut notes);
        assert!(entries.is_empty() && notes.is_empty());
        assert_eq!((packed.len(), packed.first().0), (expected.len(), expected[0].0));
        packed.unpack_to(&mut entries, &mut notes);
        let found: Vec<_> = entries.iter().map(|it| seen(it, notes.get(&it.id).copied())).collect();
        assert_eq!(found, expected);
        let on_the_fly: Vec<_> = packed.iter().map(|it| it.id.0).collect();
        assert_eq!(on_the_fly, expected.iter().map(|it| it.0).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn entries_come_back_as_they_were(made in vec(entry(), 1..40)) {
            there_and_back(made);
        }

        #[test]
        fn numbers_come_back_as_they_were(numbers in vec(any::<u64>(), 0..20)) {
            let mut octets = Vec::new();
            numbers.iter().for_each(|it| put(&mut octets, zigzag(*it)));
            let mut rest = &octets[..];
            let found: Vec<_> = numbers.iter().map(|_| unzigzag(read_number(&mut rest))).collect();
            prop_assert_eq!(found, numbers);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn message_of_a_steady_publisher_takes_little() {
        let row = |gap: u64, len: u64| -> usize {
            let mut at = 7 << 32 | 4096;
            let mut entries: VecDeque<_> = (0..128)
                .map(|it| {
                    at += gap * (it % 3);
                    let (position, end) = (LogPosition(at), LogPosition(at + len + 90));
                    at = end.0 + 16;
                    let arrived = Timestamp(1_800_000_000_000 + it / 10);
                    let place = Place::Log { position, end };
                    let mut entry = Entry::new(EntryId(1 + it), place, len, arrived);
                    entry.set_fleeting();
                    entry
                })
                .collect();
            Packed::pack(&mut entries, &mut Notes::new()).octets.len()
        };
        assert!(row(0, 1_024) < 2 * 128, "{}", row(0, 1_024));
        assert!(row(5_000, 1_024) < 5 * 128, "{}", row(5_000, 1_024));
    }
}
