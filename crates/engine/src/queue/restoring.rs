//! Messages come back after a restart, a chunk of the list at a time: there may be very many, and
//! everybody waits for the start.

use super::Queue;
use crate::{
    command::Restored,
    entry::{Entry, Note},
    list::CHUNK_ENTRIES,
};
use std::collections::VecDeque;

/// Puts messages back into a queue.
#[derive(Debug)]
pub struct Restoring<'q> {
    queue: &'q mut Queue,
    /// Entries of one level that are not in their list yet.
    entries: VecDeque<Entry>,
    level: u8,
    is_counted: bool,
}

impl Queue {
    /// Begins to put back messages that the log holds; their bodies are read when they are wanted.
    /// Recovery does it before any command, and then lets the queue have a `Command::Tick`. Entries
    /// are numbered from 1 on.
    pub fn restoring(&mut self) -> Restoring<'_> {
        let is_counted = self.counts();
        Restoring { queue: self, entries: VecDeque::new(), level: 0, is_counted }
    }
}

impl Restoring<'_> {
    /// Puts the next message in the order of the queue back.
    #[inline]
    pub fn put(&mut self, it: Restored) {
        let level = self.queue.level(it.facts.priority);
        if self.level != level || self.entries.len() == CHUNK_ENTRIES {
            self.flush();
            self.level = level;
        }
        let mut entry = Entry::new(self.queue.next_entry(), it.place, it.size, it.arrived);
        if it.redelivered {
            entry.set_redelivered();
        }
        if it.facts.ttl_ms.is_some() {
            entry.set_has_ttl();
        }
        entry.set_fleeting();
        let counted = |count| if self.is_counted { count } else { 0 };
        let (acquired, failed) = (counted(it.acquired), counted(it.failed));
        if it.facts.ttl_ms.is_some() || 0 < acquired | failed {
            entry.set_noted(true);
            let note = Note { ttl_ms: it.facts.ttl_ms, acquired, failed };
            self.queue.ready.note_down(entry.id, note);
        }
        self.entries.push_back(entry);
    }

    #[inline(never)]
    fn flush(&mut self) {
        self.queue.ready.append(self.level, &mut self.entries);
    }

    /// All are back.
    pub fn finish(mut self) {
        self.flush();
        for level in self.queue.ready.occupied_levels() {
            self.queue.watch(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Command, Place, Queue, Restored, record::MessageFacts};
    use model::{
        EntryId, LogPosition, QueueId, Timestamp,
        policy::{Priorities, QueuePolicy},
    };

    fn restored(number: u64) -> Restored {
        let position = LogPosition(((1 + number / 40) << 32) | (100 * number));
        let is = |part: u64| number.is_multiple_of(part);
        Restored {
            place: Place::Log { position, end: LogPosition(position.0 + 50 + number % 3) },
            origin: position,
            size: 30 + number % 3,
            facts: MessageFacts {
                persistent: true,
                priority: (number / 30).is_multiple_of(3).then_some((number % 2) as u8),
                ttl_ms: is(50).then_some(9_000 + number),
            },
            arrived: Timestamp(1_000 + number),
            redelivered: is(7),
            acquired: u32::from(is(11)) * 2,
            failed: u32::from(is(22)),
        }
    }

    /// What there is to be seen of a queue, and the order in which it lets its messages go.
    fn seen(mut queue: Queue) -> Vec<String> {
        let mut lines = vec![format!("{:?} {:?}", queue.depth(), queue.redelivered_positions())];
        lines.extend(
            (0..=queue.arrivals()).map(|it| format!("{:?}", queue.entry_state(EntryId(it)))),
        );
        let mut effects = Vec::new();
        queue.apply(Command::Tick, Timestamp(3_000), &mut effects);
        queue.apply(Command::Tick, Timestamp(12_000), &mut effects);
        for segment in [0, 1, 4, 9] {
            let mut found = Vec::new();
            queue.entries_in(segment, &mut found);
            found.sort_unstable_by_key(|it| it.0);
            lines.push(format!("{segment}: {found:?}"));
        }
        queue.apply(Command::Close, Timestamp(12_000), &mut effects);
        let mut places = Vec::new();
        queue.for_each_place(|it| places.push(it));
        lines.push(format!("{places:?}"));
        lines.extend(effects.iter().map(|it| format!("{it:?}")));
        lines
    }

    #[test]
    fn messages_put_back_at_once_are_as_those_put_back_one_by_one() {
        for count in [0, 1, 7, 8, 9, 17, 64, 500] {
            for priorities in [Priorities::None, Priorities::UpTo(5)] {
                for is_counted in [false, true] {
                    let queue = || {
                        let mut policy = QueuePolicy::plain(QueueId(7), "q");
                        policy.priorities = priorities;
                        policy.counts_deliveries = is_counted;
                        Queue::new(policy, Timestamp(0))
                    };
                    let (mut at_once, mut singly) = (queue(), queue());
                    let mut restoring = at_once.restoring();
                    for it in 0..count {
                        restoring.put(restored(it));
                        let mut single = singly.restoring();
                        single.put(restored(it));
                        single.finish();
                    }
                    restoring.finish();
                    assert_eq!(at_once.depth().ready, count);
                    let bytes = (0..count).map(|it| restored(it).size).sum::<u64>();
                    assert_eq!(at_once.depth().ready_bytes, bytes);
                    for number in 0..count {
                        let state = at_once.entry_state(EntryId(number + 1)).expect("it is there");
                        let it = restored(number);
                        let counts = if is_counted { (it.acquired, it.failed) } else { (0, 0) };
                        assert_eq!((state.acquired, state.failed), counts, "{number}");
                        assert_eq!((state.place, state.arrived), (it.place, it.arrived));
                        assert_eq!(state.redelivered, it.redelivered);
                    }
                    assert_eq!(seen(at_once), seen(singly), "{count} {priorities:?}");
                }
            }
        }
    }
}
