//! What the catalog holds, as plain data: the facts of a virtual host, a queue, an exchange, a
//! binding, a user and a permission.

use crate::pattern::{Pattern, PatternError};
use model::{Name, QueueId, QueuePolicy, SessionId, ShardId, Table, Value, VhostId};
use std::{fmt, sync::Arc};

/// Which rules a queue's declaration follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    #[default]
    Classic,
    Quorum,
}

impl QueueKind {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// The kind with that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "classic" => Some(Self::Classic),
            "quorum" => Some(Self::Quorum),
            _ => None,
        }
    }
}

/// Upper limits of one virtual host; `None`: only the broker's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    pub queues_max: Option<u64>,
    pub connections_max: Option<u64>,
}

/// What a virtual host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostFacts {
    pub id: VhostId,
    pub name: Name,
    pub description: String,
    pub tags: Vec<Name>,
    /// The kind of queues declared without one.
    pub default_queue_kind: QueueKind,
    pub limits: VhostLimits,
}

/// A queue as it was declared, and the rules that follow from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    pub id: QueueId,
    pub vhost: VhostId,
    pub vhost_name: Name,
    pub name: Name,
    pub durable: bool,
    /// The session whose end is its end. Never logged.
    pub exclusive_to: Option<SessionId>,
    pub auto_delete: bool,
    pub kind: QueueKind,
    pub arguments: Table,
    pub shard: ShardId,
    pub policy: Arc<QueuePolicy>,
}

impl Queue {
    /// The queue outlives a restart, so its declaration is logged.
    pub fn survives(&self) -> bool {
        self.durable && self.exclusive_to.is_none()
    }
}

/// How an exchange finds the destinations of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
    ConsistentHash,
    Random,
    LocalRandom,
    ModulusHash,
}

impl ExchangeKind {
    /// Every kind there is.
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Fanout,
        Self::Topic,
        Self::Headers,
        Self::ConsistentHash,
        Self::Random,
        Self::LocalRandom,
        Self::ModulusHash,
    ];

    /// The name in declarations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::ModulusHash => "x-modulus-hash",
        }
    }

    /// The kind with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// An exchange as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeFacts {
    pub name: Name,
    pub kind: ExchangeKind,
    pub durable: bool,
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    pub internal: bool,
    pub arguments: Table,
    /// There with its virtual host, not declared by anyone, not logged.
    pub predeclared: bool,
}

impl ExchangeFacts {
    /// Where messages go that this exchange routes nowhere.
    pub fn alternate(&self) -> Option<&str> {
        self.arguments.get("alternate-exchange").and_then(Value::as_text)
    }
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    Queue(Name),
    Exchange(Name),
}

impl Destination {
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(it) | Self::Exchange(it) => it,
        }
    }
}

/// A binding is the set of its four parts: made twice it is one.
#[derive(Clone, Debug)]
pub struct Binding {
    pub source: Name,
    pub destination: Destination,
    pub routing_key: Name,
    /// Sorted by key, one value a key.
    pub arguments: Table,
    /// The arguments encoded, to compare them.
    encoded: Box<[u8]>,
}

impl Binding {
    /// A binding; the order of its arguments has no meaning.
    pub fn new(
        source: Name,
        destination: Destination,
        routing_key: Name,
        arguments: &Table,
    ) -> Self {
        let mut entries = arguments.0.clone();
        // Stable, so that of two values of one key the first one stays.
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        let arguments = Table(entries);
        let mut encoded = Vec::new();
        if !arguments.is_empty() {
            arguments.encode(&mut encoded);
        }
        Self { source, destination, routing_key, arguments, encoded: encoded.into() }
    }

    fn key(&self) -> (&Name, &Name, &Destination, &[u8]) {
        (&self.source, &self.routing_key, &self.destination, &self.encoded)
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Binding {}

impl PartialOrd for Binding {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Binding {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A password as it is kept. Hashing and comparing are the server's.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// No password: no login with one.
    None,
    /// In the PHC notation.
    Argon2id(String),
    Sha256 {
        salt: [u8; 4],
        hash: [u8; 32],
    },
    Sha512 {
        salt: [u8; 4],
        hash: [u8; 64],
    },
    Md5 {
        salt: [u8; 4],
        hash: [u8; 16],
    },
}

impl PasswordHash {
    /// The hash of a new password is being made: no login by this record.
    pub fn awaited() -> Self {
        Self::Argon2id(String::new())
    }

    /// Nobody has given the user a hash yet, see [`PasswordHash::awaited`].
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Argon2id(phc) if phc.is_empty())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Argon2id(_) => "Argon2id(…)",
            Self::Sha256 { .. } => "Sha256(…)",
            Self::Sha512 { .. } => "Sha512(…)",
            Self::Md5 { .. } => "Md5(…)",
        })
    }
}

/// Upper limits of one user; `None`: only the broker's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    pub connections_max: Option<u64>,
    pub channels_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Name,
    pub password: PasswordHash,
    pub tags: Vec<Name>,
    pub limits: UserLimits,
}

impl User {
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|it| it.as_str() == tag)
    }
}

/// What a user may do in a virtual host: names that match may be configured, written to, read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Permissions {
    pub configure: Pattern,
    pub write: Pattern,
    pub read: Pattern,
}

impl Permissions {
    /// Compiles the three patterns.
    ///
    /// # Errors
    /// [`PatternError`] of the first one that is none.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }
}

/// Which topics of one topic exchange a user may write to and read from. Variables in the patterns
/// stand for names, with every character of a name that means something in a pattern escaped.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicPermissions {
    /// The virtual host that the patterns were compiled for.
    pub vhost: Name,
    pub exchange: Name,
    pub write: Pattern,
    pub read: Pattern,
}

/// Replaced at each check: it is known to the session only.
const CLIENT_ID: &str = "{client_id}";

impl TopicPermissions {
    /// Compiles the patterns for this user in this virtual host.
    ///
    /// # Errors
    /// [`PatternError`] of the first one that is none.
    pub fn new(
        user: &str,
        vhost: &str,
        exchange: &str,
        write: &str,
        read: &str,
    ) -> Result<Self, PatternError> {
        let compile = |text: &str| {
            let known = text
                .replace("{username}", &regex::escape(user))
                .replace("{vhost}", &regex::escape(vhost));
            // Without a client id the variable is plain text, which no topic should hold.
            Pattern::expanded(text, &known.replace(CLIENT_ID, &regex::escape(CLIENT_ID)))
        };
        Ok(Self {
            vhost: Name::new(vhost),
            exchange: Name::new(exchange),
            write: compile(write)?,
            read: compile(read)?,
        })
    }

    /// The same patterns with the client id inserted; `None` when neither names it.
    ///
    /// # Errors
    /// [`PatternError`], when a pattern becomes too large with it.
    pub(crate) fn for_client(
        &self,
        user: &str,
        vhost: &str,
        client_id: &str,
    ) -> Option<Result<Self, PatternError>> {
        let named = |it: &Pattern| it.text().contains(CLIENT_ID);
        (named(&self.write) || named(&self.read)).then(|| {
            let insert = |it: &Pattern| it.text().replace(CLIENT_ID, &regex::escape(client_id));
            Self::new(user, vhost, &self.exchange, &insert(&self.write), &insert(&self.read))
        })
    }
}
