//! Where messages go.

use crate::world::{AUTO_DELETE, TRANSIENT, World, int, table, text};
use model::{Value, properties::Properties};
use std::collections::{BTreeMap, BTreeSet};

fn world() -> World {
    let mut world = World::new();
    world.declare("r1", &[]);
    world.declare("r2", &[]);
    world
}

#[test]
fn the_default_exchange_routes_by_the_name_of_the_queue() {
    let world = world();
    assert_eq!(world.publish("", &["r1"]), Ok(vec!["r1".to_owned()]));
    assert_eq!(world.publish("", &["nope"]), Ok(vec![]));
    let several = world.publish("", &["r2", "r1", "r2"]);
    assert_eq!(several, Ok(vec!["r1".to_owned(), "r2".to_owned()]));
}

#[test]
fn a_cycle_of_exchanges_gives_one_copy() {
    let mut world = world();
    world.exchange("rfrom", "fanout", &[]);
    world.exchange("rto", "fanout", &[]);
    world.bind("rfrom", "exchange:rto", "");
    world.bind("rto", "exchange:rfrom", "");
    world.bind("rfrom", "r1", "");
    world.bind("rto", "r1", "");
    assert_eq!(world.publish("rfrom", &[""]), Ok(vec!["r1".to_owned()]));
}

#[test]
fn a_long_chain_of_exchanges_is_walked_once() {
    let mut world = world();
    for number in 0..200 {
        world.exchange(&format!("x{number}"), "fanout", &[]);
    }
    for number in 0..200 {
        for to in [number + 1, number / 2] {
            world.bind(&format!("x{number}"), &format!("exchange:x{}", to % 200), "");
        }
    }
    world.bind("x199", "r1", "");
    assert_eq!(world.publish("x0", &[""]), Ok(vec!["r1".to_owned()]));
}

#[test]
fn the_alternate_takes_what_is_routed_nowhere() {
    let mut world = world();
    world.exchange("rae1", "fanout", &[]);
    world.exchange("rae2", "direct", &[("alternate-exchange", text("rae1"))]);
    assert_eq!(world.publish("rae2", &["nobind"]), Ok(vec![]));
    world.bind("rae1", "r1", "");
    world.bind("rae2", "r2", "k");
    assert_eq!(world.publish("rae2", &["nobind"]), Ok(vec!["r1".to_owned()]));
    assert_eq!(world.publish("rae2", &["k"]), Ok(vec!["r2".to_owned()]));
    world.exchange("loop1", "direct", &[("alternate-exchange", text("loop2"))]);
    world.exchange("loop2", "direct", &[("alternate-exchange", text("loop1"))]);
    assert_eq!(world.publish("loop1", &["k"]), Ok(vec![]));
    world.exchange("default", "direct", &[("alternate-exchange", text(""))]);
    assert_eq!(world.publish("default", &["r1"]), Ok(vec!["r1".to_owned()]));
}

#[test]
fn a_binding_made_twice_is_one() {
    let mut world = world();
    world.exchange("rtwice", "direct", &[]);
    world.bind("rtwice", "r1", "r");
    world.bind("rtwice", "r1", "r");
    assert_eq!(world.publish("rtwice", &["r"]), Ok(vec!["r1".to_owned()]));
    assert_eq!(world.try_unbind("rtwice", "r1", "r"), Ok(()));
    assert_eq!(world.publish("rtwice", &["r"]), Ok(vec![]));
}

#[test]
fn bindings_that_differ_in_arguments_are_two_and_give_one_copy() {
    let mut world = world();
    for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
        world.try_bind(exchange, "r1", "k", &[("a", int(1)), ("b", int(2))]).expect("bound");
        world.try_bind(exchange, "r1", "k", &[("b", int(2)), ("a", int(1))]).expect("bound");
        world.bind(exchange, "r1", "k");
        assert_eq!(world.publish(exchange, &["k"]), Ok(vec!["r1".to_owned()]));
        assert_eq!(world.try_unbind(exchange, "r1", "k"), Ok(()));
        assert_eq!(world.publish(exchange, &["k"]), Ok(vec!["r1".to_owned()]));
    }
    assert_eq!(world.catalog.vhost("/").expect("it is there").binding_count(), 3);
}

#[test]
fn several_keys_give_each_queue_one_copy() {
    let mut world = world();
    world.bind("amq.topic", "r1", "a.#");
    world.bind("amq.topic", "r1", "#.b");
    world.bind("amq.topic", "r2", "c");
    let found = world.publish("amq.topic", &["a.b", "c", "a"]);
    assert_eq!(found, Ok(vec!["r1".to_owned(), "r2".to_owned()]));
}

#[test]
fn headers_are_read_from_the_properties() {
    let mut world = world();
    world.try_bind("amq.headers", "r1", "", &[("a", int(1))]).expect("bound");
    let sent = |value: Value| {
        let headers = Some(table(&[("a", value)]));
        let properties = Properties { headers, ..Properties::default() }.encoded();
        world.publish_with("amq.headers", &["k"], &properties, 0)
    };
    assert_eq!(sent(Value::I64(1)), Ok(vec!["r1".to_owned()]));
    assert_eq!(sent(text("1")), Ok(vec![]));
    assert_eq!(world.publish("amq.headers", &["k"]), Ok(vec![]));
}

fn spread(world: &World, exchange: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for number in 0..2000_u64 {
        let key = format!("key {number}");
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let found = world.publish_with(exchange, &[&key], &[0, 0], random).expect("published");
        assert_eq!(found.len(), 1);
        *counts.entry(found[0].clone()).or_default() += 1;
    }
    counts
}

#[test]
fn a_hash_exchange_spreads_keys_by_weight_and_moves_few() {
    let mut world = world();
    world.exchange("hash", "x-consistent-hash", &[]);
    world.bind("hash", "r1", "1");
    world.bind("hash", "r2", "3");
    let counts = spread(&world, "hash");
    assert!((400..600).contains(&counts["r1"]), "{counts:?}");
    let home = |world: &World, key: &str| world.publish("hash", &[key]).expect("published");
    let keys: Vec<_> = (0..500).map(|it| format!("k{it}")).collect();
    let before: Vec<_> = keys.iter().map(|it| home(&world, it)).collect();
    world.declare("r3", &[]);
    world.bind("hash", "r3", "4");
    let moved: BTreeSet<_> = keys
        .iter()
        .zip(&before)
        .filter_map(|(key, before)| {
            let after = home(&world, key);
            (after != *before).then_some(after)
        })
        .collect();
    assert_eq!(moved, BTreeSet::from([vec!["r3".to_owned()]]), "keys move to the new one only");
}

#[test]
fn a_hash_exchange_hashes_the_header_or_property_it_was_told() {
    let mut world = world();
    for (name, argument, value) in
        [("by-header", "hash-header", "user"), ("by-property", "hash-property", "message_id")]
    {
        world.exchange(name, "x-consistent-hash", &[(argument, text(value))]);
        for queue in ["r1", "r2"] {
            world.bind(name, queue, "1");
        }
        let mut homes = BTreeSet::new();
        for user in 0..40 {
            let sent = |key: &str| {
                let headers = Some(table(&[("user", int(user))]));
                let message_id = Some(user.to_string().into());
                let properties = Properties { headers, message_id, ..Properties::default() };
                world.publish_with(name, &[key], &properties.encoded(), 0).expect("published")
            };
            assert_eq!(sent("a"), sent("b"), "the key does not count");
            homes.insert(sent("a"));
        }
        assert_eq!(homes.len(), 2);
    }
}

#[test]
fn exchanges_of_chance_and_modulus_choose_one_of_all() {
    let mut world = world();
    for kind in ["x-random", "x-local-random", "x-modulus-hash"] {
        world.exchange(kind, kind, &[]);
        assert_eq!(world.publish(kind, &["k"]), Ok(vec![]));
        world.bind(kind, "r1", "");
        world.bind(kind, "r2", "");
        let counts = spread(&world, kind);
        assert!(counts.values().all(|it| 800 < *it), "{kind}: {counts:?}");
    }
    assert_eq!(world.publish("x-modulus-hash", &["k"]), world.publish("x-modulus-hash", &["k"]));
}

#[test]
fn a_deleted_queue_is_routed_to_no_more() {
    let mut world = world();
    world.try_exchange("auto", "direct", AUTO_DELETE, &[]).expect("declared");
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "auto"] {
        world.bind(exchange, "r1", "k");
    }
    let queue = world.queue_for("r1", model::Permission::Read).expect("it is there");
    let changes = world.catalog.queue_removal(&queue);
    world.apply_all(changes);
    for exchange in ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        assert_eq!(world.publish(exchange, &["k"]), Ok(vec![]), "{exchange}");
    }
    assert_eq!(world.catalog.vhost("/").expect("it is there").binding_count(), 0);
    assert!(world.publish("auto", &["k"]).is_err());
}

#[test]
fn a_route_tells_what_each_queue_keeps() {
    let mut world = world();
    world.declare("quorum", &[("x-queue-type", text("quorum"))]);
    world.try_declare("transient", TRANSIENT, &[]).expect("declared");
    let mut route = catalog::Route::default();
    let vhost = world.catalog.vhost("/").expect("it is there");
    let keys = ["r1", "quorum", "transient"];
    world.catalog.route(vhost, "", &keys, &[0, 0], 0, &mut route).expect("routed");
    let kept: Vec<_> = route.queues.iter().map(|it| (it.keeps(false), it.keeps(true))).collect();
    assert_eq!(kept, [(false, true), (true, true), (false, false)]);
}
