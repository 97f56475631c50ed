//! Requests in, notices out: the broker joins catalog, queues and log, and is what every door and
//! every embedding program talks to. It has no clock, no thread and no socket: time is an argument,
//! threads are lent by whoever brings work, and what needs one of its own is asked for through
//! [`Hooks`].

mod mailbox;
mod ledger;
mod budget;
mod outbox;
mod occupancy;
mod spill;
mod replies;
mod shared;
mod hand_over;
mod dead_letters;
mod pace;
mod held_jobs;
mod turn;
mod shard;
mod runs;
mod changes;
mod base;
mod restore;
mod turn_jobs;
mod owner;
mod checkpoint;
mod reclaim_progress;
mod broker;
mod reclaim;
mod reading;
mod administration;
mod consumer_arguments;
mod gate;
mod session;
mod job_requests;
mod requests;

pub use administration::{Administration, AdministrationError};
pub use broker::{Broker, BrokerOptions, SHARDS_MAX};
pub use catalog::{PasswordHash, User};
pub use checkpoint::{Checkpointed, Checkpointer, recover};
pub use mailbox::Pressure;
pub use replies::REPLY_PREFIX;
pub use restore::{Restoration, Restorer};
pub use session::{Connect, SessionHandle};
pub use shared::Hooks;
pub use spill::OpenSpill;
