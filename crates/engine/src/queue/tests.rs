//! The contract of a queue, case by case: commands in, a transcript of the effects out.

use super::*;
use crate::command::{Enqueue, Subscriber};
use model::{
    ConsumerNumber, Message, Outcome, QueueId, limits,
    policy::{DeadLetterTarget, DelayedRetry, Order, Overflow, Priorities},
    properties::Properties,
    request::SharedCredit,
};
use std::{fmt::Write as _, sync::Arc};

const SESSION: SessionId = SessionId(1);
const CHANNEL: ChannelId = ChannelId(1);

fn place_text(place: Place) -> String {
    match place {
        Place::Memory => "memory".into(),
        Place::Log { position, .. } => format!("log {position}"),
        Place::Spill { position } => format!("spill {position}"),
    }
}

fn notice_text(notice: &Notice) -> String {
    let delivery_text = |it: &model::Delivery| {
        let body = String::from_utf8(it.message.body()).expect("bodies of tests are text");
        let again = if it.redelivered { " again" } else { "" };
        let counts = it.counts.map_or(String::new(), |it| format!(" {it:?}"));
        format!("{body}{again}{counts}")
    };
    match notice {
        Notice::Delivery(it) => format!("{} gets {}", it.consumer, delivery_text(it)),
        Notice::Fetched { delivery: Some(it), ready, .. } => {
            format!("fetched {}, {ready} left", delivery_text(it))
        }
        Notice::Fetched { delivery: None, .. } => "fetched nothing".into(),
        Notice::Subscribed { consumer, .. } => format!("{consumer} subscribed"),
        Notice::Unsubscribed { consumer, .. } => format!("{consumer} unsubscribed"),
        Notice::Cancelled { consumer } => format!("{consumer} cancelled"),
        Notice::Purged { messages, .. } => format!("purged {messages}"),
        Notice::Refused { refusal, .. } => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    }
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Notify { notice, after: None, .. } => notice_text(notice),
        Effect::Notify { notice, after: Some(after), .. } => {
            format!("{} after {after}", notice_text(notice))
        }
        Effect::Removed { place } => format!("removed {}", place_text(*place)),
        Effect::Counted { position, acquired, failed } => {
            format!("counted {position}: {acquired} {failed}")
        }
        Effect::Rejected => "rejected".into(),
        Effect::DeadLetter { message, place, reason, redelivered } => {
            let body = message.as_ref().map_or("?".into(), |it| {
                String::from_utf8(it.body()).expect("bodies of tests are text")
            });
            let flag = if *redelivered { " redelivered" } else { "" };
            format!("{body} dies in {}: {reason}{flag}", place_text(*place))
        }
        Effect::Load { entries } => {
            let ids: Vec<_> = entries.iter().map(|(id, _)| id.to_string()).collect();
            format!("load {}", ids.join(" "))
        }
        Effect::WakeAt(at) => format!("wake at {at}"),
        Effect::Unused => "unused".into(),
        Effect::Expired => "expired".into(),
    }
}

/// A queue and a clock.
struct Case {
    queue: Queue,
    now: Timestamp,
    next_position: u64,
}

impl Case {
    fn new(change: impl FnOnce(&mut QueuePolicy)) -> Self {
        let mut policy = QueuePolicy::plain(QueueId(7), "q");
        change(&mut policy);
        let now = Timestamp(1_000);
        Self { queue: Queue::new(policy, now), now, next_position: 0 }
    }

    /// Carries out a command; returns the effects, one a line.
    fn apply(&mut self, command: Command) -> String {
        let mut effects = Vec::new();
        self.queue.apply(command, self.now, &mut effects);
        effects.iter().fold(String::new(), |mut text, it| {
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{}", effect_text(it)).expect("a string takes all");
            text
        })
    }

    fn at(&mut self, now: u64) -> &mut Self {
        self.now = Timestamp(1_000 + now);
        self
    }

    fn tick(&mut self) -> String {
        self.apply(Command::Tick)
    }

    fn arrive(&mut self, body: &str, properties: &Properties, place: Place, room: bool) -> String {
        let message = Arc::new(Message::new("", "q", &properties.encoded(), body.as_bytes()));
        self.apply(Command::Enqueue(Enqueue { message, place, room, redelivered: false }))
    }

    fn publish(&mut self, body: &str) -> String {
        self.arrive(body, &Properties::default(), Place::Memory, true)
    }

    fn publish_all(&mut self, bodies: &str) {
        for body in bodies.split(' ') {
            assert_eq!(self.publish(body), "");
        }
    }

    fn publish_ttl(&mut self, body: &str, ttl_ms: u64) -> String {
        let expiration = Some(ttl_ms.to_string().into());
        let properties = Properties { expiration, ..Properties::default() };
        self.arrive(body, &properties, Place::Memory, true)
    }

    fn publish_priority(&mut self, body: &str, priority: u8) -> String {
        let properties = Properties { priority: Some(priority), ..Properties::default() };
        self.arrive(body, &properties, Place::Memory, true)
    }

    fn log_place(&mut self) -> Place {
        self.next_position += 10;
        let position = LogPosition(self.next_position);
        Place::Log { position, end: LogPosition(self.next_position + 9) }
    }

    fn publish_kept(&mut self, body: &str, room: bool) -> String {
        let place = self.log_place();
        self.arrive(body, &Properties::default(), place, room)
    }

    fn subscribe(&mut self, number: u32, change: impl FnOnce(&mut Subscriber)) -> String {
        let mut subscriber = Subscriber {
            session: SESSION,
            channel: CHANNEL,
            consumer: ConsumerNumber(number),
            automatic: false,
            exclusive: false,
            priority: 0,
            prefetch: 0,
            shared: None,
            timeout_ms: None,
        };
        change(&mut subscriber);
        self.apply(Command::Subscribe(subscriber))
    }

    fn unsubscribe(&mut self, number: u32) -> String {
        let consumer = ConsumerNumber(number);
        self.apply(Command::Unsubscribe { session: SESSION, channel: CHANNEL, consumer })
    }

    fn settle(&mut self, ids: &[u64], outcome: Outcome) -> String {
        let entries = ids.iter().map(|it| EntryId(*it)).collect();
        self.apply(Command::Settle { session: SESSION, consumer: None, entries, outcome })
    }

    fn fetch(&mut self) -> String {
        self.apply(Command::Fetch { session: SESSION, channel: CHANNEL, automatic: false })
    }
}

const NACK: Outcome = Outcome::Requeue { failed: false };
const FAIL: Outcome = Outcome::Requeue { failed: true };

#[test]
fn messages_leave_in_the_order_they_came() {
    let mut case = Case::new(|_| {});
    case.publish_all("a b c");
    assert_eq!(case.fetch(), "fetched a, 2 left");
    assert_eq!(case.subscribe(1, |_| {}), "1 subscribed; 1 gets b; 1 gets c");
    assert_eq!(case.publish("d"), "1 gets d");
    assert_eq!(case.fetch(), "fetched nothing");
    assert_eq!(case.queue.depth().unsettled, 4);
    assert_eq!(case.settle(&[1, 2, 3, 4], Outcome::Accept), "");
    assert_eq!(case.queue.depth(), Depth { consumers: 1, ..Depth::default() });
}

#[test]
fn returned_messages_stand_where_they_stood_and_are_marked() {
    let mut case = Case::new(|_| {});
    case.publish_all("a b c d");
    case.fetch();
    case.fetch();
    case.fetch();
    assert_eq!(case.settle(&[2], NACK), "");
    assert_eq!(case.settle(&[3, 1], FAIL), "");
    assert_eq!(case.fetch(), "fetched a again, 3 left");
    assert_eq!(case.fetch(), "fetched b again, 2 left");
    assert_eq!(case.fetch(), "fetched c again, 1 left");
    assert_eq!(case.fetch(), "fetched d, 0 left");
}
