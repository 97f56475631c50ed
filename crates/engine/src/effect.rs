//! What follows from a command: a list that the shard carries out in order.

use crate::command::Place;
use model::{EntryId, LogPosition, Message, Notice, SessionId, Timestamp, job::JobNotice};
use std::{fmt, sync::Arc};

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathReason {
    Expired,
    Rejected,
    MaxLength,
    DeliveryLimit,
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        })
    }
}

#[derive(Clone, Debug)]
pub enum Effect {
    /// The session is told, at once or as soon as `after` is durable.
    Notify { session: SessionId, notice: Notice, after: Option<LogPosition> },
    /// The queue holds this message no longer. Only for messages that have a place.
    Removed { place: Place },
    /// The counters of a waiting message that must survive a restart.
    Counted { position: LogPosition, acquired: u32, failed: u32 },
    /// The `Enqueue` just applied was refused: its publisher is told so. The message is not in the
    /// queue.
    Rejected,
    /// The message leaves this queue and goes where the policy's dead-letter target says, in one
    /// step. Takes the place of `Removed`. `message` is absent when the body is on disk only.
    DeadLetter {
        message: Option<Arc<Message>>,
        place: Place,
        reason: DeathReason,
        /// The dead letter is marked redelivered where it arrives.
        redelivered: bool,
    },
    /// These bodies are needed; answered by one `Command::Loaded`. At most one is open per queue.
    Load { entries: Vec<(EntryId, Place)> },
    /// `Command::Tick` is wanted at this time. A later wish replaces an earlier one.
    WakeAt(Timestamp),
    /// The session is told when everything is durable that this turn writes.
    TellDurable { session: SessionId, notice: Box<JobNotice> },
    /// The state of a job that survives a restart has changed: a record of it is to be written at
    /// the end of the turn, and its place told to the queue.
    JobChanged { entry: EntryId },
    /// The record of a job that lies here counts no longer.
    RecordGone { position: LogPosition },
    /// A copy of what a worker answered goes where the submitter wants it.
    Forward { message: Arc<Message> },
    /// The answer wants the result that the record at this position holds.
    ReadResult { session: SessionId, notice: Box<JobNotice>, position: LogPosition },
    /// Auto-delete, and its last consumer has gone.
    Unused,
    /// Its lease (`expires_ms`) has run out.
    Expired,
}
