//! What an operator changes: users, permissions, virtual hosts.

use crate::broker::Broker;
use catalog::{Change, PasswordHash, Permissions, User, UserLimits, VhostFacts};
use model::{LogPosition, Name, Refusal};
use std::sync::Arc;

/// One act of an operator.
#[derive(Clone, Debug)]
pub enum Administration {
    /// On an empty folder: a virtual host and a user who may do everything in it.
    First {
        user: Name,
        password: PasswordHash,
        vhost: Name,
    },
    /// Adds a user, or changes the password and tags of one.
    SetUser {
        user: Name,
        password: PasswordHash,
        tags: Vec<Name>,
    },
    /// Gives a user the hash that its record awaits. Does nothing if it awaits none any more.
    SetAwaited {
        user: Name,
        password: PasswordHash,
    },
    RemoveUser {
        user: Name,
    },
    /// Regular expressions over names; the empty one matches nothing.
    SetPermissions {
        user: Name,
        vhost: Name,
        configure: String,
        write: String,
        read: String,
    },
    RemovePermissions {
        user: Name,
        vhost: Name,
    },
    AddVhost {
        vhost: Name,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    #[error("no user '{0}'")]
    NoUser(Name),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Pattern(String),
    #[error(transparent)]
    Log(#[from] storage::LogError),
}

impl Broker {
    /// Carries it out. It is durable once the log has synced the position, if there is one.
    ///
    /// # Errors
    /// [`AdministrationError`]: an object it names is missing, or a pattern is none.
    pub fn administer(
        &self,
        act: Administration,
    ) -> Result<Option<LogPosition>, AdministrationError> {
        let mut owner = self.owner().lock();
        let catalog = owner.catalog();
        let known_user = |user: &Name| match catalog.user(user) {
            Some(_) => Ok(()),
            None => Err(AdministrationError::NoUser(user.clone())),
        };
        let vhost_id = |vhost: &Name| match catalog.vhost(vhost) {
            Some(found) => Ok(found.facts().id),
            None => Err(Refusal::NoVhost(vhost.clone())),
        };
        let changes = match act {
            Administration::First { user, password, vhost } => {
                first_changes(&user, password, &vhost)
            }
            Administration::SetUser { user, password, tags } => {
                let limits = catalog.user(&user).map_or_else(UserLimits::default, |it| it.limits);
                vec![Change::UserSet(Arc::new(User { name: user, password, tags, limits }))]
            }
            Administration::SetAwaited { user, password } => {
                let awaits = catalog.user(&user).filter(|it| it.password.is_awaited());
                let hashed = |it: &Arc<User>| Arc::new(User { password, ..(**it).clone() });
                awaits.map(hashed).map(Change::UserSet).into_iter().collect()
            }
            Administration::RemoveUser { user } => {
                known_user(&user)?;
                vec![Change::UserRemoved(user)]
            }
            Administration::SetPermissions { user, vhost, configure, write, read } => {
                known_user(&user)?;
                let permissions = Permissions::new(&configure, &write, &read)
                    .map_err(|error| AdministrationError::Pattern(error.to_string()))?;
                let (vhost, permissions) = (vhost_id(&vhost)?, Arc::new(permissions));
                vec![Change::PermissionSet { vhost, user, permissions }]
            }
            Administration::RemovePermissions { user, vhost } => {
                known_user(&user)?;
                vec![Change::PermissionRemoved { vhost: vhost_id(&vhost)?, user }]
            }
            Administration::AddVhost { vhost } => {
                let id = catalog.next_vhost_id();
                let facts = VhostFacts { id, name: vhost, ..VhostFacts::default() };
                vec![Change::VhostSet(Arc::new(facts))]
            }
        };
        let after = owner.commit(&changes, self.shared())?;
        if let Some(after) = after {
            self.shared().want_durable(after);
        }
        Ok(after)
    }

    /// The users, for listings: name and tags.
    pub fn list_users(&self) -> Vec<(Name, Vec<Name>)> {
        let catalog = self.shared().catalog.load();
        let mut users: Vec<_> =
            catalog.users().map(|it| (it.name.clone(), it.tags.clone())).collect();
        users.sort();
        users
    }
}

/// What an empty folder begins with.
fn first_changes(user: &Name, password: PasswordHash, vhost: &Name) -> Vec<Change> {
    let mut changes = catalog::initial(user, password);
    for change in &mut changes {
        if let Change::VhostSet(facts) = change {
            let name = vhost.clone();
            *facts = Arc::new(VhostFacts { name, ..(**facts).clone() });
        }
    }
    changes
}
