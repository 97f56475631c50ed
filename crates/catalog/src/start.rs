//! What a node without any data begins with.

use crate::{
    change::Change,
    objects::{PasswordHash, Permissions, QueueKind, User, UserLimits, VhostFacts, VhostLimits},
};
use model::{Name, VhostId};
use std::sync::Arc;

/// The virtual host `/` and in it one administrator who may do everything.
pub fn initial(user: &str, password: PasswordHash) -> Vec<Change> {
    let vhost = VhostId(1);
    let everything = Permissions::new(".*", ".*", ".*").expect("the pattern is a valid one");
    vec![
        Change::VhostSet(Arc::new(VhostFacts {
            id: vhost,
            name: Name::new("/"),
            description: "Default virtual host".to_owned(),
            tags: Vec::new(),
            default_queue_kind: QueueKind::Classic,
            limits: VhostLimits::default(),
        })),
        Change::UserSet(Arc::new(User {
            name: Name::new(user),
            password,
            tags: vec![Name::new("administrator")],
            limits: UserLimits::default(),
        })),
        Change::PermissionSet { vhost, user: Name::new(user), permissions: Arc::new(everything) },
    ]
}
