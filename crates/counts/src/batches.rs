//! Cases of the broker behind its door: requests of a publisher in, notices of a consumer out.

use crate::{
    host::{Host, USER},
    wire::{NOW, VHOST},
};
use broker::{Connect, SessionHandle};
use model::{
    ChannelId, ConsumerNumber, Message, Name, Notice, Outcome, Publish, QueueId, Request, Settle,
    Subscribe, Table, properties::Properties, request::DeclareQueue,
};
use std::task::{Context, Waker};

const CHANNEL: ChannelId = ChannelId(1);
const CONSUMER: ConsumerNumber = ConsumerNumber(1);
/// Publishes of one submit.
const BATCH: u64 = 128;
/// What a delivery costs beside its message, as the queue counts it.
const DELIVERY_BYTES: u64 = 64;

/// Publishes of 16 octets, to a consumer that acks automatically.
pub fn transient(messages: u64) {
    run(messages, false, 16);
}

/// Publishes of 1 KiB, written, synced and confirmed, to a consumer that acks.
pub fn persistent(messages: u64) {
    run(messages, true, 1_024);
}

fn run(messages: u64, safe: bool, body_bytes: usize) {
    let host = Host::new();
    let (mut publisher, mut consumer) = (Door::new(&host), Door::new(&host));
    let queue = consumer.subscribe(&host, !safe);
    let mode = if safe { 2 } else { 1 };
    let properties = Properties { delivery_mode: Some(mode), ..Properties::default() }.encoded();
    let message = Message::new("", "queue", &properties, &vec![b'x'; body_bytes]);
    let (mut published, mut confirmed, mut delivered, mut batches) = (0, 0, 0, 0);
    while published < messages {
        for _ in 0..BATCH.min(messages - published) {
            published += 1;
            publisher.requests.push(Request::Publish(Publish {
                channel: CHANNEL,
                message: message.clone().into(),
                mandatory: false,
                confirm: safe.then_some(published),
            }));
        }
        publisher.submit();
        host.sync();
        consumer.listen();
        delivered += consumer.settle(queue, safe);
        host.sync();
        publisher.listen();
        confirmed += publisher.confirms();
        batches += 1;
        host.keep_house_sometimes(batches);
    }
    assert_eq!(delivered, messages);
    assert_eq!(confirmed, if safe { messages } else { 0 });
}

/// A session on the broker that speaks no protocol.
struct Door {
    handle: SessionHandle,
    requests: Vec<Request>,
    notices: Vec<Notice>,
}

impl Door {
    fn new(host: &Host) -> Self {
        let connect = Connect { user: USER.into(), vhost: VHOST.into(), peer: "counts".into() };
        let handle = host.broker.connect(connect).expect("the user may come in");
        Self { handle, requests: Vec::new(), notices: Vec::new() }
    }

    fn submit(&mut self) {
        self.handle.submit(&mut self.requests, NOW);
    }

    fn listen(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while self.handle.poll_notices(&mut context, &mut self.notices).is_ready() {}
    }

    fn subscribe(&mut self, host: &Host, automatic: bool) -> QueueId {
        self.requests.push(Request::DeclareQueue(DeclareQueue {
            channel: CHANNEL,
            queue: Name::new("queue"),
            unique: Name::default(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        }));
        self.submit();
        self.requests.push(Request::Subscribe(Subscribe {
            channel: CHANNEL,
            consumer: CONSUMER,
            queue: Name::new("queue"),
            tag: Name::new("consumer"),
            automatic,
            exclusive: false,
            prefetch: 0,
            shared: None,
            arguments: Table::default(),
        }));
        self.submit();
        host.sync();
        self.listen();
        let subscribed = self.notices.drain(..).find_map(|it| match it {
            Notice::Subscribed { queue, .. } => Some(queue),
            _ => None,
        });
        subscribed.expect("the queue is there")
    }

    /// Takes the deliveries that came, acks them where that is asked, and gives credit back.
    fn settle(&mut self, queue: QueueId, safe: bool) -> u64 {
        let (mut entries, mut bytes, mut count) = (smallvec::SmallVec::new(), 0, 0);
        for notice in self.notices.drain(..) {
            let Notice::Delivery(it) = notice else { continue };
            count += 1;
            bytes += it.message.size() + DELIVERY_BYTES;
            if safe {
                entries.push(it.entry);
            }
        }
        if safe {
            let (channel, consumer, outcome) = (CHANNEL, Some(CONSUMER), Outcome::Accept);
            let settle = Settle { channel, queue, consumer, entries, outcome };
            self.requests.push(Request::Settle(settle));
        }
        self.requests.push(Request::Credit { consumer: CONSUMER, queue, bytes });
        self.submit();
        count
    }

    fn confirms(&mut self) -> u64 {
        let mut count = 0;
        for notice in self.notices.drain(..) {
            if let Notice::Confirmed { first, last, .. } = notice {
                count += last - first + 1;
            }
        }
        count
    }
}
