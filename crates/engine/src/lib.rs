//! How a queue behaves. A queue is a state machine: commands in, effects out; no file, socket, clock,
//! thread or lock. Read `command`, `effect` and `record` first: they say all that can happen.

pub mod record;
pub mod command;
pub mod effect;
mod entry;
mod ready;
mod unsettled;
mod delayed;
mod consumers;
mod queue;

pub use command::{Command, Enqueue, Place, Restored, Subscriber};
pub use effect::{DeathReason, Effect};
pub use queue::{Depth, EntryState, Queue};
pub use record::Record;
