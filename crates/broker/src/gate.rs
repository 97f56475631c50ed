//! Admission of publishes: may this user, is it well formed, where does it go. Looks at one
//! snapshot of the catalog per batch, and remembers routes as long as the snapshot is the same.

use catalog::{Catalog, ExchangeKind, Route, RouteError, RoutedQueue, User, Vhost, Who};
use foldhash::HashMap;
use model::{
    Message, Name, Refusal, ResourceKind, ShardId, Table, Value, limits, properties::Properties,
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
    /// The address is a requester's own.
    pub(crate) is_reply: bool,
}

impl Destinations {
    fn of(route: &Route, message: &Message) -> Self {
        let is_reply =
            message.exchange().is_empty() && message.routing_key().starts_with(REPLY_PREFIX);
        let mut destinations = Self { is_reply, ..Self::default() };
        for it in &route.queues {
            destinations.queues.push(*it);
            let shards = &mut destinations.shards;
            match shards.iter_mut().find(|(shard, _)| *shard == it.shard) {
                Some((_, queues)) => queues.push(it.queue),
                None => shards.push((it.shard, std::iter::once(it.queue).collect())),
            }
        }
        destinations
    }
}

/// A publish that may go on.
pub(crate) struct Admitted {
    pub(crate) message: Arc<Message>,
    pub(crate) destinations: Arc<Destinations>,
}

/// What one session's publishes go through.
#[derive(Default)]
pub(crate) struct Gate {
    version: u64,
    last: Option<(Box<[u8]>, Arc<Destinations>)>,
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
    pub(crate) fn admit(
        &mut self,
        publisher: Publisher<'_>,
        message: Message,
    ) -> Result<Admitted, Refusal> {
        let version = publisher.catalog.version();
        if self.version != version {
            self.version = version;
            self.last = None;
            self.routes.clear();
        }
        if !message.plain {
            return self.admit_closely(publisher, message);
        }
        let address = message.address();
        if let Some((before, destinations)) = &self.last
            && **before == *address
        {
            let destinations = Arc::clone(destinations);
            return Ok(Admitted { message: Arc::new(message), destinations });
        }
        let destinations = match self.routes.get(address) {
            Some(known) => Arc::clone(known),
            None => self.find(publisher, &message)?,
        };
        self.last = self.routes.get_key_value(address).map(|(k, v)| (k.clone(), Arc::clone(v)));
        Ok(Admitted { message: Arc::new(message), destinations })
    }

    fn find(
        &mut self,
        publisher: Publisher<'_>,
        message: &Message,
    ) -> Result<Arc<Destinations>, Refusal> {
        let keys = [message.routing_key()];
        publisher.catalog.authorize_publish(&publisher.who, message.exchange(), &keys)?;
        self.route(publisher, message.exchange(), &keys, message.properties())?;
        let destinations = Arc::new(Destinations::of(&self.route, message));
        if is_repeatable(publisher.vhost) {
            if ROUTES_MAX <= self.routes.len() {
                self.routes.clear();
            }
            self.routes.insert(message.address().into(), Arc::clone(&destinations));
        }
        Ok(destinations)
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
        message: Message,
    ) -> Result<Admitted, Refusal> {
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
        let destinations = Arc::new(Destinations::of(&self.route, &message));
        drop(keys);
        let message = if is_to_change { without_blind_copies(&message) } else { message };
        Ok(Admitted { message: Arc::new(message), destinations })
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

fn check_expiration(text: &str) -> Result<(), Refusal> {
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
