//! How fast one queue is, and what a long one costs: `cargo run --release -p ferrymq-engine
//! --example queue`. Times are those of the processor, of one thread. Linux only: other systems do
//! not tell them.

use engine::{Command, Effect, Enqueue, Place, Queue, Restored, Subscriber, record::MessageFacts};
use model::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, Message, Notice, Outcome, QueueId,
    QueuePolicy, SessionId, Timestamp, properties::Properties,
};
use std::{
    io::{Write, stdout},
    sync::Arc,
};

const SESSION: SessionId = SessionId(1);
const CHANNEL: ChannelId = ChannelId(1);
const CONSUMER: ConsumerNumber = ConsumerNumber(1);
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const MESSAGES: u64 = 2_000_000;
const BODY_BYTES: usize = 1_024;
const SETTLED_AT_ONCE: usize = 64;

fn queue() -> Queue {
    Queue::new(QueuePolicy::plain(QueueId(1), "q"), NOW)
}

fn message() -> Arc<Message> {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
    Arc::new(Message::new("", "q", &properties, &[b'x'; BODY_BYTES]))
}

fn enqueue(message: &Arc<Message>, number: u64, room: bool) -> Command {
    let position = LogPosition(number * 1_100);
    let place = Place::Log { position, end: LogPosition(number * 1_100 + 1_090) };
    Command::Enqueue(Enqueue { message: Arc::clone(message), place, room, redelivered: false })
}

fn subscriber(consumer: ConsumerNumber, prefetch: u32) -> Command {
    Command::Subscribe(Subscriber {
        session: SESSION,
        channel: CHANNEL,
        consumer,
        automatic: false,
        exclusive: false,
        priority: 0,
        prefetch,
        shared: None,
        timeout_ms: None,
    })
}

/// What a session would do: it settles in groups and gives flow credit back.
#[derive(Default)]
struct Client {
    held: Vec<(ConsumerNumber, EntryId)>,
    octets: u64,
    received: u64,
}

impl Client {
    fn take(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            if let Effect::Notify { notice: Notice::Delivery(it), .. } = effect {
                self.held.push((it.consumer, it.entry));
                self.octets += it.message.size() + 64;
                self.received += 1;
            }
        }
    }

    fn settle(&mut self, queue: &mut Queue, effects: &mut Vec<Effect>) {
        let held = std::mem::take(&mut self.held);
        let bytes = std::mem::take(&mut self.octets);
        for group in held.chunks(SETTLED_AT_ONCE) {
            let entries = group.iter().map(|it| it.1).collect();
            let (consumer, outcome) = (Some(group[0].0), Outcome::Accept);
            queue.apply(
                Command::Settle { session: SESSION, consumer, entries, outcome },
                NOW,
                effects,
            );
            let consumer = group[0].0;
            queue.apply(Command::Credit { session: SESSION, consumer, bytes }, NOW, effects);
        }
    }
}

/// Time that this thread has had on a processor, so that a busy machine does not count.
fn processor_ns() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    times.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn report(what: &str, messages: u64, start: u64) {
    let nanos = (processor_ns() - start) as f64 / messages as f64;
    let rate = 1e3 / nanos;
    writeln!(stdout(), "{what:56} {rate:6.2} M/s  {nanos:6.0} ns").expect("the terminal is there");
}

/// Each message is delivered as it comes, settled 64 at a time.
fn through(consumers: u32, prefetch: u32) {
    let (mut queue, mut effects, message) = (queue(), Vec::new(), message());
    let mut client = Client::default();
    for number in 0..consumers {
        queue.apply(subscriber(ConsumerNumber(number), prefetch), NOW, &mut effects);
    }
    let start = processor_ns();
    for number in 0..MESSAGES {
        queue.apply(enqueue(&message, number, true), NOW, &mut effects);
        client.take(&mut effects);
        if SETTLED_AT_ONCE <= client.held.len() {
            client.settle(&mut queue, &mut effects);
            client.take(&mut effects);
        }
    }
    report(&format!("enqueue, deliver, accept: {consumers} consumers"), MESSAGES, start);
    assert_eq!(client.received, MESSAGES);
}

/// All messages arrive first, then they leave.
fn backlog() {
    let (mut queue, mut effects, message) = (queue(), Vec::new(), message());
    let count = MESSAGES / 8;
    let start = processor_ns();
    for number in 0..count {
        queue.apply(enqueue(&message, number, true), NOW, &mut effects);
    }
    report("enqueue into a backlog, with a copy of each body", count, start);
    let mut client = Client::default();
    let start = processor_ns();
    queue.apply(subscriber(CONSUMER, 256), NOW, &mut effects);
    while client.received < count {
        client.take(&mut effects);
        client.settle(&mut queue, &mut effects);
    }
    report("deliver and accept from the backlog", count, start);
}

/// The bodies are on disk: each is loaded before it is delivered.
fn loaded() {
    let (mut queue, mut effects, message) = (queue(), Vec::new(), message());
    let count = MESSAGES / 2;
    let start = processor_ns();
    for number in 0..count {
        queue.apply(enqueue(&message, number, false), NOW, &mut effects);
    }
    report("enqueue without room", count, start);
    let mut client = Client::default();
    let start = processor_ns();
    queue.apply(subscriber(CONSUMER, 256), NOW, &mut effects);
    while client.received < count {
        let loads = effects.iter().filter_map(|it| match it {
            Effect::Load { entries } => Some(entries.clone()),
            _ => None,
        });
        let loads: Vec<_> = loads.collect();
        client.take(&mut effects);
        for entries in loads {
            let body = |(id, _): &(EntryId, Place)| (*id, Some(Arc::clone(&message)));
            let messages = entries.iter().map(body).collect();
            queue.apply(Command::Loaded { messages }, NOW, &mut effects);
        }
        client.settle(&mut queue, &mut effects);
    }
    report("load, deliver and accept", count, start);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A million messages whose bodies are on disk.
fn long() {
    let before = resident_kib();
    let mut queue = queue();
    let mut restoring = queue.restoring();
    for number in 0..1_000_000 {
        let position = LogPosition(number * 1_100);
        let restored = Restored {
            place: Place::Log { position, end: LogPosition(number * 1_100 + 1_090) },
            origin: position,
            size: BODY_BYTES as u64,
            facts: MessageFacts { persistent: true, priority: None, ttl_ms: None },
            arrived: NOW,
            redelivered: false,
            acquired: 0,
            failed: 0,
        };
        restoring.put(restored);
    }
    restoring.finish();
    let megabytes = (resident_kib() - before) as f64 * 1_024.0 / 1e6;
    let ready = queue.depth().ready;
    writeln!(stdout(), "{ready} waiting messages: {megabytes:.1} MB")
        .expect("the terminal is there");
}

fn main() {
    long();
    through(1, 0);
    through(10, 16);
    through(1_000, 1);
    backlog();
    loaded();
}
