//! The messages of one publisher that wait for their confirm, with the time each was due.

use crate::clock::Nanos;
use std::collections::VecDeque;

/// Stands for a message that was confirmed before an older one.
const SETTLED: Nanos = Nanos::MAX;

pub(crate) struct Unconfirmed {
    /// The delivery tag of the first entry.
    first_tag: u64,
    due_times: VecDeque<Nanos>,
    waiting: u64,
}

impl Unconfirmed {
    pub(crate) fn new() -> Self {
        Self { first_tag: 1, due_times: VecDeque::new(), waiting: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.waiting
    }

    pub(crate) fn push(&mut self, due_at: Nanos) {
        debug_assert_ne!(due_at, SETTLED);
        self.due_times.push_back(due_at);
        self.waiting += 1;
    }

    /// Takes the message with this tag, or all up to it, and tells when each was due. Returns how
    /// many they were: none for a tag that is not waiting any more.
    pub(crate) fn settle(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(Nanos)) -> u64 {
        let before = self.waiting;
        let Some(last) = tag.checked_sub(self.first_tag).map(|it| it as usize) else { return 0 };
        let first = if multiple { 0 } else { last };
        let end = (last + 1).min(self.due_times.len());
        for due_at in self.due_times.range_mut(first.min(end)..end) {
            let due_at = std::mem::replace(due_at, SETTLED);
            if due_at != SETTLED {
                each(due_at);
                self.waiting -= 1;
            }
        }
        while self.due_times.front() == Some(&SETTLED) {
            self.due_times.pop_front();
            self.first_tag += 1;
        }
        before - self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_settled_once_in_whatever_order() {
        let mut unconfirmed = Unconfirmed::new();
        (10..16).for_each(|it| unconfirmed.push(it));
        let mut seen = Vec::new();
        let mut settle = |unconfirmed: &mut Unconfirmed, tag, multiple| {
            unconfirmed.settle(tag, multiple, |it| seen.push(it))
        };
        assert_eq!(settle(&mut unconfirmed, 3, false), 1);
        assert_eq!(settle(&mut unconfirmed, 3, false), 0);
        assert_eq!(settle(&mut unconfirmed, 5, true), 4);
        assert_eq!(settle(&mut unconfirmed, 2, true), 0);
        assert_eq!(unconfirmed.len(), 1);
        assert_eq!(settle(&mut unconfirmed, 0, true), 0);
        assert_eq!(settle(&mut unconfirmed, 99, false), 0, "it was never sent");
        assert_eq!(settle(&mut unconfirmed, 99, true), 1);
        assert_eq!(unconfirmed.len(), 0);
        assert_eq!(seen, [12, 10, 11, 13, 14, 15]);
        unconfirmed.push(20);
        assert_eq!(unconfirmed.settle(7, false, |it| assert_eq!(it, 20)), 1);
    }
}
