//! Messages come in, and go when they are too many.

use super::Queue;
use crate::{
    command::{Enqueue, Place},
    effect::{DeathReason, Effect},
    entry::{Entry, Item},
};
use model::{EntryId, Timestamp, policy::Overflow};
use std::sync::Arc;

/// A smaller message that stays gets a buffer of its own, because it would hold on to the whole
/// read buffer it came in.
const DETACHED_BYTES_MAX: u64 = 4096;

impl Queue {
    #[inline]
    pub(super) fn next_entry(&mut self) -> EntryId {
        self.last_entry.0 += 1;
        self.last_entry
    }

    /// Puts a message in its place among the ready ones.
    pub(super) fn put_ready(&mut self, item: Item) {
        let level = item.level;
        self.ready.insert(item);
        self.watch(level);
    }

    pub(super) fn enqueue(
        &mut self,
        Enqueue { message, place, room, redelivered }: Enqueue,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let level = self.level(message.priority);
        let slot = match self.fetches.is_empty() && self.ready.would_be_next(level) {
            true => self.consumers.there().and_then(|it| it.take()),
            false => None,
        };
        if let Some(slot) = slot
            && self.consumers.get(slot).automatic
        {
            return self.pass_on(slot, message, place, redelivered, effects);
        }
        let mut entry = Entry::new(self.next_entry(), place, message.body_len(), now);
        if message.ttl_ms.is_some() {
            entry.set_has_ttl();
        }
        if redelivered {
            entry.set_redelivered();
        }
        if !room && place != Place::Memory {
            entry.set_fleeting();
        }
        let ttl_ms = message.ttl_ms;
        entry.message = Some(message);
        let mut item = Item { entry, level, ttl_ms, acquired: 0, failed: 0 };
        if let Some(slot) = slot {
            return self.hand_over(slot, item, now, effects);
        }
        if self.refuses(&item) {
            effects.push(Effect::Rejected);
            if self.policy.overflow == Overflow::RejectPublishDeadLetter {
                return self.bury(item, DeathReason::MaxLength, false, effects);
            }
            return Self::forget(place, effects);
        }
        if item.entry.is_fleeting() {
            item.entry.message = None;
        } else if let Some(message) = &mut item.entry.message
            && message.size() < DETACHED_BYTES_MAX
        {
            let detached = message.detached();
            match Arc::get_mut(message) {
                Some(own) => *own = detached,
                None => *message = Arc::new(detached),
            }
        }
        self.put_ready(item);
    }

    fn refuses(&self, item: &Item) -> bool {
        let passes = |max: Option<u64>, now: u64, more: u64| max.is_some_and(|it| it < now + more);
        self.policy.overflow != Overflow::DropHead
            && (passes(self.policy.length_max, self.ready.len(), 1)
                || passes(
                    self.policy.length_bytes_max,
                    self.ready.bytes(),
                    item.entry.body_len.into(),
                ))
    }

    /// Drops the oldest messages of the lowest levels until the limits hold; returns whether any
    /// went.
    pub(super) fn drop_excess(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut has_dropped = false;
        if self.policy.overflow != Overflow::DropHead {
            return has_dropped;
        }
        let passes = |max: Option<u64>, now: u64| max.is_some_and(|it| it < now);
        while passes(self.policy.length_max, self.ready.len())
            || passes(self.policy.length_bytes_max, self.ready.bytes())
        {
            let Some(item) = self.ready.pop_oldest() else { break };
            self.watch(item.level);
            self.bury(item, DeathReason::MaxLength, false, effects);
            has_dropped = true;
        }
        has_dropped
    }
}
