//! Measures what the session costs per message: `cargo run --release --example session_speed`.

use amqp091::{
    Event, Session,
    config::SessionConfig,
    frame::{FRAME_END, PROTOCOL_HEADER},
    method::Method,
    output::Output,
    secret::Secret,
};
use bytes::BytesMut;
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, Message, Name, Notice, QueueId, Request, ShardId,
    Table, Timestamp, properties::Properties,
};
use std::{
    io::{Write, stdout},
    sync::Arc,
    time::{Duration, Instant},
};

const NOW: Timestamp = Timestamp(1);
const MESSAGES: usize = 512;
const ROUNDS: u64 = 4_000;

fn method_frame(channel: u16, method: &Method) -> Vec<u8> {
    let mut payload = Vec::new();
    method.encode(&mut payload);
    frame(1, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[FRAME_END]].concat()
}

fn publish(body_len: usize) -> Vec<u8> {
    let (exchange, routing_key) = (Name::new("orders"), Name::new("orders.created"));
    let method = Method::BasicPublish { exchange, routing_key, mandatory: false, immediate: false };
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
    let header = [&[0, 60, 0, 0][..], &(body_len as u64).to_be_bytes(), &properties].concat();
    let frames = [method_frame(1, &method), frame(2, 1, &header), frame(3, 1, &vec![7; body_len])];
    frames.concat()
}

/// A session with requests and output around it.
struct Peer {
    session: Session,
    output: Output,
    requests: Vec<Request>,
}

impl Peer {
    fn receive(&mut self, octets: &[u8]) -> Option<Event> {
        let mut input = BytesMut::from(octets);
        self.session.receive(&mut input, NOW, &mut self.requests, &mut self.output)
    }

    fn notify(&mut self, notices: &mut Vec<Notice>) {
        self.session.notify(notices.drain(..), NOW, &mut self.requests, &mut self.output);
    }

    fn drop_output(&mut self) {
        self.output.advance(self.output.len());
    }

    /// Channel 1 in confirm mode, with consumer 1.
    fn open() -> Self {
        let session = Session::new(Arc::new(SessionConfig::default()), 1);
        let mut peer = Self { session, output: Output::new(), requests: Vec::new() };
        peer.receive(&PROTOCOL_HEADER);
        peer.receive(&method_frame(
            0,
            &Method::ConnectionStartOk {
                client_properties: Table::default(),
                mechanism: Name::new("PLAIN"),
                response: Secret::new(b"\0u\0p"),
                locale: Name::default(),
            },
        ));
        peer.session.logged_in(true, NOW, &mut peer.output);
        let (channel_max, frame_max, heartbeat_s) = (2_047, 131_072, 0);
        peer.receive(&method_frame(
            0,
            &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s },
        ));
        peer.receive(&method_frame(0, &Method::ConnectionOpen { virtual_host: Name::new("/") }));
        peer.session.opened(Ok(()), &mut peer.output);
        peer.receive(&method_frame(1, &Method::ChannelOpen {}));
        peer.receive(&method_frame(1, &Method::ConfirmSelect { no_wait: true }));
        peer.receive(&method_frame(
            1,
            &Method::BasicConsume {
                queue: Name::new("q"),
                consumer_tag: Name::new("consumer"),
                no_local: false,
                no_ack: false,
                exclusive: false,
                no_wait: false,
                arguments: Table::default(),
            },
        ));
        peer.notify(&mut vec![Notice::Subscribed {
            channel: ChannelId(1),
            consumer: ConsumerNumber(1),
            queue: QueueId(1),
            shard: ShardId(0),
        }]);
        assert!(peer.session.is_open());
        peer.drop_output();
        peer.requests.clear();
        peer
    }
}

/// Of the best round: others were interrupted.
fn each(spent: Duration) -> f64 {
    spent.as_nanos() as f64 / MESSAGES as f64
}

/// Nanoseconds per publish, and per confirm of one.
fn publishes(body_len: usize) -> (f64, f64) {
    let mut peer = Peer::open();
    let octets = publish(body_len).repeat(MESSAGES);
    let (mut read, mut confirmed) = (Duration::MAX, Duration::MAX);
    let mut first = 1;
    for _ in 0..ROUNDS {
        // The socket's copy is not measured.
        let mut input = BytesMut::from(&octets[..]);
        let begin = Instant::now();
        peer.session.receive(&mut input, NOW, &mut peer.requests, &mut peer.output);
        read = read.min(begin.elapsed());
        assert_eq!(peer.requests.len(), MESSAGES);
        peer.requests.clear();
        let last = first + MESSAGES as u64 - 1;
        let channel = ChannelId(1);
        let mut notices: Vec<_> =
            (first..=last).map(|it| Notice::Confirmed { channel, first: it, last: it }).collect();
        let begin = Instant::now();
        peer.notify(&mut notices);
        confirmed = confirmed.min(begin.elapsed());
        first = last + 1;
        peer.drop_output();
    }
    (each(read), each(confirmed))
}

/// Nanoseconds per delivery, per ack of one, and per delivery given back as credit.
fn deliveries(body_len: usize) -> (f64, f64) {
    let mut peer = Peer::open();
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
    let message =
        Arc::new(Message::new("orders", "orders.created", &properties, &vec![7; body_len]));
    let (mut told, mut acked) = (Duration::MAX, Duration::MAX);
    let mut entry = 1;
    for _ in 0..ROUNDS {
        let first = entry;
        entry += MESSAGES as u64;
        let delivery = |it| {
            Notice::Delivery(Delivery {
                consumer: ConsumerNumber(1),
                queue: QueueId(1),
                entry: EntryId(it),
                message: Arc::clone(&message),
                redelivered: false,
                counts: None,
                automatic: false,
            })
        };
        let mut notices: Vec<_> = (first..entry).map(delivery).collect();
        let acks: Vec<u8> = (first..entry)
            .flat_map(|delivery_tag| {
                method_frame(1, &Method::BasicAck { delivery_tag, multiple: false })
            })
            .collect();
        let begin = Instant::now();
        peer.notify(&mut notices);
        peer.session.flushed(&mut peer.requests);
        told = told.min(begin.elapsed());
        peer.drop_output();
        let mut input = BytesMut::from(&acks[..]);
        let begin = Instant::now();
        peer.session.receive(&mut input, NOW, &mut peer.requests, &mut peer.output);
        acked = acked.min(begin.elapsed());
        peer.requests.clear();
    }
    (each(told), each(acked))
}

fn main() -> std::io::Result<()> {
    let mut out = stdout();
    for body_len in [16, 1_024] {
        let (publish, confirm) = publishes(body_len);
        let (delivery, ack) = deliveries(body_len);
        writeln!(
            out,
            "{body_len} octets: publish {publish:.1} ns, confirm {confirm:.1} ns, delivery \
             {delivery:.1} ns, ack {ack:.1} ns"
        )?;
    }
    Ok(())
}
