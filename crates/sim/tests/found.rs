//! What random seeds or reading have found, each as its shortest script.

use model::{
    ChannelId, ConsumerNumber, Name, Notice, Outcome, Publish, Request, Settle, Subscribe, Table,
    Timestamp,
};
use sim::{
    body,
    client::{binding_request, declaration},
    drain::Asking,
    host::{Host, Sizes},
    world::{FANOUT, SPECS, spec_of},
};
use storage::MemoryDisk;

const SIZES: Sizes = Sizes {
    shards: 2,
    segment_bytes: 16 << 10,
    bodies_bytes_max: 1 << 20,
    sync_within: 0,
    is_lenient: false,
};
const CHANNEL: ChannelId = ChannelId(1);
const CRASHES: u64 = 20;

fn start(sizes: Sizes) -> (Host, Asking) {
    let host = Host::open(MemoryDisk::new(), sizes, Timestamp(1_000_000), 1).expect("opens");
    host.found().expect("founded");
    let asking = Asking::connect(&host).expect("connects");
    (host, asking)
}

fn open(disk: MemoryDisk) -> Host {
    Host::open(disk, SIZES, Timestamp(2_000_000), 2).expect("opens")
}

fn declare(host: &Host, asking: &mut Asking, names: &[&str]) {
    for name in names {
        let answered = asking.ask(host, vec![declaration(CHANNEL, spec_of(name))]);
        assert!(matches!(answered.as_deref(), Ok([Notice::Declared { .. }])), "{answered:?}");
    }
}

fn publish(name: &str, number: u64) -> Request {
    publish_of(name, number, 50)
}

fn publish_of(name: &str, number: u64, size: usize) -> Request {
    let message = body::message("", name, number, size, true).into();
    Request::Publish(Publish { channel: CHANNEL, message, mandatory: false, confirm: Some(number) })
}

fn subscribe(name: &str, prefetch: u32) -> Request {
    Request::Subscribe(Subscribe {
        channel: CHANNEL,
        consumer: ConsumerNumber(1),
        queue: name.into(),
        tag: Name::default(),
        automatic: false,
        exclusive: false,
        prefetch,
        shared: None,
        arguments: Table::default(),
    })
}

fn deliveries(notices: &[Notice]) -> Vec<(u64, bool, Request)> {
    let settle = |it: &model::Delivery, outcome| {
        Request::Settle(Settle {
            channel: CHANNEL,
            queue: it.queue,
            consumer: Some(it.consumer),
            entries: std::iter::once(it.entry).collect(),
            outcome,
        })
    };
    let delivery = |it: &Notice| match it {
        Notice::Delivery(it) => {
            let number = body::number_of(&it.message.body())?;
            let outcome = match number % 2 {
                0 => Outcome::Reject { flagged: false },
                _ => Outcome::Accept,
            };
            Some((number, it.redelivered, settle(it, outcome)))
        }
        _ => None,
    };
    notices.iter().filter_map(delivery).collect()
}

/// What each crash leaves of a queue: how many messages, or that it is not there.
fn left(host: &Host, name: &str) -> Vec<Option<u64>> {
    let spec = spec_of(name);
    let look = |seed| {
        let host = open(host.disk.crash(seed));
        let mut asking = Asking::connect(&host).expect("connects");
        asking.depths(&host, &[spec]).expect("looked at")[spec]
    };
    (0..CRASHES).map(look).collect()
}

#[test]
fn purge_is_durable_when_it_is_answered() {
    let (host, mut asking) = start(SIZES);
    declare(&host, &mut asking, &["plain"]);
    asking.ask(&host, (1..=5).map(|it| publish("plain", it)).collect()).expect("published");
    let purge = Request::PurgeQueue { channel: CHANNEL, queue: "plain".into() };
    asking.submit(&host, vec![purge]);
    let mut answered = asking.listen();
    if answered.is_empty() {
        host.settle_down().expect("settles");
        answered = asking.listen();
    }
    assert!(matches!(answered[..], [Notice::Purged { messages: 5, .. }]), "{answered:?}");
    assert_eq!(left(&host, "plain"), [Some(0); CRASHES as usize]);
}

#[test]
fn declaration_that_another_session_has_just_made_is_durable_when_it_is_answered() {
    let (host, mut first) = start(SIZES);
    let mut second = Asking::connect(&host).expect("connects");
    first.submit(&host, vec![declaration(CHANNEL, spec_of("plain"))]);
    assert!(first.listen().is_empty(), "it waits for the disk");
    second.submit(&host, vec![declaration(CHANNEL, spec_of("plain"))]);
    if second.listen().is_empty() {
        host.settle_down().expect("settles");
        assert_eq!(second.listen().len(), 1);
    }
    assert_eq!(left(&host, "plain"), [Some(0); CRASHES as usize]);
}

#[test]
fn binding_that_another_session_has_just_made_is_durable_when_it_is_answered() {
    let (host, mut first) = start(SIZES);
    declare(&host, &mut first, &["plain"]);
    let exchange = Request::DeclareExchange(model::request::DeclareExchange {
        channel: CHANNEL,
        exchange: FANOUT.into(),
        kind: "fanout".into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::default(),
    });
    first.ask(&host, vec![exchange]).expect("declared");
    let mut second = Asking::connect(&host).expect("connects");
    first.submit(&host, vec![binding_request(CHANNEL, spec_of("plain"), true)]);
    second.submit(&host, vec![binding_request(CHANNEL, spec_of("plain"), true)]);
    if second.listen().is_empty() {
        host.settle_down().expect("settles");
        assert_eq!(second.listen().len(), 1);
    }
    for seed in 0..CRASHES {
        let host = open(host.disk.crash(seed));
        let mut asking = Asking::connect(&host).expect("connects");
        let message = body::message(FANOUT, "", 1, 50, true).into();
        let publish = Publish { channel: CHANNEL, message, mandatory: true, confirm: Some(1) };
        let answered = asking.ask(&host, vec![Request::Publish(publish)]).expect("published");
        assert!(matches!(answered[..], [Notice::Confirmed { .. }]), "crash {seed}: {answered:?}");
    }
}

#[test]
fn deletion_that_another_session_has_just_made_is_durable_when_it_is_answered() {
    let (host, mut first) = start(SIZES);
    declare(&host, &mut first, &["plain"]);
    let mut second = Asking::connect(&host).expect("connects");
    let delete = || Request::DeleteQueue {
        channel: CHANNEL,
        queue: "plain".into(),
        if_unused: false,
        if_empty: false,
    };
    first.submit(&host, vec![delete()]);
    assert!(first.listen().is_empty(), "it waits for the disk");
    second.submit(&host, vec![delete()]);
    if second.listen().is_empty() {
        host.settle_down().expect("settles");
        assert_eq!(second.listen().len(), 1);
    }
    assert_eq!(left(&host, "plain"), [None; CRASHES as usize]);
}

#[test]
fn confirm_covers_the_accepts_before_it_in_its_batch() {
    // The log is synced whenever somebody wishes it: also between the turns of two shards.
    let (host, mut asking) = start(Sizes { sync_within: 1, ..SIZES });
    // The first queue is in shard 1, the second in shard 0, whose turn comes first.
    declare(&host, &mut asking, &["plain", "first"]);
    asking.ask(&host, vec![publish("plain", 1)]).expect("published");
    let heard = asking.ask(&host, vec![subscribe("plain", 1)]).expect("subscribed");
    let accept = deliveries(&heard).remove(0).2;
    asking.submit(&host, vec![accept, publish("first", 2), publish("plain", 3)]);
    let mut confirmed = asking.listen();
    let is_confirmed = |notices: &[Notice]| {
        notices.iter().any(|it| matches!(it, Notice::Confirmed { last: 3, .. }))
    };
    if !is_confirmed(&confirmed) {
        host.settle_down().expect("settles");
        confirmed.extend(asking.listen());
    }
    assert!(is_confirmed(&confirmed), "{confirmed:?}");
    assert_eq!(left(&host, "plain"), [Some(1); CRASHES as usize]);
}

#[test]
fn quorum_queue_delivers_in_order_while_the_disk_catches_up() {
    let (host, mut asking) = start(SIZES);
    declare(&host, &mut asking, &["quorum"]);
    asking.ask(&host, vec![subscribe("quorum", 1)]).expect("subscribed");
    asking.submit(&host, vec![publish("quorum", 1), publish("quorum", 2)]);
    assert!(asking.listen().is_empty(), "everything waits for the disk");
    // The sync has returned, and before the shards hear of it there is another turn.
    host.flush(true).expect("synced");
    let queue = model::QueueId(1);
    let prefetch = Request::Prefetch { consumer: ConsumerNumber(1), queue, prefetch: 2 };
    asking.submit(&host, vec![prefetch]);
    host.settle_down().expect("settles");
    let numbers: Vec<u64> = deliveries(&asking.listen()).iter().map(|it| it.0).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn quorum_queue_delivers_in_order_what_waits_for_different_syncs() {
    let (host, mut asking) = start(SIZES);
    declare(&host, &mut asking, &["quorum", "plain"]);
    asking.ask(&host, vec![subscribe("quorum", 1)]).expect("subscribed");
    asking.submit(&host, vec![publish("quorum", 1), publish("quorum", 2)]);
    host.flush(true).expect("synced");
    let queue = model::QueueId(1);
    let prefetch = Request::Prefetch { consumer: ConsumerNumber(1), queue, prefetch: 3 };
    asking.submit(&host, vec![publish("quorum", 3), prefetch]);
    host.settle_down().expect("settles");
    let numbers: Vec<u64> = deliveries(&asking.listen()).iter().map(|it| it.0).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn rejected_message_whose_body_is_being_read_is_marked_after_an_orderly_stop() {
    // Without room for bodies a rejected message is read before it becomes a dead letter.
    let (host, mut asking) = start(Sizes { bodies_bytes_max: 0, ..SIZES });
    declare(&host, &mut asking, &["dead", "letters"]);
    asking.ask(&host, vec![publish("letters", 2)]).expect("published");
    let heard = asking.ask(&host, vec![subscribe("letters", 1)]).expect("subscribed");
    let reject = deliveries(&heard).remove(0).2;
    asking.submit(&host, vec![reject]);
    asking.close(&host);
    host.stop().expect("stops");
    let disk = host.disk.clone();
    drop(host);
    let host = open(disk);
    assert!(host.recovery.orderly);
    let mut asking = Asking::connect(&host).expect("connects");
    let heard = asking.ask(&host, vec![subscribe("letters", 1)]).expect("subscribed");
    assert!(deliveries(&heard).iter().all(|it| it.1), "delivered before, and not marked");
}

#[test]
fn start_after_reclaim_finds_nothing_to_complain_of() {
    let (mut host, mut asking) = start(SIZES);
    declare(&host, &mut asking, &["plain", "churn-1", "churn-2", "first", "second"]);
    asking.ask(&host, vec![subscribe("plain", 0)]).expect("subscribed");
    for number in 0..200 {
        let heard = asking.ask(&host, vec![publish("plain", 2 * number + 1)]).expect("published");
        let accepts = deliveries(&heard).into_iter().map(|it| it.2).collect();
        asking.ask(&host, accepts).expect("accepted");
        if number % 7 == 0 {
            let name = ["churn-1", "churn-2"][(number % 2) as usize];
            let delete = Request::DeleteQueue {
                channel: CHANNEL,
                queue: name.into(),
                if_unused: false,
                if_empty: false,
            };
            asking.ask(&host, vec![delete]).expect("deleted");
            declare(&host, &mut asking, &[name]);
        }
        host.pass(sim::drain::RESTING_MS);
        host.reclaim().expect("reclaims");
        host.flush(true).expect("synced");
        host.synced();
        host.prepare().expect("prepares");
        for seed in 0..2 {
            let again = open(host.disk.crash(number * 2 + seed));
            assert_eq!(again.complaint(), None, "after message {number}");
            assert_eq!(again.restoration.queues, 5, "after message {number}");
        }
    }
    assert!(SPECS.len() > 5);
}

#[test]
fn batch_that_finds_no_room_is_not_written_again_by_the_next_one() {
    let (host, mut asking) = start(SIZES);
    declare(&host, &mut asking, &["plain"]);
    host.disk.limit(Some(0));
    // Each batch is a small message, which fits once more, and a large one that does not at last.
    let mut number = 0;
    while host.failure().is_none() && number < 400 {
        number += 2;
        let batch = vec![publish("plain", number - 1), publish_of("plain", number, 3_000)];
        asking.submit(&host, batch);
    }
    if host.failure().is_some() {
        // The process is about to end; what still comes must not make it worse.
        asking.submit(&host, vec![Request::Barrier { channel: ChannelId(2) }]);
        let _ = host.flush(true);
        host.synced();
    }
    let disk = host.disk.clone();
    drop((host, asking));
    disk.limit(None);
    let host = open(disk);
    let mut asking = Asking::connect(&host).expect("connects");
    let heard = asking.ask(&host, vec![subscribe("plain", 0)]).expect("subscribed");
    let mut numbers: Vec<u64> = deliveries(&heard).iter().map(|it| it.0).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(0 < count);
    assert_eq!(numbers.len(), count, "a message stands in the queue twice");
}
