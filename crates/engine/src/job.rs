//! What turns a queue into one of jobs: which job is next, which may run at all, when a failed one
//! is tried again. Pure as the rest of the engine: time and chance are arguments.

mod state;
mod identity;
mod limit;
mod order;
mod fair;
mod select;
mod book;
mod problem;
mod record;
mod token;

pub use book::{Book, BookError, Fence, Next, Started, Submission, Transition, Verdict};
pub use identity::{Admitted, Application, Identities, Named, Origin};
pub use limit::{Admission, Running};
pub use order::ReadyJob;
pub use problem::{Members, is_problem, members, short};
pub use record::{JobRecord, LeaseRecord};
pub use select::{Dispatch, Selection};
pub use state::{Attempts, JobEvent, Life, NotNow, Setback};
pub use token::{Chance, Token};
