//! Changes as octets: a version, a kind, the fields in big-endian order. Written once, read for
//! ever: a new form of a field is a new version.

use crate::{
    arguments::{self, Identity},
    change::{Change, ChangeError},
    objects::{
        Binding, Destination, ExchangeFacts, ExchangeKind, PasswordHash, Permissions, Queue,
        QueueKind, TopicPermissions, User, UserLimits, VhostFacts, VhostLimits,
    },
};
use model::{Name, QueueId, ShardId, Table, VhostId};
use std::sync::Arc;

const VERSION: u8 = 1;

impl Change {
    /// Appends the change.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut out = Writer(out);
        out.octet(VERSION);
        out.octet(self.kind());
        match self {
            Self::NextQueueId(id) => out.long(id.0),
            Self::NextVhostId(id) | Self::VhostRemoved(id) => out.int(id.0),
            Self::VhostSet(vhost) => out.vhost(vhost),
            Self::QueueDeclared(queue) => out.queue(queue),
            Self::QueueDeleted { queue, durable } => {
                out.long(queue.0);
                out.flag(*durable);
            }
            Self::ExchangeDeclared { vhost, exchange } => {
                out.int(vhost.0);
                out.exchange(exchange);
            }
            Self::ExchangeDeleted { vhost, exchange, durable } => {
                out.int(vhost.0);
                out.text(exchange);
                out.flag(*durable);
            }
            Self::Bound { vhost, binding, durable } | Self::Unbound { vhost, binding, durable } => {
                out.int(vhost.0);
                out.binding(binding);
                out.flag(*durable);
            }
            Self::UserSet(user) => out.user(user),
            Self::UserRemoved(user) => out.text(user),
            Self::PermissionSet { vhost, user, permissions } => {
                out.int(vhost.0);
                out.text(user);
                out.text(permissions.configure.text());
                out.text(permissions.write.text());
                out.text(permissions.read.text());
            }
            Self::PermissionRemoved { vhost, user } => {
                out.int(vhost.0);
                out.text(user);
            }
            Self::TopicPermissionSet { vhost, user, permissions } => {
                out.int(vhost.0);
                out.text(user);
                // The patterns are compiled for the name of the virtual host, which `decode` has no
                // way to know.
                out.text(&permissions.vhost);
                out.text(&permissions.exchange);
                out.text(permissions.write.text());
                out.text(permissions.read.text());
            }
            Self::TopicPermissionRemoved { vhost, user, exchange } => {
                out.int(vhost.0);
                out.text(user);
                out.flag(exchange.is_some());
                out.text(exchange.as_deref().unwrap_or_default());
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::NextQueueId(_) => 1,
            Self::NextVhostId(_) => 2,
            Self::VhostSet(_) => 3,
            Self::VhostRemoved(_) => 4,
            Self::QueueDeclared(_) => 5,
            Self::QueueDeleted { .. } => 6,
            Self::ExchangeDeclared { .. } => 7,
            Self::ExchangeDeleted { .. } => 8,
            Self::Bound { .. } => 9,
            Self::Unbound { .. } => 10,
            Self::UserSet(_) => 11,
            Self::UserRemoved(_) => 12,
            Self::PermissionSet { .. } => 13,
            Self::PermissionRemoved { .. } => 14,
            Self::TopicPermissionSet { .. } => 15,
            Self::TopicPermissionRemoved { .. } => 16,
        }
    }

    /// Reads one change, which must be all of `octets`.
    ///
    /// # Errors
    /// [`ChangeError`], when it is cut short, followed by more, of an unknown version or kind, or
    /// has a field that no change can have.
    pub fn decode(octets: &[u8]) -> Result<Self, ChangeError> {
        let mut reader = Reader { rest: octets };
        match reader.octet()? {
            VERSION => {}
            other => return Err(ChangeError::UnknownVersion(other)),
        }
        let kind = reader.octet()?;
        let change = reader.change(kind)?;
        match reader.rest.len() {
            0 => Ok(change),
            more => Err(ChangeError::TooLong(more)),
        }
    }
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn octet(&mut self, it: u8) {
        self.0.push(it);
    }

    fn flag(&mut self, it: bool) {
        self.octet(it.into());
    }

    fn int(&mut self, it: u32) {
        self.0.extend_from_slice(&it.to_be_bytes());
    }

    fn long(&mut self, it: u64) {
        self.0.extend_from_slice(&it.to_be_bytes());
    }

    fn text(&mut self, it: &str) {
        self.int(u32::try_from(it.len()).expect("a text of the catalog is far below 4 GiB"));
        self.0.extend_from_slice(it.as_bytes());
    }

    fn option(&mut self, it: Option<u64>) {
        self.flag(it.is_some());
        self.long(it.unwrap_or_default());
    }

    fn names(&mut self, it: &[Name]) {
        self.int(u32::try_from(it.len()).expect("a list of the catalog is short"));
        it.iter().for_each(|it| self.text(it));
    }

    fn vhost(&mut self, it: &VhostFacts) {
        self.int(it.id.0);
        self.text(&it.name);
        self.text(&it.description);
        self.names(&it.tags);
        self.octet(queue_kind(it.default_queue_kind));
        self.option(it.limits.queues_max);
        self.option(it.limits.connections_max);
    }

    fn queue(&mut self, it: &Queue) {
        self.long(it.id.0);
        self.int(it.vhost.0);
        self.text(&it.vhost_name);
        self.text(&it.name);
        self.flag(it.durable);
        self.flag(it.auto_delete);
        self.octet(queue_kind(it.kind));
        self.int(it.shard.0.into());
        it.arguments.encode(self.0);
    }

    fn exchange(&mut self, it: &ExchangeFacts) {
        self.text(&it.name);
        self.text(it.kind.as_str());
        self.flag(it.durable);
        self.flag(it.auto_delete);
        self.flag(it.internal);
        self.flag(it.predeclared);
        it.arguments.encode(self.0);
    }

    fn binding(&mut self, it: &Binding) {
        self.text(&it.source);
        self.flag(matches!(it.destination, Destination::Exchange(_)));
        self.text(it.destination.name());
        self.text(&it.routing_key);
        it.arguments.encode(self.0);
    }

    fn user(&mut self, it: &User) {
        self.text(&it.name);
        match &it.password {
            PasswordHash::None => self.octet(0),
            PasswordHash::Argon2id(phc) => {
                self.octet(1);
                self.text(phc);
            }
            PasswordHash::Sha256 { salt, hash } => self.salted(2, *salt, hash),
            PasswordHash::Sha512 { salt, hash } => self.salted(3, *salt, hash),
            PasswordHash::Md5 { salt, hash } => self.salted(4, *salt, hash),
        }
        self.names(&it.tags);
        self.option(it.limits.connections_max);
        self.option(it.limits.channels_max);
    }

    fn salted(&mut self, kind: u8, salt: [u8; 4], hash: &[u8]) {
        self.octet(kind);
        self.0.extend_from_slice(&salt);
        self.0.extend_from_slice(hash);
    }
}

fn queue_kind(kind: QueueKind) -> u8 {
    match kind {
        QueueKind::Classic => 0,
        QueueKind::Quorum => 1,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ChangeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ChangeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, ChangeError> {
        self.fixed::<1>().map(|[it]| it)
    }

    fn flag(&mut self) -> Result<bool, ChangeError> {
        match self.octet()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ChangeError::WrongField("flag")),
        }
    }

    fn int(&mut self) -> Result<u32, ChangeError> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, ChangeError> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a str, ChangeError> {
        let length = self.int()? as usize;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ChangeError::Truncated)?;
        self.rest = rest;
        std::str::from_utf8(taken).map_err(|_| ChangeError::WrongField("text"))
    }

    fn name(&mut self) -> Result<Name, ChangeError> {
        let text = self.text()?;
        if model::limits::NAME_BYTES_MAX < text.len() {
            return Err(ChangeError::WrongField("name"));
        }
        Ok(Name::new(text))
    }

    fn option(&mut self) -> Result<Option<u64>, ChangeError> {
        let there = self.flag()?;
        let value = self.long()?;
        Ok(there.then_some(value))
    }

    fn names(&mut self) -> Result<Vec<Name>, ChangeError> {
        let count = self.int()?;
        // Nothing is reserved for what is announced: each name costs octets that must be there.
        (0..count).map(|_| self.name()).collect()
    }

    fn table(&mut self) -> Result<Table, ChangeError> {
        let (table, rest) =
            Table::decode(self.rest).map_err(|_| ChangeError::WrongField("table"))?;
        self.rest = rest;
        Ok(table)
    }

    fn vhost_id(&mut self) -> Result<VhostId, ChangeError> {
        self.int().map(VhostId)
    }

    fn queue_kind(&mut self) -> Result<QueueKind, ChangeError> {
        match self.octet()? {
            0 => Ok(QueueKind::Classic),
            1 => Ok(QueueKind::Quorum),
            _ => Err(ChangeError::WrongField("queue kind")),
        }
    }

    fn change(&mut self, kind: u8) -> Result<Change, ChangeError> {
        Ok(match kind {
            1 => Change::NextQueueId(QueueId(self.long()?)),
            2 => Change::NextVhostId(self.vhost_id()?),
            3 => Change::VhostSet(Arc::new(self.vhost()?)),
            4 => Change::VhostRemoved(self.vhost_id()?),
            5 => Change::QueueDeclared(Arc::new(self.queue()?)),
            6 => Change::QueueDeleted { queue: QueueId(self.long()?), durable: self.flag()? },
            7 => Change::ExchangeDeclared {
                vhost: self.vhost_id()?,
                exchange: Arc::new(self.exchange()?),
            },
            8 => Change::ExchangeDeleted {
                vhost: self.vhost_id()?,
                exchange: self.name()?,
                durable: self.flag()?,
            },
            9 | 10 => {
                let vhost = self.vhost_id()?;
                let binding = Arc::new(self.binding()?);
                let durable = self.flag()?;
                if kind == 9 {
                    Change::Bound { vhost, binding, durable }
                } else {
                    Change::Unbound { vhost, binding, durable }
                }
            }
            11 => Change::UserSet(Arc::new(self.user()?)),
            12 => Change::UserRemoved(self.name()?),
            13 => self.permission_set()?,
            14 => Change::PermissionRemoved { vhost: self.vhost_id()?, user: self.name()? },
            15 => self.topic_permission_set()?,
            16 => {
                let (vhost, user) = (self.vhost_id()?, self.name()?);
                let (there, exchange) = (self.flag()?, self.name()?);
                let exchange = there.then_some(exchange);
                Change::TopicPermissionRemoved { vhost, user, exchange }
            }
            unknown => return Err(ChangeError::UnknownKind(unknown)),
        })
    }

    fn vhost(&mut self) -> Result<VhostFacts, ChangeError> {
        Ok(VhostFacts {
            id: self.vhost_id()?,
            name: self.name()?,
            description: self.text()?.to_owned(),
            tags: self.names()?,
            default_queue_kind: self.queue_kind()?,
            limits: VhostLimits { queues_max: self.option()?, connections_max: self.option()? },
        })
    }

    fn queue(&mut self) -> Result<Queue, ChangeError> {
        let id = QueueId(self.long()?);
        let vhost = self.vhost_id()?;
        let (vhost_name, name) = (self.name()?, self.name()?);
        let (durable, auto_delete) = (self.flag()?, self.flag()?);
        let kind = self.queue_kind()?;
        let shard = u16::try_from(self.int()?).map_err(|_| ChangeError::WrongField("shard"))?;
        let shard = ShardId(shard);
        let arguments = self.table()?;
        let identity =
            Identity { id, shard, name: &name, vhost: &vhost_name, kind, durable, auto_delete };
        let policy = Arc::new(arguments::policy(&identity, &arguments));
        Ok(Queue {
            id,
            vhost,
            vhost_name,
            name,
            durable,
            exclusive_to: None,
            auto_delete,
            kind,
            arguments,
            shard,
            policy,
        })
    }

    fn exchange(&mut self) -> Result<ExchangeFacts, ChangeError> {
        Ok(ExchangeFacts {
            name: self.name()?,
            kind: ExchangeKind::parse(self.text()?)
                .ok_or(ChangeError::WrongField("exchange kind"))?,
            durable: self.flag()?,
            auto_delete: self.flag()?,
            internal: self.flag()?,
            predeclared: self.flag()?,
            arguments: self.table()?,
        })
    }

    fn binding(&mut self) -> Result<Binding, ChangeError> {
        let source = self.name()?;
        let to_exchange = self.flag()?;
        let destination = self.name()?;
        let destination = if to_exchange {
            Destination::Exchange(destination)
        } else {
            Destination::Queue(destination)
        };
        let routing_key = self.name()?;
        Ok(Binding::new(source, destination, routing_key, &self.table()?))
    }

    fn user(&mut self) -> Result<User, ChangeError> {
        Ok(User {
            name: self.name()?,
            password: match self.octet()? {
                0 => PasswordHash::None,
                1 => PasswordHash::Argon2id(self.text()?.to_owned()),
                2 => PasswordHash::Sha256 { salt: self.fixed()?, hash: self.fixed()? },
                3 => PasswordHash::Sha512 { salt: self.fixed()?, hash: self.fixed()? },
                4 => PasswordHash::Md5 { salt: self.fixed()?, hash: self.fixed()? },
                _ => return Err(ChangeError::WrongField("password")),
            },
            tags: self.names()?,
            limits: UserLimits { connections_max: self.option()?, channels_max: self.option()? },
        })
    }

    fn permission_set(&mut self) -> Result<Change, ChangeError> {
        let (vhost, user) = (self.vhost_id()?, self.name()?);
        let permissions = Permissions::new(self.text()?, self.text()?, self.text()?)
            .map_err(|_| ChangeError::WrongField("pattern"))?;
        Ok(Change::PermissionSet { vhost, user, permissions: Arc::new(permissions) })
    }

    fn topic_permission_set(&mut self) -> Result<Change, ChangeError> {
        let (vhost, user) = (self.vhost_id()?, self.name()?);
        let (vhost_name, exchange) = (self.name()?, self.name()?);
        let (write, read) = (self.text()?, self.text()?);
        let permissions = TopicPermissions::new(&user, &vhost_name, &exchange, write, read)
            .map_err(|_| ChangeError::WrongField("pattern"))?;
        Ok(Change::TopicPermissionSet { vhost, user, permissions: Arc::new(permissions) })
    }
}
