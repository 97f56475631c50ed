//! Declaring and deleting exchanges, making and undoing bindings: observed answers.

use crate::world::{AUTO_DELETE, DURABLE, Flags, PASSIVE, TRANSIENT, World, int, refused, text};
use model::Value;

type Arguments = Vec<(&'static str, Value)>;

const INTERNAL: Flags = Flags { internal: true, ..DURABLE };

fn world() -> World {
    let mut world = World::new();
    world.exchange("gex", "direct", &[]);
    world.declare("g2", &[]);
    world
}

#[test]
fn declarations_are_answered_as_observed() {
    let mut world = world();
    let differs = |argument: &str, difference: &str| {
        format!("inequivalent arg '{argument}' for exchange 'gex' in vhost '/': {difference}")
    };
    let alternate = ("alternate-exchange", text("x"));
    let flag = |argument: &str| differs(argument, "received 'true' but current is 'false'");
    let cases: Vec<(&str, &str, Flags, Arguments, String)> = vec![
        (
            "gex",
            "topic",
            DURABLE,
            vec![],
            differs("type", "received 'topic' but current is 'direct'"),
        ),
        (
            "gex",
            "direct",
            TRANSIENT,
            vec![],
            differs("durable", "received 'false' but current is 'true'"),
        ),
        ("gex", "direct", AUTO_DELETE, vec![], flag("auto_delete")),
        ("gex", "direct", INTERNAL, vec![], flag("internal")),
        (
            "gex",
            "direct",
            DURABLE,
            vec![alternate],
            differs(
                "alternate-exchange",
                "received the value 'x' of type 'longstr' but current is none",
            ),
        ),
        ("gex9", "x-nope", DURABLE, vec![], "unknown exchange type 'x-nope'".to_owned()),
        (
            "gex9",
            "x-delayed-message",
            DURABLE,
            vec![("x-delayed-type", text("direct"))],
            "unknown exchange type 'x-delayed-message'".to_owned(),
        ),
        (
            "",
            "direct",
            DURABLE,
            vec![],
            "operation not permitted on the default exchange".to_owned(),
        ),
        (
            "amq.x",
            "direct",
            DURABLE,
            vec![],
            "exchange name 'amq.x' contains reserved prefix 'amq.*'".to_owned(),
        ),
        ("nopeX", "direct", PASSIVE, vec![], "no exchange 'nopeX' in vhost '/'".to_owned()),
        (
            "h",
            "x-consistent-hash",
            DURABLE,
            vec![("hash-property", text("priority"))],
            "Unsupported property: priority".to_owned(),
        ),
    ];
    for (exchange, kind, flags, arguments, expected) in cases {
        assert_eq!(refused(world.try_exchange(exchange, kind, flags, &arguments)), expected);
    }
    for (exchange, kind, flags, arguments) in [
        ("gex", "direct", DURABLE, vec![("foo", text("x"))]),
        ("amq.direct", "direct", DURABLE, vec![]),
        ("gex", "topic", PASSIVE, vec![]),
    ] {
        assert_eq!(world.try_exchange(exchange, kind, flags, &arguments), Ok(()));
    }
}

#[test]
fn deletions_are_answered_as_observed() {
    let mut world = world();
    world.bind("gex", "g2", "k");
    for (exchange, if_unused, expected) in [
        ("amq.direct", false, "deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
        ("", false, "operation not permitted on the default exchange"),
        ("gex", true, "exchange 'gex' in vhost '/' in use"),
    ] {
        assert_eq!(refused(world.try_delete_exchange(exchange, if_unused)), expected);
    }
    assert_eq!(world.try_delete_exchange("nopeX", false), Ok(()));
    assert_eq!(world.try_delete_exchange("gex", false), Ok(()));
    assert_eq!(world.catalog.vhost("/").expect("it is there").binding_count(), 0);
}

#[test]
fn bindings_are_answered_as_observed() {
    let mut world = world();
    world.exchange("gch", "x-consistent-hash", &[]);
    world.exchange("gt", "topic", &[]);
    let words = ["a"; 128].join(".");
    let more_words = format!("{words}.a");
    let cases: Vec<(&str, &str, &str, Arguments, &str)> = vec![
        ("gex", "nope", "a", vec![], "no queue 'nope' in vhost '/'"),
        ("nopeX", "g2", "a", vec![], "no exchange 'nopeX' in vhost '/'"),
        ("gex", "exchange:nopeX", "a", vec![], "no exchange 'nopeX' in vhost '/'"),
        ("", "g2", "a", vec![], "operation not permitted on the default exchange"),
        (
            "amq.headers",
            "g2",
            "",
            vec![("x-match", text("foo"))],
            "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
        ),
        (
            "amq.headers",
            "g2",
            "",
            vec![("x-match", int(1))],
            "Invalid x-match field type signedint (value 1); expected longstr",
        ),
        ("gch", "g2", "abc", vec![], "The binding key must be an integer: <<\"abc\">>"),
        ("gch", "g2", "0", vec![], "The binding key must be greater than 0"),
        ("gt", "g2", &more_words, vec![], "binding key has more than 128 words"),
        (
            "gex",
            "amq.rabbitmq.reply-to",
            "a",
            vec![],
            "no queue 'amq.rabbitmq.reply-to' in vhost '/'",
        ),
        (
            "gex",
            "amq.rabbitmq.reply-to.g1h2",
            "a",
            vec![],
            "cannot bind or unbind to a volatile (direct reply-to) queue",
        ),
    ];
    for (source, destination, key, arguments, expected) in cases {
        assert_eq!(refused(world.try_bind(source, destination, key, &arguments)), expected);
    }
    assert_eq!(world.try_bind("gt", "g2", &words, &[]), Ok(()));
    assert_eq!(world.try_unbind("gex", "g2", "zzz"), Ok(()));
    assert_eq!(world.try_unbind("nopeX", "g2", "zzz"), Ok(()));
    assert_eq!(world.try_unbind("gex", "nope", "zzz"), Ok(()));
}

#[test]
fn publishes_are_refused_as_observed() {
    let mut world = world();
    world.try_exchange("gint", "direct", INTERNAL, &[]).expect("declared");
    world.exchange("gt", "topic", &[]);
    let many_words = ["a"; 127].join(".") + "..";
    for (exchange, key, expected) in [
        ("nopeX", "a", "no exchange 'nopeX' in vhost '/'"),
        ("gint", "a", "cannot publish to internal exchange 'gint' in vhost '/'"),
        ("gt", &many_words, "routing key has more than 128 words"),
    ] {
        assert_eq!(refused(world.publish(exchange, &[key])), expected);
    }
    assert_eq!(world.publish("gex", &["nobind"]), Ok(vec![]));
    assert_eq!(world.publish("gex", &[&many_words]), Ok(vec![]));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding_as_source() {
    let mut world = world();
    world.try_exchange("rauto", "direct", AUTO_DELETE, &[]).expect("declared");
    world.bind("rauto", "g2", "k");
    assert_eq!(world.try_unbind("rauto", "g2", "k"), Ok(()));
    let answer = refused(world.try_exchange("rauto", "direct", PASSIVE, &[]));
    assert_eq!(answer, "no exchange 'rauto' in vhost '/'");
}

#[test]
fn an_auto_delete_exchange_stays_when_it_was_only_a_destination() {
    let mut world = world();
    world.exchange("rfrom", "fanout", &[]);
    world.try_exchange("rauto", "fanout", AUTO_DELETE, &[]).expect("declared");
    world.bind("rfrom", "exchange:rauto", "");
    assert_eq!(world.try_unbind("rfrom", "exchange:rauto", ""), Ok(()));
    assert_eq!(world.try_exchange("rauto", "fanout", PASSIVE, &[]), Ok(()));
}

#[test]
fn auto_delete_exchanges_go_one_after_the_other_when_their_queue_goes() {
    let mut world = world();
    for (name, to) in [("a3", "g2"), ("a2", "exchange:a3"), ("a1", "exchange:a2")] {
        world.try_exchange(name, "fanout", AUTO_DELETE, &[]).expect("declared");
        world.bind(name, to, "");
    }
    world.try_exchange("other", "fanout", AUTO_DELETE, &[]).expect("declared");
    let queue = world.catalog.vhost("/").and_then(|it| it.queue("g2")).cloned().expect("there");
    let changes = world.catalog.queue_removal(&queue);
    assert_eq!(changes.len(), 4, "{changes:?}");
    world.apply_all(changes);
    let vhost = world.catalog.vhost("/").expect("it is there");
    let left: Vec<_> = ["a1", "a2", "a3", "other", "gex"]
        .into_iter()
        .filter(|it| vhost.exchange(it).is_some())
        .collect();
    assert_eq!(left, ["other", "gex"]);
    assert_eq!(vhost.binding_count(), 0);
}
