//! What the broker tells a session.

use crate::{
    ids::{ChannelId, ConsumerNumber, EntryId, QueueId, ShardId},
    job::JobNotice,
    message::Message,
    names::Name,
    refusal::Refusal,
};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Notice {
    /// Every publish of the channel numbered `first` to `last` is durable, or routed nowhere.
    Confirmed {
        channel: ChannelId,
        first: u64,
        last: u64,
    },
    /// A queue refused it.
    Nacked {
        channel: ChannelId,
        number: u64,
    },
    /// Mandatory, and no queue wanted it. Comes before its `Confirmed`.
    Returned {
        channel: ChannelId,
        message: Arc<Message>,
    },
    Delivery(Delivery),
    Fetched {
        channel: ChannelId,
        /// `None` when the queue has nothing ready.
        delivery: Option<Delivery>,
        /// Messages that remain ready.
        ready: u64,
    },
    /// A message to the channel's reply address.
    Reply {
        channel: ChannelId,
        message: Arc<Message>,
    },
    Declared {
        channel: ChannelId,
        queue: Name,
        ready: u64,
        consumers: u64,
    },
    Deleted {
        channel: ChannelId,
        messages: u64,
    },
    Purged {
        channel: ChannelId,
        messages: u64,
    },
    Done {
        channel: ChannelId,
    },
    Subscribed {
        channel: ChannelId,
        consumer: ConsumerNumber,
        queue: QueueId,
        shard: ShardId,
    },
    Unsubscribed {
        channel: ChannelId,
        consumer: ConsumerNumber,
    },
    /// The broker ended the consumer: queue deleted, permission lost, or the ack came too late.
    Cancelled {
        consumer: ConsumerNumber,
    },
    /// The reply address of the channel: what stands after the fixed name and a point.
    ReplyOpened {
        channel: ChannelId,
        address: Name,
    },
    Committed {
        channel: ChannelId,
    },
    /// The request that the channel waits for, or a publish of it, is refused.
    Refused {
        channel: ChannelId,
        refusal: Box<Refusal>,
        publish: bool,
    },
    /// Publishers are held back from now on, and why.
    Blocked {
        reason: &'static str,
    },
    Unblocked,
    Job(Box<JobNotice>),
    /// The session is over, and why.
    Closed {
        refusal: Box<Refusal>,
    },
}

/// A message on its way to a consumer or a fetch.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// 0 for a fetch.
    pub consumer: ConsumerNumber,
    pub queue: QueueId,
    pub entry: EntryId,
    pub message: Arc<Message>,
    pub redelivered: bool,
    /// Counters to show as headers, where the queue counts and there was a delivery before:
    /// times acquired, and times failed (shown when above 0).
    pub counts: Option<(u32, u32)>,
    /// Settled already: nothing is to be remembered of it.
    pub automatic: bool,
}
