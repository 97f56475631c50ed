//! AMQP 0-9-1: octets in, requests out; notices in, octets out. Pure: sockets, clocks and random
//! numbers are handed in by who owns them.

pub mod secret;
pub mod config;
pub mod method;
pub mod frame;
pub mod output;
pub mod reply;
pub mod auth;
pub mod handshake;
mod confirm;
mod publishing;
mod consuming;
mod transaction;
mod direct_reply;
mod naming;
mod channel;
mod requests;
mod answers;
mod channels;
mod pulse;
pub mod session;
mod reading;
mod telling;
pub mod fuzzing;
pub mod session_fuzzing;

pub use session::{Event, Session};
