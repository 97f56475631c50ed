//! Cases of the catalog: from exchange and routing key to queues. A session remembers routes per
//! address, so this is what the first message of an address costs, or one with headers.

use catalog::{Binding, Catalog, Change, Declared, Destination, PasswordHash, Route, Who};
use model::{
    ChannelId, Name, SessionId, ShardId, Table, Value, VhostId, properties::Properties,
    request::DeclareQueue,
};
use std::sync::Arc;

const VHOST: VhostId = VhostId(1);
/// Bindings of the exchanges that look for one among many.
const BINDINGS: usize = 10_000;
const FANOUT_QUEUES: usize = 10;
const HEADERS_BINDINGS: usize = 100;
/// Addresses that come in turns; this step through the bindings meets different ones.
const ADDRESSES: usize = 64;
const STEP: usize = 97;

/// The default exchange, by the queue's name.
pub fn default(messages: u64) {
    let world = World::new(BINDINGS);
    world.route(messages, "", |it| format!("queue-{it}"), &[0, 0], 1);
}

/// A direct exchange with 10,000 bindings.
pub fn direct(messages: u64) {
    let mut world = World::new(BINDINGS);
    for number in 0..BINDINGS {
        world.bind("amq.direct", number, &format!("key-{number}"), &Table::default());
    }
    world.route(messages, "amq.direct", |it| format!("key-{it}"), &[0, 0], 1);
}

/// A fanout exchange with 10 queues.
pub fn fanout(messages: u64) {
    let mut world = World::new(FANOUT_QUEUES);
    for number in 0..FANOUT_QUEUES {
        world.bind("amq.fanout", number, "", &Table::default());
    }
    world.route(messages, "amq.fanout", |_| String::new(), &[0, 0], FANOUT_QUEUES);
}

/// A topic exchange with 10,000 bindings, one in ten with a `*`; two match.
pub fn topic(messages: u64) {
    let mut world = World::new(BINDINGS);
    for number in 0..BINDINGS {
        let key = match number % 10 {
            0 => format!("region-{}.*.user-{number}", number % 50),
            _ => format!("region-{}.order.user-{number}", number % 50),
        };
        world.bind("amq.topic", number, &key, &Table::default());
    }
    world.bind("amq.topic", 0, "*.order.#", &Table::default());
    world.bind("amq.topic", 1, "#.audited", &Table::default());
    let key = |it: usize| format!("region-{}.order.user-{it}", it % 50);
    world.route(messages, "amq.topic", key, &[0, 0], 2);
}

/// A headers exchange with 100 bindings of two headers; one matches.
pub fn headers(messages: u64) {
    let mut world = World::new(HEADERS_BINDINGS);
    for number in 0..HEADERS_BINDINGS {
        let mut arguments = table(number);
        arguments.set("x-match", Value::text("all"));
        world.bind("amq.headers", number, "", &arguments);
    }
    let headers = Some(table(HEADERS_BINDINGS / 2));
    let properties = Properties { headers, ..Properties::default() }.encoded();
    world.route(messages, "amq.headers", |_| String::new(), &properties, 1);
}

fn table(number: usize) -> Table {
    let mut table = Table::default();
    table.set("kind", Value::text("order"));
    table.set("region", Value::text(&format!("region-{number}")));
    table
}

struct World(Catalog);

impl World {
    fn new(queues: usize) -> Self {
        let mut catalog = Catalog::empty();
        for change in catalog::initial("app", PasswordHash::None) {
            catalog.apply(&change).expect("the catalog is empty");
        }
        let mut world = Self(catalog);
        (0..queues).for_each(|it| world.declare(it));
        world
    }

    fn declare(&mut self, number: usize) {
        let (user, vhost) = (Name::new("app"), Name::new("/"));
        let who = Who { user: &user, vhost: &vhost, session: SessionId(1), client_id: None };
        let request = DeclareQueue {
            channel: ChannelId(1),
            queue: Name::new(&format!("queue-{number}")),
            unique: Name::new(""),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        };
        match self.0.declare_queue(&who, &request, ShardId(0)).expect("the user may") {
            Declared::Created(change, _) => self.0.apply(&change).expect("it is decided"),
            _ => panic!("a new name makes a new queue"),
        };
    }

    fn bind(&mut self, exchange: &str, queue: usize, key: &str, arguments: &Table) {
        let destination = Destination::Queue(Name::new(&format!("queue-{queue}")));
        let binding = Binding::new(Name::new(exchange), destination, Name::new(key), arguments);
        let binding = Arc::new(binding);
        let change = Change::Bound { vhost: VHOST, binding, durable: true };
        self.0.apply(&change).expect("exchange and queue are there");
    }

    /// Every message finds so many queues.
    fn route(
        &self,
        messages: u64,
        exchange: &str,
        key: impl Fn(usize) -> String,
        properties: &[u8],
        queues: usize,
    ) {
        let keys: Vec<String> = (0..ADDRESSES).map(|it| key(STEP * it + 1)).collect();
        let vhost = self.0.vhost("/").expect("the first virtual host");
        let mut route = Route::default();
        for key in keys.iter().cycle().take(usize::try_from(messages).expect("it fits")) {
            self.0
                .route(vhost, exchange, &[key], properties, 0, &mut route)
                .expect("the exchange is there");
            assert_eq!(route.queues.len(), queues);
        }
    }
}
