//! The rules that one queue follows: what its arguments and policies come to. The catalog works
//! them out, the engine keeps them.

use crate::{
    ids::{QueueId, ShardId},
    job::JobRules,
    names::Name,
};
use std::sync::Arc;

/// What a queue does when a message is too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ready message is dead-lettered or dropped.
    #[default]
    DropHead,
    /// The publisher gets a negative confirm.
    RejectPublish,
    /// The same, and the refused message is dead-lettered.
    RejectPublishDeadLetter,
}

/// Which ready message is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    #[default]
    Fifo,
    /// The newest.
    Lifo,
}

/// How many levels of priority a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priorities {
    /// One: the property is carried, not acted on.
    #[default]
    None,
    /// 0 to `max`, absent is 0, more than `max` counts as `max`. `max` is 1 to 255.
    UpTo(u8),
    /// The quorum rule: 0 to 31, absent is 4, more than 31 counts as 31.
    Quorum,
}

/// Where messages go that expire, are rejected, are too many or failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTarget {
    pub exchange: Name,
    /// Replaces the message's own routing keys.
    pub routing_key: Option<Name>,
}

/// How a quorum queue delays a message that comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelayedRetry {
    #[default]
    Disabled,
    /// Every return.
    All,
    /// Returns that raise the delivery count.
    Failed,
    /// Returns that do not.
    Returned,
}

/// The rules of one queue.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuePolicy {
    pub queue: QueueId,
    pub shard: ShardId,
    pub name: Name,
    pub vhost: Name,
    /// The queue outlives a restart, and persistent messages in it too.
    pub durable: bool,
    /// Every message is kept, and delivered only when it is durable (quorum semantics).
    pub keeps_all: bool,
    pub auto_delete: bool,
    /// Unused for so long, it goes. Milliseconds.
    pub expires_ms: Option<u64>,
    pub ttl_ms: Option<u64>,
    pub length_max: Option<u64>,
    pub length_bytes_max: Option<u64>,
    pub overflow: Overflow,
    pub dead_letter: Option<DeadLetterTarget>,
    pub priorities: Priorities,
    pub order: Order,
    pub single_active_consumer: bool,
    /// A message that failed more often than this is dead-lettered or dropped. `None`: no limit.
    pub delivery_limit: Option<u32>,
    /// Deliveries carry their counts (quorum queues, and classic ones with a limit).
    pub counts_deliveries: bool,
    /// A delivery not settled for so long ends its consumer. Milliseconds.
    pub consumer_timeout_ms: Option<u64>,
    pub delayed_retry: DelayedRetry,
    pub delayed_retry_ms_min: u64,
    pub delayed_retry_ms_max: u64,
    /// It is a queue of jobs, with these rules.
    pub jobs: Option<Arc<JobRules>>,
}

impl QueuePolicy {
    /// A transient queue without any rule, for tests and for what needs no more.
    pub fn plain(queue: QueueId, name: &str) -> Self {
        Self {
            queue,
            shard: ShardId(0),
            name: Name::new(name),
            vhost: Name::new("/"),
            durable: false,
            keeps_all: false,
            auto_delete: false,
            expires_ms: None,
            ttl_ms: None,
            length_max: None,
            length_bytes_max: None,
            overflow: Overflow::DropHead,
            dead_letter: None,
            priorities: Priorities::None,
            order: Order::Fifo,
            single_active_consumer: false,
            delivery_limit: None,
            counts_deliveries: false,
            consumer_timeout_ms: None,
            delayed_retry: DelayedRetry::Disabled,
            delayed_retry_ms_min: 0,
            delayed_retry_ms_max: 0,
            jobs: None,
        }
    }

    /// A message with this wish is written to the log when it comes to this queue.
    pub fn keeps(&self, persistent: bool) -> bool {
        self.keeps_all || (self.durable && persistent)
    }
}
