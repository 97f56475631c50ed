//! Why a benchmark could not be made. Figures that look bad are no error; lost messages are.

use std::{io, path::PathBuf};

/// What ended a run, or kept it from beginning.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot connect to {address}: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} refuses the login of user `{user}`: {reason}")]
    Login { address: String, user: String, reason: String },
    #[error("{address} refuses the virtual host `{vhost}`: {reason}")]
    Vhost { address: String, vhost: String, reason: String },
    /// It closed the connection or the channel and said why.
    #[error("the broker closed the {what}: {code} {text}")]
    Closed { what: &'static str, code: u16, text: String },
    #[error("the broker ended the connection without a word")]
    Disconnected,
    #[error("connection to the broker: {0}")]
    Connection(#[from] io::Error),
    #[error("no {wanted} from the broker within {seconds} s")]
    Silent { wanted: &'static str, seconds: u64 },
    #[error("{0}; is this an AMQP 0-9-1 broker?")]
    Protocol(String),
    #[error("the {what} `{name}` exists already and is not ours; nothing was done")]
    Exists { what: &'static str, name: String },
    #[error("{0}")]
    OwnBroker(String),
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Verdict(String),
    #[error("interrupted")]
    Interrupted,
}

/// The kinds of end that a caller's exit status tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// Messages were lost, doubled or refused.
    No,
    Usage,
    /// What was asked for does not fit what is there.
    Data,
    Unavailable,
    Io,
    Timeout,
    Permission,
    Interrupted,
}

impl BenchError {
    pub fn kind(&self) -> EndKind {
        match self {
            Self::Usage(_) => EndKind::Usage,
            Self::Login { .. } | Self::Vhost { .. } => EndKind::Permission,
            Self::Closed { code: 403 | 530, .. } => EndKind::Permission,
            Self::Closed { code: 404..=406, .. } | Self::Exists { .. } => EndKind::Data,
            Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::Disconnected
            | Self::Connection(_)
            | Self::Protocol(_)
            | Self::OwnBroker(_) => EndKind::Unavailable,
            Self::Silent { .. } => EndKind::Timeout,
            Self::Disk { .. } => EndKind::Io,
            Self::Verdict(_) => EndKind::No,
            Self::Interrupted => EndKind::Interrupted,
        }
    }
}
