//! Changes are the catalog on disk: read back they are the same, and all of them make the same
//! catalog again.

use crate::world::{AUTO_DELETE, DURABLE, EXCLUSIVE, Flags, TRANSIENT, World};
use catalog::{
    Catalog, Change, ChangeError, PasswordHash, Permissions, TopicPermissions, User, UserLimits,
    VhostFacts, VhostLimits,
};
use model::{Name, QueueId, Value, VhostId};
use proptest::prelude::*;
use std::sync::Arc;

/// The catalog as text, in an order of its own.
fn content(catalog: &Catalog) -> Vec<String> {
    let mut content: Vec<_> = catalog.changes().map(|it| format!("{it:?}")).collect();
    content.sort_unstable();
    content
}

fn octets(change: &Change) -> Vec<u8> {
    let mut octets = Vec::new();
    change.encode(&mut octets);
    octets
}

#[derive(Clone, Debug)]
enum Step {
    Declare(u8, u8),
    Delete(u8),
    Exchange(u8, u8, u8),
    DeleteExchange(u8),
    Bind(u8, u8, bool, u8, bool),
    Unbind(u8, u8, bool, u8, bool),
    User(u8),
    RemoveUser(u8),
    Topic(u8, u8),
    Vhost(u8),
    RemoveVhost(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (few, some) = (0..4_u8, 0..8_u8);
    let step = prop_oneof![
        4 => (some.clone(), few.clone()).prop_map(|(a, b)| Step::Declare(a, b)),
        1 => some.clone().prop_map(Step::Delete),
        3 => (few.clone(), 0..6_u8, 0..3_u8).prop_map(|(a, b, c)| Step::Exchange(a, b, c)),
        1 => few.clone().prop_map(Step::DeleteExchange),
        8 => (few.clone(), some.clone(), any::<bool>(), few.clone(), any::<bool>())
            .prop_map(|(a, b, c, d, e)| Step::Bind(a, b, c, d, e)),
        4 => (few.clone(), some, any::<bool>(), few.clone(), any::<bool>())
            .prop_map(|(a, b, c, d, e)| Step::Unbind(a, b, c, d, e)),
        1 => few.clone().prop_map(Step::User),
        1 => few.clone().prop_map(Step::RemoveUser),
        1 => (few.clone(), few.clone()).prop_map(|(a, b)| Step::Topic(a, b)),
        1 => few.clone().prop_map(Step::Vhost),
        1 => few.prop_map(Step::RemoveVhost),
    ];
    prop::collection::vec(step, 0..60)
}

const KINDS: [&str; 6] = ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-random"];

fn flags(number: u8) -> Flags {
    [DURABLE, TRANSIENT, AUTO_DELETE, EXCLUSIVE][usize::from(number)]
}

/// Takes one step and says which changes it made. What is refused makes none.
fn take(world: &World, step: &Step) -> Vec<Change> {
    let who = world.who();
    let user = |number: u8| Name::from(format!("u{number}"));
    let exchange = |number: u8| if number == 3 { "amq.topic".into() } else { format!("x{number}") };
    let binding = |from: u8, to: u8, to_exchange: bool, key: u8, arguments: bool| {
        let arguments: &[_] = if arguments { &[("a", Value::Bool(true))] } else { &[] };
        let to = if to_exchange { format!("exchange:x{}", to % 4) } else { format!("q{to}") };
        World::binding(&exchange(from), &to, ["1", "2", "a.#", "*.b"][usize::from(key)], arguments)
    };
    let vhost = world.catalog.vhost("/").expect("it is there").id;
    match *step {
        Step::Declare(queue, kind) => {
            let name = format!("q{queue}");
            let request = crate::world::queue_request(&name, flags(kind), Default::default());
            match world.catalog.declare_queue(&who, &request, model::ShardId(queue.into())) {
                Ok(catalog::Declared::Created(change, _)) => vec![change],
                _ => Vec::new(),
            }
        }
        Step::Delete(queue) => {
            match world.catalog.delete_queue(&who, &Name::from(format!("q{queue}"))) {
                Ok(Some(queue)) => world.catalog.queue_removal(&queue),
                _ => Vec::new(),
            }
        }
        Step::Exchange(name, kind, how) => {
            let (name, kind) = (format!("x{name}"), KINDS[usize::from(kind)]);
            let flags = flags(how);
            let request = crate::world::exchange_request(&name, kind, flags, Default::default());
            world.catalog.declare_exchange(&who, &request).ok().flatten().into_iter().collect()
        }
        Step::DeleteExchange(name) => {
            let name = Name::from(exchange(name));
            world.catalog.delete_exchange(&who, &name, false).unwrap_or_default()
        }
        Step::Bind(from, to, to_exchange, key, arguments) => {
            let request = binding(from, to, to_exchange, key, arguments);
            world.catalog.bind(&who, &request).ok().flatten().into_iter().collect()
        }
        Step::Unbind(from, to, to_exchange, key, arguments) => {
            let request = binding(from, to, to_exchange, key, arguments);
            world.catalog.unbind(&who, &request).unwrap_or_default()
        }
        Step::User(number) => {
            let limits = UserLimits { connections_max: Some(number.into()), channels_max: None };
            let password = PasswordHash::Sha256 { salt: [number; 4], hash: [7; 32] };
            let (name, tags) = (user(number), vec![Name::new("monitoring")]);
            let set = User { name, password, tags, limits };
            let permissions = Permissions::new("^a", "", "b$").expect("they compile");
            vec![
                Change::UserSet(Arc::new(set)),
                Change::PermissionSet {
                    vhost,
                    user: user(number),
                    permissions: Arc::new(permissions),
                },
            ]
        }
        Step::RemoveUser(number) => vec![Change::UserRemoved(user(number))],
        Step::Topic(number, exchange) => {
            let (user, exchange) = (user(number), format!("x{exchange}"));
            if world.catalog.user(&user).is_none() {
                return Vec::new();
            }
            let permissions = TopicPermissions::new(&user, "/", &exchange, "^{username}", "a");
            let permissions = Arc::new(permissions.expect("they compile"));
            vec![Change::TopicPermissionSet { vhost, user, permissions }]
        }
        Step::Vhost(number) => {
            let name = format!("v{number}");
            let there = world.catalog.vhost(&name).map(|it| it.id);
            let id = there.unwrap_or_else(|| world.catalog.next_vhost_id());
            vec![Change::VhostSet(Arc::new(VhostFacts {
                id,
                name: name.into(),
                description: "a virtual host".to_owned(),
                limits: VhostLimits { queues_max: Some(7), connections_max: None },
                ..VhostFacts::default()
            }))]
        }
        Step::RemoveVhost(number) => {
            let vhost = world.catalog.vhost(&format!("v{number}"));
            vhost.map(|it| Change::VhostRemoved(it.id)).into_iter().collect()
        }
    }
}

fn routes(world: &World) -> Vec<Vec<String>> {
    let mut routes = Vec::new();
    for exchange in ["x0", "x1", "x2", "amq.topic"] {
        for key in ["1", "2", "a", "a.b", "b"] {
            routes.push(world.publish_with(exchange, &[key], &[0, 0], 77).unwrap_or_default());
        }
    }
    routes
}

proptest! {
    #[test]
    fn changes_rebuild_the_catalog(steps in steps()) {
        let mut world = World::new();
        let mut log: Vec<_> = catalog::initial("guest", PasswordHash::None);
        for step in &steps {
            for change in take(&world, step) {
                world.apply(&change);
                log.push(change);
            }
        }

        let mut replayed = World::new();
        replayed.catalog = Catalog::empty();
        log.iter().for_each(|it| replayed.apply(it));
        prop_assert_eq!(content(&replayed.catalog), content(&world.catalog));

        let mut rebuilt = World::new();
        rebuilt.catalog = Catalog::empty();
        world.catalog.changes().for_each(|it| rebuilt.apply(&it));
        prop_assert_eq!(content(&rebuilt.catalog), content(&world.catalog));
        prop_assert_eq!(rebuilt.catalog.next_queue_id(), world.catalog.next_queue_id());
        prop_assert_eq!(routes(&rebuilt), routes(&world));
        let count = |world: &World| world.catalog.vhost("/").expect("there").binding_count();
        prop_assert_eq!(count(&rebuilt), count(&world));
    }

    #[test]
    fn the_durable_changes_alone_apply_as_after_a_restart(steps in steps()) {
        let mut world = World::new();
        let mut logged: Vec<_> = catalog::initial("guest", PasswordHash::None);
        for step in &steps {
            for change in take(&world, step) {
                world.apply(&change);
                if change.durable() {
                    let read = Change::decode(&octets(&change)).expect("it was just written");
                    prop_assert_eq!(&read, &change);
                    logged.push(read);
                }
            }
        }
        let mut restarted = Catalog::empty();
        for change in &logged {
            prop_assert_eq!(restarted.apply(change), Ok(()), "{:?}", change);
        }
        let numbered = |it: &Change| matches!(it, Change::NextQueueId(_) | Change::NextVhostId(_));
        let kept = |catalog: &Catalog| {
            let kept = catalog.changes().filter(|it| it.durable() && !numbered(it));
            let mut kept: Vec<_> = kept.map(|it| format!("{it:?}")).collect();
            kept.sort_unstable();
            kept
        };
        prop_assert_eq!(kept(&restarted), kept(&world.catalog));
    }

    #[test]
    fn any_octets_decode_or_are_refused(mut octets: Vec<u8>, kind in 0..20_u8) {
        drop(Change::decode(&octets));
        octets.splice(0..0, [1, kind]);
        drop(Change::decode(&octets));
    }
}

fn samples() -> Vec<Change> {
    let mut world = World::new();
    world.declare("q", &[("x-message-ttl", Value::I32(5))]);
    world.exchange("x", "topic", &[("alternate-exchange", Value::text("amq.fanout"))]);
    world.bind("x", "q", "a.b");
    world.bind("x", "exchange:amq.direct", "a.b");
    world.become_user("u", "a", "b", "c");
    let mut changes: Vec<_> = world.catalog.changes().collect();
    let vhost = VhostId(1);
    let (user, exchange) = (Name::new("u"), Name::new("x"));
    let topic = TopicPermissions::new("u", "/", "x", "^a", "{username}").expect("they compile");
    let bound = changes.iter().find_map(|it| match it {
        Change::Bound { binding, .. } => Some(binding.clone()),
        _ => None,
    });
    changes.extend([
        Change::VhostRemoved(vhost),
        Change::QueueDeleted { queue: QueueId(1), durable: true },
        Change::ExchangeDeleted { vhost, exchange: exchange.clone(), durable: true },
        Change::Unbound { vhost, binding: bound.expect("there is one"), durable: true },
        Change::UserRemoved(user.clone()),
        Change::PermissionRemoved { vhost, user: user.clone() },
        Change::TopicPermissionSet { vhost, user: user.clone(), permissions: Arc::new(topic) },
        Change::TopicPermissionRemoved { vhost, user: user.clone(), exchange: Some(exchange) },
        Change::TopicPermissionRemoved { vhost, user, exchange: None },
    ]);
    let hashes = [
        PasswordHash::None,
        PasswordHash::Argon2id("$argon2id$v=19$".to_owned()),
        PasswordHash::Sha512 { salt: [1; 4], hash: [2; 64] },
        PasswordHash::Md5 { salt: [1; 4], hash: [2; 16] },
    ];
    changes.extend(hashes.map(|password| {
        let limits = UserLimits { connections_max: None, channels_max: Some(3) };
        let (name, tags) = (Name::new("h"), vec![Name::new("administrator"), Name::new("x")]);
        Change::UserSet(Arc::new(User { name, password, tags, limits }))
    }));
    changes
}

#[test]
fn a_change_read_back_is_the_same_and_every_cut_and_addition_is_refused() {
    for change in samples() {
        let mut octets = octets(&change);
        assert_eq!(Change::decode(&octets), Ok(change.clone()));
        for length in 0..octets.len() {
            assert!(Change::decode(&octets[..length]).is_err(), "{change:?} cut at {length}");
        }
        octets.push(0);
        assert_eq!(Change::decode(&octets), Err(ChangeError::TooLong(1)));
        octets[1] = 99;
        assert_eq!(Change::decode(&octets), Err(ChangeError::UnknownKind(99)));
        octets[0] = 2;
        assert_eq!(Change::decode(&octets), Err(ChangeError::UnknownVersion(2)));
    }
}

#[test]
fn the_form_of_a_change_on_disk_stays() {
    let change = Change::QueueDeleted { queue: QueueId(0x0102), durable: true };
    assert_eq!(octets(&change), [1, 6, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
}

#[test]
fn a_change_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.declare("q", &[]);
    let before = content(&world.catalog);
    let version = world.catalog.version();
    let mut other = World::new();
    other.declare("another", &[]);
    let another = other.catalog.queue(QueueId(1)).cloned().expect("it is there");
    let exists = world.catalog.apply(&Change::QueueDeclared(another));
    assert_eq!(exists, Err(ChangeError::Exists { kind: "queue", name: Name::new("another") }));
    other.bind("amq.direct", "another", "k");
    let bound = other.catalog.changes().find(|it| matches!(it, Change::Bound { .. }));
    assert!(world.catalog.apply(&bound.expect("there is one")).is_err());
    let nowhere = Change::Unbound {
        vhost: VhostId(9),
        binding: Arc::new(catalog::Binding::new(
            Name::new("x"),
            catalog::Destination::Queue(Name::new("q")),
            Name::new(""),
            &Default::default(),
        )),
        durable: true,
    };
    assert_eq!(world.catalog.apply(&nowhere), Err(ChangeError::NoVhost(VhostId(9))));
    assert_eq!((content(&world.catalog), world.catalog.version()), (before, version));
}

#[test]
fn a_snapshot_does_not_change() {
    let mut world = World::new();
    world.declare("q", &[]);
    world.bind("amq.topic", "q", "a.#");
    let snapshot = world.catalog.clone();
    let before = content(&snapshot);
    world.declare("q2", &[]);
    world.bind("amq.topic", "q2", "a.#");
    assert_eq!(world.try_unbind("amq.topic", "q", "a.#"), Ok(()));
    assert_eq!(content(&snapshot), before);
    assert_ne!(content(&world.catalog), before);
}
