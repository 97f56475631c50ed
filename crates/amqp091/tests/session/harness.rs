//! A client and a broker made of data: octets in, requests and decoded frames out, as lines of
//! text.

use amqp091::{
    Event, Session,
    config::SessionConfig,
    frame::{CONTENT_HEADER_LEN, FrameKind, PROTOCOL_HEADER, content_header, take_frame},
    method::Method,
    output::Output,
    secret::Secret,
};
use bytes::BytesMut;
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, Message, Name, Notice, QueueId, Refusal, Request,
    ShardId, Table, Timestamp, Value, properties::Properties,
};
use std::{io::IoSlice, sync::Arc};

pub(crate) const CLOSE_OK: Method = Method::ConnectionCloseOk {};

/// A client with its session.
pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    pub(crate) requests: Vec<Request>,
    pub(crate) now: Timestamp,
    pub(crate) event: Option<Event>,
}

/// What a client says of itself.
pub(crate) struct Client {
    pub(crate) product: &'static str,
    pub(crate) capabilities: bool,
    pub(crate) heartbeat_s: u16,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    pub(crate) config: SessionConfig,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            product: "test",
            capabilities: true,
            heartbeat_s: 0,
            channel_max: 2_047,
            frame_max: 131_072,
            config: SessionConfig::default(),
        }
    }
}

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat()
}

pub(crate) fn method_frame(channel: u16, method: &Method) -> Vec<u8> {
    let mut payload = Vec::new();
    method.encode(&mut payload);
    frame(1, channel, &payload)
}

pub(crate) fn header_frame(channel: u16, size: u64, properties: &Properties) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0][..], &size.to_be_bytes(), &properties.encoded()].concat())
}

/// A publish to the default exchange.
pub(crate) fn publish(channel: u16, key: &str, body: &[u8]) -> Vec<u8> {
    let method = Method::BasicPublish {
        exchange: Name::default(),
        routing_key: Name::new(key),
        mandatory: false,
        immediate: false,
    };
    let header = header_frame(channel, body.len() as u64, &Properties::default());
    let body = if body.is_empty() { Vec::new() } else { frame(3, channel, body) };
    [method_frame(channel, &method), header, body].concat()
}

impl Peer {
    /// A connection with an open virtual host.
    pub(crate) fn open(client: Client) -> Self {
        let mut peer = Self::asking(client);
        assert_eq!(peer.session.opened(Ok(()), &mut peer.output), None);
        assert!(peer.session.is_open());
        let heard = peer.heard();
        assert_eq!(heard.last().map(String::as_str), Some("0 connection.open-ok"));
        peer
    }

    /// A connection that waits for its virtual host.
    pub(crate) fn asking_to_open() -> Self {
        Self::asking(Client::default())
    }

    /// With channel 1 and this many seconds between heartbeats.
    pub(crate) fn channel_with_heartbeat(heartbeat_s: u16) -> Self {
        Self::with_channel(Client { heartbeat_s, ..Client::default() })
    }

    fn asking(client: Client) -> Self {
        let config = Arc::new(client.config);
        let mut peer = Self {
            session: Session::new(config, 1),
            input: BytesMut::new(),
            output: Output::new(),
            requests: Vec::new(),
            now: Timestamp(1_000),
            event: None,
        };
        let can = |it: &str| (Name::new(it), Value::Bool(client.capabilities));
        let capabilities = ["consumer_cancel_notify", "connection.blocked"].map(can).to_vec();
        let client_properties = Table(vec![
            (Name::new("product"), Value::text(client.product)),
            (Name::new("capabilities"), Value::Table(Table(capabilities))),
        ]);
        peer.octets(&PROTOCOL_HEADER);
        peer.send(
            0,
            Method::ConnectionStartOk {
                client_properties,
                mechanism: Name::new("PLAIN"),
                response: Secret::new(b"\0guest\0secret"),
                locale: Name::new("en_US"),
            },
        );
        let Some(Event::Login { mechanism, user, password }) = peer.event.take() else {
            panic!("a login is asked about");
        };
        assert_eq!(
            (mechanism, user.as_str(), password.as_deref()),
            ("PLAIN", "guest", Some(&b"secret"[..]))
        );
        assert_eq!(peer.session.logged_in(true, peer.now, &mut peer.output), None);
        let (channel_max, frame_max) = (client.channel_max, client.frame_max);
        let heartbeat_s = client.heartbeat_s;
        peer.send(0, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s });
        peer.send(0, Method::ConnectionOpen { virtual_host: Name::new("/") });
        assert_eq!(peer.event.take(), Some(Event::Open { vhost: Name::new("/") }));
        peer
    }

    /// A connection with channel 1.
    pub(crate) fn channel() -> Self {
        Self::with_channel(Client::default())
    }

    pub(crate) fn with_channel(client: Client) -> Self {
        let mut peer = Self::open(client);
        peer.send(1, Method::ChannelOpen {});
        assert_eq!(peer.heard(), ["1 channel.open-ok"]);
        peer
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        self.event = self.receive();
    }

    pub(crate) fn receive(&mut self) -> Option<Event> {
        let Self { session, input, output, requests, now, .. } = self;
        session.receive(input, *now, requests, output)
    }

    pub(crate) fn send(&mut self, channel: u16, method: Method) {
        self.octets(&method_frame(channel, &method));
    }

    pub(crate) fn publish(&mut self, channel: u16, key: &str, body: &[u8]) {
        self.octets(&publish(channel, key, body));
    }

    pub(crate) fn tell(&mut self, notices: impl IntoIterator<Item = Notice>) {
        let mut notices: Vec<_> = notices.into_iter().collect();
        let Self { session, output, requests, now, .. } = self;
        self.event = session.notify(notices.drain(..), *now, requests, output);
        assert!(notices.is_empty());
    }

    /// What was written since the last call.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        let mut octets = BytesMut::new();
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.output.as_io_slices(&mut slices);
            let joined: Vec<u8> =
                slices[..filled].iter().flat_map(|it| it.iter().copied()).collect();
            octets.extend_from_slice(&joined);
            self.output.advance(joined.len());
        }
        lines_of(octets)
    }

    /// What was asked of the broker since the last call.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        self.requests.drain(..).map(|it| shown_request(&it)).collect()
    }

    /// Consumes from queue number 1 as consumer `number`, which is the next one.
    pub(crate) fn consume(&mut self, channel: u16, tag: &str, no_ack: bool, number: u32) {
        self.send(channel, consume("q", tag, no_ack));
        self.tell([subscribed(channel, number)]);
        self.requests.clear();
        let expected = format!("{channel} basic.consume-ok {{ consumer_tag: {tag:?} }}");
        assert_eq!(self.heard(), [expected]);
    }
}

pub(crate) fn consume(queue: &str, tag: &str, no_ack: bool) -> Method {
    Method::BasicConsume {
        queue: Name::new(queue),
        consumer_tag: Name::new(tag),
        no_local: true,
        no_ack,
        exclusive: false,
        no_wait: false,
        arguments: Table::default(),
    }
}

pub(crate) fn declare(queue: &str, passive: bool) -> Method {
    Method::QueueDeclare {
        queue: Name::new(queue),
        passive,
        durable: false,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Table::default(),
    }
}

pub(crate) fn declared(channel: u16, queue: &str) -> Notice {
    Notice::Declared {
        channel: ChannelId(channel),
        queue: Name::new(queue),
        ready: 3,
        consumers: 2,
    }
}

pub(crate) fn subscribed(channel: u16, number: u32) -> Notice {
    Notice::Subscribed {
        channel: ChannelId(channel),
        consumer: ConsumerNumber(number),
        queue: QueueId(1),
        shard: ShardId(0),
    }
}

pub(crate) fn delivery(consumer: u32, entry: u64) -> Delivery {
    Delivery {
        consumer: ConsumerNumber(consumer),
        queue: QueueId(1),
        entry: EntryId(entry),
        message: Arc::new(Message::new("", "q", &Properties::default().encoded(), b"body")),
        redelivered: false,
        counts: None,
        automatic: false,
    }
}

pub(crate) fn delivered(consumer: u32, entry: u64) -> Notice {
    Notice::Delivery(delivery(consumer, entry))
}

pub(crate) fn refused(channel: u16, text: &str, publish: bool) -> Notice {
    let refusal = Refusal::Invalid(text.to_owned()).into();
    Notice::Refused { channel: ChannelId(channel), refusal, publish }
}

/// Frames as lines: channel, method, and for content its properties' length and body.
pub(crate) fn lines_of(mut octets: BytesMut) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while let Some(it) = take_frame(&mut octets, u32::MAX).expect("the session writes frames") {
        let channel = it.channel;
        match it.kind {
            FrameKind::Method => {
                let method = Method::decode(&it.payload).expect("the session writes methods");
                lines.push(format!("{channel} {}", shown(&method)));
            }
            FrameKind::Heartbeat => lines.push(format!("{channel} heartbeat")),
            FrameKind::Header => {
                let size = content_header(&it.payload).expect("whole").body_size;
                let properties = Properties::decode(&it.payload[CONTENT_HEADER_LEN..]);
                let properties = properties.expect("the session writes properties");
                let line = lines.last_mut().expect("a method comes first");
                let headers = properties.headers.map(|it| format!("{:?} ", it.0));
                let reply_to = properties.reply_to.map(|it| format!("reply-to {it} "));
                *line += &format!(
                    " | {}{}{size}",
                    headers.unwrap_or_default(),
                    reply_to.unwrap_or_default()
                );
            }
            FrameKind::Body => {
                let line = lines.last_mut().expect("a method comes first");
                *line += &format!(" {}", String::from_utf8_lossy(&it.payload));
            }
        }
    }
    assert!(octets.is_empty(), "the session writes whole frames");
    lines
}

pub(crate) fn shown(method: &Method) -> String {
    match method {
        Method::ChannelClose { reply_code, reply_text, class_id, method_id }
        | Method::ConnectionClose { reply_code, reply_text, class_id, method_id } => {
            format!("{} {reply_code} {reply_text} ({class_id},{method_id})", method.name())
        }
        _ => {
            let debug = format!("{method:?}");
            let fields = debug.find('{').map_or("", |at| &debug[at - 1..]);
            format!("{}{fields}", method.name())
        }
    }
}

pub(crate) fn shown_request(request: &Request) -> String {
    match request {
        Request::Publish(it) => {
            let message = &it.message;
            let confirm = it.confirm.map(|it| format!(" #{it}")).unwrap_or_default();
            let mandatory = if it.mandatory { " mandatory" } else { "" };
            let (exchange, key) = (message.exchange(), message.routing_key());
            let body = message.body();
            let body = if body.len() < 40 {
                String::from_utf8_lossy(&body).into()
            } else {
                format!("{} octets", body.len())
            };
            format!("{} publish{confirm} {exchange}/{key} {body}{mandatory}", it.channel)
        }
        Request::Settle(it) => {
            let entries: Vec<_> = it.entries.iter().map(|it| it.0).collect();
            let consumer = it.consumer.map_or_else(|| "-".to_owned(), |it| it.to_string());
            format!("{} settle {consumer} {entries:?} {:?}", it.channel, it.outcome)
        }
        Request::Subscribe(it) => {
            let shared = it.shared.as_ref().map_or(0, |it| it.left());
            format!(
                "{} subscribe {} {} as {} prefetch {} shared {shared} automatic {}",
                it.channel, it.consumer, it.queue, it.tag, it.prefetch, it.automatic
            )
        }
        Request::Commit { channel, requests } => {
            let held: Vec<_> = requests.iter().map(shown_request).collect();
            format!("{channel} commit [{}]", held.join(", "))
        }
        other => format!("{other:?}"),
    }
}
