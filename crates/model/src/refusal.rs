//! Why a request is refused. Each protocol maps the kind to its own code; the text is what RabbitMQ
//! says in the same place, because clients and their tests read it.

use crate::names::Name;
use std::fmt;

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Queue,
    Exchange,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Exchange => "exchange",
        })
    }
}

/// What a user may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Configure,
    Write,
    Read,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// The family of a refusal; a protocol turns it into its code and into what ends: channel or
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    NotFound,
    AccessRefused,
    Locked,
    PreconditionFailed,
    NotAllowed,
    NotImplemented,
    ResourceError,
    Forced,
    Internal,
}

/// One refusal with everything its text names.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("no {kind} '{name}' in vhost '{vhost}'")]
    NotFound { kind: ResourceKind, name: Name, vhost: Name },
    #[error("{permission} access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'")]
    Access { permission: Permission, kind: ResourceKind, name: Name, vhost: Name, user: Name },
    #[error(
        "{permission} access to topic '{topic}' in exchange '{exchange}' in vhost '{vhost}' \
         refused for user '{user}'"
    )]
    TopicAccess { permission: Permission, topic: Name, exchange: Name, vhost: Name, user: Name },
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedName { kind: ResourceKind, name: Name },
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    #[error("deletion of system exchange '{name}' in vhost '{vhost}' not allowed")]
    SystemExchange { name: Name, vhost: Name },
    #[error("cannot publish to internal exchange '{name}' in vhost '{vhost}'")]
    InternalExchange { name: Name, vhost: Name },
    #[error("cannot bind or unbind to a volatile (direct reply-to) queue")]
    VolatileQueue,
    #[error(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be \
         originally declared on another connection or the exclusive property value does not match \
         that of the original declaration."
    )]
    Locked { name: Name, vhost: Name },
    #[error(
        "cannot obtain access to locked queue '{name}' in vhost '{vhost}'. basic.get operations \
         are not supported by <<\"quorum\">> queues with single active consumer"
    )]
    SingleActiveConsumer { name: Name, vhost: Name },
    #[error("queue '{name}' in vhost '{vhost}' in exclusive use")]
    ExclusiveUse { name: Name, vhost: Name },
    #[error("{kind} '{name}' in vhost '{vhost}' in use")]
    InUse { kind: ResourceKind, name: Name, vhost: Name },
    #[error("queue '{name}' in vhost '{vhost}' not empty")]
    NotEmpty { name: Name, vhost: Name },
    #[error("inequivalent arg '{argument}' for {kind} '{name}' in vhost '{vhost}': {difference}")]
    Inequivalent {
        argument: String,
        kind: ResourceKind,
        name: Name,
        vhost: Name,
        /// Such as `received '2000' but current is '1000'`.
        difference: String,
    },
    /// `reason` begins with what follows the vhost: `: {value_zero,0}` or ` of queue type …`.
    #[error("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}'{reason}")]
    InvalidArgument { argument: String, name: Name, vhost: Name, reason: String },
    #[error("invalid property '{property}' for queue '{name}' in vhost '{vhost}'")]
    InvalidProperty { property: &'static str, name: Name, vhost: Name },
    #[error("Cannot declare a server-named queue for type {queue_type}")]
    ServerNamed { queue_type: &'static str },
    #[error("unknown exchange type '{0}'")]
    UnknownExchangeType(Name),
    /// A declaration, binding or message whose content is wrong; the text says what.
    #[error("{0}")]
    Invalid(String),
    #[error("cannot declare {kind} '{name}': {kind} limit in vhost '{vhost}' ({limit}) is reached")]
    ObjectLimit { kind: ResourceKind, name: Name, vhost: Name, limit: u64 },
    #[error("reached maximum ({0}) of consumers per channel")]
    ConsumerLimit(u64),
    #[error("vhost {0} not found")]
    NoVhost(Name),
    #[error("access to vhost '{vhost}' refused for user '{user}'")]
    VhostAccess { vhost: Name, user: Name },
    #[error(
        "access to vhost '{vhost}' refused for user '{user}': connection limit ({limit}) is reached"
    )]
    VhostConnectionLimit { vhost: Name, user: Name, limit: u64 },
    #[error("connection refused for user '{user}': user connection limit ({limit}) is reached")]
    UserConnectionLimit { user: Name, limit: u64 },
    #[error("connection refused: node connection limit ({0}) is reached")]
    NodeConnectionLimit(u64),
    /// The connection is ended by an operator, a shutdown or the end of its virtual host.
    #[error("{0}")]
    Forced(String),
    /// Something that RabbitMQ or FerryMQ does not do; the text says what.
    #[error("{0}")]
    NotImplemented(String),
    /// A limit of the node is reached; the text says which.
    #[error("{0}")]
    Resource(String),
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound { .. } => RefusalKind::NotFound,
            Self::Access { .. }
            | Self::TopicAccess { .. }
            | Self::ReservedName { .. }
            | Self::DefaultExchange
            | Self::SystemExchange { .. }
            | Self::InternalExchange { .. }
            | Self::VolatileQueue
            | Self::ExclusiveUse { .. } => RefusalKind::AccessRefused,
            Self::Locked { .. } | Self::SingleActiveConsumer { .. } => RefusalKind::Locked,
            Self::InUse { .. }
            | Self::NotEmpty { .. }
            | Self::Inequivalent { .. }
            | Self::InvalidArgument { .. }
            | Self::InvalidProperty { .. }
            | Self::ServerNamed { .. }
            | Self::UnknownExchangeType(_)
            | Self::Invalid(_)
            | Self::ObjectLimit { .. } => RefusalKind::PreconditionFailed,
            Self::ConsumerLimit(_)
            | Self::NoVhost(_)
            | Self::VhostAccess { .. }
            | Self::VhostConnectionLimit { .. }
            | Self::UserConnectionLimit { .. }
            | Self::NodeConnectionLimit(_) => RefusalKind::NotAllowed,
            Self::Forced(_) => RefusalKind::Forced,
            Self::NotImplemented(_) => RefusalKind::NotImplemented,
            Self::Resource(_) => RefusalKind::ResourceError,
            Self::Internal(_) => RefusalKind::Internal,
        }
    }
}
