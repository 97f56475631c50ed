//! The whole road of a message without sockets: octets of a publisher in, octets to a consumer out,
//! confirms and acks included. One thread does what the connections and the log's thread would do,
//! in a fixed order.

use crate::{
    client::{self, Shape},
    host::Host,
    peer::Peer,
    wire::READ_BYTES,
};
use amqp091::method::Method;
use model::{Name, Table};

/// What publishers and consumers do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub shape: Shape,
    /// The publisher asks for confirms, and each delivery is acked on its own.
    pub safe: bool,
    /// Consumers, each with a queue of its own behind a fanout exchange; with one, the publisher
    /// names the queue.
    pub consumers: usize,
    /// Messages that are published before consumers are heard again: above what flow credit lets
    /// out, they wait in their queue.
    pub lag: u64,
}

/// Small messages, nothing confirmed or acked.
pub const TRANSIENT: Load = Load { shape: shape("", false, 16), safe: false, consumers: 1, lag: 1 };
/// The same to a consumer that does not keep up.
pub const LAGGING: Load = Load { lag: 30_000, ..TRANSIENT };
/// Messages that are written, synced, confirmed and acked.
pub const PERSISTENT: Load =
    Load { shape: shape("", true, 1_024), safe: true, consumers: 1, lag: 1 };
/// One message for ten queues.
pub const FANOUT: Load =
    Load { shape: shape("amq.fanout", false, 16), safe: false, consumers: 10, lag: 1 };

const fn shape(exchange: &'static str, persistent: bool, body_bytes: usize) -> Shape {
    Shape { exchange, routing_key: "queue-0", persistent, body_bytes }
}

/// Connections in the middle of their life.
pub struct Whole {
    host: Host,
    publisher: Peer,
    consumers: Vec<Peer>,
    safe: bool,
    lag: u64,
    /// One read's worth of publishes.
    octets: Vec<u8>,
    publish_bytes: usize,
    published: u64,
    /// Published when everybody was last heard.
    heard: u64,
    reads: u64,
    /// Acks that the client sends, and up to which delivery it has.
    acks: Vec<u8>,
    acked: u64,
}

impl Whole {
    /// Everything declared and subscribed.
    pub fn new(load: &Load) -> Self {
        let host = Host::new();
        let mut publisher = Peer::connect(&host);
        if load.safe {
            publisher.ask(&host, &Method::ConfirmSelect { no_wait: false });
        }
        let consumers = (0..load.consumers).map(|it| consumer(&host, it, load)).collect();
        let publish = client::publish(&load.shape);
        Self {
            host,
            publisher,
            consumers,
            safe: load.safe,
            lag: load.lag,
            octets: publish.repeat(READ_BYTES / publish.len()),
            publish_bytes: publish.len(),
            published: 0,
            heard: 0,
            reads: 0,
            acks: Vec::new(),
            acked: 0,
        }
    }

    /// Messages that one read of the socket brings.
    pub fn batch(&self) -> u64 {
        (self.octets.len() / self.publish_bytes) as u64
    }

    /// Lets so many messages through, from the publisher's octets to the consumers' and back.
    pub fn run(&mut self, messages: u64) {
        let end = self.published + messages;
        while self.published < end {
            let count = self.batch().min(end - self.published);
            self.publish(count);
            if self.lag <= self.published - self.heard || self.published == end {
                self.hear();
            }
        }
        for consumer in &self.consumers {
            assert_eq!(consumer.delivered, self.published, "every message came");
        }
        if self.safe {
            assert_eq!(self.publisher.confirmed, self.published, "every message was confirmed");
        }
    }

    /// One read of the publisher's socket.
    fn publish(&mut self, count: u64) {
        let bytes = usize::try_from(count).expect("a batch is small") * self.publish_bytes;
        self.publisher.receive(&self.octets[..bytes]);
        self.published += count;
        self.reads += 1;
        self.host.keep_house_sometimes(self.reads);
    }

    /// Until nobody is told anything any more.
    fn hear(&mut self) {
        loop {
            self.host.sync();
            let mut more = self.publisher.listen();
            for consumer in &mut self.consumers {
                more |= consumer.listen();
            }
            if self.safe {
                self.ack();
            }
            if !more {
                break;
            }
        }
        self.heard = self.published;
    }

    /// The consumer's client acks what has come, one by one.
    fn ack(&mut self) {
        let [consumer] = self.consumers.as_mut_slice() else { return };
        if consumer.delivered == self.acked {
            return;
        }
        self.acks.clear();
        for tag in self.acked + 1..=consumer.delivered {
            client::ack(tag, false, &mut self.acks);
        }
        self.acked = consumer.delivered;
        consumer.receive(&self.acks);
    }
}

/// Sets up and lets so many messages through.
pub fn run(load: &Load, messages: u64) {
    Whole::new(load).run(messages);
}

fn consumer(host: &Host, number: usize, load: &Load) -> Peer {
    let mut peer = Peer::connect(host);
    let queue = Name::new(&format!("queue-{number}"));
    peer.ask(
        host,
        &Method::QueueDeclare {
            queue: queue.clone(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: Table::default(),
        },
    );
    if !load.shape.exchange.is_empty() {
        peer.ask(
            host,
            &Method::QueueBind {
                queue: queue.clone(),
                exchange: Name::new(load.shape.exchange),
                routing_key: Name::new(""),
                no_wait: false,
                arguments: Table::default(),
            },
        );
    }
    peer.ask(
        host,
        &Method::BasicConsume {
            queue,
            consumer_tag: Name::new("consumer"),
            no_local: false,
            no_ack: !load.safe,
            exclusive: false,
            no_wait: false,
            arguments: Table::default(),
        },
    );
    peer
}
