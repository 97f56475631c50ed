//! A catalog with one user in one virtual host, and short ways to ask it.

use catalog::{Catalog, Change, Declared, PasswordHash, Permissions, Queue, Route, User, Who};
use model::{
    ChannelId, Name, Permission, QueueId, Refusal, SessionId, ShardId, Table, Value, request,
};
use std::sync::Arc;

pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) user: Name,
    pub(crate) vhost: Name,
    pub(crate) session: SessionId,
}

/// Flags of a declaration.
#[derive(Clone, Copy)]
pub(crate) struct Flags {
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
}

pub(crate) const DURABLE: Flags =
    Flags { passive: false, durable: true, exclusive: false, auto_delete: false, internal: false };
pub(crate) const TRANSIENT: Flags = Flags { durable: false, ..DURABLE };
pub(crate) const PASSIVE: Flags = Flags { passive: true, ..DURABLE };
pub(crate) const EXCLUSIVE: Flags = Flags { exclusive: true, ..DURABLE };
pub(crate) const AUTO_DELETE: Flags = Flags { auto_delete: true, ..DURABLE };

pub(crate) fn table(entries: &[(&str, Value)]) -> Table {
    Table(entries.iter().map(|(key, value)| (Name::new(key), value.clone())).collect())
}

pub(crate) fn int(value: i32) -> Value {
    Value::I32(value)
}

pub(crate) fn text(value: &str) -> Value {
    Value::text(value)
}

pub(crate) fn queue_request(name: &str, flags: Flags, arguments: Table) -> request::DeclareQueue {
    request::DeclareQueue {
        channel: ChannelId(1),
        queue: Name::new(name),
        unique: Name::new("0123456789abcdefghijkl"),
        passive: flags.passive,
        durable: flags.durable,
        exclusive: flags.exclusive,
        auto_delete: flags.auto_delete,
        arguments,
    }
}

pub(crate) fn exchange_request(
    name: &str,
    kind: &str,
    flags: Flags,
    arguments: Table,
) -> request::DeclareExchange {
    request::DeclareExchange {
        channel: ChannelId(1),
        exchange: Name::new(name),
        kind: Name::new(kind),
        passive: flags.passive,
        durable: flags.durable,
        auto_delete: flags.auto_delete,
        internal: flags.internal,
        arguments,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut catalog = Catalog::empty();
        for change in catalog::initial("guest", PasswordHash::None) {
            catalog.apply(&change).expect("the first changes apply");
        }
        Self { catalog, user: Name::new("guest"), vhost: Name::new("/"), session: SessionId(1) }
    }

    pub(crate) fn who(&self) -> Who<'_> {
        Who { user: &self.user, vhost: &self.vhost, session: self.session, client_id: None }
    }

    /// Continues as another user, with these permissions.
    pub(crate) fn become_user(&mut self, name: &str, configure: &str, write: &str, read: &str) {
        self.user = Name::new(name);
        let vhost = self.catalog.vhost(&self.vhost).expect("it is there").id;
        let limits = catalog::UserLimits::default();
        let (name, password) = (self.user.clone(), PasswordHash::None);
        let user = User { name, password, tags: Vec::new(), limits };
        self.apply(&Change::UserSet(Arc::new(user)));
        let permissions = Permissions::new(configure, write, read).expect("they compile");
        self.apply(&Change::PermissionSet {
            vhost,
            user: self.user.clone(),
            permissions: Arc::new(permissions),
        });
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        self.catalog.apply(change).expect("the change applies");
    }

    pub(crate) fn apply_all(&mut self, changes: Vec<Change>) {
        changes.iter().for_each(|it| self.apply(it));
    }

    pub(crate) fn try_declare(
        &mut self,
        name: &str,
        flags: Flags,
        arguments: &[(&str, Value)],
    ) -> Result<Arc<Queue>, Refusal> {
        let request = queue_request(name, flags, table(arguments));
        let declared = self.catalog.declare_queue(&self.who(), &request, ShardId(0))?;
        if let Declared::Created(change, _) = &declared {
            self.apply(change);
        }
        Ok(declared.queue().clone())
    }

    pub(crate) fn declare(&mut self, name: &str, arguments: &[(&str, Value)]) -> QueueId {
        self.try_declare(name, DURABLE, arguments).expect("it is declared").id
    }

    pub(crate) fn try_exchange(
        &mut self,
        name: &str,
        kind: &str,
        flags: Flags,
        arguments: &[(&str, Value)],
    ) -> Result<(), Refusal> {
        let request = exchange_request(name, kind, flags, table(arguments));
        if let Some(change) = self.catalog.declare_exchange(&self.who(), &request)? {
            self.apply(&change);
        }
        Ok(())
    }

    pub(crate) fn exchange(&mut self, name: &str, kind: &str, arguments: &[(&str, Value)]) {
        self.try_exchange(name, kind, DURABLE, arguments).expect("it is declared");
    }

    pub(crate) fn try_delete_exchange(
        &mut self,
        name: &str,
        if_unused: bool,
    ) -> Result<(), Refusal> {
        let changes = self.catalog.delete_exchange(&self.who(), &Name::new(name), if_unused)?;
        self.apply_all(changes);
        Ok(())
    }

    pub(crate) fn binding(
        source: &str,
        destination: &str,
        key: &str,
        arguments: &[(&str, Value)],
    ) -> request::Binding {
        let to_exchange = destination.starts_with("exchange:");
        request::Binding {
            channel: ChannelId(1),
            source: Name::new(source),
            destination: Name::new(destination.trim_start_matches("exchange:")),
            to_exchange,
            routing_key: Name::new(key),
            arguments: table(arguments),
        }
    }

    /// A destination that begins with `exchange:` is one.
    pub(crate) fn try_bind(
        &mut self,
        source: &str,
        destination: &str,
        key: &str,
        arguments: &[(&str, Value)],
    ) -> Result<(), Refusal> {
        let request = Self::binding(source, destination, key, arguments);
        if let Some(change) = self.catalog.bind(&self.who(), &request)? {
            self.apply(&change);
        }
        Ok(())
    }

    pub(crate) fn bind(&mut self, source: &str, destination: &str, key: &str) {
        self.try_bind(source, destination, key, &[]).expect("it is bound");
    }

    pub(crate) fn try_unbind(
        &mut self,
        source: &str,
        destination: &str,
        key: &str,
    ) -> Result<(), Refusal> {
        let request = Self::binding(source, destination, key, &[]);
        let changes = self.catalog.unbind(&self.who(), &request)?;
        self.apply_all(changes);
        Ok(())
    }

    pub(crate) fn queue_for(
        &self,
        name: &str,
        permission: Permission,
    ) -> Result<Arc<Queue>, Refusal> {
        self.catalog.queue_for(&self.who(), &Name::new(name), permission)
    }

    /// Publishes as far as the catalog is concerned; returns the names of the queues.
    pub(crate) fn publish(&self, exchange: &str, keys: &[&str]) -> Result<Vec<String>, Refusal> {
        self.publish_with(exchange, keys, &[0, 0], 0)
    }

    pub(crate) fn publish_with(
        &self,
        exchange: &str,
        keys: &[&str],
        properties: &[u8],
        random: u64,
    ) -> Result<Vec<String>, Refusal> {
        self.catalog.authorize_publish(&self.who(), exchange, keys)?;
        let vhost = self.catalog.vhost(&self.vhost).expect("it is there");
        let mut route = Route::default();
        let routed = self.catalog.route(vhost, exchange, keys, properties, random, &mut route);
        routed.expect("the exchange is there");
        let name = |id: QueueId| self.catalog.queue(id).expect("it is there").name.to_string();
        Ok(route.queues.iter().map(|it| name(it.queue)).collect())
    }
}

/// The text of what should have been refused.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    match result {
        Err(refusal) => refusal.to_string(),
        Ok(it) => format!("not refused: {it:?}"),
    }
}
