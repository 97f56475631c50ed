//! Tests of the broker at its boundary, requests in and notices out, on a disk in memory and
//! without a thread: the test is the log thread, the reader and the clock.

mod host;
mod jobs;
mod pressure;
mod requests;
mod durability;
mod corpus;
