//! How a queue behaves. A queue is a state machine: commands in, effects out; no file, socket, clock,
//! thread or lock. Read `command`, `effect` and `record` first: they say all that can happen.

pub mod record;
pub mod command;
pub mod effect;

pub use command::{Command, Enqueue, Place, Subscriber};
pub use effect::{DeathReason, Effect};
pub use record::Record;
