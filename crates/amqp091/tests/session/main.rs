//! The session at its boundary: scripts of octets and notices, and the requests and frames they
//! become.

mod harness;

mod anything;
mod consumers;
mod corpus;
mod life;
mod objects;
mod order;
mod publishers;
mod refusals;
