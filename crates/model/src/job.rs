//! Jobs: a job is a message that remembers. The rules of a queue of jobs, the states of a job, what
//! is shown of one, and what a door may ask about them.

mod backoff;
mod limits;
mod order;
mod rules;
mod state;
mod view;
mod asking;

pub use asking::{Admission, JobAnswer, JobAsk, JobNotice, JobRefusal, JobRequest, Until};
pub use backoff::{Backoff, BackoffKind, Jitter};
pub use limits::{Limits, Rate};
pub use order::{Aging, Scheduling, Weights};
pub use rules::{JobRules, Lifetimes};
pub use state::{Promise, State};
pub use view::{
    JobFilter, JobProblem, JobResult, JobVerdict, JobView, LeaseView, ProblemKind, Progress,
};

/// What stands in front of a token in the routing key of a worker's answer.
pub const JOB_PREFIX: &str = "amq.job.";
