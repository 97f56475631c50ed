//! Jobs go out: to consumers with capacity, to fetches and to leases, through the disk when their
//! bodies are not in memory.

use super::{Fetch, Held, JobQueue, LeaseWait, Run, STARTING_MAX, Seeker, Worker, changes::Cause};
use crate::{
    command::Place,
    effect::{DeathReason, Effect},
    job::{Next, Started, Token, Verdict},
};
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, LogPosition, Message, Name, Notice, SessionId,
    Timestamp, Value,
    job::{JOB_PREFIX, JobAnswer, JobNotice},
    properties::Properties,
};
use std::sync::Arc;

/// What a delivery costs beside its message, as flow credit counts it.
const DELIVERY_BYTES: u64 = 64;

impl JobQueue {
    /// Hands out jobs as long as somebody wants one and one may start.
    pub(super) fn serve(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while self.starting.len() < STARTING_MAX && self.limited_until.is_none() {
            let is_fetched = !self.fetches.is_empty();
            let is_leased = !is_fetched && !self.leases.is_empty();
            if !is_fetched && !is_leased && self.consumers.next().is_none() {
                break;
            }
            let mut out = std::mem::take(&mut self.transitions);
            let next = self.book.next(is_leased, now, &mut out);
            self.transitions = out;
            match next {
                Next::Job(started) => self.start(started, now, effects),
                Next::None { until } => {
                    self.limited_until = until.filter(|it| now < *it);
                    break;
                }
            }
        }
        self.hand_out(now, effects);
        if self.starting.is_empty() {
            while let Some(Fetch { session, channel, .. }) = self.fetches.pop_front() {
                let notice = Notice::Fetched { channel, delivery: None, ready: 0 };
                effects.push(Effect::Notify { session, notice, after: None });
            }
        }
    }

    /// Takes note of who gets the job.
    fn start(&mut self, started: Started, now: Timestamp, effects: &mut Vec<Effect>) {
        let Started { entry, fence, lease_end, .. } = started;
        let Some((worker, seeker, timeout_ms)) = self.taker(lease_end) else {
            return self.put_back(started, now, effects);
        };
        let secret = self.chance.secret();
        let overdue = timeout_ms.map(|it| now.plus_ms(it));
        let (delivery, candidate) = (None, None);
        let run = Run { fence, secret, worker, delivery, candidate, timeout_ms, overdue };
        overdue.map(|it| self.overdue.insert((it, entry)));
        self.tokens.insert(secret, entry);
        self.runs.insert(entry, run);
        self.starting.push_back((entry, seeker));
        self.hold(entry);
        let is_leased = lease_end.is_some();
        self.follow(&Cause::Started { is_leased }, now, effects);
    }

    /// Who gets the next job, and how long it may take.
    fn taker(&mut self, lease_end: Option<Timestamp>) -> Option<(Worker, Seeker, Option<u64>)> {
        if let Some(Fetch { session, channel, automatic }) = self.fetches.pop_front() {
            let worker = Worker::Connected { session, consumer: ConsumerNumber(0), automatic };
            return Some((worker, Seeker::Fetch { channel }, None));
        }
        if let Some(end) = lease_end {
            let LeaseWait { session, number, worker } = self.leases.pop_front()?;
            let grant = Some((session, number));
            return Some((Worker::Leasing { grant, name: worker, end }, Seeker::Lease, None));
        }
        let slot = self.consumers.take()?;
        let consumer = self.consumers.get(slot);
        let timeout_ms = consumer.timeout_ms.or(self.policy.consumer_timeout_ms);
        let timeout_ms = timeout_ms.filter(|it| 0 < *it);
        let (session, number, automatic) = (consumer.session, consumer.number, consumer.automatic);
        self.consumers.on_delivery(slot, 0);
        let worker = Worker::Connected { session, consumer: number, automatic };
        Some((worker, Seeker::Consumer, timeout_ms))
    }

    /// The credit that the job was for went to another queue meanwhile.
    fn put_back(&mut self, started: Started, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut out = std::mem::take(&mut self.transitions);
        let Started { entry, fence, .. } = started;
        let ended = self.book.end(entry, fence, Verdict::Released, (now, 0), &mut out);
        debug_assert!(ended.is_ok(), "it has just begun: {ended:?}");
        self.transitions = out;
        self.follow(&Cause::Released { was_leased: false }, now, effects);
    }

    /// The session holds the job from now on.
    fn hold(&mut self, job: EntryId) {
        let number = self.next_entry();
        let Some(run) = self.runs.get_mut(&job) else { return };
        if let Worker::Connected { session, consumer, .. } = run.worker {
            run.delivery = Some(number);
            self.held.insert(number, Held { session, consumer, job });
            self.held_by.insert((session, consumer, number));
        }
    }

    /// Gives out what was taken, in order, as far as the bodies are here.
    fn hand_out(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some((entry, seeker)) = self.starting.front().copied() {
            let body = self.items.get(&entry).and_then(|it| it.entry.message.clone());
            let Some(message) = body else { break };
            self.starting.pop_front();
            self.hand_over(entry, seeker, &message, now, effects);
            if let Some(item) = self.items.get_mut(&entry) {
                item.entry.set_redelivered();
            }
        }
        self.load(effects);
    }

    fn hand_over(
        &mut self,
        entry: EntryId,
        seeker: Seeker,
        message: &Arc<Message>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get(&entry) else { return };
        let (secret, worker, delivery) = (run.secret, run.worker.clone(), run.delivery);
        let place = self.items.get(&entry).map_or(Place::Memory, |it| it.entry.place());
        let after = match place {
            Place::Log { end, .. } if self.policy.keeps_all => Some(end),
            _ => None,
        };
        let token = Token { shard: self.policy.shard, queue: self.policy.queue, secret }.name();
        match worker {
            Worker::Leasing { grant: Some((session, number)), end, .. } => {
                if let Some(view) = self.view(entry, now) {
                    let message = Arc::clone(message);
                    let answer = JobAnswer::Leased { token, view, message, until: end };
                    let notice = Notice::Job(Box::new(JobNotice { number, answer }));
                    effects.push(Effect::Notify { session, notice, after });
                }
            }
            Worker::Leasing { grant: None, .. } => {}
            Worker::Connected { session, consumer, automatic } => {
                let Some(delivery) = delivery else { return };
                let delivery = self.delivery(entry, delivery, consumer, automatic, &token, message);
                self.send(session, seeker, delivery, after, now, effects);
            }
        }
    }

    fn send(
        &mut self,
        session: SessionId,
        seeker: Seeker,
        delivery: Delivery,
        after: Option<LogPosition>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let consumer = delivery.consumer;
        let notice = match seeker {
            Seeker::Fetch { channel } => self.fetched(channel, delivery),
            _ => match self.consumers.find(session, consumer) {
                Some(slot) => {
                    self.consumers.charge(slot, delivery.message.size() + DELIVERY_BYTES);
                    Notice::Delivery(delivery)
                }
                // It has ended while the body was on its way.
                None => {
                    let held = self.held.get(&delivery.entry).map(|it| it.job);
                    self.release_held(delivery.entry);
                    held.into_iter().for_each(|it| self.release(it, now, effects));
                    return;
                }
            },
        };
        effects.push(Effect::Notify { session, notice, after });
    }

    fn fetched(&self, channel: ChannelId, delivery: Delivery) -> Notice {
        let ready = self.book.counts().0 as u64;
        Notice::Fetched { channel, delivery: Some(delivery), ready }
    }

    /// The message as a worker gets it: its answers go to the token.
    fn delivery(
        &self,
        job: EntryId,
        number: EntryId,
        consumer: ConsumerNumber,
        automatic: bool,
        token: &Name,
        message: &Message,
    ) -> Delivery {
        let attempt = self.book.life(job).map_or(1, |it| it.attempt);
        let mut properties = Properties::decode(message.properties()).unwrap_or_default();
        properties.reply_to = Some(Name::from(format!("{JOB_PREFIX}{token}")));
        let mut headers = properties.headers.take().unwrap_or_default();
        headers.set("x-attempt", Value::I64(attempt.into()));
        properties.headers = Some(headers);
        let octets = properties.encoded();
        let mut rewritten = message.readdressed(message.exchange(), message.routing_key(), &octets);
        rewritten.deaths_known = message.deaths_known;
        let before = attempt.saturating_sub(1);
        Delivery {
            consumer,
            queue: self.policy.queue,
            entry: number,
            message: Arc::new(rewritten),
            redelivered: self.items.get(&job).is_some_and(|it| it.entry.is_redelivered()),
            counts: (0 < before).then_some((before, before)),
            automatic,
        }
    }

    /// Asks for the bodies of what was taken, and of what is to be buried.
    fn load(&mut self, effects: &mut Vec<Effect>) {
        if !self.loading.is_empty() || (self.starting.is_empty() && self.letters.is_empty()) {
            return;
        }
        let wanted = self.starting.iter().map(|it| it.0).chain(self.letters.keys().copied());
        let absent = wanted.filter_map(|id| Some((id, &self.items.get(&id)?.entry)));
        let absent = absent.filter(|(_, it)| it.message.is_none());
        self.loading = absent.map(|(id, it)| (id, it.place())).take(STARTING_MAX).collect();
        if !self.loading.is_empty() {
            effects.push(Effect::Load { entries: self.loading.clone() });
        }
    }

    pub(super) fn loaded(
        &mut self,
        messages: Vec<(EntryId, Option<Arc<Message>>)>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let asked = std::mem::take(&mut self.loading);
        for (id, message) in messages {
            let place = asked.iter().find(|(it, _)| *it == id).map(|(_, place)| *place);
            let Some(item) = self.items.get_mut(&id) else { continue };
            let is_there = item.entry.message.is_none() && Some(item.entry.place()) == place;
            match message {
                Some(message) if item.entry.message.is_none() => {
                    item.entry.message = Some(message);
                    self.resident += item.entry.resident();
                }
                // A message that was moved in the meantime is read again from its new place.
                None if is_there => {
                    self.book.remove(id, now);
                    self.drop_item(id, now, effects);
                    continue;
                }
                _ => {}
            }
            if let Some(reason) = self.letters.remove(&id) {
                self.send_letter(id, reason, effects);
            }
        }
    }

    fn send_letter(&mut self, id: EntryId, reason: DeathReason, effects: &mut Vec<Effect>) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let message = item.entry.message.clone();
        if message.is_some() {
            let place = Place::Memory;
            effects.push(Effect::DeadLetter { message, place, reason, redelivered: false });
        }
        self.let_body_go(id);
    }

    /// A body that can be read again leaves memory, where there was no room for it.
    pub(super) fn let_body_go(&mut self, id: EntryId) {
        let Some(item) = self.items.get_mut(&id) else { return };
        let may_go = item.is_kept() || matches!(item.entry.place(), Place::Spill { .. });
        if may_go && !self.runs.contains_key(&id) {
            self.resident -= item.entry.resident();
            item.entry.message = None;
        }
    }

    /// The job comes back unused.
    pub(super) fn release(&mut self, entry: EntryId, now: Timestamp, effects: &mut Vec<Effect>) {
        let was_leased = self.runs.get(&entry).is_some_and(Run::is_leased);
        self.end(entry, Verdict::Released, &Cause::Released { was_leased }, now, effects);
    }
}
