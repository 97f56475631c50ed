//! Publishers that are faster than the consumers of their queue, as long as memory has room.

use crate::host::{CHANNEL, Client, Host, NOW, declare, subscribe};
use broker::Pressure;
use model::{ConsumerNumber, Message, Notice, Publish, QueueId, Request, limits};

const CATCH_UP: Option<Pressure> = Some(Pressure::Backlog { pause_ms: 1 });
const BODY: [u8; 1_000] = [7; 1_000];
/// Octets that one of these messages counts as on its way to a consumer.
const DELIVERY_BYTES: u64 = 1_000 + 4 + 2 + 64;

fn publish_at(client: &mut Client, count: u64, ms: u64) -> Option<Pressure> {
    for _ in 0..count {
        let message = Message::new("", "qq", &[0, 0], &BODY).into();
        let publish = Publish { channel: CHANNEL, message, mandatory: false, confirm: None };
        client.0.submit(&mut vec![Request::Publish(publish)], NOW.plus_ms(ms));
    }
    client.0.take_pressure()
}

fn publish(client: &mut Client, count: u64) -> Option<Pressure> {
    publish_at(client, count, 0)
}

/// A queue with a consumer that settles nothing and has got all it may.
fn consumed(host: &Host, publisher: &mut Client, consumer: &mut Client) -> QueueId {
    publisher.ask(host, declare("qq"));
    let Request::Subscribe(mut subscribe) = subscribe(1, "qq", None) else { unreachable!() };
    subscribe.automatic = true;
    consumer.submit(Request::Subscribe(subscribe));
    let Some(Notice::Subscribed { queue, .. }) = consumer.notices().pop() else {
        panic!("not subscribed");
    };
    let delivered = limits::OUTGOING_BYTES_MAX / DELIVERY_BYTES + 1;
    assert_eq!(publish(publisher, delivered), None, "what goes straight through does not press");
    assert_eq!(consumer.notices().len() as u64, delivered);
    queue
}

#[test]
fn publisher_lets_consumers_catch_up_that_can() {
    let host = Host::new();
    let (mut publisher, mut consumer) = (host.connect(), host.connect());
    let queue = consumed(&host, &mut publisher, &mut consumer);
    assert_eq!(publish(&mut publisher, 400), None, "little waits");
    assert_eq!(publish(&mut publisher, 100), CATCH_UP);
    assert_eq!(publisher.0.take_pressure(), None, "it is told once");
    assert_eq!(publish_at(&mut publisher, 10, 30), CATCH_UP, "too early to tell");
    let mut take = |count: u64| {
        let bytes = count * DELIVERY_BYTES;
        consumer.submit(Request::Credit { consumer: ConsumerNumber(1), queue, bytes });
        consumer.notices().len()
    };
    assert_eq!(take(5), 5);
    assert_eq!(publish_at(&mut publisher, 50, 60), None, "it takes far less than comes");
    assert_eq!(take(100), 100);
    assert_eq!(publish_at(&mut publisher, 100, 80), None, "too early to tell");
    assert_eq!(publish_at(&mut publisher, 10, 130), CATCH_UP);
}

#[test]
fn nobody_waits_for_consumers_that_are_not_there() {
    let host = Host::new();
    let mut publisher = host.connect();
    publisher.ask(&host, declare("qq"));
    assert_eq!(publish(&mut publisher, 700), None);
}
