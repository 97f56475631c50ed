//! Messages go out: to consumers with capacity, to fetches, and through the disk when their bodies
//! are not in memory.

use super::Queue;
use crate::{
    command::Place,
    effect::Effect,
    entry::{Entry, Item},
};
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, LogPosition, Message, Notice, Refusal, SessionId,
    Timestamp,
};
use std::{ops::ControlFlow, sync::Arc};

/// Messages that one `Effect::Load` asks for at most.
const LOAD_ENTRIES_MAX: usize = 512;
/// Octets of bodies that one asks for, but for the last of them.
const LOAD_BYTES_MAX: u64 = 1024 * 1024;
/// Entries looked at for one: behind loaded ones there may be more to read.
const LOAD_LOOKS_MAX: usize = 2 * LOAD_ENTRIES_MAX;
/// What a delivery costs beside its message, as flow credit counts it.
const DELIVERY_BYTES: u64 = 64;

/// Somebody asks for one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) session: SessionId,
    pub(super) channel: ChannelId,
    pub(super) automatic: bool,
}

impl Queue {
    pub(super) fn fetch(&mut self, fetch: Fetch, now: Timestamp, effects: &mut Vec<Effect>) {
        self.used = now;
        if self.policy.single_active_consumer && self.policy.keeps_all {
            let (name, vhost) = (self.policy.name.clone(), self.policy.vhost.clone());
            let refusal = Refusal::SingleActiveConsumer { name, vhost }.into();
            let notice = Notice::Refused { channel: fetch.channel, refusal, publish: false };
            return effects.push(Effect::Notify { session: fetch.session, notice, after: None });
        }
        self.fetches.push_back(fetch);
    }

    /// Hands out messages as long as somebody wants one whose body is here.
    pub(super) fn deliver(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        loop {
            self.expire(now, effects);
            let is_fetched = !self.fetches.is_empty();
            let Some(next) = self.ready.next() else { break };
            let is_here = next.message.is_some();
            if !is_fetched && self.consumers.there().and_then(|it| it.next()).is_none() {
                break;
            }
            if !is_here {
                self.load(effects);
                break;
            }
            if let Some(fetch) = self.fetches.pop_front() {
                self.answer(fetch, now, effects);
            } else if let Some(slot) = self.consumers.there().and_then(|it| it.take())
                && let Some(item) = self.take_next()
            {
                self.hand_over(slot, item, now, effects);
            }
            self.read_ahead(effects);
        }
        if self.ready.len() == 0 {
            while let Some(Fetch { session, channel, .. }) = self.fetches.pop_front() {
                let notice = Notice::Fetched { channel, delivery: None, ready: 0 };
                effects.push(Effect::Notify { session, notice, after: None });
            }
        }
    }

    fn take_next(&mut self) -> Option<Item> {
        let item = self.ready.pop_next()?;
        self.watch(item.level);
        Some(item)
    }

    fn answer(&mut self, fetch: Fetch, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(item) = self.take_next() else { return };
        let Fetch { session, channel, automatic } = fetch;
        let after = self.after(item.entry.place());
        let (delivery, item) = self.dispatch(ConsumerNumber(0), automatic, item);
        let ready = self.ready.len();
        let notice = Notice::Fetched { channel, delivery: Some(delivery), ready };
        effects.push(Effect::Notify { session, notice, after });
        if automatic {
            return Self::forget(item.entry.place(), effects);
        }
        let unsettled = self.unsettled_mut();
        let holder = unsettled.holder(session, None);
        unsettled.insert(holder, item, now);
    }

    /// Delivers a message to the consumer in this slot.
    pub(super) fn hand_over(
        &mut self,
        slot: u32,
        item: Item,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let consumer = self.consumers.get(slot);
        let (session, number, holder) = (consumer.session, consumer.number, consumer.holder);
        let automatic = consumer.automatic;
        let timeout_ms = self.timeout_ms(consumer);
        let after = self.after(item.entry.place());
        let (delivery, item) = self.dispatch(number, automatic, item);
        self.consumers_mut().on_delivery(slot, delivery.message.size() + DELIVERY_BYTES);
        effects.push(Effect::Notify { session, notice: Notice::Delivery(delivery), after });
        if automatic {
            return Self::forget(item.entry.place(), effects);
        }
        if let Some(timeout_ms) = timeout_ms {
            self.overdue_due = self.overdue_due.min(now.plus_ms(timeout_ms));
        }
        self.unsettled_mut().insert(holder, item, now);
    }

    /// Delivers a message that has just come to a consumer that settles nothing.
    pub(super) fn pass_on(
        &mut self,
        slot: u32,
        message: Arc<Message>,
        place: Place,
        redelivered: bool,
        effects: &mut Vec<Effect>,
    ) {
        let consumer = self.consumers.get(slot);
        let (session, number) = (consumer.session, consumer.number);
        self.consumers_mut().on_delivery(slot, message.size() + DELIVERY_BYTES);
        let delivery = Delivery {
            consumer: number,
            queue: self.policy.queue,
            entry: self.next_entry(),
            message,
            redelivered,
            counts: None,
            automatic: true,
        };
        let after = self.after(place);
        effects.push(Effect::Notify { session, notice: Notice::Delivery(delivery), after });
        Self::forget(place, effects);
    }

    /// What a queue that keeps everything shows only when it is durable.
    fn after(&self, place: Place) -> Option<LogPosition> {
        match place {
            Place::Log { end, .. } if self.policy.keeps_all => Some(end),
            _ => None,
        }
    }

    /// The delivery of a message, and the message as it stands afterwards.
    fn dispatch(
        &self,
        consumer: ConsumerNumber,
        automatic: bool,
        mut item: Item,
    ) -> (Delivery, Item) {
        let is_shown = self.policy.counts_deliveries && 0 < item.acquired;
        let counts = is_shown.then_some((item.acquired, item.failed));
        let message = if automatic || item.entry.is_fleeting() {
            item.entry.message.take()
        } else {
            item.entry.message.clone()
        };
        let delivery = Delivery {
            consumer,
            queue: self.policy.queue,
            entry: item.entry.id,
            message: message.expect("only messages that are in memory are delivered"),
            redelivered: item.entry.is_redelivered(),
            counts,
            automatic,
        };
        item.entry.set_redelivered();
        if self.counts() {
            item.acquired = item.acquired.saturating_add(1);
        }
        (delivery, item)
    }

    /// Asks for the next bodies when most of those that were read ahead have gone.
    fn read_ahead(&mut self, effects: &mut Vec<Effect>) {
        if 0 < self.loaded_last && self.ready.ahead() < self.loaded_last / 2 {
            self.load(effects);
        }
    }

    // Once for hundreds of messages: not within the loop that hands them out.
    #[inline(never)]
    fn load(&mut self, effects: &mut Vec<Effect>) {
        if !self.loading.is_empty() {
            return;
        }
        self.ready.unpack_next(LOAD_LOOKS_MAX);
        let (mut looks, mut octets) = (0, 0);
        self.ready.visit(|it| {
            looks += 1;
            if it.message.is_none() {
                self.loading.push((it.id, it.place()));
                octets += u64::from(it.body_len) + DELIVERY_BYTES;
            }
            let is_enough = looks == LOAD_LOOKS_MAX
                || self.loading.len() == LOAD_ENTRIES_MAX
                || LOAD_BYTES_MAX <= octets;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.loaded_last = self.loading.len();
        if !self.loading.is_empty() {
            effects.push(Effect::Load { entries: self.loading.clone() });
        }
    }

    #[inline(never)]
    pub(super) fn loaded(
        &mut self,
        messages: Vec<(EntryId, Option<Arc<Message>>)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut asked = std::mem::take(&mut self.loading);
        asked.sort_unstable_by_key(|(id, _)| *id);
        for (id, message) in messages {
            if let Some(message) = message {
                self.ready.attach(id, message);
                continue;
            }
            // A message that was moved in the meantime is read again from its new place.
            let place = asked.binary_search_by_key(&id, |(id, _)| *id).map(|at| asked[at].1).ok();
            let waits_there = |it: &Entry, _| it.message.is_none() && Some(it.place()) == place;
            if self.ready.look(id, waits_there) == Some(true)
                && let Some(item) = self.ready.remove(id)
            {
                self.watch(item.level);
                Self::forget(item.entry.place(), effects);
            }
        }
    }
}
