//! What time does to a queue: messages expire, rests end, deliveries become overdue, the lease runs
//! out. The times kept here are lower bounds, so that a command looks at nothing that is not due.

use super::{END_OF_TIME, Queue};
use crate::{
    consumers::Consumer,
    delayed::Delayed,
    effect::{DeathReason, Effect},
};
use model::Timestamp;

impl Queue {
    /// Nothing happens before this time, but for the lease.
    pub(super) fn next_due(&self) -> Timestamp {
        let rested = self.delayed.look().and_then(Delayed::next_due).unwrap_or(END_OF_TIME);
        self.expiry_due.min(self.overdue_due).min(rested)
    }

    pub(super) fn pass_time(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(item) = self.delayed.there().and_then(|it| it.pop_due(now)) {
            self.put_ready(item);
        }
        self.cancel_overdue(now, effects);
        self.come_to_rest(now, effects);
    }

    /// Takes note of the messages at the ends of a level, where they expire.
    pub(super) fn watch(&mut self, level: u8) {
        let ttl_ms = self.policy.ttl_ms;
        let back = self.ready.back(level).filter(|_| self.ready.is_lifo());
        for end in self.ready.front(level).into_iter().chain(back) {
            if let Some(deadline) = self.ready.deadline(end, ttl_ms) {
                self.expiry_due = self.expiry_due.min(deadline);
            }
        }
    }

    /// Buries what is past its time at either end of each level: at the one because it is the
    /// oldest, at the other because it would be delivered next.
    pub(super) fn expire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.expiry_due {
            return;
        }
        self.expiry_due = END_OF_TIME;
        let ttl_ms = self.policy.ttl_ms;
        let is_lifo = self.ready.is_lifo();
        for level in self.ready.occupied_levels() {
            loop {
                let is_over = |it| self.ready.deadline(it, ttl_ms).is_some_and(|it| it <= now);
                let expired = if self.ready.front(level).is_some_and(is_over) {
                    self.ready.pop_front(level)
                } else if is_lifo && self.ready.back(level).is_some_and(is_over) {
                    self.ready.pop_back(level)
                } else {
                    break;
                };
                let Some(item) = expired else { break };
                self.bury(item, DeathReason::Expired, false, effects);
            }
            self.watch(level);
        }
    }

    /// The time that a delivery may take this consumer. Milliseconds.
    pub(super) fn timeout_ms(&self, consumer: &Consumer) -> Option<u64> {
        consumer.timeout_ms.or(self.policy.consumer_timeout_ms).filter(|it| 0 < *it)
    }

    /// When the oldest delivery of this consumer has taken too long.
    pub(super) fn overdue_at(&self, consumer: &Consumer) -> Option<Timestamp> {
        let oldest = self.unsettled.oldest(consumer.holder)?;
        Some(oldest.plus_ms(self.timeout_ms(consumer)?))
    }

    fn cancel_overdue(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.overdue_due {
            return;
        }
        self.overdue_due = END_OF_TIME;
        for slot in self.consumers.slots() {
            match self.overdue_at(self.consumers.get(slot)) {
                Some(due) if due <= now => self.cancel(slot, now, effects),
                Some(due) => self.overdue_due = self.overdue_due.min(due),
                None => {}
            }
        }
    }

    fn lease_end(&self) -> Option<Timestamp> {
        let expires_ms = self.policy.expires_ms?;
        let is_unused = self.consumers.len() == 0 && !self.is_lease_over;
        is_unused.then(|| self.used.plus_ms(expires_ms))
    }

    pub(super) fn end_lease(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.lease_end().is_some_and(|it| it <= now) {
            self.is_lease_over = true;
            effects.push(Effect::Expired);
        }
    }

    /// Asks for a tick when the next thing is due, unless an earlier one is on its way.
    pub(super) fn wish_tick(&mut self, effects: &mut Vec<Effect>) {
        let due = self.next_due().min(self.lease_end().unwrap_or(END_OF_TIME));
        if due < self.wake_at.unwrap_or(END_OF_TIME) {
            self.wake_at = Some(due);
            effects.push(Effect::WakeAt(due));
        }
    }
}
