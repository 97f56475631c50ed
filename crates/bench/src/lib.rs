//! Measures a broker through its AMQP port, as a client: threads and plain sockets, so that the
//! broker and not the client is what sets the pace. Nothing here knows how FerryMQ works inside.

mod clock;
mod error;
mod uri;
mod stamp;
mod arrivals;
mod histogram;
mod pacing;
mod unconfirmed;
mod wire;
mod connection;
mod shared;
mod publisher;
mod consumer;
mod resources;
mod report;
mod progress;
mod load;
mod objects;
mod arguments;
mod traffic;
mod churn;
mod baseline;
mod own_broker;
mod quick;
mod verb;

pub use arguments::command;
pub use error::{BenchError, EndKind};
pub use verb::{Ended, run};
