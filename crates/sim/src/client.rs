//! One client: it publishes, consumes, settles and asks, at random, and checks every answer.

use crate::{
    body,
    history::{History, Published},
    host::{Host, USER, VHOST},
    random::Random,
    token::InstanceId,
    world::{FANOUT, SPECS, SpecId},
};
use broker::{Connect, SessionHandle};
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, Name, Notice, Outcome, Publish, QueueId, Refusal,
    Request, Settle, Subscribe, Table,
    request::{Binding, DeclareQueue},
};
use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

/// Channels of a client.
const CHANNELS: u16 = 2;

/// What a channel waits for.
#[derive(Clone, Debug)]
enum Waiting {
    Declare(InstanceId),
    Delete(InstanceId),
    Bind(InstanceId, usize),
    Purge,
    Fetch(InstanceId, bool),
    Subscribe(ConsumerNumber),
    Unsubscribe,
    /// Tokens accepted by the transaction, with their states, and messages published by it.
    Commit(Vec<(usize, usize)>, Vec<u64>),
    Barrier,
}

/// An accept that a later confirm covers.
struct Accepted {
    token: usize,
    state: usize,
    instance: InstanceId,
    /// Publishes of the channel before it.
    before: u64,
}

struct Channel {
    id: ChannelId,
    key: u64,
    /// Publishes so far; the last one's number.
    published: u64,
    open: BTreeMap<u64, u64>,
    waiting: Option<Waiting>,
    accepted: Vec<Accepted>,
}

/// A delivery to be settled.
#[derive(Clone, Copy)]
struct Held {
    token: usize,
    instance: InstanceId,
    queue: QueueId,
    entry: EntryId,
    consumer: Option<ConsumerNumber>,
    channel: usize,
}

struct Consuming {
    number: ConsumerNumber,
    instance: InstanceId,
    channel: usize,
    queue: Option<QueueId>,
    owed: u64,
}

/// A connected client.
pub struct Client {
    pub id: u64,
    handle: SessionHandle,
    channels: Vec<Channel>,
    consumers: Vec<Consuming>,
    held: Vec<Held>,
    last_consumer: u32,
    notices: Vec<Notice>,
    deleting: Vec<InstanceId>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// A text, when the broker does not let it in.
    pub fn connect(host: &Host, history: &mut History) -> Result<Self, String> {
        let connect = Connect { user: USER.into(), vhost: VHOST.into(), peer: String::new() };
        let handle = host.broker.connect(connect).map_err(|it| it.to_string())?;
        history.clients += 1;
        let id = history.clients;
        let channel = |number: u16| Channel {
            id: ChannelId(number + 1),
            key: id * u64::from(CHANNELS) + u64::from(number),
            published: 0,
            open: BTreeMap::new(),
            waiting: None,
            accepted: Vec::new(),
        };
        history.note(|| format!("client {id} connects"));
        Ok(Self {
            id,
            handle,
            channels: (0..CHANNELS).map(channel).collect(),
            consumers: Vec::new(),
            held: Vec::new(),
            last_consumer: 0,
            notices: Vec::new(),
            deleting: Vec::new(),
        })
    }

    /// Ends the session; what it holds goes back.
    pub fn close(self, host: &Host, history: &mut History) {
        history.note(|| format!("client {} closes", self.id));
        self.forget(history);
        self.handle.close(host.now);
    }

    /// The broker is gone, and the session with it.
    pub fn forget(&self, history: &mut History) {
        for held in &self.held {
            history.tokens[held.token].holder = None;
        }
        for channel in &self.channels {
            if let Some(Waiting::Fetch(instance, true)) = channel.waiting {
                history.instances[instance].losses += 1;
            }
        }
    }

    /// Every publish is answered, and nothing is waited for.
    pub fn check_idle(&self, history: &mut History) {
        for channel in &self.channels {
            if let Some((number, message)) = channel.open.first_key_value() {
                history.fault(format!("publish {number} (message {message}) is never answered"));
            }
            if let Some(waiting) = &channel.waiting {
                history.fault(format!("{waiting:?} is never answered"));
            }
        }
    }

    /// Hands a few requests over, if the log has room.
    pub fn act(
        &mut self,
        random: &mut Random,
        host: &Host,
        history: &mut History,
        specs: &[SpecId],
    ) {
        let mut context = Context::from_waker(Waker::noop());
        if host.is_blocked || self.handle.poll_room(&mut context).is_pending() {
            return;
        }
        let mut requests = Vec::new();
        let mut catalog = true;
        for _ in 0..=random.below(5) {
            let channel = random.index(self.channels.len());
            match random.below(20) {
                0..=8 => {
                    for _ in 0..=random.below(3) {
                        let request = self.publish(channel, random, host, history, specs);
                        requests.push(request);
                    }
                }
                9..=14 => self.settle(random, history, &mut requests),
                _ if self.channels[channel].waiting.is_some() => {}
                15 => self.fetch(channel, random, history, specs, &mut requests),
                16 => self.commit(channel, random, host, history, specs, &mut requests),
                17 | 18 => self.consume(channel, random, history, specs, &mut requests),
                _ if catalog => {
                    catalog = false;
                    self.change(channel, random, history, specs, &mut requests);
                }
                _ => {}
            }
        }
        history.note(|| format!("client {} submits {}", self.id, shown(&requests)));
        self.handle.submit(&mut requests, host.now);
        self.delete_done(history);
    }

    fn delete_done(&mut self, history: &mut History) {
        for instance in std::mem::take(&mut self.deleting) {
            history.instances[instance].live = false;
        }
    }

    fn publish(
        &mut self,
        at: usize,
        random: &mut Random,
        host: &Host,
        history: &mut History,
        specs: &[SpecId],
    ) -> Request {
        let channel = &mut self.channels[at];
        channel.published += 1;
        let confirm = Some(channel.published);
        let number = history.messages.len() as u64 + 1;
        channel.open.insert(channel.published, number);
        let publish = compose(number, channel.id, channel.key, random, history, specs, host);
        Request::Publish(Publish { confirm, ..publish })
    }

    /// Settles one of the deliveries, or a few.
    fn settle(&mut self, random: &mut Random, history: &mut History, requests: &mut Vec<Request>) {
        for _ in 0..=random.below(3) {
            if self.held.is_empty() {
                return;
            }
            let held = self.held.remove(random.index(self.held.len()));
            let outcome = match random.below(8) {
                0 => Outcome::Requeue { failed: true },
                1 => Outcome::Requeue { failed: false },
                2 => Outcome::Reject { flagged: random.once_in(2) },
                _ => Outcome::Accept,
            };
            requests.push(self.settled(held, outcome, history));
        }
    }

    fn settled(&mut self, held: Held, outcome: Outcome, history: &mut History) -> Request {
        let Held { token: at, instance, queue, entry, consumer, channel } = held;
        if !history.instances[instance].deleting {
            let persistent =
                history.messages.get(&history.tokens[at].message).is_some_and(|it| it.persistent);
            let dead = history.dead(instance, persistent);
            let token = &mut history.tokens[at];
            match outcome {
                Outcome::Accept => {
                    let state = token.accept();
                    let before = self.channels[channel].published;
                    let accepted = Accepted { token: at, state, instance, before };
                    self.channels[channel].accepted.push(accepted);
                }
                Outcome::Requeue { .. } | Outcome::Release { .. } => token.holder = None,
                Outcome::Reject { .. } => token.reject(dead),
            }
        }
        let channel = self.channels[channel].id;
        let entries = std::iter::once(entry).collect();
        Request::Settle(Settle { channel, queue, consumer, entries, outcome })
    }

    fn fetch(
        &mut self,
        at: usize,
        random: &mut Random,
        history: &History,
        specs: &[SpecId],
        requests: &mut Vec<Request>,
    ) {
        let spec = random.pick(specs);
        let Some(instance) = history.live(spec) else { return };
        // Whoever has it settled on the way may lose it, so only where deliveries wait for nothing.
        let automatic = random.once_in(4) && !SPECS[spec].quorum;
        self.channels[at].waiting = Some(Waiting::Fetch(instance, automatic));
        let channel = self.channels[at].id;
        requests.push(Request::Fetch { channel, queue: SPECS[spec].name.into(), automatic });
    }

    fn commit(
        &mut self,
        at: usize,
        random: &mut Random,
        host: &Host,
        history: &mut History,
        specs: &[SpecId],
        requests: &mut Vec<Request>,
    ) {
        // What came before it in the batch is done before it.
        self.delete_done(history);
        let mut inside = Vec::new();
        history.transactions += 1;
        let (mut messages, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..random.below(4) {
            let number = history.messages.len() as u64 + 1;
            let channel = &self.channels[at];
            let publish = compose(number, channel.id, channel.key, random, history, specs, host);
            if let Some(message) = history.messages.get_mut(&number) {
                message.transaction = Some(history.transactions);
                message.mandatory = false;
            }
            messages.push(number);
            inside.push(Request::Publish(Publish { mandatory: false, ..publish }));
        }
        let before = self.channels.iter().map(|it| it.accepted.len()).collect::<Vec<_>>();
        self.settle(random, history, &mut inside);
        for (channel, before) in self.channels.iter_mut().zip(before) {
            accepted.extend(channel.accepted.drain(before..).map(|it| (it.token, it.state)));
        }
        let channel = self.channels[at].id;
        self.channels[at].waiting = Some(Waiting::Commit(accepted, messages));
        requests.push(Request::Commit { channel, requests: inside });
    }

    fn consume(
        &mut self,
        at: usize,
        random: &mut Random,
        history: &History,
        specs: &[SpecId],
        requests: &mut Vec<Request>,
    ) {
        let channel = self.channels[at].id;
        if !self.consumers.is_empty() && random.once_in(3) {
            let consuming = &self.consumers[random.index(self.consumers.len())];
            let Some(queue) = consuming.queue else { return };
            let consumer = consuming.number;
            if random.once_in(2) {
                let prefetch = random.below(5) as u32;
                requests.push(Request::Prefetch { consumer, queue, prefetch });
            } else if consuming.channel == at {
                self.channels[at].waiting = Some(Waiting::Unsubscribe);
                requests.push(Request::Unsubscribe { channel, consumer, queue });
            }
            return;
        }
        let spec = random.pick(specs);
        let Some(instance) = history.live(spec) else { return };
        self.last_consumer += 1;
        let number = ConsumerNumber(self.last_consumer);
        let consuming = Consuming { number, instance, channel: at, queue: None, owed: 0 };
        self.consumers.push(consuming);
        self.channels[at].waiting = Some(Waiting::Subscribe(number));
        requests.push(Request::Subscribe(Subscribe {
            channel,
            consumer: number,
            queue: SPECS[spec].name.into(),
            tag: Name::default(),
            automatic: false,
            exclusive: false,
            prefetch: 1 + random.below(6) as u32,
            shared: None,
            arguments: Table::default(),
        }));
    }

    /// Changes the catalog, purges, or just asks whether everything is done.
    fn change(
        &mut self,
        at: usize,
        random: &mut Random,
        history: &mut History,
        specs: &[SpecId],
        requests: &mut Vec<Request>,
    ) {
        let channel = self.channels[at].id;
        let spec = random.pick(specs);
        let queue = Name::new(SPECS[spec].name);
        if !SPECS[spec].churns {
            if random.once_in(6)
                && let Some(instance) = history.live(spec)
            {
                history.tokens.iter_mut().for_each(|it| it.purge(instance));
                self.channels[at].waiting = Some(Waiting::Purge);
                requests.push(Request::PurgeQueue { channel, queue });
            } else {
                self.channels[at].waiting = Some(Waiting::Barrier);
                requests.push(Request::Barrier { channel });
            }
            return;
        }
        let Some(instance) = history.live(spec) else {
            let last = history.instances.iter().rfind(|it| it.spec == spec);
            if last.is_none_or(|it| it.deleted) {
                self.declare(at, spec, history, requests);
            }
            return;
        };
        match random.below(4) {
            0 => self.declare(at, spec, history, requests),
            1 => {
                history.delete(instance);
                self.deleting.push(instance);
                self.channels[at].waiting = Some(Waiting::Delete(instance));
                let (if_unused, if_empty) = (false, false);
                requests.push(Request::DeleteQueue { channel, queue, if_unused, if_empty });
            }
            // One that is refused for want of room leaves the routes as they were.
            _ if history.may_fail => {}
            _ => {
                let binding = &mut history.instances[instance].binding;
                let bind = random.once_in(2);
                if binding.is_bound() != bind {
                    binding.changes.push(bind);
                }
                let change = binding.changes.len() - 1;
                self.channels[at].waiting = Some(Waiting::Bind(instance, change));
                requests.push(binding_request(channel, spec, bind));
            }
        }
    }

    fn declare(
        &mut self,
        at: usize,
        spec: SpecId,
        history: &mut History,
        requests: &mut Vec<Request>,
    ) {
        let instance = history.declare(spec);
        self.channels[at].waiting = Some(Waiting::Declare(instance));
        requests.push(declaration(self.channels[at].id, spec));
    }

    /// Takes what the broker has said.
    pub fn listen(&mut self, host: &Host, history: &mut History) {
        let mut notices = std::mem::take(&mut self.notices);
        let mut context = Context::from_waker(Waker::noop());
        while self.handle.poll_notices(&mut context, &mut notices) == Poll::Ready(()) {
            for notice in notices.drain(..) {
                history.note(|| format!("client {} hears {}", self.id, heard(&notice)));
                self.hear(notice, host, history);
            }
        }
        self.notices = notices;
        self.give_credit(host);
    }

    fn give_credit(&mut self, host: &Host) {
        let mut requests = Vec::new();
        for consuming in &mut self.consumers {
            if let Some(queue) = consuming.queue
                && 4096 < consuming.owed
            {
                let (consumer, bytes) = (consuming.number, std::mem::take(&mut consuming.owed));
                requests.push(Request::Credit { consumer, queue, bytes });
            }
        }
        if !requests.is_empty() {
            self.handle.submit(&mut requests, host.now);
        }
    }

    fn hear(&mut self, notice: Notice, host: &Host, history: &mut History) {
        match notice {
            Notice::Confirmed { channel, first, last } => {
                for number in first..=last {
                    self.confirmed(channel, number, host, history);
                }
            }
            Notice::Nacked { channel, number } => {
                if let Some(message) = self.answered(channel, number, history) {
                    history.answer(message, false);
                }
            }
            Notice::Returned { message, .. } => {
                let number = body::number_of(&message.body());
                match number.and_then(|it| history.messages.get_mut(&it)) {
                    Some(it) if it.mandatory && it.tokens.is_empty() => it.returned = true,
                    _ => history.fault(format!("message {number:?} is returned for no reason")),
                }
            }
            Notice::Delivery(delivery) => self.delivered(&delivery, history),
            Notice::Cancelled { consumer } => self.consumers.retain(|it| it.number != consumer),
            Notice::Blocked { .. } | Notice::Unblocked => {}
            other => self.replied(other, history),
        }
    }

    fn channel(&mut self, channel: ChannelId) -> &mut Channel {
        &mut self.channels[usize::from(channel.0) - 1]
    }

    fn answered(&mut self, channel: ChannelId, number: u64, history: &mut History) -> Option<u64> {
        let message = self.channel(channel).open.remove(&number);
        if message.is_none() {
            history.fault(format!("publish {number} of {channel} is answered again"));
        }
        message
    }

    fn confirmed(&mut self, channel: ChannelId, number: u64, host: &Host, history: &mut History) {
        let Some(message) = self.answered(channel, number, history) else { return };
        let Some(published) = history.messages.get(&message) else { return };
        let tokens = published.tokens.clone();
        let kept = |it: &usize| history.tokens[*it].is_kept();
        let durable = host.log.durable().0;
        if tokens.iter().any(kept) && durable <= published.log_end {
            history.fault(format!("message {message} is confirmed before it is durable"));
        }
        history.answer(message, true);
        let homes: Vec<_> = tokens
            .iter()
            .filter(|it| history.tokens[**it].is_kept())
            .map(|it| history.tokens[*it].home)
            .collect();
        self.channel(channel).accepted.retain(|it| {
            let covered = it.before < number && homes.contains(&it.instance);
            if covered {
                history.tokens[it.token].is_durable(it.state);
            }
            !covered
        });
    }

    fn delivered(&mut self, delivery: &Delivery, history: &mut History) {
        let found = self.consumers.iter_mut().find(|it| it.number == delivery.consumer);
        let Some(consuming) = found else {
            return history.fault(format!("delivery to no consumer {}", delivery.consumer));
        };
        consuming.owed += delivery.message.size() + 64;
        let (instance, channel) = (consuming.instance, consuming.channel);
        self.take(delivery, instance, channel, history);
    }

    fn take(
        &mut self,
        delivery: &Delivery,
        instance: InstanceId,
        channel: usize,
        history: &mut History,
    ) {
        let Some(number) = body::number_of(&delivery.message.body()) else {
            return history.fault("delivery of octets that nobody published");
        };
        check_address(number, instance, delivery, history);
        let redelivered = delivery.redelivered;
        let by = (self.id, delivery.consumer.0);
        let Some(token) = history.deliver(number, instance, redelivered, by) else { return };
        if delivery.automatic {
            history.tokens[token].accept();
            return;
        }
        let consumer = (delivery.consumer.0 != 0).then_some(delivery.consumer);
        let (queue, entry) = (delivery.queue, delivery.entry);
        self.held.push(Held { token, instance, queue, entry, consumer, channel });
    }

    fn replied(&mut self, notice: Notice, history: &mut History) {
        let channel = match &notice {
            Notice::Declared { channel, .. }
            | Notice::Deleted { channel, .. }
            | Notice::Purged { channel, .. }
            | Notice::Done { channel }
            | Notice::Fetched { channel, .. }
            | Notice::Subscribed { channel, .. }
            | Notice::Unsubscribed { channel, .. }
            | Notice::Committed { channel }
            | Notice::Refused { channel, .. } => *channel,
            other => return history.fault(format!("unexpected {other:?}")),
        };
        let at = usize::from(channel.0) - 1;
        let Some(waiting) = self.channels[at].waiting.take() else {
            return history.fault(format!("nobody asked for {notice:?}"));
        };
        match (waiting, notice) {
            (Waiting::Declare(instance), Notice::Declared { .. }) => {
                history.instances[instance].declared = true;
            }
            (Waiting::Delete(instance), Notice::Deleted { .. }) => history.deleted(instance),
            (Waiting::Bind(instance, change), Notice::Done { .. }) => {
                let binding = &mut history.instances[instance].binding;
                binding.floor = binding.floor.max(change);
            }
            (Waiting::Fetch(instance, _), Notice::Fetched { delivery, .. }) => {
                if let Some(delivery) = delivery {
                    self.take(&delivery, instance, at, history);
                }
            }
            (Waiting::Subscribe(consumer), Notice::Subscribed { queue, .. }) => {
                if let Some(it) = self.consumers.iter_mut().find(|it| it.number == consumer) {
                    it.queue = Some(queue);
                }
            }
            (Waiting::Commit(accepted, messages), Notice::Committed { .. }) => {
                for (token, state) in accepted {
                    history.tokens[token].is_durable(state);
                }
                messages.into_iter().for_each(|it| history.answer(it, true));
            }
            (Waiting::Purge, Notice::Purged { .. })
            | (Waiting::Unsubscribe, Notice::Unsubscribed { .. })
            | (Waiting::Barrier, Notice::Done { .. }) => {}
            // The queue went while the question was on its way.
            (
                Waiting::Fetch(..) | Waiting::Subscribe(_) | Waiting::Bind(..),
                notice @ Notice::Refused { .. },
            ) => {
                history.note(|| format!("refused: {notice:?}"));
            }
            (_, Notice::Refused { refusal, .. })
                if history.may_fail && matches!(*refusal, Refusal::Internal(_)) => {}
            (waiting, notice) => {
                history.fault(format!("{waiting:?} is answered by {notice:?}"));
            }
        }
    }
}

fn check_address(number: u64, instance: InstanceId, delivery: &Delivery, history: &mut History) {
    let Some(message) = history.messages.get(&number) else {
        return history.fault(format!("message {number} was never published"));
    };
    let is_home = message.tokens.iter().any(|it| history.tokens[*it].home == instance);
    let found = (delivery.message.exchange(), delivery.message.routing_key());
    let is_same = found == (message.exchange, message.key)
        && delivery.message.persistent == message.persistent;
    if is_home && !is_same {
        history.fault(format!("message {number} comes under another address"));
    }
}

fn compose(
    number: u64,
    channel: ChannelId,
    key: u64,
    random: &mut Random,
    history: &mut History,
    specs: &[SpecId],
    host: &Host,
) -> Publish {
    let (exchange, routing_key) = match random.once_in(4) {
        true => (FANOUT, ""),
        false => ("", SPECS[random.pick(specs)].name),
    };
    let persistent = !random.once_in(5);
    let mandatory = random.once_in(8);
    let size = match random.below(12) {
        0 => 2_000 + random.index(4_000),
        1..=4 => random.index(1_200),
        _ => random.index(100),
    };
    history.publish(
        number,
        Published {
            channel: key,
            exchange,
            key: routing_key,
            persistent,
            mandatory,
            returned: false,
            tokens: Vec::new(),
            log_end: host.log.end().0,
            transaction: None,
            confirmed: false,
        },
    );
    let message = body::message(exchange, routing_key, number, size, persistent).into();
    Publish { channel, message, mandatory, confirm: None }
}

/// The declaration of a queue.
pub fn declaration(channel: ChannelId, spec: SpecId) -> Request {
    let spec = &SPECS[spec];
    Request::DeclareQueue(DeclareQueue {
        channel,
        queue: spec.name.into(),
        unique: Name::default(),
        passive: false,
        durable: spec.durable,
        exclusive: false,
        auto_delete: false,
        arguments: spec.arguments(),
    })
}

/// Binds a queue to the fanout exchange, or unbinds it.
pub fn binding_request(channel: ChannelId, spec: SpecId, bind: bool) -> Request {
    let binding = Binding {
        channel,
        source: FANOUT.into(),
        destination: SPECS[spec].name.into(),
        to_exchange: false,
        routing_key: Name::default(),
        arguments: Table::default(),
    };
    if bind { Request::Bind(binding) } else { Request::Unbind(binding) }
}

fn shown(requests: &[Request]) -> String {
    let texts = requests.iter().map(|it| match it {
        Request::Publish(it) => {
            let number = body::number_of(&it.message.body()).unwrap_or(0);
            let key = it.message.routing_key();
            let (channel, confirm) = (it.channel, it.confirm.unwrap_or(0));
            let mode = if it.message.persistent { "" } else { " transient" };
            format!("publish {number} to '{key}'{mode} ({channel}/{confirm})")
        }
        Request::Settle(it) => format!("{:?} {:?} of queue {}", it.outcome, it.entries, it.queue),
        Request::Commit { channel, requests } => format!("commit {channel} [{}]", shown(requests)),
        Request::DeclareQueue(it) => format!("declare {} ({})", it.queue, it.channel),
        Request::Subscribe(it) => {
            format!("subscribe {} to {} ({})", it.consumer, it.queue, it.prefetch)
        }
        other => format!("{other:?}"),
    });
    texts.collect::<Vec<_>>().join("; ")
}

fn heard(notice: &Notice) -> String {
    let text = |it: &Delivery| {
        let number = body::number_of(&it.message.body()).unwrap_or(0);
        let again = if it.redelivered { " again" } else { "" };
        format!("message {number}{again} as {} of queue {}", it.entry, it.queue)
    };
    match notice {
        Notice::Delivery(it) => format!("{} for consumer {}", text(it), it.consumer),
        Notice::Fetched { delivery: Some(it), ready, .. } => {
            format!("fetched {}, {ready} left", text(it))
        }
        Notice::Returned { channel, message } => {
            format!("returned {:?} on {channel}", body::number_of(&message.body()))
        }
        other => format!("{other:?}"),
    }
}
