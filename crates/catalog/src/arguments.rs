//! The arguments of queue declarations in one table: which kind of queue knows which, what values
//! they take, and the rules (`QueuePolicy`) that they come to.

use crate::{
    objects::{Queue, QueueKind},
    terms,
};
use model::{
    Name, QueueId, QueuePolicy, Refusal, ShardId, Table, Value,
    job::{Aging, JobRules, Scheduling},
    limits,
    policy::{DeadLetterTarget, DelayedRetry, Order, Overflow, Priorities},
};
use std::sync::Arc;

/// Deliveries that a quorum queue allows to fail, by default.
const QUORUM_DELIVERY_LIMIT: u32 = 20;

/// Which kinds of queues know an argument.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Both,
    Classic,
    Quorum,
    /// Belongs to a kind that does not exist here.
    Neither,
}

struct Argument {
    key: &'static str,
    known: Known,
    check: fn(&Value, &Table) -> Result<(), String>,
    /// Only here to be compared when the queue has it: other brokers ignore it on these kinds, and
    /// their clients redeclare with it.
    lenient_on: Known,
}

const fn both(key: &'static str, check: fn(&Value, &Table) -> Result<(), String>) -> Argument {
    Argument { key, known: Known::Both, check, lenient_on: Known::Neither }
}

const fn on(
    known: Known,
    key: &'static str,
    check: fn(&Value, &Table) -> Result<(), String>,
) -> Argument {
    Argument { key, known, check, lenient_on: Known::Neither }
}

/// An argument that other brokers know on one kind only (or on none) and this one on both.
const fn added(
    lenient_on: Known,
    key: &'static str,
    check: fn(&Value, &Table) -> Result<(), String>,
) -> Argument {
    Argument { key, known: Known::Both, check, lenient_on }
}

/// In the order in which wrong ones are reported. `x-queue-type` is checked before all of them.
const ARGUMENTS: &[Argument] = &[
    both("x-expires", expiry),
    both("x-message-ttl", time_to_live),
    both("x-dead-letter-exchange", long_string),
    both("x-dead-letter-routing-key", dead_letter_key),
    added(Known::Classic, "x-dead-letter-strategy", |value, _| {
        one_of(value, &["at-most-once", "at-least-once"], "invalid_dlx_strategy")
    }),
    both("x-max-length", non_negative),
    both("x-max-length-bytes", non_negative),
    on(Known::Quorum, "x-max-in-memory-length", non_negative),
    on(Known::Quorum, "x-max-in-memory-bytes", non_negative),
    added(Known::Quorum, "x-max-priority", priority),
    both("x-overflow", |value, _| {
        let known = ["drop-head", "reject-publish", "reject-publish-dlx"];
        one_of(value, &known, "invalid_overflow")
    }),
    on(Known::Classic, "x-queue-mode", |value, _| {
        one_of(value, &["default", "lazy"], "invalid_queue_mode")
    }),
    on(Known::Classic, "x-queue-version", version),
    both("x-single-active-consumer", boolean),
    on(Known::Quorum, "x-quorum-initial-group-size", positive),
    both("x-queue-leader-locator", |value, _| {
        let known = ["client-local", "balanced", "random", "least-leaders"];
        one_of(value, &known, "invalid_queue_locator_arg")
    }),
    on(Known::Classic, "x-queue-master-locator", long_string),
    on(Known::Quorum, "x-member-placement-tag", long_string),
    added(Known::Classic, "x-delivery-limit", integer),
    added(Known::Classic, "x-consumer-timeout", non_negative),
    on(Known::Quorum, "x-consumer-disconnected-timeout", non_negative),
    added(Known::Classic, "x-delayed-retry-type", |value, _| {
        let known = ["disabled", "all", "failed", "returned"];
        one_of(value, &known, "invalid_delayed_retry_type")
    }),
    added(Known::Classic, "x-delayed-retry-min", time_to_live),
    added(Known::Classic, "x-delayed-retry-max", time_to_live),
    both("x-order", |value, _| one_of(value, &["fifo", "lifo"], "invalid_order")),
    both(JOBS, boolean),
    both("x-message-deduplication", unbuilt),
    both("x-cache-size", unbuilt),
    both("x-cache-ttl", unbuilt),
    both("x-cache-persistence", unbuilt),
    both("x-deduplication-header", unbuilt),
    on(Known::Neither, "x-max-age", anything),
    on(Known::Neither, "x-stream-max-segment-size-bytes", anything),
    on(Known::Neither, "x-stream-filter-size-bytes", anything),
    on(Known::Neither, "x-initial-cluster-size", anything),
];

const QUEUE_TYPE: &str = "x-queue-type";
const JOBS: &str = "x-jobs";

/// What a queue of jobs cannot do.
const NOT_WITH_JOBS: &[&str] = &[
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
];

impl Known {
    fn covers(self, kind: QueueKind) -> bool {
        match self {
            Self::Both => true,
            Self::Classic => kind == QueueKind::Classic,
            Self::Quorum => kind == QueueKind::Quorum,
            Self::Neither => false,
        }
    }
}

fn integer(value: &Value, _: &Table) -> Result<(), String> {
    whole(value).map(drop)
}

fn whole(value: &Value) -> Result<i64, String> {
    value
        .as_integer()
        .ok_or_else(|| format!("\"expected integer, got {}\"", terms::type_name(value)))
}

fn non_negative(value: &Value, _: &Table) -> Result<(), String> {
    match whole(value)? {
        it if it < 0 => Err(format!("{{value_negative,{it}}}")),
        _ => Ok(()),
    }
}

fn positive(value: &Value, arguments: &Table) -> Result<(), String> {
    non_negative(value, arguments)?;
    if whole(value)? == 0 { Err("{value_zero,0}".to_owned()) } else { Ok(()) }
}

fn time_to_live(value: &Value, arguments: &Table) -> Result<(), String> {
    non_negative(value, arguments)?;
    match whole(value)? {
        it if limits::TTL_MS_MAX < it => Err(format!("{{value_too_large,{it}}}")),
        _ => Ok(()),
    }
}

fn expiry(value: &Value, arguments: &Table) -> Result<(), String> {
    time_to_live(value, arguments)?;
    positive(value, arguments)
}

fn priority(value: &Value, arguments: &Table) -> Result<(), String> {
    non_negative(value, arguments)?;
    match whole(value)? {
        it if 255 < it => Err(format!("{{max_value_exceeded,{it}}}")),
        _ => Ok(()),
    }
}

fn version(value: &Value, _: &Table) -> Result<(), String> {
    match whole(value)? {
        2 => Ok(()),
        other => Err(format!("\"unsupported queue version '{other}'\"")),
    }
}

fn boolean(value: &Value, _: &Table) -> Result<(), String> {
    match value {
        Value::Bool(_) => Ok(()),
        other => Err(format!("\"expected boolean, got {}\"", terms::type_name(other))),
    }
}

fn unacceptable(value: &Value) -> String {
    format!("{{unacceptable_type,{}}}", terms::type_name(value))
}

fn long_string(value: &Value, _: &Table) -> Result<(), String> {
    value.as_text().map(drop).ok_or_else(|| unacceptable(value))
}

fn dead_letter_key(value: &Value, arguments: &Table) -> Result<(), String> {
    long_string(value, arguments)?;
    match arguments.get("x-dead-letter-exchange") {
        Some(_) => Ok(()),
        None => Err("routing_key_but_no_dlx_defined".to_owned()),
    }
}

fn one_of(value: &Value, known: &[&str], error: &str) -> Result<(), String> {
    let text = value.as_text().ok_or_else(|| unacceptable(value))?;
    if known.contains(&text) { Ok(()) } else { Err(error.to_owned()) }
}

fn unbuilt(_: &Value, _: &Table) -> Result<(), String> {
    Err("\"not supported yet\"".to_owned())
}

fn anything(_: &Value, _: &Table) -> Result<(), String> {
    Ok(())
}

/// The kind that a declaration asks for, or the value of the argument that is none.
pub(crate) fn kind_of(arguments: &Table, default: QueueKind) -> Result<QueueKind, &Value> {
    match arguments.get(QUEUE_TYPE) {
        None => Ok(default),
        Some(value) => value.as_text().and_then(QueueKind::parse).ok_or(value),
    }
}

/// What the kind is called where a text names its implementation.
pub(crate) fn implementation(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
    }
}

/// Checks type, values and whether the kind knows them, in this order.
///
/// # Errors
/// [`Refusal::InvalidArgument`] for the first one that is wrong.
pub(crate) fn check(
    arguments: &Table,
    default: QueueKind,
    name: &Name,
    vhost: &Name,
) -> Result<QueueKind, Refusal> {
    let invalid = |key: &str, reason: String| Refusal::InvalidArgument {
        argument: key.to_owned(),
        name: name.clone(),
        vhost: vhost.clone(),
        reason,
    };
    let kind = kind_of(arguments, default).map_err(|value| {
        let reason = match value {
            Value::LongString(_) => format!("\"unsupported queue type '{}'\"", terms::shown(value)),
            other => unacceptable(other),
        };
        invalid(QUEUE_TYPE, format!(": {reason}"))
    })?;
    if arguments.is_empty() {
        return Ok(kind);
    }
    let present = || ARGUMENTS.iter().filter_map(|it| Some((it, arguments.get(it.key)?)));
    for (argument, value) in present() {
        let checked = (argument.check)(value, arguments);
        checked.map_err(|reason| invalid(argument.key, format!(": {reason}")))?;
    }
    if arguments.get(JOBS) == Some(&Value::Bool(true))
        && let Some(key) = NOT_WITH_JOBS.iter().find(|it| arguments.get(it).is_some())
    {
        return Err(invalid(key, ": \"not supported with x-jobs\"".to_owned()));
    }
    match present().find(|(argument, _)| !argument.known.covers(kind)) {
        Some((argument, _)) => {
            Err(invalid(argument.key, format!(" of queue type {}", implementation(kind))))
        }
        None => Ok(kind),
    }
}

/// The first difference between the arguments of a redeclaration and those of the queue, and how it
/// is told. Arguments that its kind does not know are ignored.
pub(crate) fn difference(queue: &Queue, received: &Table) -> Option<(&'static str, String)> {
    if queue.arguments.is_empty() && received.is_empty() {
        return None;
    }
    for argument in ARGUMENTS.iter().filter(|it| it.known.covers(queue.kind)) {
        let current = queue.arguments.get(argument.key);
        if current.is_none() && argument.lenient_on.covers(queue.kind) {
            continue;
        }
        if let Some(told) = told(current, received.get(argument.key)) {
            return Some((argument.key, told));
        }
    }
    None
}

/// How two values of one argument differ, if they do.
pub(crate) fn told(current: Option<&Value>, received: Option<&Value>) -> Option<String> {
    let typed = |value: &Value| {
        format!("the value '{}' of type '{}'", terms::shown(value), terms::type_name(value))
    };
    match (current, received) {
        (None, None) => None,
        (Some(current), Some(received)) if terms::equivalent(current, received) => None,
        (Some(current), Some(received)) => Some(format!(
            "received '{}' but current is '{}'",
            terms::shown(received),
            terms::shown(current)
        )),
        (Some(current), None) => Some(format!("received none but current is {}", typed(current))),
        (None, Some(received)) => Some(format!("received {} but current is none", typed(received))),
    }
}

/// The type that a redeclaration asks for, when it is another one than the queue has.
pub(crate) fn kind_difference(
    kind: QueueKind,
    received: &Table,
    default: QueueKind,
) -> Option<String> {
    match kind_of(received, default) {
        Ok(it) if it == kind => None,
        Ok(it) => Some(format!("received '{}' but current is '{}'", it.as_str(), kind.as_str())),
        Err(value) => {
            Some(format!("received '{}' but current is '{}'", terms::shown(value), kind.as_str()))
        }
    }
}

/// What identifies a queue, beside its arguments.
pub(crate) struct Identity<'a> {
    pub(crate) id: QueueId,
    pub(crate) shard: ShardId,
    pub(crate) name: &'a Name,
    pub(crate) vhost: &'a Name,
    pub(crate) kind: QueueKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
}

fn unsigned(arguments: &Table, key: &str) -> Option<u64> {
    arguments.get(key)?.as_integer()?.try_into().ok()
}

/// The rules of a queue of jobs, if it is one.
fn jobs(arguments: &Table, delivery_limit: Option<u32>, priorities: bool) -> Option<Arc<JobRules>> {
    if arguments.get(JOBS) != Some(&Value::Bool(true)) {
        return None;
    }
    let is_lifo = arguments.get("x-order").and_then(Value::as_text) == Some("lifo");
    let rules = JobRules::default();
    // A limit counts failures, and the last attempt may fail as well.
    let attempts_max = delivery_limit.map_or(u32::MAX, |it| it.saturating_add(1));
    Some(Arc::new(JobRules {
        scheduling: match (priorities, is_lifo) {
            (true, _) => Scheduling::Priority(Aging::default()),
            (false, true) => Scheduling::Lifo,
            (false, false) => Scheduling::Fifo,
        },
        attempts: rules.attempts.min(attempts_max),
        ..rules
    }))
}

/// The rules of a queue with these arguments. Total: what `check` would refuse counts as absent.
pub(crate) fn policy(identity: &Identity<'_>, arguments: &Table) -> QueuePolicy {
    let quorum = identity.kind == QueueKind::Quorum;
    let text = |key: &str| arguments.get(key).and_then(Value::as_text);
    let number = |key: &str| unsigned(arguments, key);
    let priority_max = number("x-max-priority").and_then(|it| u8::try_from(it).ok());
    let delivery_limit = match arguments.get("x-delivery-limit").and_then(Value::as_integer) {
        Some(limit) => u32::try_from(limit.min(u32::MAX.into())).ok(),
        None if quorum => Some(QUORUM_DELIVERY_LIMIT),
        None => None,
    };
    let retry_ms_min = number("x-delayed-retry-min").unwrap_or(0);
    QueuePolicy {
        queue: identity.id,
        shard: identity.shard,
        name: identity.name.clone(),
        vhost: identity.vhost.clone(),
        durable: identity.durable,
        keeps_all: quorum,
        auto_delete: identity.auto_delete,
        expires_ms: number("x-expires"),
        ttl_ms: number("x-message-ttl"),
        length_max: number("x-max-length"),
        length_bytes_max: number("x-max-length-bytes"),
        overflow: match text("x-overflow") {
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            _ => Overflow::DropHead,
        },
        dead_letter: text("x-dead-letter-exchange").map(|exchange| DeadLetterTarget {
            exchange: Name::new(exchange),
            routing_key: text("x-dead-letter-routing-key").map(Name::new),
        }),
        priorities: match priority_max {
            Some(0) => Priorities::None,
            Some(max) => Priorities::UpTo(max),
            None if quorum => Priorities::Quorum,
            None => Priorities::None,
        },
        order: if text("x-order") == Some("lifo") { Order::Lifo } else { Order::Fifo },
        single_active_consumer: arguments.get("x-single-active-consumer")
            == Some(&Value::Bool(true)),
        delivery_limit,
        counts_deliveries: quorum || delivery_limit.is_some(),
        consumer_timeout_ms: number("x-consumer-timeout").filter(|it| *it != 0),
        delayed_retry: match text("x-delayed-retry-type") {
            Some("all") => DelayedRetry::All,
            Some("failed") => DelayedRetry::Failed,
            Some("returned") => DelayedRetry::Returned,
            _ => DelayedRetry::Disabled,
        },
        delayed_retry_ms_min: retry_ms_min,
        delayed_retry_ms_max: number("x-delayed-retry-max").unwrap_or(retry_ms_min),
        jobs: jobs(arguments, delivery_limit, priority_max.is_some_and(|it| it != 0)),
    }
}
