//! What exists and where messages go: virtual hosts, queues, exchanges, bindings, users and their
//! permissions, as one value. Its owner applies changes, readers hold cheap snapshots; every
//! decision (may this be declared, who may do what, which queues get a message) is a pure function
//! of it.

mod collections;
mod pattern;
mod terms;
mod objects;
mod arguments;
mod targets;
mod topic;
mod headers;
mod exchanges;
mod change;
mod codec;
mod vhosts;
mod state;
mod access;
mod queue_decisions;
mod exchange_decisions;
mod binding_decisions;
mod routing;
mod start;

pub use access::Who;
pub use change::{Change, ChangeError};
pub use exchanges::Exchange;
pub use objects::{
    Binding, Destination, ExchangeFacts, ExchangeKind, PasswordHash, Permissions, Queue, QueueKind,
    TopicPermissions, User, UserLimits, VhostFacts, VhostLimits,
};
pub use pattern::{Pattern, PatternError};
pub use queue_decisions::Declared;
pub use routing::{Route, RouteError};
pub use start::initial;
pub use state::Catalog;
pub use targets::RoutedQueue;
pub use vhosts::Vhost;
