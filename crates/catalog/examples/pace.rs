//! How fast the catalog routes and declares: `cargo run --release -p ferrymq-catalog --example
//! pace`.

use catalog::{Binding, Catalog, Change, Declared, Destination, PasswordHash, Route, Who};
use model::{ChannelId, Name, SessionId, ShardId, Table, VhostId, request::DeclareQueue};
use std::{
    fs,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

const NO_PROPERTIES: &[u8] = &[0, 0];
const VHOST: VhostId = VhostId(1);

fn declare(catalog: &mut Catalog, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (user, vhost) = (Name::new("guest"), Name::new("/"));
    let who = Who { user: &user, vhost: &vhost, session: SessionId(1), client_id: None };
    let request = DeclareQueue {
        channel: ChannelId(1),
        queue: Name::new(name),
        unique: Name::new(""),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::default(),
    };
    if let Declared::Created(change, _) = catalog.declare_queue(&who, &request, ShardId(0))? {
        catalog.apply(&change)?;
    }
    Ok(())
}

fn bind(
    catalog: &mut Catalog,
    source: &str,
    queue: &str,
    key: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let destination = Destination::Queue(Name::new(queue));
    let binding = Binding::new(Name::new(source), destination, Name::new(key), &Table::default());
    catalog.apply(&Change::Bound { vhost: VHOST, binding: Arc::new(binding), durable: true })?;
    Ok(())
}

/// Processor time of this thread: other work on the machine does not count.
struct Stopwatch(Duration);

fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or_default();
    Duration::from_nanos(nanos)
}

impl Stopwatch {
    fn now() -> Self {
        Self(processor_time())
    }

    fn elapsed(&self) -> Duration {
        processor_time() - self.0
    }
}

/// Nanoseconds a call, over `count` calls.
fn measured(count: u32, mut call: impl FnMut(u32)) -> f64 {
    let start = Stopwatch::now();
    (0..count).for_each(&mut call);
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    let mut catalog = Catalog::empty();
    for change in catalog::initial("guest", PasswordHash::None) {
        catalog.apply(&change)?;
    }
    let start = Stopwatch::now();
    for number in 0..100_000 {
        declare(&mut catalog, &format!("queue-{number}"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "declare, from 0 to 100,000 queues: {:.0}/s", 100_000.0 / seconds)?;

    let start = Stopwatch::now();
    for number in 100_000..120_000 {
        let snapshot = catalog.clone();
        declare(&mut catalog, &format!("queue-{number}"))?;
        drop(snapshot);
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(
        out,
        "declare at 100,000 queues, a snapshot held each time: {:.0}/s",
        20_000.0 / seconds
    )?;

    let start = Stopwatch::now();
    for number in 0..100_000 {
        let queue = format!("queue-{number}");
        bind(&mut catalog, "amq.direct", &queue, &format!("key-{number}"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "bind, from 0 to 100,000 direct bindings: {:.0}/s", 100_000.0 / seconds)?;
    let start = Stopwatch::now();
    for number in 0..100_000 {
        let key = format!("region-{}.user-{number}.#", number % 50);
        bind(&mut catalog, "amq.topic", &format!("queue-{number}"), &key)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "bind, from 0 to 100,000 topic bindings: {:.0}/s", 100_000.0 / seconds)?;
    bind(&mut catalog, "amq.topic", "queue-1", "orders.*.created")?;
    for number in 0..1000 {
        bind(&mut catalog, "amq.fanout", &format!("queue-{number}"), "")?;
    }

    let vhost = catalog.vhost("/").ok_or("no virtual host")?;
    let mut route = Route::default();
    let mut found = 0;
    let keys: Vec<_> = (0..1024).map(|it| format!("key-{}", it * 97)).collect();
    for (what, exchange, keys) in [
        ("direct, 100,000 bindings, one key", "amq.direct", vec!["key-97".to_owned(); 1024]),
        ("direct, 100,000 bindings, 1,024 keys", "amq.direct", keys),
        ("default, 120,000 queues", "", (0..1024).map(|it| format!("queue-{}", it * 97)).collect()),
        (
            "topic, 100,000 bindings, one matches",
            "amq.topic",
            (0..1024).map(|it| format!("region-{}.user-{}.x", (it * 97) % 50, it * 97)).collect(),
        ),
        ("topic, 100,000 bindings, one `*`", "amq.topic", vec!["orders.eu.created".into(); 1024]),
        ("topic, 100,000 bindings, none", "amq.topic", vec!["nothing.here".into(); 1024]),
    ] {
        let nanos = measured(2_000_000, |at| {
            let key = &keys[at as usize % 1024][..];
            let routed = catalog.route(vhost, exchange, &[key], NO_PROPERTIES, 0, &mut route);
            debug_assert!(routed.is_ok());
            found += route.queues.len();
        });
        writeln!(out, "route {what}: {nanos:.0} ns")?;
    }
    let nanos = measured(2_000, |_| {
        let routed = catalog.route(vhost, "amq.fanout", &[""], NO_PROPERTIES, 0, &mut route);
        debug_assert!(routed.is_ok());
        found += route.queues.len();
    });
    writeln!(out, "route fanout to 1,000 queues: {nanos:.0} ns")?;
    let (user, name) = (Name::new("guest"), Name::new("/"));
    let who = Who { user: &user, vhost: &name, session: SessionId(1), client_id: None };
    let mut allowed = 0;
    let nanos = measured(2_000_000, |_| {
        allowed += usize::from(catalog.authorize_publish(&who, "amq.direct", &["key-1"]).is_ok());
    });
    writeln!(out, "authorize_publish: {nanos:.0} ns ({found} queues found, {allowed} allowed)")?;

    let start = Stopwatch::now();
    let mut octets = Vec::new();
    let changes = catalog.changes().inspect(|it| it.encode(&mut octets)).count();
    writeln!(out, "snapshot of {changes} changes: {:?}, {} octets", start.elapsed(), octets.len())?;
    let start = Stopwatch::now();
    let mut again = Catalog::empty();
    for change in catalog.changes() {
        again.apply(&change)?;
    }
    writeln!(out, "rebuilt from {changes} changes: {:?}", start.elapsed())?;
    Ok(())
}
