//! Consumers come and go.

use super::Queue;
use crate::{command::Subscriber, consumers::Consumers, effect::Effect};
use model::{ChannelId, ConsumerNumber, Notice, Outcome, Refusal, SessionId, Timestamp, limits};

impl Queue {
    pub(super) fn subscribe(
        &mut self,
        subscriber: Subscriber,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Subscriber { session, channel, consumer, .. } = subscriber;
        let (queue, shard) = (self.policy.queue, self.policy.shard);
        let notice = match self.refusal(&subscriber) {
            Some(refusal) => Notice::Refused { channel, refusal: refusal.into(), publish: false },
            None => Notice::Subscribed { channel, consumer, queue, shard },
        };
        let is_welcome = matches!(notice, Notice::Subscribed { .. });
        effects.push(Effect::Notify { session, notice, after: None });
        if is_welcome {
            self.used = now;
            let holder = self.unsettled_mut().holder(session, Some(consumer));
            // A number may be given again while its former consumer's deliveries are unsettled.
            let unsettled = self.unsettled.count(holder);
            let slot = self.consumers_mut().add(subscriber, holder, unsettled);
            self.unsettled_mut().set_consumer(holder, Some(slot));
            if let Some(due) = self.overdue_at(self.consumers.get(slot)) {
                self.overdue_due = self.overdue_due.min(due);
            }
        }
    }

    fn refusal(&self, subscriber: &Subscriber) -> Option<Refusal> {
        let (name, vhost) = (self.policy.name.clone(), self.policy.vhost.clone());
        if limits::QUEUE_CONSUMERS_MAX <= self.consumers.len() {
            let limit = limits::QUEUE_CONSUMERS_MAX;
            let text = format!("queue '{name}' in vhost '{vhost}' has {limit} consumers already");
            return Some(Refusal::Resource(text));
        }
        if self.consumers.find(subscriber.session, subscriber.consumer).is_some() {
            return Some(Refusal::Internal("the number of a running consumer is given".into()));
        }
        let is_alone = self.consumers.len() == 0 && !self.policy.single_active_consumer;
        let is_in_use = self.consumers.has_exclusive() || (subscriber.exclusive && !is_alone);
        let is_heeded = !self.policy.keeps_all;
        (is_heeded && is_in_use).then_some(Refusal::ExclusiveUse { name, vhost })
    }

    pub(super) fn unsubscribe(
        &mut self,
        session: SessionId,
        channel: ChannelId,
        consumer: ConsumerNumber,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let notice = Notice::Unsubscribed { channel, consumer };
        effects.push(Effect::Notify { session, notice, after: None });
        if let Some(slot) = self.consumers.find(session, consumer) {
            self.remove_consumer(slot, now, effects);
        }
    }

    /// Ends a consumer; what it holds stays with its session.
    fn remove_consumer(&mut self, slot: u32, now: Timestamp, effects: &mut Vec<Effect>) {
        let consumer = self.consumers_mut().remove(slot);
        self.unsettled_mut().set_consumer(consumer.holder, None);
        if self.consumers.len() == 0 {
            self.used = now;
            if self.policy.auto_delete {
                effects.push(Effect::Unused);
            }
        }
    }

    /// Ends a consumer that did not settle in time; what it holds comes back.
    pub(super) fn cancel(&mut self, slot: u32, now: Timestamp, effects: &mut Vec<Effect>) {
        let consumer = self.consumers.get(slot);
        let (session, number) = (consumer.session, consumer.number);
        let held = self.unsettled.held_by(consumer.holder);
        let notice = Notice::Cancelled { consumer: number };
        effects.push(Effect::Notify { session, notice, after: None });
        self.remove_consumer(slot, now, effects);
        self.settle(session, &held, Outcome::Requeue { failed: false }, now, effects);
    }

    pub(super) fn end_session(
        &mut self,
        session: SessionId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.fetches.retain(|it| it.session != session);
        for slot in self.consumers.slots_of(session) {
            self.remove_consumer(slot, now, effects);
        }
        let held = self.unsettled.held_by_session(session);
        self.settle(session, &held, Outcome::Requeue { failed: true }, now, effects);
    }

    pub(super) fn close(&mut self, effects: &mut Vec<Effect>) {
        for slot in self.consumers.slots() {
            let consumer = self.consumers_mut().remove(slot);
            self.unsettled_mut().set_consumer(consumer.holder, None);
            let notice = Notice::Cancelled { consumer: consumer.number };
            effects.push(Effect::Notify { session: consumer.session, notice, after: None });
        }
        for fetch in std::mem::take(&mut self.fetches) {
            let notice = Notice::Fetched { channel: fetch.channel, delivery: None, ready: 0 };
            effects.push(Effect::Notify { session: fetch.session, notice, after: None });
        }
    }

    /// Carries a change to a consumer that may have ended already.
    pub(super) fn change(
        &mut self,
        session: SessionId,
        consumer: ConsumerNumber,
        change: impl FnOnce(&mut Consumers, u32),
    ) {
        if let Some(slot) = self.consumers.find(session, consumer) {
            change(self.consumers_mut(), slot);
        }
    }
}
