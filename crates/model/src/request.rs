//! What a session may ask of the broker. Names are resolved in the session's virtual host,
//! permissions are those of its user; both belong to the session's handle and stand in no request.
//!
//! Requests of one channel are carried out in order. A request that is answered ("→") is answered
//! by exactly one [`Notice`](crate::Notice) of the same channel, or by `Notice::Refused`; the
//! session sends no further request of that channel until then (`Publish`, `Settle` and `Credit`
//! are not answered, and a refused `Publish` makes the broker skip the rest of that channel's
//! requests in the batch).

use crate::{
    ids::{ChannelId, ConsumerNumber, EntryId, QueueId},
    job::JobRequest,
    message::Message,
    names::Name,
    value::Table,
};
use smallvec::SmallVec;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

#[derive(Debug)]
pub enum Request {
    Publish(Publish),
    Settle(Settle),
    /// Octets of deliveries to this consumer that have left for the socket: it may get as many
    /// again.
    Credit {
        consumer: ConsumerNumber,
        queue: QueueId,
        bytes: u64,
    },
    /// → `Declared`
    DeclareQueue(DeclareQueue),
    /// → `Deleted` with the number of messages that went; 0 for a missing queue.
    DeleteQueue {
        channel: ChannelId,
        queue: Name,
        if_unused: bool,
        if_empty: bool,
    },
    /// → `Purged`
    PurgeQueue {
        channel: ChannelId,
        queue: Name,
    },
    /// → `Done`
    DeclareExchange(DeclareExchange),
    /// → `Done`
    DeleteExchange {
        channel: ChannelId,
        exchange: Name,
        if_unused: bool,
    },
    /// → `Done`
    Bind(Binding),
    /// → `Done`
    Unbind(Binding),
    /// → `Subscribed`
    Subscribe(Subscribe),
    /// → `Unsubscribed`. Deliveries of the consumer stay with the session.
    Unsubscribe {
        channel: ChannelId,
        consumer: ConsumerNumber,
        queue: QueueId,
    },
    /// New prefetch of a running consumer, 0 = none. Not answered.
    Prefetch {
        consumer: ConsumerNumber,
        queue: QueueId,
        prefetch: u32,
    },
    /// The channel's shared credit has grown: its consumers are to be looked at. Not answered.
    Resume {
        consumer: ConsumerNumber,
        queue: QueueId,
    },
    /// → `Fetched`. `automatic` settles at once.
    Fetch {
        channel: ChannelId,
        queue: Name,
        automatic: bool,
    },
    /// Opens the channel's reply address. → `ReplyOpened`
    OpenReply {
        channel: ChannelId,
    },
    /// Ends it. Not answered.
    CloseReply {
        channel: ChannelId,
    },
    /// Everything a transaction held, in order. → `Committed`, or `Refused` and nothing of it
    /// happens.
    Commit {
        channel: ChannelId,
        requests: Vec<Request>,
    },
    /// Answered, in order with everything before it on this channel, by `Done`; does nothing else.
    Barrier {
        channel: ChannelId,
    },
    /// → `Job` of the same number. Boxed: few sessions ask it.
    Job(Box<JobRequest>),
}

/// One publish. → `Returned` when mandatory and unroutable, then, with `confirm`, exactly one of
/// `Confirmed` and `Nacked`.
#[derive(Debug)]
pub struct Publish {
    pub channel: ChannelId,
    pub message: Arc<Message>,
    pub mandatory: bool,
    /// The number under which the session wants to hear of it.
    pub confirm: Option<u64>,
}

/// The end, or the return, of deliveries of one queue.
#[derive(Debug)]
pub struct Settle {
    pub channel: ChannelId,
    pub queue: QueueId,
    /// Who got them; `None` for fetched ones.
    pub consumer: Option<ConsumerNumber>,
    pub entries: SmallVec<[EntryId; 4]>,
    pub outcome: Outcome,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the message goes.
    Accept,
    /// Back to its place, marked redelivered. `failed` raises its delivery count (an explicit
    /// single reject, a closed channel), otherwise it does not (a negative ack).
    Requeue { failed: bool },
    /// Back to its place, marked redelivered, and given back unused: by a channel that the client
    /// closes, or on its request. Where messages are counted `failed` says what `Requeue` says; to
    /// a job it is no attempt.
    Release { failed: bool },
    /// Dead-lettered or dropped. `flagged`: the dead letter is marked redelivered (a single
    /// reject).
    Reject { flagged: bool },
}

#[derive(Debug)]
pub struct DeclareQueue {
    pub channel: ChannelId,
    /// Empty: the broker names it.
    pub queue: Name,
    /// Text that makes the broker's name unique; 22 characters of random base64url by the session.
    pub unique: Name,
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: Table,
}

#[derive(Debug)]
pub struct DeclareExchange {
    pub channel: ChannelId,
    pub exchange: Name,
    pub kind: Name,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: Table,
}

/// A binding to make or to undo.
#[derive(Debug)]
pub struct Binding {
    pub channel: ChannelId,
    pub source: Name,
    pub destination: Name,
    /// The destination is an exchange, otherwise a queue.
    pub to_exchange: bool,
    pub routing_key: Name,
    pub arguments: Table,
}

#[derive(Debug)]
pub struct Subscribe {
    pub channel: ChannelId,
    /// Chosen by the session, unique in it while the consumer lives.
    pub consumer: ConsumerNumber,
    pub queue: Name,
    /// For listings and logs.
    pub tag: Name,
    /// Deliveries are settled as they are sent.
    pub automatic: bool,
    pub exclusive: bool,
    /// Deliveries that may be unsettled at a time, 0 = no limit (but `limits`).
    pub prefetch: u32,
    /// Limit over all consumers of the channel, if one is set.
    pub shared: Option<SharedCredit>,
    pub arguments: Table,
}

/// One counter for all consumers of a channel, whichever queues they are on: how many more
/// deliveries the channel may hold. Taken by queues, given back by the session when deliveries are
/// settled.
#[derive(Clone, Debug)]
pub struct SharedCredit(Arc<AtomicI64>);

impl SharedCredit {
    /// A counter with this many left. Negative when a limit was lowered below what is out.
    pub fn new(left: i64) -> Self {
        Self(Arc::new(AtomicI64::new(left)))
    }

    /// Takes one, unless none is left.
    pub fn try_take(&self) -> bool {
        let take = |left: i64| (0 < left).then(|| left - 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Changes what is left, by a settle or by a new limit; returns what was left before.
    pub fn add(&self, more: i64) -> i64 {
        self.0.fetch_add(more, Ordering::AcqRel)
    }

    pub fn left(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}
