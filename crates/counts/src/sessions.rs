//! Cases of the AMQP session alone: octets to requests, notices to octets.

use crate::{
    client::{self, Shape},
    wire::{READ_BYTES, Wire},
};
use amqp091::method::Method;
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, Message, Name, Notice, QueueId, ShardId, Table,
    properties::Properties,
};
use std::sync::Arc;

const CHANNEL: ChannelId = ChannelId(1);
const CONSUMER: ConsumerNumber = ConsumerNumber(1);
const QUEUE: QueueId = QueueId(1);
/// Notices that come at once.
const NOTICES: u64 = 256;

/// Transient publishes of 16 octets.
pub fn publish(messages: u64) {
    published(messages, 16, false);
}

/// Persistent publishes of 1 KiB, each confirmed.
pub fn publish_with_confirm(messages: u64) {
    published(messages, 1_024, true);
}

/// Deliveries of 16 octets that nobody acks.
pub fn deliver(messages: u64) {
    delivered(messages, 16, Acks::None);
}

/// Deliveries of 1 KiB, each acked.
pub fn deliver_with_ack(messages: u64) {
    delivered(messages, 1_024, Acks::Each);
}

/// Deliveries of 1 KiB, acked in one for all that came at once.
pub fn deliver_with_multiple_ack(messages: u64) {
    delivered(messages, 1_024, Acks::Multiple);
}

fn published(messages: u64, body_bytes: usize, safe: bool) {
    let mut wire = Wire::open();
    if safe {
        wire.say(1, &Method::ConfirmSelect { no_wait: true });
    }
    let (exchange, routing_key) = ("orders", "orders.created");
    let publish = client::publish(&Shape { exchange, routing_key, persistent: safe, body_bytes });
    let octets = publish.repeat(READ_BYTES / publish.len());
    let batch = octets.len() / publish.len();
    wire.write();
    wire.requests.clear();
    let (mut number, mut notices) = (0, Vec::new());
    while number < messages {
        let count = batch.min(usize::try_from(messages - number).expect("it fits"));
        wire.receive(&octets[..count * publish.len()]);
        assert_eq!(wire.requests.len(), count);
        wire.requests.clear();
        let first = number + 1;
        number += count as u64;
        if safe {
            let confirmed = |it| Notice::Confirmed { channel: CHANNEL, first: it, last: it };
            notices.extend((first..=number).map(confirmed));
            wire.notify(notices.drain(..));
            assert_ne!(wire.write(), 0);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acks {
    None,
    Each,
    Multiple,
}

fn delivered(messages: u64, body_bytes: usize, acks: Acks) {
    let mut wire = consumer(acks == Acks::None);
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
    let body = vec![b'x'; body_bytes];
    let message = Arc::new(Message::new("orders", "orders.created", &properties, &body));
    let (mut number, mut notices, mut octets) = (0, Vec::new(), Vec::new());
    while number < messages {
        let first = number + 1;
        number = messages.min(number + NOTICES);
        notices.extend((first..=number).map(|it| {
            Notice::Delivery(Delivery {
                consumer: CONSUMER,
                queue: QUEUE,
                entry: EntryId(it),
                message: Arc::clone(&message),
                redelivered: false,
                counts: None,
                automatic: acks == Acks::None,
            })
        }));
        wire.notify(notices.drain(..));
        assert_ne!(wire.write(), 0);
        octets.clear();
        match acks {
            Acks::None => {}
            Acks::Each => (first..=number).for_each(|it| client::ack(it, false, &mut octets)),
            Acks::Multiple => client::ack(number, true, &mut octets),
        }
        wire.receive(&octets);
        assert!(!wire.requests.is_empty(), "credit, and settles where it acks");
        wire.requests.clear();
    }
}

fn consumer(automatic: bool) -> Wire {
    let mut wire = Wire::open();
    wire.say(
        1,
        &Method::BasicConsume {
            queue: Name::new("queue"),
            consumer_tag: Name::new("consumer"),
            no_local: false,
            no_ack: automatic,
            exclusive: false,
            no_wait: false,
            arguments: Table::default(),
        },
    );
    let (channel, consumer, queue, shard) = (CHANNEL, CONSUMER, QUEUE, ShardId(0));
    wire.notify(std::iter::once(Notice::Subscribed { channel, consumer, queue, shard }));
    wire.write();
    wire.requests.clear();
    wire
}
