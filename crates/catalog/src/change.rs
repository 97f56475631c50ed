//! What can happen to the catalog. Applying the same changes in the same order makes the same
//! catalog, so the log of them is the catalog on disk.

use crate::objects::{
    Binding, ExchangeFacts, Permissions, Queue, TopicPermissions, User, VhostFacts,
};
use model::{Name, QueueId, VhostId};
use std::sync::Arc;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// No queue gets a smaller number from now on.
    NextQueueId(QueueId),
    /// No virtual host gets a smaller number from now on.
    NextVhostId(VhostId),
    /// A new virtual host with its predeclared exchanges, or new facts (limits among them) of one
    /// that is there; the name of an existing one stays.
    VhostSet(Arc<VhostFacts>),
    /// With everything in it.
    VhostRemoved(VhostId),
    QueueDeclared(Arc<Queue>),
    /// With its bindings.
    QueueDeleted {
        queue: QueueId,
        durable: bool,
    },
    ExchangeDeclared {
        vhost: VhostId,
        exchange: Arc<ExchangeFacts>,
    },
    /// With its bindings, to it and from it.
    ExchangeDeleted {
        vhost: VhostId,
        exchange: Name,
        durable: bool,
    },
    /// `durable`: both ends outlive a restart.
    Bound {
        vhost: VhostId,
        binding: Arc<Binding>,
        durable: bool,
    },
    Unbound {
        vhost: VhostId,
        binding: Arc<Binding>,
        durable: bool,
    },
    /// A new user, or one with a new password, tags or limits.
    UserSet(Arc<User>),
    /// With its permissions.
    UserRemoved(Name),
    PermissionSet {
        vhost: VhostId,
        user: Name,
        permissions: Arc<Permissions>,
    },
    PermissionRemoved {
        vhost: VhostId,
        user: Name,
    },
    TopicPermissionSet {
        vhost: VhostId,
        user: Name,
        permissions: Arc<TopicPermissions>,
    },
    /// Of one exchange, or of all.
    TopicPermissionRemoved {
        vhost: VhostId,
        user: Name,
        exchange: Option<Name>,
    },
}

impl Change {
    /// It must be logged. What concerns only objects that end with the process need not.
    pub fn durable(&self) -> bool {
        match self {
            Self::QueueDeclared(queue) => queue.survives(),
            Self::ExchangeDeclared { exchange, .. } => exchange.durable && !exchange.predeclared,
            Self::QueueDeleted { durable, .. }
            | Self::ExchangeDeleted { durable, .. }
            | Self::Bound { durable, .. }
            | Self::Unbound { durable, .. } => *durable,
            _ => true,
        }
    }
}

/// Why a change cannot be read or applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("change ends in the middle of a field")]
    Truncated,
    #[error("change is followed by {0} octets")]
    TooLong(usize),
    #[error("change of version {0}, which this version does not know")]
    UnknownVersion(u8),
    #[error("change of kind {0}, which this version does not know")]
    UnknownKind(u8),
    #[error("change with a wrong {0}")]
    WrongField(&'static str),
    #[error("change names virtual host {0}, which is not there")]
    NoVhost(VhostId),
    #[error("change names {kind} '{name}', which is not there")]
    Missing { kind: &'static str, name: Name },
    #[error("change adds {kind} '{name}', which is there already")]
    Exists { kind: &'static str, name: Name },
}
