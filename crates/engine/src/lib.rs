//! How a queue behaves. A queue is a state machine: commands in, effects out; no file, socket,
//! clock, thread or lock. Read `command`, `effect` and `record` first: they say all that can
//! happen.

pub mod record;
pub mod command;
pub mod effect;
pub mod dead_letter;
mod seldom;
mod entry;
mod packed;
mod list;
mod ready;
mod unsettled;
mod delayed;
mod consumers;
mod queue;
pub mod job;
mod job_queue;
pub mod advisor;

pub use command::{Command, Enqueue, Place, Restored, Subscriber};
pub use dead_letter::{dead_letter, is_cycle, routing_keys};
pub use effect::{DeathReason, Effect};
pub use entry::MESSAGE_OVERHEAD_BYTES;
pub use job_queue::{JobCommand, JobQueue, RestoredJob};
pub use queue::{Depth, EntryState, Queue, Restoring};
pub use record::Record;
