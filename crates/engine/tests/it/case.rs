//! A queue in a test: commands in, a transcript of the effects out.

use engine::{Command, Effect, Enqueue, Place, Queue, Subscriber};
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, LogPosition, Message, Notice, Outcome, QueueId,
    QueuePolicy, SessionId, Timestamp, properties::Properties,
};
use std::sync::Arc;

pub(crate) const SESSION: SessionId = SessionId(1);
pub(crate) const CHANNEL: ChannelId = ChannelId(1);

fn place_text(place: Place) -> String {
    match place {
        Place::Memory => "memory".into(),
        Place::Log { position, .. } => format!("log {position}"),
        Place::Spill { position } => format!("spill {position}"),
    }
}

fn notice_text(notice: &Notice) -> String {
    let delivery_text = |it: &Delivery| {
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
            let body = message.as_ref().map_or_else(
                || "?".into(),
                |it| String::from_utf8(it.body()).expect("bodies of tests are text"),
            );
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
        other => format!("{other:?}"),
    }
}

/// A queue and a clock.
pub(crate) struct Case {
    pub(crate) queue: Queue,
    pub(crate) now: Timestamp,
    next_position: u64,
}

impl Case {
    pub(crate) fn new(change: impl FnOnce(&mut QueuePolicy)) -> Self {
        let mut policy = QueuePolicy::plain(QueueId(7), "q");
        change(&mut policy);
        let now = Timestamp(1_000);
        Self { queue: Queue::new(policy, now), now, next_position: 0 }
    }

    /// Carries out a command; returns the effects, one a line.
    pub(crate) fn apply(&mut self, command: Command) -> String {
        let mut effects = Vec::new();
        self.queue.apply(command, self.now, &mut effects);
        effects.iter().map(effect_text).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn at(&mut self, now: u64) -> &mut Self {
        self.now = Timestamp(1_000 + now);
        self
    }

    pub(crate) fn tick(&mut self) -> String {
        self.apply(Command::Tick)
    }

    pub(crate) fn arrive(
        &mut self,
        body: &str,
        properties: &Properties,
        place: Place,
        room: bool,
    ) -> String {
        let message = Arc::new(Message::new("", "q", &properties.encoded(), body.as_bytes()));
        self.apply(Command::Enqueue(Enqueue { message, place, room, redelivered: false }))
    }

    pub(crate) fn publish(&mut self, body: &str) -> String {
        self.arrive(body, &Properties::default(), Place::Memory, true)
    }

    pub(crate) fn publish_all(&mut self, bodies: &str) {
        for body in bodies.split(' ') {
            assert_eq!(self.publish(body), "");
        }
    }

    pub(crate) fn publish_ttl(&mut self, body: &str, ttl_ms: u64) -> String {
        let expiration = Some(ttl_ms.to_string().into());
        let properties = Properties { expiration, ..Properties::default() };
        self.arrive(body, &properties, Place::Memory, true)
    }

    pub(crate) fn publish_priority(&mut self, body: &str, priority: u8) -> String {
        let properties = Properties { priority: Some(priority), ..Properties::default() };
        self.arrive(body, &properties, Place::Memory, true)
    }

    pub(crate) fn log_place(&mut self) -> Place {
        self.next_position += 10;
        let position = LogPosition(self.next_position);
        Place::Log { position, end: LogPosition(self.next_position + 9) }
    }

    pub(crate) fn publish_kept(&mut self, body: &str, room: bool) -> String {
        let place = self.log_place();
        self.arrive(body, &Properties::default(), place, room)
    }

    pub(crate) fn subscribe(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut Subscriber),
    ) -> String {
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

    pub(crate) fn unsubscribe(&mut self, number: u32) -> String {
        let consumer = ConsumerNumber(number);
        self.apply(Command::Unsubscribe { session: SESSION, channel: CHANNEL, consumer })
    }

    pub(crate) fn settle(&mut self, ids: &[u64], outcome: Outcome) -> String {
        let entries = ids.iter().map(|it| EntryId(*it)).collect();
        self.apply(Command::Settle { session: SESSION, consumer: None, entries, outcome })
    }

    pub(crate) fn fetch(&mut self) -> String {
        self.apply(Command::Fetch { session: SESSION, channel: CHANNEL, automatic: false })
    }

    pub(crate) fn load(&mut self, bodies: &[(u64, Option<&str>)]) -> String {
        let octets = Properties::default().encoded();
        let message = |it: &str| Arc::new(Message::new("", "q", &octets, it.as_bytes()));
        let messages = bodies.iter().map(|(id, it)| (EntryId(*id), it.map(message))).collect();
        self.apply(Command::Loaded { messages })
    }

    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut QueuePolicy)) -> String {
        let mut policy = (**self.queue.policy()).clone();
        change(&mut policy);
        self.apply(Command::Configure(policy.into()))
    }
}
