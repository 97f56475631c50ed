//! What a dead message looks like: its history goes into its headers, and it is addressed anew.

use crate::effect::DeathReason;
use model::{Facts, Message, Name, QueuePolicy, Table, Timestamp, Value, properties::Properties};

const DEATHS: &str = "x-death";
const EXTRA_KEYS: &str = "CC";
const HIDDEN_KEYS: &str = "BCC";
/// How the headers about the first and the last death begin.
const FIRST: &str = "x-first-death-";
const LAST: &str = "x-last-death-";
const MILLIS_PER_SECOND: u64 = 1_000;

/// The message that goes to the dead-letter exchange of `queue`, under the address it is published
/// with there. Its history is continued if this broker wrote it, and otherwise begun anew.
pub fn dead_letter(
    message: &Message,
    reason: DeathReason,
    queue: &QueuePolicy,
    now: Timestamp,
) -> Message {
    let mut properties = Properties::decode(message.properties()).unwrap_or_default();
    let mut headers = properties.headers.take().unwrap_or_default();
    let mut deaths = known_deaths(message, &headers);
    headers.remove(HIDDEN_KEYS);
    let is_this = |it: &Value| death_is(it, &queue.name, reason);
    let death = match deaths.iter().position(is_this) {
        Some(at) => again(deaths.remove(at)),
        None => first(message, reason, &queue.name, &properties, now),
    };
    deaths.insert(0, death);
    let reason_text = reason.to_string();
    let about = |start: &str| {
        [("exchange", message.exchange()), ("queue", &*queue.name), ("reason", &*reason_text)]
            .map(|(key, text)| (format!("{start}{key}"), Value::text(text)))
    };
    if !message.deaths_known || headers.get(&format!("{FIRST}reason")).is_none() {
        about(FIRST).into_iter().for_each(|(key, text)| headers.set(&key, text));
    }
    about(LAST).into_iter().for_each(|(key, text)| headers.set(&key, text));
    if reason == DeathReason::Expired {
        // It would expire again wherever it goes.
        properties.expiration = None;
    }
    let octets = encoded(properties, headers, deaths);
    let target = queue.dead_letter.as_ref();
    let exchange = target.map_or("", |it| it.exchange.as_str());
    let key =
        target.and_then(|it| it.routing_key.as_deref()).unwrap_or_else(|| message.routing_key());
    let mut letter = message.readdressed(exchange, key, &octets);
    letter.persistent = message.persistent;
    letter.deaths_known = true;
    letter
}

/// The keys a message is routed by: its own, then those of its header. A dead letter whose key was
/// replaced at its last death has that key only.
pub fn routing_keys(message: &Message) -> Vec<Name> {
    keys(message, &message.facts().header_table())
}

fn keys(message: &Message, headers: &Table) -> Vec<Name> {
    let own = message.routing_key();
    let mut keys = vec![Name::new(own)];
    let last_death = known_deaths(message, headers).into_iter().next();
    let keys_before = last_death.as_ref().and_then(|it| array(field(it, "routing-keys")?));
    let was_replaced = keys_before
        .and_then(|it| it.first())
        .is_some_and(|it| it.as_text().is_some_and(|it| it != own));
    if !was_replaced && let Some(extra) = headers.get(EXTRA_KEYS).and_then(array) {
        keys.extend(extra.iter().filter_map(Value::as_text).map(Name::new));
    }
    keys
}

/// Whether a dead letter has been in the queue `target` before and came back there without anybody
/// having rejected it since: it would go around for ever.
pub fn is_cycle(message: &Message, target: &str) -> bool {
    if !message.deaths_known {
        return false;
    }
    let deaths = known_deaths(message, &message.facts().header_table());
    let text_is = |it: &Value, key, text: &str| {
        field(it, key).and_then(Value::as_text).is_some_and(|it| it == text)
    };
    let Some(visit) = deaths.iter().position(|it| text_is(it, "queue", target)) else {
        return false;
    };
    let rejected = DeathReason::Rejected.to_string();
    !deaths[..=visit].iter().any(|it| text_is(it, "reason", &rejected))
}

/// The history that this broker wrote, newest death first.
fn known_deaths(message: &Message, headers: &Table) -> Vec<Value> {
    let deaths = headers.get(DEATHS).filter(|_| message.deaths_known).and_then(array);
    deaths.map_or_else(Vec::new, <[Value]>::to_vec)
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn field<'a>(death: &'a Value, key: &str) -> Option<&'a Value> {
    match death {
        Value::Table(fields) => fields.get(key),
        _ => None,
    }
}

fn death_is(death: &Value, queue: &str, reason: DeathReason) -> bool {
    let text = |key| field(death, key).and_then(Value::as_text);
    text("queue") == Some(queue) && text("reason") == Some(&*reason.to_string())
}

fn first(
    message: &Message,
    reason: DeathReason,
    queue: &str,
    properties: &Properties,
    now: Timestamp,
) -> Value {
    let mut fields = Vec::with_capacity(7);
    let mut put = |key: &str, value| fields.push((Name::new(key), value));
    if let Some(expiration) = &properties.expiration {
        put("original-expiration", Value::text(expiration));
    }
    put("count", Value::I64(1));
    put("reason", Value::text(&reason.to_string()));
    put("queue", Value::text(queue));
    put("time", Value::Timestamp(now.0 / MILLIS_PER_SECOND));
    put("exchange", Value::text(message.exchange()));
    let keys = routing_keys(message).iter().map(|it| Value::text(it)).collect();
    put("routing-keys", Value::Array(keys));
    Value::Table(Table(fields))
}

fn again(mut death: Value) -> Value {
    if let Value::Table(fields) = &mut death {
        let count = fields.get("count").and_then(Value::as_integer).unwrap_or(0);
        fields.set("count", Value::I64(count.saturating_add(1)));
    }
    death
}

/// Properties with the history in their headers. Where it does not fit, the oldest deaths are left
/// out, and in the end all of it: a message must stay readable.
fn encoded(mut properties: Properties, mut headers: Table, mut deaths: Vec<Value>) -> Vec<u8> {
    loop {
        headers.set(DEATHS, Value::Array(deaths.clone()));
        properties.headers = Some(headers.clone());
        let octets = properties.encoded();
        if Facts::parse(&octets).is_ok() {
            return octets;
        }
        if deaths.len() <= 1 {
            break;
        }
        deaths.truncate(deaths.len() / 2);
    }
    headers.0.retain(|(key, _)| {
        key.as_str() != DEATHS && !key.starts_with(FIRST) && !key.starts_with(LAST)
    });
    properties.headers = Some(headers);
    properties.encoded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{QueueId, policy::DeadLetterTarget};

    const NOW: Timestamp = Timestamp(1_700_000_000_999);

    fn queue(name: &str, routing_key: Option<&str>) -> QueuePolicy {
        let routing_key = routing_key.map(Name::new);
        let target = DeadLetterTarget { exchange: Name::new("dlx"), routing_key };
        QueuePolicy { dead_letter: Some(target), ..QueuePolicy::plain(QueueId(1), name) }
    }

    fn texts(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|it| Value::text(it)).collect())
    }

    fn message(headers: Vec<(&str, Value)>, expiration: Option<&str>) -> Message {
        let headers = headers.into_iter().map(|(key, value)| (Name::new(key), value)).collect();
        let properties = Properties {
            headers: Some(Table(headers)),
            expiration: expiration.map(Name::new),
            delivery_mode: Some(2),
            ..Properties::default()
        };
        Message::new("ex", "key", &properties.encoded(), b"body")
    }

    fn headers(message: &Message) -> Table {
        message.facts().header_table()
    }

    fn deaths(message: &Message) -> Vec<(String, String, i64)> {
        let text = |it: &Value, key| field(it, key).and_then(Value::as_text).unwrap_or("").into();
        let count = |it| field(it, "count").and_then(Value::as_integer).unwrap_or(0);
        let table = headers(message);
        let all = table.get(DEATHS).and_then(array).expect("a dead letter has its history");
        all.iter().map(|it| (text(it, "queue"), text(it, "reason"), count(it))).collect()
    }

    fn die(message: &Message, queue_name: &str, reason: DeathReason) -> Message {
        dead_letter(message, reason, &queue(queue_name, None), NOW)
    }

    #[test]
    fn first_death_is_written_field_by_field_in_wire_order() {
        let keys = |it: &[&str]| texts(it);
        let source = message(
            vec![("CC", keys(&["ccx"])), ("BCC", keys(&["bccx"])), ("a", Value::I32(1))],
            Some("50"),
        );
        let letter = dead_letter(&source, DeathReason::Expired, &queue("d1", Some("d2")), NOW);
        assert_eq!((letter.exchange(), letter.routing_key()), ("dlx", "d2"));
        assert_eq!(letter.body(), b"body");
        assert!(letter.persistent && letter.deaths_known);
        assert_eq!((letter.ttl_ms, letter.facts().expiration), (None, None));
        let death = Table(
            [
                ("original-expiration", Value::text("50")),
                ("count", Value::I64(1)),
                ("reason", Value::text("expired")),
                ("queue", Value::text("d1")),
                ("time", Value::Timestamp(1_700_000_000)),
                ("exchange", Value::text("ex")),
                ("routing-keys", keys(&["key", "ccx"])),
            ]
            .map(|(key, value)| (Name::new(key), value))
            .into(),
        );
        let expected = [
            ("CC", keys(&["ccx"])),
            ("a", Value::I32(1)),
            ("x-first-death-exchange", Value::text("ex")),
            ("x-first-death-queue", Value::text("d1")),
            ("x-first-death-reason", Value::text("expired")),
            ("x-last-death-exchange", Value::text("ex")),
            ("x-last-death-queue", Value::text("d1")),
            ("x-last-death-reason", Value::text("expired")),
            ("x-death", Value::Array(vec![Value::Table(death)])),
        ];
        let expected = expected.map(|(key, value)| (Name::new(key), value)).to_vec();
        assert_eq!(headers(&letter), Table(expected));
    }

    #[test]
    fn own_time_to_live_stays_where_nothing_expired() {
        let letter = die(&message(vec![], Some("50")), "d1", DeathReason::Rejected);
        assert_eq!((letter.ttl_ms, letter.facts().expiration), (Some(50), Some("50")));
    }

    #[test]
    fn repeated_death_is_counted_and_moves_to_the_front() {
        let one = die(&message(vec![], None), "d4", DeathReason::Rejected);
        let two = die(&one, "d3", DeathReason::Expired);
        let entry = |queue: &str, reason: &str, count| (queue.into(), reason.into(), count);
        let expected: Vec<(String, String, i64)> =
            vec![entry("d3", "expired", 1), entry("d4", "rejected", 1)];
        assert_eq!(deaths(&two), expected);
        let later = Timestamp(NOW.0 + 60_000);
        let three = dead_letter(&two, DeathReason::Rejected, &queue("d4", None), later);
        assert_eq!(deaths(&three), [entry("d4", "rejected", 2), entry("d3", "expired", 1)]);
        let table = headers(&three);
        let first = table.get(DEATHS).and_then(array).and_then(|it| it.first()).expect("is there");
        assert_eq!(field(first, "time"), Some(&Value::Timestamp(1_700_000_000)), "the first time");
        assert_eq!(table.get("x-first-death-queue"), Some(&Value::text("d4")));
        assert_eq!(table.get("x-last-death-queue"), Some(&Value::text("d4")));
        assert_eq!(table.get("x-last-death-exchange"), Some(&Value::text("dlx")));
    }

    #[test]
    fn history_sent_by_a_publisher_is_replaced() {
        let known = die(&message(vec![], None), "d1", DeathReason::Rejected);
        let mut sent = known.readdressed("", "d1", known.properties());
        assert!(!sent.deaths_known);
        sent = die(&sent, "d9", DeathReason::Rejected);
        assert_eq!(deaths(&sent), [("d9".into(), "rejected".into(), 1)]);
        assert_eq!(headers(&sent).get("x-first-death-queue"), Some(&Value::text("d9")));
        assert!(!is_cycle(&known.readdressed("", "d1", known.properties()), "d1"));
    }

    #[test]
    fn automatic_cycle_ends_and_one_with_a_rejection_goes_on() {
        let start = message(vec![], None);
        let one = die(&start, "loop1", DeathReason::Expired);
        assert!(!is_cycle(&one, "loop2"));
        assert!(is_cycle(&one, "loop1"), "dead-lettered to itself");
        let two = die(&one, "loop2", DeathReason::MaxLength);
        assert!(is_cycle(&two, "loop1"));
        let rejected = die(&start, "d4", DeathReason::Rejected);
        assert!(!is_cycle(&rejected, "d4"));
        let expired = die(&rejected, "d3", DeathReason::Expired);
        assert!(!is_cycle(&expired, "d4"), "a rejection is part of the cycle");
        assert!(is_cycle(&expired, "d3"), "since then nobody rejected it");
    }

    #[test]
    fn replaced_key_stands_for_all_keys() {
        let source = message(vec![("CC", texts(&["ccx"]))], None);
        let names =
            |it: &Message| routing_keys(it).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&source), ["key", "ccx"]);
        let kept = dead_letter(&source, DeathReason::Expired, &queue("d1", None), NOW);
        assert_eq!(names(&kept), ["key", "ccx"]);
        let replaced = dead_letter(&source, DeathReason::Expired, &queue("d1", Some("d2")), NOW);
        assert_eq!(names(&replaced), ["d2"]);
    }

    #[test]
    fn history_that_does_not_fit_loses_its_oldest_deaths() {
        let mut letter = message(vec![("a", Value::text(&"x".repeat(40_000)))], None);
        for round in 0..600 {
            letter = die(&letter, &format!("{round:0>100}"), DeathReason::Expired);
            assert!(Facts::parse(letter.properties()).is_ok(), "round {round}");
        }
        let newest = format!("{:0>100}", 599);
        assert_eq!(deaths(&letter).first().map(|it| it.0.clone()), Some(newest));
        let full = message(vec![("a", Value::text(&"x".repeat(65_400)))], None);
        let letter = die(&full, "d1", DeathReason::Expired);
        assert!(Facts::parse(letter.properties()).is_ok());
        assert!(headers(&letter).get(DEATHS).is_none());
    }
}
