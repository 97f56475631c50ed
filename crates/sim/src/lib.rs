//! The whole broker on a simulated disk, driven by one loop from a seed: no thread, no clock, no
//! socket, so that a seed replays what it did. Clients publish and consume at random, the disk
//! crashes and fails, and a judge compares what is left with what the clients were told.

pub mod random;
pub mod world;
pub mod body;
pub mod token;
pub mod history;
pub mod host;
pub mod judge;
pub mod client;
pub mod drain;
pub mod image;
pub mod run;

pub use run::{Outcome, Plan, run};
