//! One connection with one channel on a blocking socket: login, and requests that wait for their
//! answer.

use crate::{
    error::BenchError,
    uri::Uri,
    wire::{CHANNEL, FRAME_MAX, Inbox, put_method},
};
use amqp091::{
    frame::{FrameKind, PROTOCOL_HEADER},
    method::Method,
    secret::Secret,
};
use model::{Name, Table, Value};
use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// For an answer that a working broker gives at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Enough for every method of the handshake; a consumer's grows.
const INBOX_LEN: usize = 16 * 1024;
/// Their answers fit in the buffers of any socket, so that nobody waits for the other.
const REQUESTS_AT_ONCE: usize = 500;

/// What the broker says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// How a queue is declared.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueKind {
    pub(crate) is_durable: bool,
    /// The argument `x-queue-type`, if it is given.
    pub(crate) kind: Option<String>,
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) inbox: Inbox,
    /// Octets of a frame that the broker takes.
    pub(crate) frame_max: u32,
    pub(crate) product: Product,
    pub(crate) peer: SocketAddr,
    outbox: Vec<u8>,
}

impl Connection {
    /// Connects, logs in and opens the channel.
    pub(crate) fn open(uri: &Uri) -> Result<Self, BenchError> {
        let stream = connect(uri)
            .map_err(|source| BenchError::Unreachable { address: uri.address(), source })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = stream.peer_addr()?;
        let mut connection = Self {
            stream,
            inbox: Inbox::new(INBOX_LEN),
            frame_max: FRAME_MAX,
            product: Product::default(),
            peer,
            outbox: Vec::new(),
        };
        connection.log_in(uri)?;
        connection.open_channel()?;
        Ok(connection)
    }

    fn log_in(&mut self, uri: &Uri) -> Result<(), BenchError> {
        self.stream.write_all(&PROTOCOL_HEADER)?;
        let Method::ConnectionStart { server_properties, mechanisms, .. } =
            self.wait_for((10, 10), "connection.start")?
        else {
            unreachable!("it was waited for")
        };
        let text =
            |key| server_properties.get(key).and_then(Value::as_text).unwrap_or("").to_owned();
        self.product = Product { name: text("product"), version: text("version") };
        let refused = |reason: String| BenchError::Login {
            address: uri.address(),
            user: uri.user.clone(),
            reason,
        };
        if !mechanisms.split(|it| *it == b' ').any(|it| it == b"PLAIN") {
            return Err(refused("it takes no passwords (no mechanism PLAIN)".to_owned()));
        }
        self.send(0, &start_ok(uri))?;
        let tune = self.wait_for((10, 30), "connection.tune").map_err(|error| match error {
            BenchError::Closed { code, text, .. } => refused(format!("{code} {text}")),
            BenchError::Disconnected => refused("it ended the connection".to_owned()),
            other => other,
        })?;
        let Method::ConnectionTune { channel_max, frame_max, .. } = tune else {
            unreachable!("it was waited for")
        };
        self.frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
        let frame_max = self.frame_max;
        self.send(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s: 0 })?;
        self.send(0, &Method::ConnectionOpen { virtual_host: Name::new(&uri.vhost) })?;
        let vhost_refused =
            |reason| BenchError::Vhost { address: uri.address(), vhost: uri.vhost.clone(), reason };
        self.wait_for((10, 41), "connection.open-ok").map_err(|error| match error {
            BenchError::Closed { code, text, .. } => vhost_refused(format!("{code} {text}")),
            BenchError::Disconnected => vhost_refused("it ended the connection".to_owned()),
            other => other,
        })?;
        Ok(())
    }

    fn open_channel(&mut self) -> Result<(), BenchError> {
        self.call(&Method::ChannelOpen {}, (20, 11)).map(drop)
    }

    /// Declares queues, many on their way at once, so that a broker can make them durable together.
    /// `on_declared` is called for each that was.
    pub(crate) fn declare_queues(
        &mut self,
        names: &[String],
        kind: &QueueKind,
        mut on_declared: impl FnMut(&String),
    ) -> Result<(), BenchError> {
        for names in names.chunks(REQUESTS_AT_ONCE) {
            for name in names {
                put_method(&mut self.outbox, CHANNEL, &declaration(name, kind, false));
            }
            self.flush()?;
            for name in names {
                self.wait_for((50, 11), "queue.declare-ok")?;
                on_declared(name);
            }
        }
        Ok(())
    }

    /// The number of messages in a queue that must exist, or `None` if it does not.
    pub(crate) fn queue_len(&mut self, name: &str) -> Result<Option<u32>, BenchError> {
        match self.call(&declaration(name, &QueueKind::default(), true), (50, 11)) {
            Ok(Method::QueueDeclareOk { message_count, .. }) => Ok(Some(message_count)),
            Ok(_) => unreachable!("it was waited for"),
            Err(error) => self.absent(error),
        }
    }

    pub(crate) fn exchange_exists(&mut self, name: &str) -> Result<bool, BenchError> {
        match self.call(&exchange_declaration(name, false, true), (40, 11)) {
            Ok(_) => Ok(true),
            Err(error) => self.absent(error).map(|it: Option<()>| it.is_some()),
        }
    }

    /// That something does not exist closes the channel, so a new one is opened.
    fn absent<T>(&mut self, error: BenchError) -> Result<Option<T>, BenchError> {
        match error {
            BenchError::Closed { code: 404, .. } => self.open_channel().map(|()| None),
            other => Err(other),
        }
    }

    pub(crate) fn declare_fanout(
        &mut self,
        name: &str,
        is_durable: bool,
    ) -> Result<(), BenchError> {
        self.call(&exchange_declaration(name, is_durable, false), (40, 11)).map(drop)
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str) -> Result<(), BenchError> {
        let binding = Method::QueueBind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: Name::default(),
            no_wait: false,
            arguments: Table::default(),
        };
        self.call(&binding, (50, 21)).map(drop)
    }

    /// Deletes queues, many on their way at once; returns how many messages were in them.
    pub(crate) fn delete_queues(&mut self, names: &[String]) -> Result<u64, BenchError> {
        let mut messages = 0;
        for names in names.chunks(REQUESTS_AT_ONCE) {
            for name in names {
                put_method(&mut self.outbox, CHANNEL, &deletion(name));
            }
            self.flush()?;
            for _ in names {
                let answer = self.wait_for((50, 41), "queue.delete-ok")?;
                if let Method::QueueDeleteOk { message_count } = answer {
                    messages += u64::from(message_count);
                }
            }
        }
        Ok(messages)
    }

    pub(crate) fn delete_exchange(&mut self, name: &str) -> Result<(), BenchError> {
        let deletion =
            Method::ExchangeDelete { exchange: name.into(), if_unused: false, no_wait: false };
        self.call(&deletion, (40, 21)).map(drop)
    }

    pub(crate) fn select_confirms(&mut self) -> Result<(), BenchError> {
        self.call(&Method::ConfirmSelect { no_wait: false }, (85, 11)).map(drop)
    }

    pub(crate) fn set_prefetch(&mut self, prefetch_count: u16) -> Result<(), BenchError> {
        let qos = Method::BasicQos { prefetch_size: 0, prefetch_count, global: false };
        self.call(&qos, (60, 11)).map(drop)
    }

    /// Asks for a queue's messages. Deliveries may come before the answer, so nobody waits here.
    pub(crate) fn begin_consume(
        &mut self,
        queue: &str,
        consumer_tag: &str,
        no_ack: bool,
    ) -> Result<(), BenchError> {
        let consume = Method::BasicConsume {
            queue: queue.into(),
            consumer_tag: consumer_tag.into(),
            no_local: false,
            no_ack,
            exclusive: false,
            no_wait: false,
            arguments: Table::default(),
        };
        self.send(CHANNEL, &consume)
    }

    /// Closes in order. The answer shows that the broker has read everything that was sent.
    pub(crate) fn close(mut self) -> Result<(), BenchError> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.inbox.grow();
        let close = Method::ConnectionClose {
            reply_code: 200,
            reply_text: "done".into(),
            class_id: 0,
            method_id: 0,
        };
        self.send(0, &close)?;
        loop {
            while let Some(place) = self.inbox.next()? {
                let payload = self.inbox.payload(&place);
                if place.kind == FrameKind::Method && payload.starts_with(&[0, 10, 0, 51]) {
                    return Ok(());
                }
            }
            self.fill("connection.close-ok")?;
        }
    }

    /// Sends a request on the channel and waits for its answer.
    pub(crate) fn call(
        &mut self,
        request: &Method,
        answer: (u16, u16),
    ) -> Result<Method, BenchError> {
        self.send(CHANNEL, request)?;
        self.wait_for(answer, request.name())
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method) -> Result<(), BenchError> {
        put_method(&mut self.outbox, channel, method);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        let written = self.stream.write_all(&self.outbox);
        self.outbox.clear();
        match written {
            Err(error) if is_end(&error) => Err(self.last_words()),
            other => Ok(other?),
        }
    }

    /// Why the broker has ended the connection, if it said so before.
    pub(crate) fn last_words(&mut self) -> BenchError {
        loop {
            while let Ok(Some(place)) = self.inbox.next() {
                if place.kind == FrameKind::Method
                    && let Some(error) = closing(self.inbox.payload(&place))
                {
                    return error;
                }
            }
            if !matches!(self.inbox.fill(&self.stream), Ok(1..)) {
                return BenchError::Disconnected;
            }
        }
    }

    fn wait_for(&mut self, answer: (u16, u16), wanted: &'static str) -> Result<Method, BenchError> {
        loop {
            while let Some(place) = self.inbox.next()? {
                if place.kind != FrameKind::Method {
                    continue;
                }
                let method = decoded(self.inbox.payload(&place))?;
                if method.ids() == answer {
                    return Ok(method);
                }
                self.on_other(method)?;
            }
            self.fill(wanted)?;
            if !self.inbox.peek().is_empty() && self.inbox.peek()[0] == b'A' {
                return Err(BenchError::Protocol("the broker refuses the protocol".to_owned()));
            }
        }
    }

    fn fill(&mut self, wanted: &'static str) -> Result<(), BenchError> {
        match self.inbox.fill(&self.stream) {
            Ok(0) => Err(BenchError::Disconnected),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(BenchError::Silent { wanted, seconds: PATIENCE.as_secs() })
            }
            Err(error) if is_end(&error) => Err(BenchError::Disconnected),
            Err(error) => Err(error.into()),
        }
    }

    /// What comes unasked: that the broker is busy is no matter here, that it closes is.
    fn on_other(&mut self, method: Method) -> Result<(), BenchError> {
        match method {
            Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked {} => Ok(()),
            Method::ChannelClose { reply_code: code, reply_text, .. } => {
                self.send(CHANNEL, &Method::ChannelCloseOk {})?;
                Err(BenchError::Closed { what: "channel", code, text: reply_text.to_string() })
            }
            Method::ConnectionClose { reply_code: code, reply_text, .. } => {
                // It is closing anyway; the answer is a courtesy.
                self.send(0, &Method::ConnectionCloseOk {}).ok();
                Err(BenchError::Closed { what: "connection", code, text: reply_text.to_string() })
            }
            other => Err(BenchError::Protocol(format!("{} came unasked", other.name()))),
        }
    }
}

/// The error that a close of the channel or the connection is.
pub(crate) fn closing(payload: &[u8]) -> Option<BenchError> {
    let (what, code, text) = match Method::decode(payload).ok()? {
        Method::ChannelClose { reply_code, reply_text, .. } => ("channel", reply_code, reply_text),
        Method::ConnectionClose { reply_code, reply_text, .. } => {
            ("connection", reply_code, reply_text)
        }
        _ => return None,
    };
    Some(BenchError::Closed { what, code, text: text.to_string() })
}

pub(crate) fn decoded(payload: &[u8]) -> Result<Method, BenchError> {
    Method::decode(payload).map_err(|it| BenchError::Protocol(it.to_string()))
}

/// Whether the other side has gone.
pub(crate) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

fn connect(uri: &Uri) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (uri.host.as_str(), uri.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn start_ok(uri: &Uri) -> Method {
    let capabilities = ["authentication_failure_close", "connection.blocked"]
        .map(|it| (Name::new(it), Value::Bool(true)));
    let properties = Table(vec![
        (Name::new("product"), Value::text("ferrymq bench")),
        (Name::new("version"), Value::text(env!("CARGO_PKG_VERSION"))),
        (Name::new("capabilities"), Value::Table(Table(capabilities.into()))),
    ]);
    Method::ConnectionStartOk {
        client_properties: properties,
        mechanism: "PLAIN".into(),
        response: Secret::new(format!("\0{}\0{}", uri.user, uri.password).as_bytes()),
        locale: "en_US".into(),
    }
}

fn declaration(name: &str, kind: &QueueKind, passive: bool) -> Method {
    let kind_argument = kind.kind.iter().map(|it| (Name::new("x-queue-type"), Value::text(it)));
    Method::QueueDeclare {
        queue: name.into(),
        passive,
        durable: kind.is_durable,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Table(kind_argument.collect()),
    }
}

fn deletion(name: &str) -> Method {
    Method::QueueDelete { queue: name.into(), if_unused: false, if_empty: false, no_wait: false }
}

fn exchange_declaration(name: &str, durable: bool, passive: bool) -> Method {
    Method::ExchangeDeclare {
        exchange: name.into(),
        kind: "fanout".into(),
        passive,
        durable,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: Table::default(),
    }
}
