//! Which queues get a message: from an exchange over bindings, exchanges behind it and alternates
//! to a list of queues, each once.

use crate::{
    exchanges::{Choice, Exchange, Index},
    objects::ExchangeKind,
    state::Catalog,
    targets::{RoutedQueue, Target, Targets},
    vhosts::{Vhost, routed},
};
use model::{Facts, Name, Table, Value, properties::Properties};
use smallvec::SmallVec;
use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

/// Where a message goes. Reused from message to message, it allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The queues, each once.
    pub queues: Vec<RoutedQueue>,
}

/// Why a message has no route at all. To be routed to no queue is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("the exchange is not there")]
    NoExchange,
}

/// From here on a set is cheaper than looking through all.
const LIST_MAX: usize = 32;

/// What routing may look at.
struct Address<'a> {
    /// The key, then those of the headers CC and BCC.
    keys: &'a [&'a str],
    /// Encoded.
    properties: &'a [u8],
    /// Decoded when a headers exchange first asks.
    headers: Option<Table>,
    random: u64,
}

/// One walk over the exchanges.
struct Walk<'c, 'r> {
    vhost: &'c Vhost,
    /// Every exchange met, in order; those from `next` on are still to be asked.
    met: SmallVec<[&'c Exchange; 8]>,
    /// The addresses of `met`, once they are many.
    known: HashSet<*const Exchange, BuildHasherDefault<DefaultHasher>>,
    next: usize,
    queues: &'r mut Vec<RoutedQueue>,
    /// Sets of queues taken: of one set each queue comes once anyway.
    sets: usize,
}

impl Catalog {
    /// Fills `route` with the queues that a message gets to. `routing_keys` are its key and those
    /// of its CC and BCC headers, `properties` its encoded properties (headers are decoded only if
    /// an exchange asks for them), `random` a new random number for exchanges that choose by
    /// chance.
    ///
    /// # Errors
    /// [`RouteError::NoExchange`].
    pub fn route(
        &self,
        vhost: &Vhost,
        exchange: &str,
        routing_keys: &[&str],
        properties: &[u8],
        random: u64,
        route: &mut Route,
    ) -> Result<(), RouteError> {
        route.queues.clear();
        if exchange.is_empty() {
            by_name(vhost, routing_keys, &mut route.queues);
            once_each(&mut route.queues);
            return Ok(());
        }
        let first = vhost.exchange(exchange).ok_or(RouteError::NoExchange)?;
        let mut address = Address { keys: routing_keys, properties, headers: None, random };
        let mut walk = Walk {
            vhost,
            met: SmallVec::new(),
            known: HashSet::default(),
            next: 0,
            queues: &mut route.queues,
            sets: 0,
        };
        walk.met.push(first);
        walk.run(&mut address);
        if 1 < walk.sets {
            once_each(walk.queues);
        }
        Ok(())
    }
}

/// The default exchange: each key is the name of a queue. Keys may come twice, and so do queues.
fn by_name(vhost: &Vhost, keys: &[&str], queues: &mut Vec<RoutedQueue>) {
    for key in keys {
        queues.extend(vhost.queue(key).map(|it| routed(it)));
    }
}

fn once_each(queues: &mut Vec<RoutedQueue>) {
    if 1 < queues.len() {
        queues.sort_unstable();
        queues.dedup();
    }
}

impl<'c> Walk<'c, '_> {
    fn run(&mut self, address: &mut Address<'_>) {
        while let Some(exchange) = self.met.get(self.next).copied() {
            self.next += 1;
            if !self.ask(exchange, address) {
                let alternate = exchange.alternate().and_then(|it| self.vhost.exchange(it));
                alternate.into_iter().for_each(|it| self.meet(it));
            }
        }
    }

    fn meet(&mut self, exchange: &'c Exchange) {
        if self.met.len() < LIST_MAX {
            if self.met.iter().any(|it| std::ptr::eq(*it, exchange)) {
                return;
            }
        } else {
            if self.known.is_empty() {
                self.known.extend(self.met.iter().map(|it| std::ptr::from_ref(*it)));
            }
            if !self.known.insert(std::ptr::from_ref(exchange)) {
                return;
            }
        }
        self.met.push(exchange);
    }

    fn take_set(&mut self, targets: &'c Targets) {
        self.sets += 1;
        targets.each_queue(|it| self.queues.push(it));
        for name in targets.exchanges() {
            self.meet_named(name);
        }
    }

    fn meet_named(&mut self, name: &Name) {
        if let Some(exchange) = self.vhost.exchange(name) {
            self.meet(exchange);
        }
    }

    fn take(&mut self, target: &'c Target) {
        self.sets += 1;
        match target {
            Target::Queue(queue) => self.queues.push(*queue),
            Target::Exchange(name) => self.meet_named(name),
        }
    }

    /// Takes what the exchange's bindings lead to; false when nothing matches.
    fn ask(&mut self, exchange: &'c Exchange, address: &mut Address<'_>) -> bool {
        let before = self.sets;
        match &exchange.index {
            Index::Direct(_) if exchange.name.is_empty() => {
                let found = self.queues.len();
                by_name(self.vhost, address.keys, self.queues);
                self.sets += self.queues.len() - found;
            }
            Index::Direct(by_key) => {
                for key in address.keys {
                    by_key.get(*key).into_iter().for_each(|it| self.take_set(it));
                }
            }
            Index::Fanout(targets) => {
                if !targets.is_empty() {
                    self.take_set(targets);
                }
            }
            Index::Topic(trie) => {
                for key in address.keys {
                    trie.matching(key, |it| self.take_set(it));
                }
            }
            Index::Headers(index) => index.matching(address.headers(), |it| self.take(it)),
            Index::Choice(choices) => {
                if let Some(choice) = choose(exchange, choices, address) {
                    self.take(&choice.target);
                }
            }
        }
        before < self.sets
    }
}

impl Address<'_> {
    fn headers(&mut self) -> &Table {
        let decode = || Facts::parse(self.properties).unwrap_or_default().header_table();
        self.headers.get_or_insert_with(decode)
    }

    fn key(&self) -> &str {
        self.keys.first().copied().unwrap_or_default()
    }

    /// What a hash exchange hashes: the key, or what its arguments name instead.
    fn hashed(&mut self, arguments: &Table) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(header) = arguments.get("hash-header").and_then(Value::as_text) {
            let mut octets = Vec::new();
            if let Some(value) = self.headers().get(header) {
                value.encode(&mut octets);
            }
            octets.hash(&mut hasher);
        } else if let Some(property) = arguments.get("hash-property").and_then(Value::as_text) {
            let properties = Properties::decode(self.properties).unwrap_or_default();
            match property {
                "message_id" => properties.message_id.hash(&mut hasher),
                "correlation_id" => properties.correlation_id.hash(&mut hasher),
                _ => properties.timestamp.hash(&mut hasher),
            }
        } else {
            self.key().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number's place in `0..count`.
fn scaled(number: u64, count: usize) -> usize {
    ((u128::from(number) * count as u128) >> 64) as usize
}

fn choose<'c>(
    exchange: &Exchange,
    choices: &'c [Choice],
    address: &mut Address<'_>,
) -> Option<&'c Choice> {
    match exchange.kind {
        ExchangeKind::ConsistentHash => {
            let hash = address.hashed(&exchange.arguments);
            heaviest(choices, hash)
        }
        ExchangeKind::ModulusHash => {
            let hash = address.hashed(&Table::default());
            choices.get(scaled(mixed(hash), choices.len()))
        }
        _ => choices.get(scaled(mixed(address.random), choices.len())),
    }
}

/// Rendezvous hashing: each binding draws a number from the key and its own seed, weighted, and the
/// highest wins. A binding that comes or goes moves only the keys that it wins or had won.
fn heaviest(choices: &[Choice], hash: u64) -> Option<&Choice> {
    let score = |choice: &Choice| {
        let drawn = mixed(hash ^ choice.seed) >> 11;
        // In (0, 1): 53 bits, moved off zero.
        let uniform = (drawn as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(choice.weight) / -uniform.ln()
    };
    choices.iter().max_by(|left, right| score(left).total_cmp(&score(right)))
}
