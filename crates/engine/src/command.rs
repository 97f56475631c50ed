//! What can happen to a queue.

use crate::record::MessageFacts;
use model::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, Message, Outcome, QueuePolicy, SessionId,
    Timestamp, request::SharedCredit,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Where a message can be read again when its body is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it lives in memory only.
    Memory,
    /// In the log: it survives a restart. `end` is durable when the message is.
    Log { position: LogPosition, end: LogPosition },
    /// In the spill file of transient messages, which a restart empties.
    Spill { position: LogPosition },
}

/// One arrival.
#[derive(Clone, Debug)]
pub struct Enqueue {
    pub message: Arc<Message>,
    pub place: Place,
    /// The budget has room to keep the body in memory while the message waits. Without room a
    /// message with a place is let go unless it can be delivered at once.
    pub room: bool,
    /// It arrives marked redelivered (a dead letter after a rejection).
    pub redelivered: bool,
}

/// A new consumer.
#[derive(Clone, Debug)]
pub struct Subscriber {
    pub session: SessionId,
    pub channel: ChannelId,
    pub consumer: ConsumerNumber,
    /// Deliveries are settled as they are sent.
    pub automatic: bool,
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i64,
    /// Unsettled deliveries at a time, 0 = no limit.
    pub prefetch: u32,
    pub shared: Option<SharedCredit>,
    /// Overrides the queue's own. Milliseconds.
    pub timeout_ms: Option<u64>,
}

/// A message that the log holds, put back by recovery.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub place: Place,
    /// The position under which it first arrived; the order of the queue.
    pub origin: LogPosition,
    /// Octets of its body, or the nearest that is known without reading it.
    pub size: u64,
    pub facts: MessageFacts,
    pub arrived: Timestamp,
    pub redelivered: bool,
    pub acquired: u32,
    pub failed: u32,
}

#[derive(Clone, Debug)]
pub enum Command {
    Enqueue(Enqueue),
    Subscribe(Subscriber),
    /// What it holds stays unsettled. Answered by `Notice::Unsubscribed`, also when the consumer
    /// has ended already.
    Unsubscribe {
        session: SessionId,
        channel: ChannelId,
        consumer: ConsumerNumber,
    },
    /// Octets of its deliveries have left; it may get as many again.
    Credit {
        session: SessionId,
        consumer: ConsumerNumber,
        bytes: u64,
    },
    Prefetch {
        session: SessionId,
        consumer: ConsumerNumber,
        prefetch: u32,
    },
    /// The shared credit of the consumer's channel has grown.
    Resume {
        session: SessionId,
        consumer: ConsumerNumber,
    },
    Settle {
        session: SessionId,
        consumer: Option<ConsumerNumber>,
        entries: SmallVec<[EntryId; 4]>,
        outcome: Outcome,
    },
    Fetch {
        session: SessionId,
        channel: ChannelId,
        automatic: bool,
    },
    /// Takes every ready message out; answered by `Effect::Notify(Purged)`.
    Purge {
        session: SessionId,
        channel: ChannelId,
    },
    /// Bodies asked for by `Effect::Load`; `None` where the disk gave none or a damaged one, and
    /// the message is then taken out without dead-lettering.
    Loaded {
        messages: Vec<(EntryId, Option<Arc<Message>>)>,
    },
    /// A live message was copied to a new place in the log, away from a mostly dead segment.
    Moved {
        entry: EntryId,
        from: LogPosition,
        to: Place,
    },
    /// Its rules have changed.
    Configure(Arc<QueuePolicy>),
    /// The queue was looked at (a declaration of it): its expiry starts anew.
    Touch,
    /// Time has passed.
    Tick,
    /// The session has ended: its consumers go, what it held comes back as failed, its fetches are
    /// forgotten. Nothing is answered.
    EndSession {
        session: SessionId,
        /// Its client has said goodbye, or the broker has: jobs that it held were not lost.
        is_orderly: bool,
    },
    /// The queue goes: consumers are told, nothing is settled.
    Close,
}
