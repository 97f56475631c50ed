//! Random lives of a queue, beside the model of it: after every command both have said the same,
//! hold the same, and the real one has asked for a tick no later than something is due.

use crate::reference::{Known, Letter, Reference, SESSIONS, SHARED_START, Seen, State, number};
use engine::{Command, Depth, Effect, Enqueue, EntryState, Place, Queue, Subscriber};
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, LogPosition, Message, Name, Notice, Outcome,
    QueueId, QueuePolicy, SessionId, Timestamp,
    policy::{DeadLetterTarget, DelayedRetry, Order, Overflow, Priorities},
    properties::Properties,
    request::SharedCredit,
};
use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::sync::Arc;

const SEQUENCES: u32 = 2_500;
/// Lives that begin with a backlog: long enough for entries that are packed, slow beside a model
/// that looks at every message.
const LONG_SEQUENCES: u32 = 8;
const BACKLOG: u64 = 800;
const COMMANDS: usize = 100;
const SHRINKS_MAX: u32 = 1_000;
const CHANNEL: ChannelId = ChannelId(1);
const BIG_BYTES: usize = 400_000;

/// Draws small choices from one number, so that a shrunk number is a simpler choice.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        let drawn = self.0 % bound;
        self.0 /= bound;
        drawn
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == bound - 1
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize].clone()
    }

    fn session(&mut self) -> SessionId {
        SessionId(self.below(SESSIONS))
    }

    fn consumer(&mut self) -> ConsumerNumber {
        ConsumerNumber(self.below(3) as u32)
    }
}

fn policy(draw: &mut Draw) -> QueuePolicy {
    let target = DeadLetterTarget { exchange: Name::new("dlx"), routing_key: None };
    QueuePolicy {
        keeps_all: draw.one_in(3),
        dead_letter: draw.one_in(2).then_some(target),
        priorities: draw.of(&[Priorities::None, Priorities::UpTo(2), Priorities::Quorum]),
        order: draw.of(&[Order::Fifo, Order::Fifo, Order::Fifo, Order::Lifo]),
        single_active_consumer: draw.one_in(4),
        delivery_limit: draw.of(&[None, None, Some(0), Some(2)]),
        counts_deliveries: draw.one_in(2),
        consumer_timeout_ms: draw.of(&[None, None, Some(30)]),
        delayed_retry: draw.of(&[
            DelayedRetry::Disabled,
            DelayedRetry::Disabled,
            DelayedRetry::Disabled,
            DelayedRetry::All,
            DelayedRetry::Failed,
            DelayedRetry::Returned,
        ]),
        delayed_retry_ms_min: draw.of(&[10, 25]),
        delayed_retry_ms_max: draw.of(&[20, 90]),
        auto_delete: draw.one_in(2),
        ..changeable(draw, QueuePolicy::plain(QueueId(1), "q"))
    }
}

/// What may change while the queue lives.
fn changeable(draw: &mut Draw, policy: QueuePolicy) -> QueuePolicy {
    QueuePolicy {
        ttl_ms: draw.of(&[None, None, None, Some(0), Some(40)]),
        length_max: draw.of(&[None, None, Some(0), Some(2), Some(5)]),
        length_bytes_max: draw.of(&[None, None, None, Some(30)]),
        overflow: draw.of(&[
            Overflow::DropHead,
            Overflow::RejectPublish,
            Overflow::RejectPublishDeadLetter,
        ]),
        expires_ms: draw.of(&[None, None, Some(60)]),
        ..policy
    }
}

/// The same without what would end a backlog at once.
fn unlimited(policy: QueuePolicy) -> QueuePolicy {
    QueuePolicy { length_max: None, length_bytes_max: None, ttl_ms: None, ..policy }
}

struct Life {
    queue: Queue,
    reference: Reference,
    now: Timestamp,
    shared: Vec<SharedCredit>,
    /// Every message there ever was, by its number.
    published: Vec<Arc<Message>>,
    /// Those that were given an entry, by its id.
    entries: Vec<Arc<Message>>,
    big_body: Vec<u8>,
    loading: Vec<(EntryId, Place)>,
    wake_at: Option<Timestamp>,
    next_position: u64,
    /// The backlog of the start arrives: looking at everything after each message takes too long.
    is_filling: bool,
    /// What happened, when somebody wants to read it.
    story: Option<String>,
}

fn letter(it: &Delivery, after: Option<LogPosition>) -> Letter {
    Letter {
        entry: it.entry,
        body: number(&it.message),
        redelivered: it.redelivered,
        counts: it.counts,
        automatic: it.automatic,
        after,
    }
}

impl Life {
    fn new(policy: QueuePolicy) -> Self {
        let now = Timestamp(1_000);
        Self {
            queue: Queue::new(policy.clone(), now),
            reference: Reference::new(policy, now),
            now,
            shared: (0..SESSIONS).map(|_| SharedCredit::new(SHARED_START)).collect(),
            published: Vec::new(),
            entries: Vec::new(),
            big_body: vec![0; BIG_BYTES],
            loading: Vec::new(),
            wake_at: None,
            next_position: 0,
            is_filling: false,
            story: None,
        }
    }

    fn seen(&mut self, effects: Vec<Effect>) -> Vec<Seen> {
        let mut seen = Vec::new();
        for effect in effects {
            seen.push(match effect {
                Effect::Notify { session, notice, after } => match notice {
                    Notice::Delivery(it) => {
                        Seen::Delivered(session, it.consumer, letter(&it, after))
                    }
                    Notice::Fetched { delivery, ready, .. } => {
                        Seen::Fetched(session, delivery.map(|it| letter(&it, after)), ready)
                    }
                    Notice::Subscribed { consumer, .. } => Seen::Subscribed(session, consumer),
                    Notice::Unsubscribed { consumer, .. } => Seen::Unsubscribed(session, consumer),
                    Notice::Cancelled { consumer } => Seen::Cancelled(session, consumer),
                    Notice::Refused { .. } => Seen::Refused(session),
                    Notice::Purged { messages, .. } => Seen::Purged(session, messages),
                    other => panic!("a queue does not say {other:?}"),
                },
                Effect::Removed { place } => Seen::Removed(place),
                Effect::Counted { position, acquired, failed } => {
                    Seen::Counted(position, acquired, failed)
                }
                Effect::Rejected => Seen::Rejected,
                Effect::DeadLetter { message, place, reason, redelivered } => {
                    let body = message.map(|it| number(&it));
                    Seen::Died { body, place, reason: reason.to_string(), redelivered }
                }
                Effect::Unused => Seen::Unused,
                Effect::Expired => Seen::Expired,
                Effect::Load { entries } => {
                    assert!(self.loading.is_empty(), "one load at a time");
                    self.loading = entries;
                    continue;
                }
                Effect::WakeAt(at) => {
                    self.wake_at = Some(at);
                    continue;
                }
                other => panic!("a plain queue does not say {other:?}"),
            });
        }
        seen
    }

    fn apply(&mut self, command: Command) -> Result<(), TestCaseError> {
        let now = self.now;
        if let Some(story) = &mut self.story {
            *story += &format!("{:?} at {now}\n", Short(&command));
        }
        if let Command::Enqueue(it) = &command {
            self.entries.push(Arc::clone(&it.message));
        }
        if matches!(command, Command::Tick) {
            self.wake_at = None;
        }
        let asked = match command {
            Command::Loaded { .. } => std::mem::take(&mut self.loading),
            _ => Vec::new(),
        };
        let expected = self.reference.apply(&command, &asked, self.now);
        let mut effects = Vec::new();
        self.queue.apply(command, self.now, &mut effects);
        let seen = self.seen(effects);
        if seen != expected {
            let state = &self.reference;
            return Err(TestCaseError::fail(format!(
                "queue:     {seen:?}\nreference: {expected:?}\n{state:#?}"
            )));
        }
        if self.is_filling { Ok(()) } else { self.check() }
    }

    /// Compares all that can be seen of both.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let fail = |reason: String| Err(TestCaseError::fail(reason));
        let count = |is: fn(&State) -> bool| {
            self.reference.messages.iter().filter(|it| is(&it.state)).count() as u64
        };
        let depth = Depth {
            ready: self.reference.ready_len(),
            ready_bytes: self.reference.ready_bytes(),
            unsettled: count(|it| matches!(it, State::Held { .. })),
            delayed: count(|it| matches!(it, State::Resting { .. })),
            consumers: self.reference.consumers_len(),
        };
        if self.queue.depth() != depth {
            return fail(format!("depth {:?}, expected {depth:?}", self.queue.depth()));
        }
        let messages = &self.reference.messages;
        let cost = |it: &Known| it.size + engine::MESSAGE_OVERHEAD_BYTES;
        let resident: u64 = messages.iter().filter(|it| it.resident).map(cost).sum();
        if self.queue.resident_bytes() != resident {
            return fail(format!("resident {}, not {resident}", self.queue.resident_bytes()));
        }
        if let Some(due) = self.reference.next_due()
            && self.wake_at.is_none_or(|it| due < it)
        {
            return fail(format!("due at {due}, tick at {:?}", self.wake_at));
        }
        for (left, shared) in self.reference.shared.iter().zip(&self.shared) {
            if shared.left() != *left {
                return fail(format!("shared credit {}, not {left}", shared.left()));
            }
        }
        let is_right = |(id, place): &(EntryId, Place)| {
            let known = messages.iter().find(|it| it.id == *id);
            known.is_none_or(|it| {
                let was_moved = it.place != *place;
                it.state == State::Ready && (!it.resident || was_moved)
            })
        };
        if !self.loading.iter().all(is_right) {
            return fail(format!("loads {:?}", self.loading));
        }
        if let Some(at) = self.reference.next()
            && !self.reference.messages[at].resident
            && (self.reference.has_fetches() || self.reference.pick().is_some())
            && self.loading.is_empty()
        {
            return fail("somebody waits for a body that nobody reads".into());
        }
        Ok(())
    }

    /// Compares every message, its place and its counters.
    fn check_entries(&self) -> Result<(), TestCaseError> {
        let messages = &self.reference.messages;
        let is_counted = {
            let policy = self.queue.policy();
            policy.counts_deliveries
                || policy.delivery_limit.is_some()
                || policy.delayed_retry != DelayedRetry::Disabled
        };
        let counted = |it| if is_counted { it } else { 0 };
        let state = |it: &Known| EntryState {
            place: it.place,
            arrived: it.arrived,
            redelivered: it.redelivered,
            acquired: counted(it.acquired),
            failed: counted(it.failed),
        };
        for it in messages {
            let found = self.queue.entry_state(it.id);
            if found != Some(state(it)) {
                let text = format!("{found:?} instead of {:?}", state(it));
                return Err(TestCaseError::fail(text));
            }
        }
        let kept = |it: &Known| match it.place {
            Place::Log { position, .. } => Some(position),
            _ => None,
        };
        let expected: Vec<_> =
            messages.iter().filter(|it| it.redelivered).filter_map(kept).collect();
        let mut found = self.queue.redelivered_positions();
        found.sort_by_key(|it| messages.iter().position(|known| kept(known) == Some(*it)));
        if found != expected {
            return Err(TestCaseError::fail(format!("redelivered {found:?}, not {expected:?}")));
        }
        for segment in 0..4 {
            let mut found = Vec::new();
            self.queue.entries_in(segment, &mut found);
            found.sort_by_key(|(id, _)| *id);
            let is_there = |it: &&Known| kept(it).is_some_and(|it| it.segment() == segment);
            let expected: Vec<_> =
                messages.iter().filter(is_there).map(|it| (it.id, it.place)).collect();
            if found != expected {
                return Err(TestCaseError::fail(format!("in {segment}: {found:?}")));
            }
        }
        Ok(())
    }

    fn place(&mut self, draw: &mut Draw) -> Place {
        match draw.below(4) {
            0 => Place::Memory,
            1 => Place::Spill { position: LogPosition(self.next_position()) },
            _ => self.log_place(),
        }
    }

    fn next_position(&mut self) -> u64 {
        self.next_position += 1;
        ((self.next_position / 16) << 32) | (self.next_position % 16 * 100)
    }

    fn log_place(&mut self) -> Place {
        let position = self.next_position();
        Place::Log { position: LogPosition(position), end: LogPosition(position + 99) }
    }

    fn message(&mut self, draw: &mut Draw) -> Arc<Message> {
        let number = self.published.len() as u64;
        let ttl = draw.of(&[None, None, None, None, Some("0"), Some("15"), Some("70")]);
        let properties = Properties {
            priority: draw.of(&[None, Some(0), Some(1), Some(9), Some(200)]),
            expiration: ttl.map(Name::new),
            ..Properties::default()
        };
        let is_big = draw.one_in(40);
        let octets = properties.encoded();
        self.big_body[..8].copy_from_slice(&number.to_be_bytes());
        let body = if is_big { &self.big_body[..] } else { &self.big_body[..8] };
        let message = Arc::new(Message::new("", "q", &octets, body));
        self.published.push(Arc::clone(&message));
        message
    }

    /// Messages wait from the start, most of them not in memory.
    fn begin_with(&mut self, backlog: u64) -> Result<(), TestCaseError> {
        self.is_filling = true;
        for it in 0..backlog {
            let draw = &mut Draw(it.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let message = self.message(draw);
            let place = if it % 16 == 0 { self.place(draw) } else { self.log_place() };
            let (room, redelivered) = (it % 50 == 0, it % 13 == 0);
            self.apply(Command::Enqueue(Enqueue { message, place, room, redelivered }))?;
        }
        self.is_filling = false;
        self.check_entries()
    }

    fn subscriber(&self, draw: &mut Draw) -> Subscriber {
        let session = draw.session();
        Subscriber {
            session,
            channel: CHANNEL,
            consumer: draw.consumer(),
            automatic: draw.one_in(4),
            exclusive: draw.one_in(10),
            priority: draw.of(&[0, 0, -1, 5]),
            prefetch: draw.of(&[1, 2, 0, 3]),
            shared: draw.one_in(3).then(|| self.shared[session.0 as usize].clone()),
            timeout_ms: draw.of(&[None, None, Some(50)]),
        }
    }

    fn settle(&self, draw: &mut Draw) -> Command {
        let mut session = draw.session();
        let mut entries = smallvec::SmallVec::new();
        let held: Vec<_> = self
            .reference
            .messages
            .iter()
            .filter_map(|it| match it.state {
                State::Held { session, .. } => Some((session, it.id)),
                _ => None,
            })
            .collect();
        let outcome = draw.of(&[
            Outcome::Accept,
            Outcome::Requeue { failed: false },
            Outcome::Requeue { failed: true },
            Outcome::Release { failed: false },
            Outcome::Release { failed: true },
            Outcome::Accept,
            Outcome::Reject { flagged: true },
            Outcome::Reject { flagged: false },
        ]);
        for at in 0..=draw.below(3) {
            let known = (!held.is_empty()).then(|| draw.of(&held));
            if at == 0 && !draw.one_in(20) {
                session = known.map_or(session, |it| it.0);
            }
            entries.push(known.map_or_else(|| EntryId(draw.below(100)), |it| it.1));
        }
        let consumer = draw.one_in(2).then_some(ConsumerNumber(1));
        Command::Settle { session, consumer, entries, outcome }
    }

    fn loaded(&self, draw: &mut Draw) -> Command {
        let mut read =
            |id: EntryId| (!draw.one_in(12)).then(|| Arc::clone(&self.entries[id.0 as usize - 1]));
        Command::Loaded { messages: self.loading.iter().map(|(id, _)| (*id, read(*id))).collect() }
    }

    fn moved(&mut self, draw: &mut Draw) -> Option<Command> {
        let it = draw.of(&self.reference.messages);
        let Place::Log { position, .. } = it.place else { return None };
        let from = if draw.one_in(8) { LogPosition(77) } else { position };
        Some(Command::Moved { entry: it.id, from, to: self.log_place() })
    }

    fn step(&mut self, mut draw: Draw) -> Result<(), TestCaseError> {
        let draw = &mut draw;
        let session = SessionId(draw.0 / 7 % SESSIONS);
        let consumer = ConsumerNumber((draw.0 / 31 % 3) as u32);
        let command = match draw.below(100) {
            0..30 => {
                let message = self.message(draw);
                let place = self.place(draw);
                let (room, redelivered) = (!draw.one_in(2), draw.one_in(10));
                Command::Enqueue(Enqueue { message, place, room, redelivered })
            }
            30..50 => self.settle(draw),
            50..58 => Command::Subscribe(self.subscriber(draw)),
            58..61 => Command::Unsubscribe { session, channel: CHANNEL, consumer },
            61..68 => Command::Fetch { session, channel: CHANNEL, automatic: draw.one_in(3) },
            68..76 if self.loading.is_empty() => Command::Tick,
            68..76 => self.loaded(draw),
            76..80 => {
                self.shared[session.0 as usize].add(1);
                self.reference.shared[session.0 as usize] += 1;
                Command::Resume { session, consumer }
            }
            80..82 => Command::Credit { session, consumer, bytes: draw.of(&[100, 500_000]) },
            82..84 => Command::Prefetch { session, consumer, prefetch: draw.of(&[1, 0, 4]) },
            84..92 => {
                self.now = self.now.plus_ms(draw.of(&[1, 9, 30, 70]));
                if draw.one_in(3) { Command::Touch } else { Command::Tick }
            }
            92..94 if !self.reference.messages.is_empty() => match self.moved(draw) {
                Some(command) => command,
                None => return Ok(()),
            },
            92..94 => Command::Tick,
            94 => Command::Purge { session, channel: CHANNEL },
            95 => Command::EndSession { session, is_orderly: draw.one_in(2) },
            96 => Command::Configure(changeable(draw, (**self.queue.policy()).clone()).into()),
            _ => return self.check_entries(),
        };
        self.apply(command)
    }
}

/// A command without its bodies.
struct Short<'a>(&'a Command);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Command::Enqueue(it) => {
                write!(f, "Enqueue {} in {:?}, room {}", number(&it.message), it.place, it.room)
            }
            Command::Loaded { messages } => {
                let are_read = messages.iter().map(|(id, it)| (id.0, it.is_some()));
                f.debug_map().entries(are_read).finish()
            }
            other => other.fmt(f),
        }
    }
}

/// `MODEL_SEED` leads to other lives.
fn chosen_seed() -> u64 {
    std::env::var("MODEL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn lives(seed: u8, sequences: u32, backlog: u64) {
    let config = Config {
        cases: sequences,
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut octets = [seed; 32];
    octets[..8].copy_from_slice(&chosen_seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &octets);
    let strategy = (any::<u64>(), vec(any::<u64>(), 1..2 * COMMANDS));
    let policy = |rules| match backlog {
        0 => policy(&mut Draw(rules)),
        _ => unlimited(policy(&mut Draw(rules))),
    };
    let live = |life: &mut Life, draws: &[u64]| {
        life.begin_with(backlog)?;
        draws.iter().try_for_each(|it| life.step(Draw(*it)))?;
        life.check_entries()
    };
    let result = TestRunner::new_with_rng(config, rng)
        .run(&strategy, |(rules, draws)| live(&mut Life::new(policy(rules)), &draws));
    if let Err(TestError::Fail(_, (rules, draws))) = result {
        // The shortest life that fails, once more, for its story.
        let mut life = Life::new(policy(rules));
        life.story = Some(String::new());
        let end = live(&mut life, &draws).err().map(|it| it.to_string()).unwrap_or_default();
        let story = life.story.unwrap_or_default();
        panic!("seed {seed}, {:#?}\n{story}{end}", life.queue.policy());
    }
    assert!(result.is_ok(), "seed {seed}: {result:?}");
}

#[test]
fn queue_behaves_like_the_model() {
    lives(1, SEQUENCES, 0);
}

#[test]
fn queue_behaves_like_the_model_in_other_lives() {
    lives(2, SEQUENCES, 0);
}

#[test]
fn queue_behaves_like_the_model_in_further_lives() {
    lives(3, SEQUENCES, 0);
}

#[test]
fn queue_behaves_like_the_model_in_yet_other_lives() {
    lives(4, SEQUENCES, 0);
}

#[test]
fn long_queue_behaves_like_the_model() {
    lives(5, LONG_SEQUENCES, BACKLOG);
}
