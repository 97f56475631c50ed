//! Admission of publishes: may this user, is it well formed, where does it go. Looks at one
//! snapshot of the catalog per batch, and remembers routes as long as the snapshot is the same.

use catalog::{Catalog, ExchangeKind, Route, RouteError, RoutedQueue, User, Vhost, Who};
use foldhash::HashMap;
use model::{
    Message, Name, QueueId, Refusal, ResourceKind, ShardId, Table, Value, job::JOB_PREFIX, limits,
    properties::Properties,
};
use smallvec::SmallVec;
use std::sync::Arc;

use crate::{hand_over::Queues, replies::REPLY_PREFIX};

/// Routes that a session remembers.
const ROUTES_MAX: usize = 256;

/// Where messages of one address go.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    /// Queues by shard, each shard once.
    pub(crate) shards: SmallVec<[(ShardId, Queues); 2]>,
    /// The queues, for the record of the log.
    pub(crate) queues: SmallVec<[RoutedQueue; 2]>,
    /// The address is a requester's own, or that of an attempt at a job.
    pub(crate) is_reply: bool,
    /// Whether some queue writes a transient message to the log, and a persistent one.
    keeps: [bool; 2],
    /// Whether some queue does not.
    passes: [bool; 2],
}

impl Destinations {
    fn of(route: &Route, message: &Message) -> Self {
        let is_own = |it: &str| it.starts_with(REPLY_PREFIX) || it.starts_with(JOB_PREFIX);
        let is_reply = message.exchange().is_empty() && is_own(message.routing_key());
        let mut shards: SmallVec<[(ShardId, SmallVec<[QueueId; 2]>); 2]> = SmallVec::new();
        for it in &route.queues {
            match shards.iter_mut().find(|(shard, _)| *shard == it.shard) {
                Some((_, queues)) => queues.push(it.queue),
                None => shards.push((it.shard, SmallVec::from_slice(&[it.queue]))),
            }
        }
        let some = |keeps, persistent| route.queues.iter().any(|it| it.keeps(persistent) == keeps);
        Self {
            shards: shards.iter().map(|(shard, queues)| (*shard, Queues::of(queues))).collect(),
            queues: route.queues.iter().copied().collect(),
            is_reply,
            keeps: [some(true, false), some(true, true)],
            passes: [some(false, false), some(false, true)],
        }
    }

    /// Some queue writes it to the log.
    pub(crate) fn keeps(&self, persistent: bool) -> bool {
        self.keeps[usize::from(persistent)]
    }

    /// Some queue does not.
    pub(crate) fn passes(&self, persistent: bool) -> bool {
        self.passes[usize::from(persistent)]
    }
}

/// A publish that may go on.
pub(crate) struct Admitted<'a> {
    pub(crate) message: Arc<Message>,
    pub(crate) destinations: &'a Destinations,
}

/// What one session's publishes go through.
#[derive(Default)]
pub(crate) struct Gate {
    version: u64,
    /// Where the last publish went.
    last: Arc<Destinations>,
    /// Others of this address go there too; empty when that is not so.
    last_address: Vec<u8>,
    routes: HashMap<Box<[u8]>, Arc<Destinations>>,
    route: Route,
    random: u64,
}

/// Who publishes, and where.
#[derive(Clone, Copy)]
pub(crate) struct Publisher<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) vhost: &'a Vhost,
    pub(crate) who: Who<'a>,
}

impl Gate {
    pub(crate) fn new(random: u64) -> Self {
        Self { random, ..Self::default() }
    }

    /// Checks a publish and finds its queues.
    ///
    /// # Errors
    /// The refusal that ends its channel.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        publisher: Publisher<'_>,
        message: Arc<Message>,
    ) -> Result<Admitted<'_>, Refusal> {
        let version = publisher.catalog.version();
        if self.version != version {
            self.version = version;
            self.last_address.clear();
            self.routes.clear();
        }
        if !message.plain {
            return self.admit_closely(publisher, message);
        }
        if *self.last_address != *message.address() {
            self.look_up(publisher, &message)?;
        }
        Ok(Admitted { message, destinations: &self.last })
    }

    /// Finds where the message goes, in memory or in the catalog.
    fn look_up(&mut self, publisher: Publisher<'_>, message: &Message) -> Result<(), Refusal> {
        self.last_address.clear();
        let address = message.address();
        if let Some(known) = self.routes.get(address) {
            self.last = Arc::clone(known);
            self.last_address.extend_from_slice(address);
            return Ok(());
        }
        let keys = [message.routing_key()];
        publisher.catalog.authorize_publish(&publisher.who, message.exchange(), &keys)?;
        self.route(publisher, message.exchange(), &keys, message.properties())?;
        self.last = Arc::new(Destinations::of(&self.route, message));
        if is_repeatable(publisher.vhost) {
            if ROUTES_MAX <= self.routes.len() {
                self.routes.clear();
            }
            self.routes.insert(address.into(), Arc::clone(&self.last));
            self.last_address.extend_from_slice(address);
        }
        Ok(())
    }

    fn route(
        &mut self,
        publisher: Publisher<'_>,
        exchange: &str,
        keys: &[&str],
        properties: &[u8],
    ) -> Result<(), Refusal> {
        // Any sequence will do that spreads evenly.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let Publisher { catalog, vhost, .. } = publisher;
        let routed = catalog.route(vhost, exchange, keys, properties, self.random, &mut self.route);
        routed.map_err(|error| refusal(error, vhost, exchange))
    }

    /// A publish with headers, user, expiration or reply address. The order of the checks is
    /// RabbitMQ's.
    fn admit_closely(
        &mut self,
        publisher: Publisher<'_>,
        message: Arc<Message>,
    ) -> Result<Admitted<'_>, Refusal> {
        let exchange = message.exchange();
        publisher.catalog.authorize_publish(&publisher.who, exchange, &[])?;
        let facts = message.facts();
        if let Some(expiration) = facts.expiration {
            check_expiration(expiration)?;
        }
        let headers = facts.header_table();
        let copies = extra_keys(&headers, "CC")?;
        let blind_copies = extra_keys(&headers, "BCC")?;
        let mut keys: SmallVec<[&str; 4]> = SmallVec::new();
        keys.push(message.routing_key());
        keys.extend(copies.iter().map(String::as_str));
        keys.extend(blind_copies.iter().map(String::as_str));
        publisher.catalog.authorize_publish(&publisher.who, exchange, &keys)?;
        check_user_id(publisher, facts.user_id)?;
        // Blind copies are nobody's business, and one spelling of every type goes on.
        let is_to_change = !blind_copies.is_empty() || facts.is_aliased;
        self.route(publisher, exchange, &keys, message.properties())?;
        self.last_address.clear();
        self.last = Arc::new(Destinations::of(&self.route, &message));
        drop(keys);
        let message = match is_to_change {
            true => Arc::new(without_blind_copies(&message)),
            false => message,
        };
        Ok(Admitted { message, destinations: &self.last })
    }
}

/// The same address leads to the same queues as long as the catalog does not change.
fn is_repeatable(vhost: &Vhost) -> bool {
    let chooses = |it: &ExchangeKind| {
        !matches!(
            it,
            ExchangeKind::Direct
                | ExchangeKind::Fanout
                | ExchangeKind::Topic
                | ExchangeKind::Headers
        )
    };
    !vhost.exchanges().any(|it| chooses(&it.kind))
}

fn refusal(error: RouteError, vhost: &Vhost, exchange: &str) -> Refusal {
    match error {
        RouteError::NoExchange => Refusal::NotFound {
            kind: ResourceKind::Exchange,
            name: Name::new(exchange),
            vhost: vhost.name.clone(),
        },
    }
}

pub(crate) fn check_expiration(text: &str) -> Result<(), Refusal> {
    let why = match text.parse::<i64>() {
        Err(_) => "no_integer".to_owned(),
        Ok(value) if value < 0 => format!("{{value_negative,{value}}}"),
        Ok(value) if limits::TTL_MS_MAX < value => format!("{{value_too_large,{value}}}"),
        Ok(_) => return Ok(()),
    };
    Err(Refusal::Invalid(format!("invalid expiration '{text}': {why}")))
}

fn check_user_id(publisher: Publisher<'_>, claimed: Option<&str>) -> Result<(), Refusal> {
    let Some(claimed) = claimed else { return Ok(()) };
    let user = publisher.who.user;
    let may_claim = |it: &Arc<User>| it.has_tag("impersonator");
    if claimed == user.as_str() || publisher.catalog.user(user).is_some_and(may_claim) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "user_id property set to '{claimed}' but authenticated user was '{user}'"
    )))
}

/// The routing keys in a header: an array of long strings, or it is refused.
fn extra_keys(headers: &Table, header: &str) -> Result<SmallVec<[String; 2]>, Refusal> {
    let wrong = |value: &Value| {
        let letter = value.type_name();
        Refusal::Invalid(format!(
            "invalid message: {{unacceptable_type_in_header,\"{header}\",{letter}}}"
        ))
    };
    match headers.get(header) {
        None => Ok(SmallVec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|it| match it {
                Value::LongString(text) => Ok(String::from_utf8_lossy(text).into_owned()),
                other => Err(wrong(other)),
            })
            .collect(),
        Some(other) => Err(wrong(other)),
    }
}

fn without_blind_copies(message: &Message) -> Message {
    let Ok(mut properties) = Properties::decode(message.properties()) else {
        return message.clone();
    };
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    message.readdressed(message.exchange(), message.routing_key(), &properties.encoded())
}
