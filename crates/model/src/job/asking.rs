//! What a door may ask about jobs, and what it is told.
//!
//! A door chooses the number of a request, another one for every request of its session. Each
//! request is answered by exactly one [`JobNotice`] of that number, but for `Forget` and for one
//! that was forgotten. Queues are named in the session's virtual host; permissions are those of its
//! user: to submit it needs what a publish to the default exchange needs, to look, wait, list and
//! lease it reads the queue, to cancel, retry and patch it writes to it. Who has a token needs
//! nothing else.

use super::{JobFilter, JobResult, JobVerdict, JobView, Progress};
use crate::{ids::Timestamp, message::Message, names::Name};
use std::sync::Arc;

/// One question.
#[derive(Clone, Debug)]
pub struct JobRequest {
    /// Chosen by the door, and never used twice in a session.
    pub number: u64,
    pub ask: JobAsk,
}

#[derive(Clone, Debug)]
pub enum JobAsk {
    /// → `Submitted`, when it is durable. The message is addressed by `queue` alone; its
    /// properties and headers are those of a job that comes by AMQP.
    Submit { queue: Name, message: Arc<Message> },
    /// → `Job`. Without a queue the id is looked for in all queues of jobs that the user may read.
    Look { queue: Option<Name>, id: Name },
    /// → `Job`, as soon as what is waited for has happened.
    Wait { queue: Option<Name>, id: Name, until: Until },
    /// → `Result`, at once, of a job in whatever state.
    Result { queue: Option<Name>, id: Name },
    /// → `Leased`, as soon as there is a job. `worker`: how it calls itself.
    Lease { queue: Name, worker: Name },
    /// → `Ended`, when it is durable. The worker ends its attempt.
    Complete { token: Name, verdict: JobVerdict, result: JobResult },
    /// → `Extended`. The lease ends so many milliseconds from now (by default, what the queue
    /// gives); progress replaces the progress before.
    Extend { token: Name, by_ms: Option<u64>, progress: Option<Progress> },
    /// → `Ended`. The worker gives the job back; it does not count as an attempt.
    Release { token: Name },
    /// → `Job`: cancelled, or running with the cancellation asked for.
    Cancel { queue: Option<Name>, id: Name },
    /// → `Job`: a settled job begins anew.
    Retry { queue: Option<Name>, id: Name },
    /// → `Job`. Of one that does not run yet; `at`: not to be started before.
    Patch { queue: Option<Name>, id: Name, priority: Option<u8>, at: Option<Timestamp> },
    /// → `Listed`. `cursor` is what the page before has given.
    List { queue: Name, filter: JobFilter, cursor: Option<u64>, limit: usize },
    /// Nobody waits for the answer to this request any more. A lease that was given under the
    /// number comes back and does not count. Not answered.
    Forget { number: u64 },
}

/// What a `Wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Settled,
    /// The job is settled, or another one than that with this tag.
    TagDiffers(u64),
}

/// One answer.
#[derive(Clone, Debug)]
pub struct JobNotice {
    pub number: u64,
    pub answer: JobAnswer,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    New,
    /// The job was there: the same id and the same payload.
    Duplicate,
    /// The id names a job with another payload; nothing was done.
    Conflict,
    /// A pending job has the same uniqueness; nothing was done.
    UniqueHolder,
}

#[derive(Clone, Debug)]
pub enum JobAnswer {
    /// The view is that of the job which has the id, or the uniqueness.
    Submitted {
        admission: Admission,
        view: Box<JobView>,
    },
    Job(Box<JobView>),
    /// `result` is absent while there is none.
    Result {
        view: Box<JobView>,
        result: Option<JobResult>,
    },
    Leased {
        /// What stands behind [`super::JOB_PREFIX`] in the address for answers.
        token: Name,
        view: Box<JobView>,
        /// As it was submitted.
        message: Arc<Message>,
        until: Timestamp,
    },
    /// `until` is absent where the worker's connection is its lease.
    Extended {
        until: Option<Timestamp>,
        cancel_requested: bool,
    },
    /// The attempt has ended, and this is where the job is now.
    Ended(Box<JobView>),
    Listed {
        jobs: Vec<JobView>,
        /// Where the next page begins, if there is one.
        next: Option<u64>,
    },
    Refused(JobRefusal),
}

/// Why a door is refused what it asks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JobRefusal {
    #[error("no queue '{0}'")]
    UnknownQueue(Name),
    #[error("queue '{0}' is not a queue of jobs")]
    NotJobQueue(Name),
    #[error("no such job")]
    UnknownJob,
    #[error("the job was there, and is not kept any longer")]
    Forgotten,
    #[error("several queues have a job of this id")]
    Ambiguous(Vec<Name>),
    #[error("the attempt has ended: another one counts, or none")]
    StaleToken,
    #[error("the job is settled already: it has {}", .0.state.name())]
    Settled(Box<JobView>),
    /// Neither settled nor in a state in which this can be done.
    #[error("a job that is {} cannot do this", .0.state.name())]
    Pending(Box<JobView>),
    /// The user may not; the text says what.
    #[error("{0}")]
    Access(String),
    /// The message, or what is asked about it, is wrong or not done here; the text says what.
    #[error("{0}")]
    Invalid(String),
    /// A limit is reached, or the disk is full; the same may be asked again later.
    #[error("{0}")]
    Resource(String),
}
