//! The queues that a simulated broker has, and what each of them may do to a message.

use model::{Name, Table, Value};

/// Index in [`SPECS`].
pub type SpecId = usize;

/// The fanout exchange.
pub const FANOUT: &str = "fan";

/// One queue: how it is declared, and what the history must allow for.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub quorum: bool,
    pub durable: bool,
    /// Where its dead letters go, by name.
    pub dead: Option<&'static str>,
    /// It may let a message go by itself at any time: to its dead letters, or away.
    pub leaks: bool,
    /// It may refuse a publish.
    pub refuses: bool,
    /// Bound to the fanout exchange from the start.
    pub fanout: bool,
    /// Declared, bound and deleted while the simulation runs.
    pub churns: bool,
    numbers: &'static [(&'static str, i64)],
    overflow: Option<&'static str>,
}

const PLAIN: Spec = Spec {
    name: "",
    quorum: false,
    durable: true,
    dead: None,
    leaks: false,
    refuses: false,
    fanout: false,
    churns: false,
    numbers: &[],
    overflow: None,
};

/// All queues. Dead letters first, so that every target is there before its source.
pub const SPECS: &[Spec] = &[
    Spec { name: "dead", ..PLAIN },
    Spec { name: "dead-quorum", quorum: true, numbers: &[("x-delivery-limit", -1)], ..PLAIN },
    Spec { name: "plain", ..PLAIN },
    Spec { name: "letters", dead: Some("dead"), ..PLAIN },
    Spec { name: "letters-quorum", dead: Some("dead-quorum"), ..PLAIN },
    Spec { name: "first", fanout: true, ..PLAIN },
    Spec { name: "second", fanout: true, ..PLAIN },
    Spec {
        name: "quorum",
        quorum: true,
        dead: Some("dead"),
        fanout: true,
        numbers: &[("x-delivery-limit", -1)],
        ..PLAIN
    },
    Spec {
        name: "limit",
        dead: Some("dead"),
        leaks: true,
        numbers: &[("x-delivery-limit", 2)],
        ..PLAIN
    },
    Spec {
        name: "refuse",
        refuses: true,
        numbers: &[("x-max-length", 4)],
        overflow: Some("reject-publish"),
        ..PLAIN
    },
    Spec {
        name: "drop",
        dead: Some("dead"),
        leaks: true,
        numbers: &[("x-max-length", 4)],
        ..PLAIN
    },
    Spec { name: "lose", leaks: true, numbers: &[("x-max-length", 4)], ..PLAIN },
    Spec {
        name: "expire",
        dead: Some("dead-quorum"),
        leaks: true,
        numbers: &[("x-message-ttl", 40)],
        ..PLAIN
    },
    Spec { name: "transient", durable: false, fanout: true, ..PLAIN },
    Spec { name: "churn-1", churns: true, ..PLAIN },
    Spec { name: "churn-2", churns: true, ..PLAIN },
];

impl Spec {
    /// A persistent or transient message is written to the log when it comes here.
    pub fn keeps(&self, persistent: bool) -> bool {
        self.quorum || (self.durable && persistent)
    }

    /// The arguments of its declaration.
    pub fn arguments(&self) -> Table {
        let mut arguments = Vec::new();
        let mut put = |key: &str, value| arguments.push((Name::new(key), value));
        if self.quorum {
            put("x-queue-type", Value::text("quorum"));
        }
        if let Some(dead) = self.dead {
            put("x-dead-letter-exchange", Value::text(""));
            put("x-dead-letter-routing-key", Value::text(dead));
        }
        for (key, number) in self.numbers {
            put(key, Value::I64(*number));
        }
        if let Some(overflow) = self.overflow {
            put("x-overflow", Value::text(overflow));
        }
        Table(arguments)
    }
}

/// The queue of this name.
pub fn spec_of(name: &str) -> SpecId {
    let found = SPECS.iter().position(|it| it.name == name);
    found.expect("queues are named from the table")
}
