//! Publishers that are faster than the consumers of their queue, as long as memory has room.

use crate::host::{CHANNEL, Client, Host, declare, subscribe};
use broker::Pressure;
use model::{ConsumerNumber, Message, Notice, Publish, QueueId, Request, limits};

const BODY: [u8; 1_000] = [7; 1_000];
/// Octets that one of these messages counts as on its way to a consumer.
const DELIVERY_BYTES: u64 = 1_000 + 4 + 2 + 64;

fn publish(client: &mut Client, count: u64) -> Option<Pressure> {
    for _ in 0..count {
        let message = Message::new("", "qq", &[0, 0], &BODY).into();
        client.submit(Request::Publish(Publish {
            channel: CHANNEL,
            message,
            mandatory: false,
            confirm: None,
        }));
    }
    client.0.take_pressure()
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
fn publisher_lets_consumers_at_work_catch_up() {
    let host = Host::new();
    let (mut publisher, mut consumer) = (host.connect(), host.connect());
    let queue = consumed(&host, &mut publisher, &mut consumer);
    assert_eq!(publish(&mut publisher, 400), None, "little waits");
    assert_eq!(publish(&mut publisher, 100), Some(Pressure::Backlog));
    assert_eq!(publisher.0.take_pressure(), None, "it is told once");
    assert_eq!(publish(&mut publisher, 10), None, "the consumer takes nothing: no use to wait");
    let bytes = 300 * DELIVERY_BYTES;
    consumer.submit(Request::Credit { consumer: ConsumerNumber(1), queue, bytes });
    assert_eq!(consumer.notices().len(), 300);
    assert_eq!(publish(&mut publisher, 200), None, "little waits");
    assert_eq!(publish(&mut publisher, 100), Some(Pressure::Backlog));
}

#[test]
fn nobody_waits_for_consumers_that_are_not_there() {
    let host = Host::new();
    let mut publisher = host.connect();
    publisher.ask(&host, declare("qq"));
    assert_eq!(publish(&mut publisher, 700), None);
}
