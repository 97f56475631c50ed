//! One running broker without sockets: opens a data folder, starts the threads that the broker
//! itself does not have, and owns the clock. A Rust program can use it as it is; the server puts
//! sockets on it.

pub mod clock;
mod signal;
pub mod scheduling;
mod threads;
mod first_user;
pub mod open;
pub mod local;

pub use first_user::{NewPassword, NewUser, PlainPassword};
pub use local::{Confirm, Consumer, Incoming, JobReply, LocalError, LocalSession};
pub use open::{Node, NodeOptions, OpenError};
