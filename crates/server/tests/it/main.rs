//! The server as its clients see it: one test binary, one file per feature. Every test has a server
//! of its own, in this process, on a free port and a folder of its own.

mod script;
mod harness;
mod handshake;
mod tls;
mod http;
mod messages;
mod jobs;
mod stopping;
mod corpus;
