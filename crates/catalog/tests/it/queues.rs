//! Declaring queues and using them: observed answers.

use crate::world::{
    AUTO_DELETE, DURABLE, EXCLUSIVE, Flags, PASSIVE, TRANSIENT, World, int, refused, table, text,
};
use catalog::Declared;
use model::{
    Name, Permission, RefusalKind, SessionId, ShardId, Value,
    policy::{DelayedRetry, Order, Overflow, Priorities},
};

type Arguments<'a> = &'a [(&'a str, Value)];
type Owned = Vec<(&'static str, Value)>;

fn quorum() -> (&'static str, Value) {
    ("x-queue-type", text("quorum"))
}

fn world() -> World {
    let mut world = World::new();
    world.declare("g1", &[("x-message-ttl", int(1000))]);
    world.declare("g2", &[]);
    world.declare("gq", &[quorum()]);
    world
}

#[test]
fn a_redeclaration_that_differs_is_refused_as_observed() {
    let mut world = world();
    let inequivalent = |argument: &str, queue: &str, difference: &str| {
        format!("inequivalent arg '{argument}' for queue '{queue}' in vhost '/': {difference}")
    };
    let cases: Vec<(&str, Flags, Owned, &str, &str)> = vec![
        (
            "g1",
            DURABLE,
            vec![("x-message-ttl", int(2000))],
            "x-message-ttl",
            "received '2000' but current is '1000'",
        ),
        (
            "g1",
            DURABLE,
            vec![],
            "x-message-ttl",
            "received none but current is the value '1000' of type 'signedint'",
        ),
        (
            "g1",
            DURABLE,
            vec![("x-message-ttl", Value::F64(1000.0))],
            "x-message-ttl",
            "received '1.0e3' but current is '1000'",
        ),
        (
            "g1",
            DURABLE,
            vec![("x-message-ttl", text("1000"))],
            "x-message-ttl",
            "received '1000' but current is '1000'",
        ),
        (
            "g2",
            DURABLE,
            vec![("x-max-length", int(5))],
            "x-max-length",
            "received the value '5' of type 'signedint' but current is none",
        ),
        ("g2", TRANSIENT, vec![], "durable", "received 'false' but current is 'true'"),
        ("g2", AUTO_DELETE, vec![], "auto_delete", "received 'true' but current is 'false'"),
        (
            "g2",
            DURABLE,
            vec![quorum()],
            "x-queue-type",
            "received 'quorum' but current is 'classic'",
        ),
        ("gq", DURABLE, vec![], "x-queue-type", "received 'classic' but current is 'quorum'"),
        (
            "g2",
            DURABLE,
            vec![("x-queue-type", text("foo"))],
            "x-queue-type",
            "received 'foo' but current is 'classic'",
        ),
        (
            "g2",
            DURABLE,
            vec![("x-max-priority", int(-1))],
            "x-max-priority",
            "received the value '-1' of type 'signedint' but current is none",
        ),
        ("gq", TRANSIENT, vec![quorum()], "durable", "received 'false' but current is 'true'"),
        (
            "g2",
            DURABLE,
            vec![("x-max-length", Value::I64(5))],
            "x-max-length",
            "received the value '5' of type 'long' but current is none",
        ),
        (
            "g2",
            DURABLE,
            vec![("x-single-active-consumer", Value::Bool(true))],
            "x-single-active-consumer",
            "received the value 'true' of type 'bool' but current is none",
        ),
        (
            "g2",
            DURABLE,
            vec![("x-dead-letter-exchange", Value::Void)],
            "x-dead-letter-exchange",
            "received the value 'undefined' of type 'void' but current is none",
        ),
    ];
    for (queue, flags, arguments, argument, difference) in cases {
        let answer = world.try_declare(queue, flags, &arguments);
        assert_eq!(refused(answer), inequivalent(argument, queue, difference));
    }
    assert_eq!(
        refused(world.try_declare("g2", EXCLUSIVE, &[])),
        "cannot obtain exclusive access to locked queue 'g2' in vhost '/'. It could be originally \
         declared on another connection or the exclusive property value does not match that of the \
         original declaration."
    );
}

#[test]
fn a_redeclaration_that_means_the_same_is_accepted() {
    let mut world = world();
    let cases: [(&str, Flags, Arguments<'_>); 9] = [
        ("g1", DURABLE, &[("x-message-ttl", Value::I64(1000))]),
        ("g1", DURABLE, &[("x-message-ttl", Value::I16(1000))]),
        ("g2", DURABLE, &[("x-foo", text("bar"))]),
        ("g2", DURABLE, &[("x-queue-type", text("classic"))]),
        ("g2", DURABLE, &[("x-delivery-limit", int(5))]),
        ("gq", DURABLE, &[quorum(), ("x-max-priority", int(5))]),
        ("g\r\n2", DURABLE, &[]),
        ("g1", PASSIVE, &[("x-message-ttl", int(7))]),
        ("g1", Flags { passive: true, ..TRANSIENT }, &[]),
    ];
    let version = world.catalog.version();
    for (queue, flags, arguments) in cases {
        let answer = world.try_declare(queue, flags, arguments);
        assert!(answer.is_ok(), "{queue} {arguments:?}: {answer:?}");
    }
    assert_eq!(world.catalog.version(), version);
}

#[test]
fn an_argument_beyond_the_kind_is_compared_when_the_queue_has_it() {
    let mut world = World::new();
    world.declare("q", &[("x-delivery-limit", int(5)), ("x-order", text("lifo"))]);
    let same: Arguments<'_> = &[("x-delivery-limit", int(5)), ("x-order", text("lifo"))];
    assert!(world.try_declare("q", DURABLE, same).is_ok());
    assert_eq!(
        refused(world.try_declare("q", DURABLE, &[("x-delivery-limit", int(6)), same[1].clone()])),
        "inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received '6' but current \
         is '5'"
    );
}

#[test]
fn a_declaration_that_is_wrong_is_refused_as_observed() {
    let mut world = World::new();
    let transient_quorum = Flags { durable: false, ..DURABLE };
    let invalid = |argument: &str, queue: &str, reason: &str| {
        format!("invalid arg '{argument}' for queue '{queue}' in vhost '/'{reason}")
    };
    let property = |it: &str| format!("invalid property '{it}' for queue 'gx3' in vhost '/'");
    let gx = |argument: &str, reason: &str| invalid(argument, "gx", &format!(": {reason}"));
    let cases: Vec<(&str, Flags, Owned, String)> = vec![
        (
            "gx",
            DURABLE,
            vec![("x-queue-type", text("foo"))],
            gx("x-queue-type", "\"unsupported queue type 'foo'\""),
        ),
        ("gx3", transient_quorum, vec![quorum()], property("non-durable")),
        ("gx3", AUTO_DELETE, vec![quorum()], property("auto-delete")),
        ("gx3", EXCLUSIVE, vec![quorum()], property("exclusive-owner")),
        (
            "",
            DURABLE,
            vec![quorum()],
            "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned(),
        ),
        (
            "gx8",
            DURABLE,
            vec![("x-queue-version", int(1))],
            invalid("x-queue-version", "gx8", ": \"unsupported queue version '1'\""),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-delivery-limit", int(5)), ("x-message-ttl", int(-1))],
            gx("x-message-ttl", "{value_negative,-1}"),
        ),
        (
            "gx",
            transient_quorum,
            vec![quorum(), ("x-queue-mode", text("lazy"))],
            invalid("x-queue-mode", "gx", " of queue type rabbit_quorum_queue"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-max-in-memory-length", int(5))],
            invalid("x-max-in-memory-length", "gx", " of queue type rabbit_classic_queue"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-max-age", text("1h"))],
            invalid("x-max-age", "gx", " of queue type rabbit_classic_queue"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-message-ttl", int(-1))],
            gx("x-message-ttl", "{value_negative,-1}"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-message-ttl", text("abc"))],
            gx("x-message-ttl", "\"expected integer, got longstr\""),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-message-ttl", Value::I64(315_360_000_001))],
            gx("x-message-ttl", "{value_too_large,315360000001}"),
        ),
        ("gx", DURABLE, vec![("x-expires", int(0))], gx("x-expires", "{value_zero,0}")),
        ("gx", DURABLE, vec![("x-max-length", int(-1))], gx("x-max-length", "{value_negative,-1}")),
        ("gx", DURABLE, vec![("x-overflow", text("nope"))], gx("x-overflow", "invalid_overflow")),
        (
            "gx",
            DURABLE,
            vec![("x-dead-letter-routing-key", text("a"))],
            gx("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-max-priority", int(256))],
            gx("x-max-priority", "{max_value_exceeded,256}"),
        ),
        (
            "gx",
            DURABLE,
            vec![quorum(), ("x-dead-letter-strategy", text("foo"))],
            gx("x-dead-letter-strategy", "invalid_dlx_strategy"),
        ),
        (
            "gx",
            DURABLE,
            vec![quorum(), ("x-queue-leader-locator", text("foo"))],
            gx("x-queue-leader-locator", "invalid_queue_locator_arg"),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-queue-type", text("stream")), ("x-message-ttl", int(1))],
            gx("x-queue-type", "\"unsupported queue type 'stream'\""),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-message-deduplication", Value::Bool(true))],
            gx("x-message-deduplication", "\"not supported yet\""),
        ),
        (
            "gx",
            DURABLE,
            vec![("x-dead-letter-exchange", int(1))],
            "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'gx' in vhost '/'"
                .to_owned(),
        ),
        (
            "amq.foo",
            DURABLE,
            vec![],
            "queue name 'amq.foo' contains reserved prefix 'amq.*'".to_owned(),
        ),
        ("nope", PASSIVE, vec![], "no queue 'nope' in vhost '/'".to_owned()),
        (
            "amq.rabbitmq.reply-to.bogus",
            PASSIVE,
            vec![],
            "no queue 'amq.rabbitmq.reply-to.bogus' in vhost '/'".to_owned(),
        ),
    ];
    for (queue, flags, arguments, expected) in cases {
        assert_eq!(refused(world.try_declare(queue, flags, &arguments)), expected);
    }
    assert_eq!(world.catalog.queue_count(), 0);
}

#[test]
fn a_declaration_that_is_right_is_accepted() {
    let mut world = World::new();
    let cases: [(&str, Flags, Arguments<'_>); 8] = [
        ("gx2", TRANSIENT, &[]),
        ("gx4", DURABLE, &[quorum(), ("x-max-priority", int(5))]),
        ("gx5", DURABLE, &[("x-delivery-limit", int(5))]),
        ("gx6", DURABLE, &[("x-consumer-timeout", int(5000))]),
        ("gx7", DURABLE, &[("x-queue-mode", text("lazy"))]),
        ("gx9", DURABLE, &[("x-queue-version", int(2))]),
        (&"g".repeat(255), EXCLUSIVE, &[]),
        ("", EXCLUSIVE, &[]),
    ];
    for (queue, flags, arguments) in cases {
        let answer = world.try_declare(queue, flags, arguments);
        assert!(answer.is_ok(), "{queue} {arguments:?}: {answer:?}");
    }
    let named = world.try_declare("", EXCLUSIVE, &[]).map(|it| it.name.clone());
    let again = refused(named);
    assert!(again.starts_with("not refused: \"amq.gen-0123456789abcdefghijkl\""), "{again}");
}

#[test]
fn an_exclusive_queue_is_never_durable_and_closed_to_others() {
    let mut world = World::new();
    let queue = world.try_declare("gexcl", EXCLUSIVE, &[]).expect("declared");
    assert!(!queue.durable);
    let transient = Flags { durable: false, ..EXCLUSIVE };
    assert!(world.try_declare("gexcl", transient, &[]).is_ok());
    world.exchange("gex", "direct", &[]);
    world.session = SessionId(2);
    let locked = "cannot obtain exclusive access to locked queue 'gexcl' in vhost '/'. It could be \
                  originally declared on another connection or the exclusive property value does \
                  not match that of the original declaration.";
    assert_eq!(refused(world.try_declare("gexcl", PASSIVE, &[])), locked);
    assert_eq!(refused(world.try_declare("gexcl", EXCLUSIVE, &[])), locked);
    assert_eq!(refused(world.queue_for("gexcl", Permission::Read)), locked);
    assert_eq!(refused(world.try_bind("gex", "gexcl", "k", &[])), locked);
    let name = Name::new("gexcl");
    let deleted = world.catalog.delete_queue(&world.who(), &name);
    assert_eq!(deleted.as_ref().err().map(model::Refusal::kind), Some(RefusalKind::Locked));
    assert_eq!(refused(deleted), locked);
}

#[test]
fn a_missing_queue_is_deleted_and_nothing_else() {
    let world = World::new();
    let missing = world.catalog.delete_queue(&world.who(), &Name::new("nope"));
    assert_eq!(missing, Ok(None));
    let answer = world.queue_for("nope", Permission::Read);
    assert_eq!(refused(answer), "no queue 'nope' in vhost '/'");
}

#[test]
fn rules_follow_from_the_arguments() {
    let mut world = World::new();
    let classic = world
        .try_declare(
            "c",
            DURABLE,
            &[
                ("x-message-ttl", int(0)),
                ("x-expires", Value::I64(60_000)),
                ("x-max-length", int(0)),
                ("x-max-length-bytes", Value::I16(7)),
                ("x-overflow", text("reject-publish-dlx")),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text("dead")),
                ("x-max-priority", int(10)),
                ("x-order", text("lifo")),
                ("x-single-active-consumer", Value::Bool(true)),
                ("x-delayed-retry-type", text("failed")),
                ("x-delayed-retry-min", int(100)),
                ("x-delayed-retry-max", int(1000)),
                ("x-consumer-timeout", int(30_000)),
            ],
        )
        .expect("declared");
    let rules = &classic.policy;
    assert_eq!((rules.ttl_ms, rules.expires_ms), (Some(0), Some(60_000)));
    assert_eq!((rules.length_max, rules.length_bytes_max), (Some(0), Some(7)));
    assert_eq!(rules.overflow, Overflow::RejectPublishDeadLetter);
    let target = rules.dead_letter.as_ref().expect("there is one");
    assert_eq!((&*target.exchange, target.routing_key.as_deref()), ("", Some("dead")));
    assert_eq!((rules.priorities, rules.order), (Priorities::UpTo(10), Order::Lifo));
    assert!(rules.single_active_consumer && !rules.counts_deliveries && !rules.keeps_all);
    assert_eq!(rules.delayed_retry, DelayedRetry::Failed);
    assert_eq!((rules.delayed_retry_ms_min, rules.delayed_retry_ms_max), (100, 1000));
    assert_eq!(rules.consumer_timeout_ms, Some(30_000));
    assert_eq!((rules.delivery_limit, rules.queue), (None, classic.id));

    let quorum_queue = world.try_declare("q", DURABLE, &[quorum()]).expect("declared");
    let rules = &quorum_queue.policy;
    assert!(rules.keeps_all && rules.counts_deliveries && rules.durable);
    assert_eq!((rules.delivery_limit, rules.priorities), (Some(20), Priorities::Quorum));

    let unlimited: Arguments<'_> = &[quorum(), ("x-delivery-limit", int(-1))];
    let unlimited = world.try_declare("u", DURABLE, unlimited).expect("declared");
    assert_eq!(unlimited.policy.delivery_limit, None);
    let counted = world.try_declare("n", DURABLE, &[("x-delivery-limit", int(3))]);
    let counted = counted.expect("declared");
    assert!(counted.policy.counts_deliveries);
    assert_eq!(counted.policy.delivery_limit, Some(3));
}

#[test]
fn numbers_of_queues_are_never_used_again() {
    let mut world = World::new();
    let first = world.try_declare("q", TRANSIENT, &[]).expect("declared");
    let removal = world.catalog.queue_removal(&first);
    world.apply_all(removal);
    let second = world.declare("q", &[]);
    assert!(first.id < second);
    assert!(world.catalog.queue_removal(&first).is_empty(), "it is gone, not the new one");
}

#[test]
fn the_shard_of_a_queue_is_the_one_it_was_declared_with() {
    let world = World::new();
    let request = crate::world::queue_request("q", DURABLE, table(&[]));
    let declared = world.catalog.declare_queue(&world.who(), &request, ShardId(3));
    let Ok(Declared::Created(change, queue)) = declared else { panic!("{declared:?}") };
    assert_eq!((queue.shard, queue.policy.shard), (ShardId(3), ShardId(3)));
    assert!(change.durable());
}
