//! The list of what is counted.

use crate::{batches, queues, records, routes, sessions, whole};

/// Something that is done to so many messages.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// Enough to be in steady state, few enough to be done in a second under valgrind.
    pub messages: u64,
    /// Sets up and does it.
    pub run: fn(u64),
}

const fn case(name: &'static str, messages: u64, run: fn(u64)) -> Case {
    Case { name, messages, run }
}

/// All of them, the largest first.
pub const CASES: &[Case] = &[
    case("whole-transient", 10_000, |it| whole::run(&whole::TRANSIENT, it)),
    case("whole-lagging", 30_000, |it| whole::run(&whole::LAGGING, it)),
    case("whole-persistent", 10_000, |it| whole::run(&whole::PERSISTENT, it)),
    case("whole-fanout", 2_000, |it| whole::run(&whole::FANOUT, it)),
    case("broker-transient", 10_000, batches::transient),
    case("broker-persistent", 10_000, batches::persistent),
    case("session-publish", 20_000, sessions::publish),
    case("session-publish-confirm", 20_000, sessions::publish_with_confirm),
    case("session-deliver", 20_000, sessions::deliver),
    case("session-deliver-ack", 20_000, sessions::deliver_with_ack),
    case("session-deliver-multiple-ack", 20_000, sessions::deliver_with_multiple_ack),
    case("queue-deliver", 20_000, queues::deliver),
    case("queue-settle", 20_000, queues::settle),
    case("queue-requeue", 20_000, queues::requeue),
    case("queue-backlog", 20_000, queues::backlog),
    case("queue-paged", 20_000, queues::paged),
    case("route-default", 20_000, routes::default),
    case("route-direct", 20_000, routes::direct),
    case("route-fanout", 20_000, routes::fanout),
    case("route-topic", 20_000, routes::topic),
    case("route-headers", 1_000, routes::headers),
    case("log-append", 10_000, records::append),
    case("log-recover", 4_000, records::recover),
];

/// The case of this name.
pub fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|it| it.name == name)
}
