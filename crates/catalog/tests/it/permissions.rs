//! Who may do what: observed answers.

use crate::world::{
    DURABLE, EXCLUSIVE, PASSIVE, World, exchange_request, queue_request, refused, table, text,
};
use catalog::{Change, TopicPermissions, VhostFacts, VhostLimits};
use model::{Name, Permission, Refusal, ShardId};
use std::sync::Arc;

type Operation = Box<dyn Fn(&World) -> Result<(), Refusal>>;

fn declares(name: &'static str, arguments: Vec<(&'static str, &'static str)>) -> Operation {
    Box::new(move |world| {
        let arguments: Vec<_> = arguments.iter().map(|(key, it)| (*key, text(it))).collect();
        let request = queue_request(name, DURABLE, table(&arguments));
        world.catalog.declare_queue(&world.who(), &request, ShardId(0)).map(drop)
    })
}

fn declares_exchange(arguments: Vec<(&'static str, &'static str)>) -> Operation {
    Box::new(move |world| {
        let arguments: Vec<_> = arguments.iter().map(|(key, it)| (*key, text(it))).collect();
        let request = exchange_request("px2", "direct", DURABLE, table(&arguments));
        world.catalog.declare_exchange(&world.who(), &request).map(drop)
    })
}

fn world() -> World {
    let mut world = World::new();
    world.declare("pq", &[]);
    world.exchange("px", "direct", &[]);
    world.exchange("pae", "direct", &[]);
    world.exchange("ptopic", "topic", &[]);
    world.become_user("golden-user", "", "", "");
    world
}

fn pattern(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|it| it.replace('.', "\\.")).collect();
    if names.is_empty() { String::new() } else { format!("^({})$", names.join("|")) }
}

/// Grants what each refusal names until the operation passes; lists the grants in order.
fn needed(world: &mut World, operation: &Operation) -> Vec<String> {
    let mut granted = [Vec::new(), Vec::new(), Vec::new()];
    let mut steps = Vec::new();
    loop {
        let [configure, write, read] = granted.each_ref().map(|it| pattern(it));
        world.become_user("golden-user", &configure, &write, &read);
        match operation(world) {
            Ok(()) => return steps,
            Err(Refusal::Access { permission, kind, name, .. }) => {
                steps.push(format!("{permission} {kind} {name}"));
                granted[permission as usize].push(name.to_string());
            }
            Err(other) => {
                steps.push(other.to_string());
                return steps;
            }
        }
    }
}

#[test]
fn each_operation_needs_what_was_observed() {
    let binding = || World::binding("px", "pq", "k", &[]);
    let between = || World::binding("px", "exchange:pae", "k", &[]);
    let publish = |exchange: &'static str, key: &'static str| -> Operation {
        Box::new(move |world| world.publish(exchange, &[key]).map(drop))
    };
    let cases: Vec<(&str, Operation, &[&str])> = vec![
        ("exchange.declare", declares_exchange(vec![]), &["configure exchange px2"]),
        (
            "exchange.declare with alternate",
            declares_exchange(vec![("alternate-exchange", "pae")]),
            &["configure exchange px2", "read exchange px2", "write exchange pae"],
        ),
        (
            "exchange.declare passive",
            Box::new(|world| {
                let request = exchange_request("px", "", PASSIVE, table(&[]));
                world.catalog.declare_exchange(&world.who(), &request).map(drop)
            }),
            &["configure exchange px"],
        ),
        (
            "exchange.bind",
            Box::new(move |world| world.catalog.bind(&world.who(), &between()).map(drop)),
            &["write exchange pae", "read exchange px"],
        ),
        (
            "exchange.unbind",
            Box::new(move |world| world.catalog.unbind(&world.who(), &between()).map(drop)),
            &["write exchange pae", "read exchange px"],
        ),
        (
            "exchange.delete",
            Box::new(|world| {
                world.catalog.delete_exchange(&world.who(), &Name::new("px2"), false).map(drop)
            }),
            &["configure exchange px2"],
        ),
        ("queue.declare", declares("pq2", vec![]), &["configure queue pq2"]),
        (
            "queue.declare with dead-letter-exchange",
            declares("pq2", vec![("x-dead-letter-exchange", "pae")]),
            &["configure queue pq2", "read queue pq2", "write exchange pae"],
        ),
        (
            "queue.declare with dead-letter-exchange ''",
            declares("pq2", vec![("x-dead-letter-exchange", "")]),
            &["configure queue pq2", "read queue pq2", "write exchange amq.default"],
        ),
        (
            "queue.declare passive",
            Box::new(|world| {
                let request = queue_request("pq", PASSIVE, table(&[]));
                world.catalog.declare_queue(&world.who(), &request, ShardId(0)).map(drop)
            }),
            &["configure queue pq"],
        ),
        (
            "queue.declare server-named",
            Box::new(|world| {
                let request = queue_request("", EXCLUSIVE, table(&[]));
                world.catalog.declare_queue(&world.who(), &request, ShardId(0)).map(drop)
            }),
            &["configure queue amq.gen-0123456789abcdefghijkl"],
        ),
        (
            "queue.bind",
            Box::new(move |world| world.catalog.bind(&world.who(), &binding()).map(drop)),
            &["write queue pq", "read exchange px"],
        ),
        (
            "queue.unbind",
            Box::new(move |world| world.catalog.unbind(&world.who(), &binding()).map(drop)),
            &["write queue pq", "read exchange px"],
        ),
        (
            "queue.purge, basic.get, basic.consume",
            Box::new(|world| world.queue_for("pq", Permission::Read).map(drop)),
            &["read queue pq"],
        ),
        (
            "queue.delete",
            Box::new(|world| world.catalog.delete_queue(&world.who(), &Name::new("pq2")).map(drop)),
            &["configure queue pq2"],
        ),
        ("basic.publish", publish("px", "k"), &["write exchange px"]),
        ("basic.publish to the default one", publish("", "pq"), &["write exchange amq.default"]),
        (
            "basic.publish to a missing one",
            publish("nope", "k"),
            &["write exchange nope", "no exchange 'nope' in vhost '/'"],
        ),
    ];
    for (name, operation, expected) in cases {
        assert_eq!(needed(&mut world(), &operation), expected, "{name}");
    }
}

#[test]
fn any_permission_allows_passive_declares_and_none_hides_what_is_there() {
    let mut world = world();
    for (configure, write, read) in [(".*", "", ""), ("", ".*", ""), ("", "", ".*")] {
        world.become_user("golden-user", configure, write, read);
        assert!(world.try_declare("pq", PASSIVE, &[]).is_ok());
        assert!(world.try_exchange("px", "", PASSIVE, &[]).is_ok());
    }
    world.become_user("golden-user", "", "", "");
    for queue in ["pq", "missing"] {
        assert_eq!(
            refused(world.try_declare(queue, PASSIVE, &[])),
            format!(
                "configure access to queue '{queue}' in vhost '/' refused for user 'golden-user'"
            )
        );
    }
}

#[test]
fn texts_are_as_observed_and_patterns_are_not_anchored() {
    let mut world = world();
    let refusal = |what: &str| format!("{what} in vhost '/' refused for user 'golden-user'");
    let queue = refused(world.try_declare("pq2", DURABLE, &[]));
    assert_eq!(queue, refusal("configure access to queue 'pq2'"));
    let exchange = refused(world.publish("px", &["k"]));
    assert_eq!(exchange, refusal("write access to exchange 'px'"));
    let default = refused(world.publish("", &["pq"]));
    assert_eq!(default, refusal("write access to exchange 'amq.default'"));
    world.become_user("golden-user", "pq", "", "");
    assert!(world.try_declare("xx-pq-xx", EXCLUSIVE, &[]).is_ok());
}

fn set_topic(world: &mut World, user: &str, write: &str, read: &str) {
    let permissions = TopicPermissions::new(user, "/", "ptopic", write, read).expect("compile");
    let vhost = world.catalog.vhost("/").expect("it is there").id;
    world.apply(&Change::TopicPermissionSet {
        vhost,
        user: Name::new(user),
        permissions: Arc::new(permissions),
    });
}

#[test]
fn topics_are_allowed_and_refused_as_observed() {
    let mut world = world();
    world.become_user("golden-user", ".*", ".*", ".*");
    assert!(world.publish("ptopic", &["b.a"]).is_ok(), "no entry allows every topic");
    set_topic(&mut world, "golden-user", "^a", "^{username}");
    assert!(world.publish("ptopic", &["a.b"]).is_ok());
    assert_eq!(
        refused(world.publish("ptopic", &["a.b", "b.a"])),
        "write access to topic 'b.a' in exchange 'ptopic' in vhost '/' refused for user \
         'golden-user'"
    );
    assert_eq!(world.try_bind("ptopic", "pq", "golden-user.x", &[]), Ok(()));
    assert_eq!(
        refused(world.try_bind("ptopic", "pq", "b.#", &[])),
        "read access to topic 'b.#' in exchange 'ptopic' in vhost '/' refused for user \
         'golden-user'"
    );
    assert!(world.publish("px", &["b.a"]).is_ok(), "only on topic exchanges");
    set_topic(&mut world, "golden-user", "", ".*");
    assert!(world.publish("ptopic", &["a.b"]).is_err(), "the empty pattern matches nothing");
}

#[test]
fn names_in_topic_patterns_are_escaped() {
    let mut world = world();
    world.become_user("a.*-[z]", ".*", ".*", ".*");
    set_topic(&mut world, "a.*-[z]", "^{username}$", "^{vhost}{client_id}$");
    assert!(world.publish("ptopic", &["a.*-[z]"]).is_ok());
    assert!(world.publish("ptopic", &["a.bc-z"]).is_err());
    let mut who = world.who();
    let read = |who: &catalog::Who<'_>, topic: &str| {
        world.catalog.authorize_topic(who, Permission::Read, "ptopic", topic).is_ok()
    };
    assert!(!read(&who, "/"));
    who.client_id = Some(".{username}");
    assert!(read(&who, "/.{username}"));
    assert!(!read(&who, "/xa.*-[z]"));
}

#[test]
fn a_user_without_permissions_does_not_enter() {
    let mut world = world();
    let vhost = world.catalog.vhost("/").expect("it is there").id;
    assert!(world.catalog.authorize_vhost(&world.user, &world.vhost).is_ok());
    world.apply(&Change::PermissionRemoved { vhost, user: world.user.clone() });
    assert_eq!(
        world.catalog.authorize_vhost(&world.user, &world.vhost).err().map(|it| it.to_string()),
        Some("access to vhost '/' refused for user 'golden-user'".to_owned())
    );
    let nope = world.catalog.authorize_vhost(&world.user, &Name::new("nope"));
    assert_eq!(nope.err().map(|it| it.to_string()), Some("vhost nope not found".to_owned()));
}

#[test]
fn a_removed_user_leaves_no_permission_behind() {
    let mut world = world();
    world.become_user("golden-user", ".*", ".*", ".*");
    set_topic(&mut world, "golden-user", "^a", "^a");
    world.apply(&Change::UserRemoved(Name::new("golden-user")));
    assert!(world.publish("px", &["k"]).is_err());
    let vhost = world.catalog.vhost("/").expect("it is there");
    assert_eq!((vhost.permissions().count(), vhost.topic_permissions().count()), (1, 0));
}

#[test]
fn the_limit_of_queues_is_told_as_observed() {
    let mut world = world();
    world.become_user("golden-user", ".*", ".*", ".*");
    let facts = world.catalog.vhost("/").expect("it is there").facts().clone();
    let limits = VhostLimits { queues_max: Some(1), connections_max: None };
    world.apply(&Change::VhostSet(Arc::new(VhostFacts { limits, ..(*facts).clone() })));
    assert_eq!(
        refused(world.try_declare("lq", DURABLE, &[])),
        "cannot declare queue 'lq': queue limit in vhost '/' (1) is reached"
    );
    assert!(world.try_declare("pq", DURABLE, &[]).is_ok(), "one that is there is not a new one");
}
