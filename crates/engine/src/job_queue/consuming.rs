//! Consumers and sessions come and go.

use super::{Held, JobQueue, LeaseWait, Run, Worker, arrival::tell};
use crate::{command::Subscriber, consumers::Consumers, effect::Effect};
use model::{
    ChannelId, ConsumerNumber, EntryId, Notice, Refusal, SessionId, Timestamp,
    job::{JobAnswer, JobRefusal, State},
    limits,
};

impl JobQueue {
    pub(super) fn subscribe(
        &mut self,
        subscriber: Subscriber,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Subscriber { session, channel, consumer, .. } = subscriber;
        let (queue, shard) = (self.policy.queue, self.policy.shard);
        let refusal = self.refusal(&subscriber);
        let notice = match refusal {
            Some(refusal) => Notice::Refused { channel, refusal: refusal.into(), publish: false },
            None => {
                self.used = now;
                let all = (session, consumer, EntryId(0))..=(session, consumer, EntryId(u64::MAX));
                let unsettled = self.held_by.range(all).count();
                self.consumers.add(subscriber, 0, unsettled);
                Notice::Subscribed { channel, consumer, queue, shard }
            }
        };
        effects.push(Effect::Notify { session, notice, after: None });
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
        is_in_use.then_some(Refusal::ExclusiveUse { name, vhost })
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

    fn remove_consumer(&mut self, slot: u32, now: Timestamp, effects: &mut Vec<Effect>) {
        self.consumers.remove(slot);
        if self.consumers.len() == 0 {
            self.used = now;
            if self.policy.auto_delete {
                effects.push(Effect::Unused);
            }
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
            change(&mut self.consumers, slot);
        }
    }

    /// What the session held comes back: released where it has said goodbye, lost where it has not.
    pub(super) fn end_session(
        &mut self,
        session: SessionId,
        is_orderly: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.fetches.retain(|it| it.session != session);
        self.leases.retain(|it| it.session != session);
        self.waits.retain(|_, waits| {
            waits.retain(|it| it.session != session);
            !waits.is_empty()
        });
        for slot in self.consumers.slots_of(session) {
            self.remove_consumer(slot, now, effects);
        }
        let first = (session, ConsumerNumber(0), EntryId(0));
        let last = (session, ConsumerNumber(u32::MAX), EntryId(u64::MAX));
        let mut numbers: Vec<_> = self.held_by.range(first..=last).map(|it| it.2).collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(Held { job, .. }) = self.held.get(&number).copied() else { continue };
            let is_current = |it: &Run| it.delivery == Some(number);
            let runs = self.runs.get(&job).is_some_and(is_current);
            self.release_held(number);
            match runs {
                true if is_orderly => self.release(job, now, effects),
                true => self.end_lost(job, now, effects),
                false => {}
            }
        }
    }

    pub(super) fn close(&mut self, effects: &mut Vec<Effect>) {
        for slot in self.consumers.slots() {
            let consumer = self.consumers.remove(slot);
            let notice = Notice::Cancelled { consumer: consumer.number };
            effects.push(Effect::Notify { session: consumer.session, notice, after: None });
        }
        for fetch in std::mem::take(&mut self.fetches) {
            let notice = Notice::Fetched { channel: fetch.channel, delivery: None, ready: 0 };
            effects.push(Effect::Notify { session: fetch.session, notice, after: None });
        }
        let gone = || JobAnswer::Refused(JobRefusal::UnknownQueue(self.policy.name.clone()));
        for LeaseWait { session, number, .. } in std::mem::take(&mut self.leases) {
            tell(session, number, gone(), effects);
        }
        for wait in std::mem::take(&mut self.waits).into_values().flatten() {
            tell(wait.session, wait.number, gone(), effects);
        }
    }

    /// Every ready job is cancelled.
    pub(super) fn purge(
        &mut self,
        session: SessionId,
        channel: ChannelId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let is_ready =
            |it: &&EntryId| self.book.life(**it).is_some_and(|life| life.state == State::Ready);
        let ready: Vec<_> = self.items.keys().filter(is_ready).copied().collect();
        let messages = ready.len() as u64;
        for entry in ready {
            self.cancel(entry, None, now, effects);
        }
        let notice = Notice::Purged { channel, messages };
        effects.push(Effect::Notify { session, notice, after: None });
    }

    /// The wait or the lease under this number is not wanted any more.
    pub(super) fn forget_wish(
        &mut self,
        session: SessionId,
        number: u64,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.leases.retain(|it| (it.session, it.number) != (session, number));
        self.waits.retain(|_, waits| {
            waits.retain(|it| (it.session, it.number) != (session, number));
            !waits.is_empty()
        });
        let granted = self.runs.iter().find(|(_, it)| match &it.worker {
            Worker::Leasing { grant, .. } => *grant == Some((session, number)),
            Worker::Connected { .. } => false,
        });
        if let Some(entry) = granted.map(|(entry, _)| *entry) {
            self.release(entry, now, effects);
        }
    }
}
