//! What is shown of a job.

use super::{Promise, State};
use crate::{ids::Timestamp, names::Name};
use bytes::Bytes;
use std::sync::Arc;

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    pub vhost: Name,
    pub queue: Name,
    pub id: Name,
    /// What its message calls its type.
    pub kind: Option<Name>,
    pub key: Option<Name>,
    pub state: State,
    /// Attempts that were started, of this generation.
    pub attempt: u32,
    pub attempts_max: u32,
    /// From 1; grows with every re-drive, and when a newer message takes the job over.
    pub generation: u32,
    pub priority: u8,
    pub created: Timestamp,
    /// Not to be started before; only while that is to come.
    pub at: Option<Timestamp>,
    /// When the last attempt began.
    pub started: Option<Timestamp>,
    /// When it was settled.
    pub finished: Option<Timestamp>,
    /// Not to be started after.
    pub expires: Option<Timestamp>,
    /// Milliseconds from ready to dispatch, over all attempts, so far while pending.
    pub waited_ms: u64,
    /// Milliseconds from the last dispatch to the settlement.
    pub served_ms: Option<u64>,
    /// Milliseconds from first ready to the settlement.
    pub total_ms: Option<u64>,
    /// Who has it, while it runs.
    pub lease: Option<LeaseView>,
    pub progress: Option<Progress>,
    pub cancel_requested: bool,
    /// There is a result to be fetched; of a rejected job it is what its worker said.
    pub has_result: bool,
    /// Why it was rejected.
    pub problem: Option<JobProblem>,
    /// Ids of the jobs that it comes after.
    pub parents: Vec<Name>,
    pub traceparent: Option<Name>,
    /// Another one whenever something of this view is different, but for the passing of time.
    pub tag: u64,
}

impl JobView {
    pub fn promise(&self) -> Promise {
        self.state.promise()
    }
}

/// Who works on a job, and until when it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// As the worker or its connection is called.
    pub worker: Name,
    /// `None`: as long as its connection lives.
    pub until: Option<Timestamp>,
}

/// How far a worker says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<u8>,
    pub note: Option<Arc<str>>,
}

/// Why a promise was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The worker will never do it.
    WorkerRejected,
    /// Every attempt that it had failed.
    AttemptsExhausted,
    /// Every attempt that it had was used up, and the last one was lost.
    LeaseLost,
    /// It was not started in time.
    Expired,
    Cancelled,
    /// One that it comes after was rejected.
    ParentFailed,
    /// Its message asks for something that is not done, or cannot be understood.
    Refused,
}

impl ProblemKind {
    pub const ALL: [Self; 7] = [
        Self::WorkerRejected,
        Self::AttemptsExhausted,
        Self::LeaseLost,
        Self::Expired,
        Self::Cancelled,
        Self::ParentFailed,
        Self::Refused,
    ];

    /// As the public interfaces spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerRejected => "worker-rejected",
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::LeaseLost => "lease-lost",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::ParentFailed => "parent-failed",
            Self::Refused => "refused",
        }
    }
}

/// Why a job was rejected, and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobProblem {
    pub kind: ProblemKind,
    pub detail: Option<Arc<str>>,
}

/// What a worker has answered: octets that nobody here looks into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobResult {
    pub content_type: Option<Name>,
    pub content_encoding: Option<Name>,
    pub body: Bytes,
}

/// How a worker ends its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobVerdict {
    Fulfilled,
    /// It failed; if it may be tried again, not before so many milliseconds where that is said.
    Rejected {
        retryable: bool,
        retry_after_ms: Option<u64>,
    },
}

/// Which jobs of a queue are listed; `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub state: Option<State>,
    pub kind: Option<Name>,
    pub key: Option<Name>,
}
