//! Who may do what. Everything that is allowed is allowed by `Catalog::authorize` and its
//! neighbours here; what no entry allows is refused.

use crate::{
    objects::{ExchangeKind, TopicPermissions},
    state::Catalog,
    topic,
    vhosts::Vhost,
};
use model::{Name, Permission, Refusal, ResourceKind, SessionId, limits};
use std::sync::Arc;

/// On whose behalf something is asked.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub user: &'a Name,
    pub vhost: &'a Name,
    /// Owner of exclusive queues.
    pub session: SessionId,
    /// What `{client_id}` stands for in topic permissions, where the protocol has one.
    pub client_id: Option<&'a str>,
}

/// The name under which permissions know the exchange without one.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// The name that permissions are checked against.
fn checked_name(kind: ResourceKind, name: &str) -> &str {
    if kind == ResourceKind::Exchange && name.is_empty() { DEFAULT_EXCHANGE } else { name }
}

impl Catalog {
    /// The virtual host, when the user may enter it.
    ///
    /// # Errors
    /// [`Refusal::NoVhost`]; [`Refusal::VhostAccess`] when the user has no permissions in it.
    pub fn authorize_vhost(&self, user: &Name, vhost: &Name) -> Result<&Arc<Vhost>, Refusal> {
        let found = self.vhost(vhost).ok_or_else(|| Refusal::NoVhost(vhost.clone()))?;
        let entered = found.access(user).is_some_and(|it| it.permissions.is_some());
        if entered && self.user(user).is_some() {
            Ok(found)
        } else {
            Err(Refusal::VhostAccess { vhost: vhost.clone(), user: user.clone() })
        }
    }

    /// The user may do this with the object of this name, whether it is there or not.
    ///
    /// # Errors
    /// [`Refusal::Access`].
    pub fn authorize(
        &self,
        user: &Name,
        vhost: &Name,
        permission: Permission,
        kind: ResourceKind,
        name: &str,
    ) -> Result<(), Refusal> {
        let name = checked_name(kind, name);
        if self.allows(user, vhost, permission, name) {
            return Ok(());
        }
        Err(Refusal::Access {
            permission,
            kind,
            name: Name::new(name),
            vhost: vhost.clone(),
            user: user.clone(),
        })
    }

    /// The user may do anything at all with the object of this name, so may know whether it is
    /// there.
    ///
    /// # Errors
    /// [`Refusal::Access`].
    pub fn authorize_any(
        &self,
        user: &Name,
        vhost: &Name,
        kind: ResourceKind,
        name: &str,
    ) -> Result<(), Refusal> {
        let checked = checked_name(kind, name);
        let others = [Permission::Write, Permission::Read];
        if others.into_iter().any(|it| self.allows(user, vhost, it, checked)) {
            return Ok(());
        }
        self.authorize(user, vhost, Permission::Configure, kind, name)
    }

    fn allows(&self, user: &str, vhost: &str, permission: Permission, name: &str) -> bool {
        let access = self.vhost(vhost).and_then(|it| it.access(user));
        let Some(permissions) = access.and_then(|it| it.permissions.as_ref()) else { return false };
        match permission {
            Permission::Configure => permissions.configure.matches(name),
            Permission::Write => permissions.write.matches(name),
            Permission::Read => permissions.read.matches(name),
        }
    }

    /// The user may publish with this key to the topic exchange, or bind with it. Without an entry
    /// for the exchange every topic is allowed.
    ///
    /// # Errors
    /// [`Refusal::TopicAccess`].
    pub fn authorize_topic(
        &self,
        who: &Who<'_>,
        permission: Permission,
        exchange: &str,
        topic: &str,
    ) -> Result<(), Refusal> {
        let access = self.vhost(who.vhost).and_then(|it| it.access(who.user));
        let Some(entry) = access.and_then(|it| it.topics.get(exchange)) else { return Ok(()) };
        if topic_allowed(entry, who, permission, topic) {
            return Ok(());
        }
        Err(Refusal::TopicAccess {
            permission,
            topic: Name::new(topic),
            exchange: Name::new(exchange),
            vhost: who.vhost.clone(),
            user: who.user.clone(),
        })
    }

    /// Everything about a publish that the catalog can refuse, in order: write permission,
    /// existence, internal exchange, and for topic exchanges the keys (length, then permission).
    ///
    /// # Errors
    /// [`Refusal::Access`], `NotFound`, `InternalExchange`, `Invalid` or `TopicAccess`.
    pub fn authorize_publish(
        &self,
        who: &Who<'_>,
        exchange: &str,
        routing_keys: &[&str],
    ) -> Result<(), Refusal> {
        let (write, kind) = (Permission::Write, ResourceKind::Exchange);
        self.authorize(who.user, who.vhost, write, kind, exchange)?;
        let found = self.vhost(who.vhost).and_then(|it| it.exchange(exchange));
        let found = found.ok_or_else(|| Refusal::NotFound {
            kind,
            name: Name::new(exchange),
            vhost: who.vhost.clone(),
        })?;
        if found.internal {
            let (name, vhost) = (found.name.clone(), who.vhost.clone());
            return Err(Refusal::InternalExchange { name, vhost });
        }
        if found.kind == ExchangeKind::Topic {
            for key in routing_keys {
                check_words("routing key", key)?;
                self.authorize_topic(who, write, exchange, key)?;
            }
        }
        Ok(())
    }
}

/// A key of a topic exchange has no more words than allowed.
pub(crate) fn check_words(what: &str, key: &str) -> Result<(), Refusal> {
    // A shorter key cannot have so many.
    if key.len() < limits::TOPIC_WORDS_MAX || topic::word_count(key) <= limits::TOPIC_WORDS_MAX {
        return Ok(());
    }
    let max = limits::TOPIC_WORDS_MAX;
    Err(Refusal::Invalid(format!("{what} has more than {max} words")))
}

fn topic_allowed(
    entry: &TopicPermissions,
    who: &Who<'_>,
    permission: Permission,
    topic: &str,
) -> bool {
    let client = who.client_id.and_then(|it| entry.for_client(who.user, who.vhost, it));
    let entry = match &client {
        None => entry,
        Some(Ok(entry)) => entry,
        Some(Err(_)) => return false,
    };
    match permission {
        Permission::Configure => false,
        Permission::Write => entry.write.matches(topic),
        Permission::Read => entry.read.matches(topic),
    }
}
