//! Sockets, TLS, logins and configuration: what stands between the network and the broker.

pub mod config;
