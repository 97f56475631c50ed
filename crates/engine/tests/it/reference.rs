//! A queue that is obviously right: one list of messages in order of arrival, searched from one end
//! to the other for every question. What the real one must do is what this one does.

use engine::{Command, Enqueue, Place, Subscriber};
use model::{
    ConsumerNumber, EntryId, LogPosition, Message, Outcome, QueuePolicy, SessionId, Timestamp,
    limits,
    policy::{DelayedRetry, Order, Overflow, Priorities},
};
use std::sync::Arc;

pub(crate) const SESSIONS: u64 = 3;
pub(crate) const SHARED_START: i64 = 3;

/// An effect as both queues can tell it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Delivered(SessionId, ConsumerNumber, Letter),
    Fetched(SessionId, Option<Letter>, u64),
    Subscribed(SessionId, ConsumerNumber),
    Unsubscribed(SessionId, ConsumerNumber),
    Cancelled(SessionId, ConsumerNumber),
    Refused(SessionId),
    Purged(SessionId, u64),
    Removed(Place),
    Counted(LogPosition, u32, u32),
    Rejected,
    Died { body: Option<u64>, place: Place, reason: String, redelivered: bool },
    Unused,
    Expired,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) entry: EntryId,
    pub(crate) body: u64,
    pub(crate) redelivered: bool,
    pub(crate) counts: Option<(u32, u32)>,
    pub(crate) automatic: bool,
    pub(crate) after: Option<LogPosition>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Ready,
    Held { session: SessionId, consumer: Option<ConsumerNumber>, since: Timestamp },
    Resting { until: Timestamp },
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) id: EntryId,
    pub(crate) body: u64,
    pub(crate) body_len: u64,
    pub(crate) size: u64,
    pub(crate) level: u8,
    pub(crate) arrived: Timestamp,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) place: Place,
    pub(crate) redelivered: bool,
    pub(crate) acquired: u32,
    pub(crate) failed: u32,
    pub(crate) resident: bool,
    pub(crate) fleeting: bool,
    pub(crate) state: State,
}

type Key = (SessionId, ConsumerNumber);

#[derive(Clone, Debug)]
struct Consumer {
    key: Key,
    automatic: bool,
    exclusive: bool,
    priority: i64,
    prefetch: u32,
    shared: bool,
    timeout_ms: Option<u64>,
    credit: i64,
}

#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) policy: QueuePolicy,
    pub(crate) messages: Vec<Known>,
    /// In order of arrival.
    consumers: Vec<Consumer>,
    /// Those that may take something, longest idle first.
    turn: Vec<Key>,
    active: Option<Key>,
    fetches: Vec<(SessionId, bool)>,
    pub(crate) shared: [i64; SESSIONS as usize],
    last: u64,
    used: Timestamp,
    lease_over: bool,
    now: Timestamp,
    seen: Vec<Seen>,
}

/// The number that a message of these tests carries as its body.
pub(crate) fn number(message: &Message) -> u64 {
    let body = message.first_body_part();
    u64::from_be_bytes(body[..8].try_into().expect("bodies begin with their number"))
}

impl Reference {
    pub(crate) fn new(policy: QueuePolicy, now: Timestamp) -> Self {
        Self {
            policy,
            messages: Vec::new(),
            consumers: Vec::new(),
            turn: Vec::new(),
            active: None,
            fetches: Vec::new(),
            shared: [SHARED_START; SESSIONS as usize],
            last: 0,
            used: now,
            lease_over: false,
            now,
            seen: Vec::new(),
        }
    }

    /// `asked`: the open load, when the command answers it.
    pub(crate) fn apply(
        &mut self,
        command: &Command,
        asked: &[(EntryId, Place)],
        now: Timestamp,
    ) -> Vec<Seen> {
        self.now = now;
        self.pass_time();
        match command {
            Command::Enqueue(it) => self.enqueue(it),
            Command::Subscribe(it) => self.subscribe(it),
            Command::Unsubscribe { session, consumer, .. } => {
                self.seen.push(Seen::Unsubscribed(*session, *consumer));
                self.remove_consumer((*session, *consumer));
            }
            Command::Credit { session, consumer, bytes } => {
                self.change((*session, *consumer), |it| it.credit += bytes.cast_signed());
            }
            Command::Prefetch { session, consumer, prefetch } => {
                self.change((*session, *consumer), |it| it.prefetch = *prefetch);
            }
            Command::Resume { session, consumer } => self.change((*session, *consumer), |_| {}),
            Command::Settle { session, entries, outcome, .. } => {
                entries.iter().for_each(|it| self.settle(*session, *it, *outcome));
            }
            Command::Fetch { session, automatic, .. } => self.fetch(*session, *automatic),
            Command::Purge { session, .. } => self.purge(*session),
            Command::Loaded { messages } => self.loaded(messages, asked),
            Command::Moved { entry, from, to } => self.moved(*entry, *from, *to),
            Command::Configure(policy) => {
                self.policy = (**policy).clone();
                self.lease_over = false;
                self.pass_time();
            }
            Command::Touch => self.used = now,
            Command::Tick => {}
            Command::EndSession { session, .. } => self.end_session(*session),
            Command::Close => unreachable!("not part of these tests"),
        }
        self.rest();
        if self.lease_end().is_some_and(|it| it <= now) {
            self.lease_over = true;
            self.seen.push(Seen::Expired);
        }
        std::mem::take(&mut self.seen)
    }

    fn is_ready(it: &Known) -> bool {
        it.state == State::Ready
    }

    fn held_by(&self, key: Key) -> impl Iterator<Item = &Known> {
        self.messages.iter().filter(move |it| {
            matches!(it.state, State::Held { session, consumer, .. }
                if session == key.0 && consumer == Some(key.1))
        })
    }

    pub(crate) fn ready_len(&self) -> u64 {
        self.messages.iter().filter(|it| Self::is_ready(it)).count() as u64
    }

    pub(crate) fn ready_bytes(&self) -> u64 {
        self.messages.iter().filter(|it| Self::is_ready(it)).map(|it| it.body_len).sum()
    }

    pub(crate) fn consumers_len(&self) -> u64 {
        self.consumers.len() as u64
    }

    fn level(&self, priority: Option<u8>) -> u8 {
        match self.policy.priorities {
            Priorities::None => 0,
            Priorities::UpTo(max) => priority.unwrap_or(0).min(max),
            Priorities::Quorum => priority.unwrap_or(4).min(31),
        }
    }

    fn deadline(&self, it: &Known) -> Option<Timestamp> {
        let ttl_ms = [self.policy.ttl_ms, it.ttl_ms].into_iter().flatten().min()?;
        Some(it.arrived.plus_ms(ttl_ms))
    }

    fn is_expired(&self, it: &Known) -> bool {
        self.deadline(it).is_some_and(|it| it <= self.now)
    }

    /// Indices of the ready messages of a level, oldest first.
    fn of_level(&self, level: u8) -> Vec<usize> {
        let is_of = |it: &Known| Self::is_ready(it) && it.level == level;
        (0..self.messages.len()).filter(|at| is_of(&self.messages[*at])).collect()
    }

    fn levels(&self) -> Vec<u8> {
        let ready = self.messages.iter().filter(|it| Self::is_ready(it));
        let mut levels: Vec<_> = ready.map(|it| it.level).collect();
        levels.sort_unstable();
        levels.dedup();
        levels.reverse();
        levels
    }

    pub(crate) fn next(&self) -> Option<usize> {
        let list = self.of_level(*self.levels().first()?);
        match self.policy.order {
            Order::Fifo => list.first().copied(),
            Order::Lifo => list.last().copied(),
        }
    }

    fn forget(&mut self, place: Place) {
        if place != Place::Memory {
            self.seen.push(Seen::Removed(place));
        }
    }

    fn bury(&mut self, at: usize, reason: &str, redelivered: bool) {
        let it = self.messages.remove(at);
        self.die(&it, reason, redelivered);
    }

    fn die(&mut self, it: &Known, reason: &str, redelivered: bool) {
        if self.policy.dead_letter.is_none() {
            return self.forget(it.place);
        }
        let body = it.resident.then_some(it.body);
        self.seen.push(Seen::Died { body, place: it.place, reason: reason.into(), redelivered });
    }

    fn pass_time(&mut self) {
        let mut due: Vec<_> = self
            .messages
            .iter()
            .filter_map(|it| match it.state {
                State::Resting { until } if until <= self.now => Some((until, it.id)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            self.get_mut(id).expect("was just seen").state = State::Ready;
        }
        for consumer in self.consumers.clone() {
            let due = self.overdue_at(&consumer);
            if due.is_some_and(|it| it <= self.now) {
                self.cancel(consumer.key);
            }
        }
        self.rest();
    }

    fn overdue_at(&self, consumer: &Consumer) -> Option<Timestamp> {
        let timeout_ms = consumer.timeout_ms.or(self.policy.consumer_timeout_ms)?;
        let since = self.held_by(consumer.key).map(|it| match it.state {
            State::Held { since, .. } => since,
            _ => unreachable!("only held ones are looked at"),
        });
        Some(since.min()?.plus_ms(timeout_ms))
    }

    fn lease_end(&self) -> Option<Timestamp> {
        let is_unused = self.consumers.is_empty() && !self.lease_over;
        Some(self.used.plus_ms(self.policy.expires_ms.filter(|_| is_unused)?))
    }

    /// The first time at which something happens by itself.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let ends = self.levels().into_iter().flat_map(|level| {
            let list = self.of_level(level);
            let newest = list.last().copied().filter(|_| self.policy.order == Order::Lifo);
            list.first().copied().into_iter().chain(newest)
        });
        let expiry = ends.filter_map(|at| self.deadline(&self.messages[at]));
        let rests = self.messages.iter().filter_map(|it| match it.state {
            State::Resting { until } => Some(until),
            _ => None,
        });
        let overdue = self.consumers.iter().filter_map(|it| self.overdue_at(it));
        expiry.chain(rests).chain(overdue).chain(self.lease_end()).min()
    }

    fn rest(&mut self) {
        loop {
            self.expire();
            self.deliver();
            if !self.drop_excess() && !self.expire() {
                return;
            }
        }
    }

    fn expire(&mut self) -> bool {
        let mut has_expired = false;
        for level in self.levels() {
            loop {
                let list = self.of_level(level);
                let oldest = list.first().filter(|at| self.is_expired(&self.messages[**at]));
                let newest = list.last().filter(|at| self.is_expired(&self.messages[**at]));
                let newest = newest.filter(|_| self.policy.order == Order::Lifo);
                let Some(at) = oldest.or(newest) else { break };
                self.bury(*at, "expired", false);
                has_expired = true;
            }
        }
        has_expired
    }

    fn drop_excess(&mut self) -> bool {
        let mut has_dropped = false;
        while self.policy.overflow == Overflow::DropHead
            && (self.policy.length_max.is_some_and(|it| it < self.ready_len())
                || self.policy.length_bytes_max.is_some_and(|it| it < self.ready_bytes()))
        {
            let lowest = *self.levels().last().expect("something is too much");
            self.bury(self.of_level(lowest)[0], "maxlen", false);
            has_dropped = true;
        }
        has_dropped
    }

    fn consumer(&self, key: Key) -> Option<&Consumer> {
        self.consumers.iter().find(|it| it.key == key)
    }

    fn has_capacity(&self, it: &Consumer) -> bool {
        let max = limits::CHANNEL_UNSETTLED_MAX;
        let prefetch = if it.prefetch == 0 { max } else { it.prefetch as usize };
        let has_shared = !it.shared || 0 < self.shared[it.key.0.0 as usize];
        0 < it.credit && (it.automatic || (self.held_by(it.key).count() < prefetch && has_shared))
    }

    /// Who is first where only one is served.
    fn first(&self) -> Option<Key> {
        let priority = |it: &&Consumer| if self.policy.keeps_all { -it.priority } else { 0 };
        self.consumers.iter().min_by_key(priority).map(|it| it.key)
    }

    fn elect(&mut self) {
        let may_change = match self.active {
            None => true,
            Some(key) => self.held_by(key).count() == 0,
        };
        if may_change {
            self.active = self.first();
        }
    }

    /// Who gets the next message. Those found without capacity lose their turn.
    pub(crate) fn pick(&mut self) -> Option<Key> {
        if self.policy.single_active_consumer {
            let active = self.active.filter(|it| Some(*it) == self.first())?;
            return self.consumer(active).filter(|it| self.has_capacity(it)).map(|it| it.key);
        }
        loop {
            let priority = |key: &Key| self.consumer(*key).map(|it| it.priority);
            let highest = self.turn.iter().map(priority).max()?;
            let at = self.turn.iter().position(|it| priority(it) == highest)?;
            let key = self.turn[at];
            if self.consumer(key).is_some_and(|it| self.has_capacity(it)) {
                return Some(key);
            }
            self.turn.remove(at);
        }
    }

    fn deliver(&mut self) {
        loop {
            self.expire();
            let Some(at) = self.next() else { break };
            if self.fetches.is_empty() && self.pick().is_none() || !self.messages[at].resident {
                break;
            }
            let it = self.messages.remove(at);
            if self.fetches.is_empty() {
                let key = self.pick().expect("was just there");
                self.hand_over(key, it);
            } else {
                let (session, automatic) = self.fetches.remove(0);
                let letter = self.letter(&it, automatic);
                let ready = self.ready_len();
                self.seen.push(Seen::Fetched(session, Some(letter), ready));
                self.after_delivery(it, session, None, automatic);
            }
        }
        if self.next().is_none() {
            for (session, _) in std::mem::take(&mut self.fetches) {
                self.seen.push(Seen::Fetched(session, None, 0));
            }
        }
    }

    fn letter(&self, it: &Known, automatic: bool) -> Letter {
        let is_shown = self.policy.counts_deliveries && 0 < it.acquired;
        Letter {
            entry: it.id,
            body: it.body,
            redelivered: it.redelivered,
            counts: is_shown.then_some((it.acquired, it.failed)),
            automatic,
            after: match it.place {
                Place::Log { end, .. } if self.policy.keeps_all => Some(end),
                _ => None,
            },
        }
    }

    fn hand_over(&mut self, key: Key, it: Known) {
        let consumer = self.consumers.iter_mut().find(|it| it.key == key).expect("was picked");
        consumer.credit -= (it.size + 64).cast_signed();
        if consumer.shared && !consumer.automatic {
            self.shared[key.0.0 as usize] -= 1;
        }
        let automatic = consumer.automatic;
        if let Some(at) = self.turn.iter().position(|it| *it == key) {
            let key = self.turn.remove(at);
            self.turn.push(key);
        }
        let letter = self.letter(&it, automatic);
        self.seen.push(Seen::Delivered(key.0, key.1, letter));
        self.after_delivery(it, key.0, Some(key.1), automatic);
    }

    fn after_delivery(
        &mut self,
        mut it: Known,
        session: SessionId,
        consumer: Option<ConsumerNumber>,
        automatic: bool,
    ) {
        if automatic {
            return self.forget(it.place);
        }
        it.redelivered = true;
        it.acquired += 1;
        it.resident = !it.fleeting;
        it.state = State::Held { session, consumer, since: self.now };
        self.put_back(it);
    }

    fn put_back(&mut self, it: Known) {
        self.messages.push(it);
        self.messages.sort_by_key(|it| it.id);
    }

    fn enqueue(&mut self, Enqueue { message, place, room, redelivered }: &Enqueue) {
        self.last += 1;
        let mut it = Known {
            id: EntryId(self.last),
            body: number(message),
            body_len: message.body_len(),
            size: message.size(),
            level: self.level(message.priority),
            arrived: self.now,
            ttl_ms: message.ttl_ms,
            place: *place,
            redelivered: *redelivered,
            acquired: 0,
            failed: 0,
            resident: true,
            fleeting: !room && *place != Place::Memory,
            state: State::Ready,
        };
        let would_be_next = self.levels().first().is_none_or(|highest| match self.policy.order {
            Order::Fifo => *highest < it.level,
            Order::Lifo => *highest <= it.level,
        });
        if self.fetches.is_empty()
            && would_be_next
            && let Some(key) = self.pick()
        {
            return self.hand_over(key, it);
        }
        let (ready_len, ready_bytes) = (self.ready_len() + 1, self.ready_bytes() + it.body_len);
        if self.policy.overflow != Overflow::DropHead
            && (self.policy.length_max.is_some_and(|it| it < ready_len)
                || self.policy.length_bytes_max.is_some_and(|it| it < ready_bytes))
        {
            self.seen.push(Seen::Rejected);
            return match self.policy.overflow {
                Overflow::RejectPublishDeadLetter => self.die(&it, "maxlen", false),
                _ => self.forget(*place),
            };
        }
        it.resident = !it.fleeting;
        self.put_back(it);
    }

    fn subscribe(&mut self, it: &Subscriber) {
        let key = (it.session, it.consumer);
        let is_in_use = self.consumers.iter().any(|it| it.exclusive)
            || (it.exclusive && (!self.consumers.is_empty() || self.policy.single_active_consumer));
        if self.consumer(key).is_some() || (is_in_use && !self.policy.keeps_all) {
            return self.seen.push(Seen::Refused(it.session));
        }
        self.seen.push(Seen::Subscribed(it.session, it.consumer));
        self.used = self.now;
        self.consumers.push(Consumer {
            key,
            automatic: it.automatic,
            exclusive: it.exclusive,
            priority: it.priority,
            prefetch: it.prefetch,
            shared: it.shared.is_some(),
            timeout_ms: it.timeout_ms,
            credit: limits::OUTGOING_BYTES_MAX.cast_signed(),
        });
        self.turn.push(key);
        self.elect();
    }

    fn remove_consumer(&mut self, key: Key) {
        let Some(at) = self.consumers.iter().position(|it| it.key == key) else { return };
        self.consumers.remove(at);
        self.turn.retain(|it| *it != key);
        if self.active == Some(key) {
            self.active = None;
        }
        self.elect();
        if self.consumers.is_empty() {
            self.used = self.now;
            if self.policy.auto_delete {
                self.seen.push(Seen::Unused);
            }
        }
    }

    fn cancel(&mut self, key: Key) {
        let held: Vec<_> = self.held_by(key).map(|it| it.id).collect();
        self.seen.push(Seen::Cancelled(key.0, key.1));
        self.remove_consumer(key);
        held.iter().for_each(|it| self.settle(key.0, *it, Outcome::Requeue { failed: false }));
    }

    fn end_session(&mut self, session: SessionId) {
        self.fetches.retain(|it| it.0 != session);
        for consumer in self.consumers.clone() {
            if consumer.key.0 == session {
                self.remove_consumer(consumer.key);
            }
        }
        let is_held =
            |it: &&Known| matches!(it.state, State::Held { session: of, .. } if of == session);
        let held: Vec<_> = self.messages.iter().filter(is_held).map(|it| it.id).collect();
        held.iter().for_each(|it| self.settle(session, *it, Outcome::Requeue { failed: true }));
    }

    fn may_go_on(&mut self, key: Key) {
        if self.consumer(key).is_some() && !self.turn.contains(&key) {
            self.turn.push(key);
        }
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Consumer)) {
        if let Some(it) = self.consumers.iter_mut().find(|it| it.key == key) {
            change(it);
            self.may_go_on(key);
        }
    }

    pub(crate) fn get_mut(&mut self, id: EntryId) -> Option<&mut Known> {
        self.messages.iter_mut().find(|it| it.id == id)
    }

    fn settle(&mut self, session: SessionId, id: EntryId, outcome: Outcome) {
        let is_it = |it: &Known| {
            it.id == id && matches!(it.state, State::Held { session: of, .. } if of == session)
        };
        let Some(at) = self.messages.iter().position(is_it) else { return };
        let mut it = self.messages.remove(at);
        if let State::Held { consumer: Some(consumer), .. } = it.state {
            self.may_go_on((session, consumer));
            self.elect();
        }
        let failed = match outcome {
            Outcome::Accept => return self.forget(it.place),
            Outcome::Reject { flagged } => return self.die(&it, "rejected", flagged),
            Outcome::Requeue { failed } | Outcome::Release { failed } => failed,
        };
        it.failed += u32::from(failed);
        if failed && self.policy.delivery_limit.is_some_and(|limit| limit < it.failed) {
            return self.die(&it, "delivery_limit", true);
        }
        if let (true, Place::Log { position, .. }) = (self.policy.counts_deliveries, it.place) {
            self.seen.push(Seen::Counted(position, it.acquired, it.failed));
        }
        let rests = match self.policy.delayed_retry {
            DelayedRetry::Disabled => false,
            DelayedRetry::All => true,
            DelayedRetry::Failed => failed,
            DelayedRetry::Returned => !failed,
        };
        let rest_ms = self.policy.delayed_retry_ms_min * u64::from(it.failed.max(1));
        let rest_ms = rest_ms.min(self.policy.delayed_retry_ms_max);
        it.state = match rests && 0 < rest_ms {
            true => State::Resting { until: self.now.plus_ms(rest_ms) },
            false => State::Ready,
        };
        self.put_back(it);
    }

    fn fetch(&mut self, session: SessionId, automatic: bool) {
        self.used = self.now;
        if self.policy.keeps_all && self.policy.single_active_consumer {
            return self.seen.push(Seen::Refused(session));
        }
        self.fetches.push((session, automatic));
    }

    fn purge(&mut self, session: SessionId) {
        let ready = self.ready_len();
        while let Some(at) = self.next() {
            let it = self.messages.remove(at);
            self.forget(it.place);
        }
        self.seen.push(Seen::Purged(session, ready));
    }

    fn loaded(&mut self, messages: &[(EntryId, Option<Arc<Message>>)], asked: &[(EntryId, Place)]) {
        for (id, message) in messages {
            let is_it = |it: &Known| it.id == *id && Self::is_ready(it) && !it.resident;
            let Some(at) = self.messages.iter().position(is_it) else { continue };
            let place = self.messages[at].place;
            if message.is_some() {
                self.messages[at].resident = true;
                self.messages[at].fleeting = true;
            } else if asked.contains(&(*id, place)) {
                self.messages.remove(at);
                self.forget(place);
            }
        }
    }

    fn moved(&mut self, id: EntryId, from: LogPosition, to: Place) {
        if let Some(it) = self.get_mut(id)
            && matches!(it.place, Place::Log { position, .. } if position == from)
        {
            it.place = to;
        }
    }

    pub(crate) fn has_fetches(&self) -> bool {
        !self.fetches.is_empty()
    }
}
