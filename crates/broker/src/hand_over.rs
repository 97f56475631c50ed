//! What goes over to a shard: commands of one session in one batch, so that a hand-over costs one
//! lock and, at most, one wake.

use crate::mailbox::Mailbox;
use engine::{Command, DeathReason, JobCommand, Place};
use model::{
    ChannelId, EntryId, LogPosition, Message, Name, Notice, QueueId, QueuePolicy, SessionId,
    job::JobNotice,
};
use std::{ops::Deref, sync::Arc};

/// Queues of one shard that a message goes to. Many are a list that all messages of an address
/// share.
#[derive(Clone, Debug)]
pub(crate) enum Queues {
    One([QueueId; 1]),
    Many(Arc<[QueueId]>),
}

impl Queues {
    pub(crate) fn of(queues: &[QueueId]) -> Self {
        match queues {
            [one] => Self::One([*one]),
            many => Self::Many(many.into()),
        }
    }
}

impl Deref for Queues {
    type Target = [QueueId];

    fn deref(&self) -> &[QueueId] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// A batch for one shard.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) session: SessionId,
    /// Where its notices go; `None` when the broker itself hands over.
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    pub(crate) commands: Vec<ShardCommand>,
}

#[derive(Debug)]
pub(crate) enum ShardCommand {
    Publish(Published),
    /// A command for one queue, and what the session is told when the queue is gone.
    Queue {
        queue: QueueId,
        command: Command,
        otherwise: Option<Box<Notice>>,
    },
    Create(Arc<QueuePolicy>),
    /// Answers `Declared` with the queue's counts, once `after` is durable.
    Look {
        queue: QueueId,
        channel: ChannelId,
        name: Name,
        after: Option<LogPosition>,
    },
    Delete(Delete),
    /// Says it at the end of the turn: at once, after a position, or after everything that the turn
    /// itself writes.
    Tell {
        notice: Notice,
        after: After,
    },
    /// Only for a queue of jobs, and what the session is told when there is none.
    Job {
        queue: QueueId,
        command: Box<JobCommand>,
        otherwise: Option<Box<Notice>>,
    },
    EndSession {
        is_orderly: bool,
    },
    /// A dead letter whose body has been read.
    DeadLetter(Box<Dead>),
    /// Bodies that a queue asked for.
    Loaded {
        queue: QueueId,
        messages: Vec<(EntryId, Option<Arc<Message>>)>,
    },
}

/// What a `Tell` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Position(Option<LogPosition>),
    /// The end of what this turn writes.
    Turn,
}

/// An admitted publish, or a dead letter from another shard.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) message: Arc<Message>,
    /// For the queues that keep it.
    pub(crate) place: Place,
    /// For the others, when memory is short.
    pub(crate) spilled: Place,
    pub(crate) room: bool,
    pub(crate) redelivered: bool,
    pub(crate) queues: Queues,
    pub(crate) confirm: Option<(ChannelId, u64)>,
}

impl Published {
    /// What the confirm waits for.
    pub(crate) fn after(&self) -> Option<LogPosition> {
        match self.place {
            Place::Log { end, .. } => Some(end),
            Place::Memory | Place::Spill { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) queue: QueueId,
    pub(crate) name: Name,
    pub(crate) vhost: Name,
    pub(crate) if_unused: bool,
    pub(crate) if_empty: bool,
    /// Who is told; `None` when nobody asked (end of a session).
    pub(crate) channel: Option<ChannelId>,
}

/// A message that dies.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) source: Arc<QueuePolicy>,
    /// Absent until the body has been read.
    pub(crate) message: Option<Arc<Message>>,
    pub(crate) place: Place,
    pub(crate) reason: DeathReason,
    pub(crate) redelivered: bool,
}

/// What a turn leaves to be done outside of the shard.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Dead letters for queues of other shards.
    pub(crate) forwards: Vec<(model::ShardId, Published)>,
    /// Other commands for other shards.
    pub(crate) commands: Vec<(model::ShardId, ShardCommand)>,
    /// Bodies to be read.
    pub(crate) loads: Vec<Load>,
    /// Queues that have gone and must leave the catalog.
    pub(crate) gone: Vec<Gone>,
}

impl Aftermath {
    pub(crate) fn is_empty(&self) -> bool {
        self.forwards.is_empty()
            && self.commands.is_empty()
            && self.loads.is_empty()
            && self.gone.is_empty()
    }
}

/// A read that a queue waits for.
#[derive(Debug)]
pub(crate) enum Load {
    Bodies {
        shard: model::ShardId,
        queue: QueueId,
        entries: Vec<(EntryId, Place)>,
    },
    DeadLetter {
        shard: model::ShardId,
        dead: DeadLoad,
    },
    /// The result of a job, for an answer that is ready but for it.
    Result {
        shard: model::ShardId,
        session: SessionId,
        notice: Box<JobNotice>,
        position: LogPosition,
    },
}

/// A dead letter whose body is on disk.
#[derive(Debug)]
pub(crate) struct DeadLoad(pub(crate) Box<Dead>);

/// A queue that its shard has let go.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) queue: QueueId,
    /// Who is told how many messages went with it.
    pub(crate) reply: Option<(SessionId, ChannelId, u64)>,
}
