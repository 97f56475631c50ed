//! What turns a queue into one of jobs: which job is next, which may run at all, when a failed one
//! is tried again. Pure as the rest of the engine: time and chance are arguments.

mod backoff;
mod state;
mod identity;
mod limit;
mod order;
mod fair;
mod select;
mod book;

pub use backoff::{Backoff, BackoffKind, Jitter};
pub use book::{Book, BookError, Fence, JobPolicy, Next, Started, Submission, Transition, Verdict};
pub use fair::Weights;
pub use identity::{Admitted, Application, Identities, Lifetimes, Named, Origin};
pub use limit::{Admission, Limits, Rate, Running};
pub use order::{Aging, ReadyJob, Scheduling};
pub use select::{Dispatch, Selection};
pub use state::{Attempts, JobEvent, Life, NotNow, Promise, Setback, State};
