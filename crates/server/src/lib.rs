//! Sockets, TLS, logins and configuration: what stands between the network and the broker.

pub mod exit;
pub mod config;
mod text;
mod random;
pub mod logging;
pub mod auth;
mod admission;
mod tls;
mod traffic;
mod connection;
mod patience;
mod http;
mod listen;
mod server;
mod run;
pub mod users;
pub mod check;

pub use listen::{BindError, Service};
pub use run::{RunError, node_options, open_exit_code, run};
pub use server::{Listening, Server, StartError};
pub use tls::TlsError;
