//! From the first octet of a connection to its open virtual host. Who is let in, and where, is
//! decided outside: the handshake hands out the question and takes the answer.

use crate::{
    auth::{self, AuthError, Credentials},
    config::{FRAME_MAX_MIN, Mechanism, SessionConfig},
    frame::{
        FRAME_MAX_UNTUNED, Frame, FrameKind, PROTOCOL_HEADER, ProtocolHeader, protocol_header,
        take_frame,
    },
    method::{Method, MethodIds, method_ids},
    output::Output,
    reply::{NO_METHOD, Reply, ReplyCode},
};
use bytes::{Buf, Bytes, BytesMut};
use model::{Name, Refusal, Table, Value};
use std::sync::Arc;

/// Octets of the properties that a client may say of itself. The frame they come in is smaller, so
/// nothing has to be refused.
pub const CLIENT_PROPERTIES_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(FRAME_MAX_UNTUNED as usize <= CLIENT_PROPERTIES_BYTES_MAX);

const CONNECTION: u16 = 10;
const OPEN: MethodIds = (CONNECTION, 40);
const CLOSE_OK: MethodIds = (CONNECTION, 51);

/// What the broker can do, announced to every client.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// A question to be answered before the handshake goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum HandshakeEvent {
    /// → [`Handshake::logged_in`]
    Login {
        mechanism: Mechanism,
        /// `None` with [`Mechanism::External`]: the client's certificate says who it is.
        credentials: Option<Credentials>,
    },
    /// → [`Handshake::opened`]
    Open { vhost: Name },
}

/// The connection is over. What waits in the output is still to be sent, nothing else is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    #[error("not the protocol header of AMQP 0-9-1")]
    ProtocolHeader,
    #[error("unknown login mechanism")]
    UnknownMechanism,
    #[error("malformed login: {0}")]
    MalformedLogin(AuthError),
    #[error("login refused")]
    LoginRefused,
    #[error("tune-ok with frame_max {frame_max} and channel_max {channel_max}")]
    Tune { frame_max: u32, channel_max: u16 },
    /// The client said goodbye and was answered.
    #[error("closed by the client")]
    ByClient,
    /// The client answered the close it was sent.
    #[error("closed by the broker")]
    Closed,
}

impl Disconnect {
    /// The socket is to be closed some seconds later only, so that guessing takes time.
    pub fn is_delayed(&self) -> bool {
        matches!(self, Self::UnknownMechanism | Self::MalformedLogin(_) | Self::LoginRefused)
    }
}

/// What a client can do, as far as it changes what the broker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities {
    /// A refused login is answered instead of just ended.
    pub authentication_failure_close: bool,
    /// It wants to hear when the broker ends a consumer.
    pub consumer_cancel_notify: bool,
    /// It wants to hear that publishers are held back.
    pub connection_blocked: bool,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientProperties {
    pub product: Option<Name>,
    pub connection_name: Option<Name>,
    pub capabilities: ClientCapabilities,
    /// All of it, for listings.
    pub table: Table,
}

impl ClientProperties {
    fn new(table: Table) -> Self {
        let text = |key| table.get(key).and_then(Value::as_text).map(Name::new);
        let can = |key| match table.get("capabilities") {
            Some(Value::Table(it)) => it.get(key) == Some(&Value::Bool(true)),
            _ => false,
        };
        Self {
            product: text("product"),
            connection_name: text("connection_name"),
            capabilities: ClientCapabilities {
                authentication_failure_close: can("authentication_failure_close"),
                consumer_cancel_notify: can("consumer_cancel_notify"),
                connection_blocked: can("connection.blocked"),
            },
            table,
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// Octets of the largest frame.
    pub frame_max: u32,
    /// Channels that may be open at a time.
    pub channel_max: u16,
    /// Seconds between heartbeats, 0 = none.
    pub heartbeat_s: u16,
    pub mechanism: Mechanism,
    pub client: ClientProperties,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    StartOk,
    /// The question who it is waits for its answer.
    Login,
    TuneOk,
    Open,
    /// The question where it wants to be waits for its answer.
    Opening,
    Opened,
    /// A close was sent; its answer is the only thing that counts.
    Closing,
    /// A close was sent, and what comes in cannot be read any more.
    ClosingDeaf,
    Over,
}

/// The beginning of one connection.
#[derive(Debug)]
pub struct Handshake {
    config: Arc<SessionConfig>,
    stage: Stage,
    negotiated: Negotiated,
    closing: Option<Reply>,
}

impl Handshake {
    /// A connection of which nothing has arrived.
    ///
    /// # Panics
    /// When the proposals of the configuration are below their minimum.
    pub fn new(config: Arc<SessionConfig>) -> Self {
        assert!(FRAME_MAX_MIN <= config.frame_max && 0 < config.channel_max);
        let negotiated = Negotiated {
            frame_max: FRAME_MAX_UNTUNED,
            channel_max: config.channel_max,
            heartbeat_s: config.heartbeat_s,
            mechanism: Mechanism::Plain,
            client: ClientProperties::default(),
        };
        Self { config, stage: Stage::Header, negotiated, closing: None }
    }

    /// What the close said that was sent, once one was. The socket is to be closed when the client
    /// has answered ([`Disconnect::Closed`]), has closed it, or has had long enough.
    pub fn closing(&self) -> Option<&Reply> {
        self.closing.as_ref()
    }

    /// Takes what has arrived, up to the next question. Call it again after an answer: more may be
    /// in the input. What follows the handshake stays there.
    ///
    /// # Errors
    /// [`Disconnect`], when the connection is over.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        output: &mut Output,
    ) -> Result<Option<HandshakeEvent>, Disconnect> {
        if self.stage == Stage::Header {
            self.protocol_header(input, output)?;
        }
        loop {
            match self.stage {
                Stage::Header | Stage::Login | Stage::Opening | Stage::Opened => return Ok(None),
                Stage::ClosingDeaf => {
                    input.clear();
                    return Ok(None);
                }
                Stage::Over => return Err(Disconnect::Closed),
                Stage::StartOk | Stage::TuneOk | Stage::Open | Stage::Closing => {}
            }
            match take_frame(input, self.negotiated.frame_max) {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => {
                    let event = self.on_frame(&frame, output);
                    if event.is_err() {
                        self.stage = Stage::Over;
                    }
                    if let Some(event) = event? {
                        return Ok(Some(event));
                    }
                }
                Err(error) => {
                    if self.stage != Stage::Closing {
                        self.close(error.into(), output);
                    }
                    self.stage = Stage::ClosingDeaf;
                }
            }
        }
    }

    /// The answer to [`HandshakeEvent::Login`].
    ///
    /// # Errors
    /// [`Disconnect::LoginRefused`], when the client cannot be told.
    ///
    /// # Panics
    /// When nothing was asked.
    pub fn logged_in(&mut self, is_known: bool, output: &mut Output) -> Result<(), Disconnect> {
        assert_eq!(self.stage, Stage::Login, "a login was asked about");
        if !is_known {
            return self.refuse_login(output);
        }
        let SessionConfig { channel_max, frame_max, heartbeat_s, .. } = *self.config;
        output.method(0, &Method::ConnectionTune { channel_max, frame_max, heartbeat_s });
        self.stage = Stage::TuneOk;
        Ok(())
    }

    /// The answer to [`HandshakeEvent::Open`]. Returns what was agreed when the connection is open.
    ///
    /// # Panics
    /// When nothing was asked.
    pub fn opened(
        &mut self,
        answer: Result<(), Refusal>,
        output: &mut Output,
    ) -> Option<Negotiated> {
        assert_eq!(self.stage, Stage::Opening, "an open was asked about");
        match answer {
            Ok(()) => {
                output.method(0, &Method::ConnectionOpenOk {});
                self.stage = Stage::Opened;
                Some(self.negotiated.clone())
            }
            Err(refusal) => {
                self.close(Reply::refused(&refusal, OPEN), output);
                None
            }
        }
    }

    /// Ends the handshake from outside, such as at a shutdown; a connection without a header yet,
    /// or one that is being closed already, is sent nothing.
    pub fn end(&mut self, refusal: &Refusal, output: &mut Output) {
        match self.stage {
            Stage::Header => self.stage = Stage::Over,
            Stage::Closing | Stage::ClosingDeaf | Stage::Over => {}
            _ => self.close(Reply::refused(refusal, NO_METHOD), output),
        }
    }

    fn close(&mut self, reply: Reply, output: &mut Output) {
        output.method(0, &reply.connection_close());
        self.closing = Some(reply);
        self.stage = Stage::Closing;
    }

    fn protocol_header(
        &mut self,
        input: &mut BytesMut,
        output: &mut Output,
    ) -> Result<(), Disconnect> {
        match protocol_header(input) {
            ProtocolHeader::Incomplete => Ok(()),
            ProtocolHeader::Accepted => {
                input.advance(PROTOCOL_HEADER.len());
                output.method(0, &start(&self.config));
                self.stage = Stage::StartOk;
                Ok(())
            }
            ProtocolHeader::Refused => {
                input.clear();
                output.raw(&PROTOCOL_HEADER);
                self.stage = Stage::Over;
                Err(Disconnect::ProtocolHeader)
            }
        }
    }

    fn on_frame(
        &mut self,
        frame: &Frame,
        output: &mut Output,
    ) -> Result<Option<HandshakeEvent>, Disconnect> {
        if self.stage == Stage::Closing {
            let is_answer = frame.channel == 0
                && frame.kind == FrameKind::Method
                && method_ids(&frame.payload) == Some(CLOSE_OK);
            return if is_answer { Err(Disconnect::Closed) } else { Ok(None) };
        }
        match frame.kind {
            FrameKind::Heartbeat => Ok(None),
            FrameKind::Header | FrameKind::Body => {
                let explanation = "expected method frame, got non method frame instead";
                self.close(Reply::new(ReplyCode::UnexpectedFrame, explanation, NO_METHOD), output);
                Ok(None)
            }
            FrameKind::Method => match Method::decode(&frame.payload) {
                Ok(method) if frame.channel == 0 => self.on_method(method, output),
                Ok(method) => {
                    self.close(on_other_channel(method.ids()), output);
                    Ok(None)
                }
                Err(error) => {
                    self.close(error.into(), output);
                    Ok(None)
                }
            },
        }
    }

    fn on_method(
        &mut self,
        method: Method,
        output: &mut Output,
    ) -> Result<Option<HandshakeEvent>, Disconnect> {
        match (self.stage, method) {
            (_, Method::ConnectionClose { .. }) => {
                output.method(0, &Method::ConnectionCloseOk {});
                Err(Disconnect::ByClient)
            }
            (
                Stage::StartOk,
                Method::ConnectionStartOk { client_properties, mechanism, response, .. },
            ) => self.start_ok(client_properties, &mechanism, response.expose(), output),
            (Stage::TuneOk, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s }) => {
                self.tune_ok(channel_max, frame_max, heartbeat_s, output)?;
                Ok(None)
            }
            (Stage::Open, Method::ConnectionOpen { virtual_host }) => {
                self.stage = Stage::Opening;
                Ok(Some(HandshakeEvent::Open { vhost: virtual_host }))
            }
            (_, other) => {
                let explanation = format!("'{}' before the connection is open", other.name());
                self.close(
                    Reply::new(ReplyCode::CommandInvalid, &explanation, other.ids()),
                    output,
                );
                Ok(None)
            }
        }
    }

    fn start_ok(
        &mut self,
        client_properties: Table,
        mechanism: &str,
        response: &[u8],
        output: &mut Output,
    ) -> Result<Option<HandshakeEvent>, Disconnect> {
        let mechanism = Mechanism::named(mechanism)
            .filter(|it| self.config.mechanisms.contains(it))
            .ok_or(Disconnect::UnknownMechanism)?;
        self.negotiated.mechanism = mechanism;
        self.negotiated.client = ClientProperties::new(client_properties);
        match auth::credentials(mechanism, response) {
            Ok(credentials) => {
                self.stage = Stage::Login;
                Ok(Some(HandshakeEvent::Login { mechanism, credentials }))
            }
            Err(AuthError::EmptyPassword) => self.refuse_login(output).map(|()| None),
            Err(error) => Err(Disconnect::MalformedLogin(error)),
        }
    }

    fn refuse_login(&mut self, output: &mut Output) -> Result<(), Disconnect> {
        if !self.negotiated.client.capabilities.authentication_failure_close {
            self.stage = Stage::Over;
            return Err(Disconnect::LoginRefused);
        }
        let explanation = format!(
            "Login was refused using authentication mechanism {}. For details see the broker \
             logfile.",
            self.negotiated.mechanism
        );
        self.close(Reply::new(ReplyCode::AccessRefused, &explanation, NO_METHOD), output);
        Ok(())
    }

    fn tune_ok(
        &mut self,
        channel_max: u16,
        frame_max: u32,
        heartbeat_s: u16,
        output: &mut Output,
    ) -> Result<(), Disconnect> {
        let is_within = (FRAME_MAX_MIN..=self.config.frame_max).contains(&frame_max)
            && (1..=self.config.channel_max).contains(&channel_max);
        if !is_within {
            return Err(Disconnect::Tune { frame_max, channel_max });
        }
        self.negotiated.frame_max = frame_max;
        self.negotiated.channel_max = channel_max;
        self.negotiated.heartbeat_s = heartbeat_s;
        output.set_frame_max(frame_max);
        self.stage = Stage::Open;
        Ok(())
    }
}

/// The first method of the broker.
fn start(config: &SessionConfig) -> Method {
    let capabilities = CAPABILITIES.iter().map(|it| (Name::new(it), Value::Bool(true))).collect();
    let mut server_properties = Table::default();
    server_properties.set("capabilities", Value::Table(Table(capabilities)));
    for (key, text) in [
        ("cluster_name", &*config.cluster_name),
        ("copyright", &config.copyright),
        ("information", &config.information),
        ("platform", &config.platform),
        ("product", config.product()),
        ("version", config.announced_version()),
    ] {
        server_properties.set(key, Value::text(text));
    }
    Method::ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: config.mechanism_names().into(),
        locales: Bytes::from_static(b"en_US"),
    }
}

/// No channel is open yet, and methods of the connection have no business on one.
fn on_other_channel(ids: MethodIds) -> Reply {
    match ids {
        (CONNECTION, _) => Reply::new(ReplyCode::CommandInvalid, "unimplemented method", ids),
        _ => Reply::new(ReplyCode::ChannelError, "expected 'channel.open'", ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use std::io::IoSlice;

    /// A client against a broker that knows the user `guest` with the password `guest`, and `/`.
    struct Peers {
        handshake: Handshake,
        input: BytesMut,
        output: Output,
        /// What the broker said, in words.
        seen: Vec<String>,
        negotiated: Option<Negotiated>,
        /// Octets that arrive at a time.
        step: usize,
    }

    /// What a client says; `None` leaves it out.
    #[derive(Clone)]
    struct Script {
        header: &'static [u8],
        mechanism: &'static str,
        response: Vec<u8>,
        capabilities: bool,
        /// channel_max, frame_max, heartbeat.
        tune_ok: (u16, u32, u16),
        vhost: &'static str,
    }

    fn good() -> Script {
        Script {
            header: &PROTOCOL_HEADER,
            mechanism: "PLAIN",
            response: b"\0guest\0guest".to_vec(),
            capabilities: true,
            tune_ok: (2_047, 131_072, 0),
            vhost: "/",
        }
    }

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat()
    }

    fn encoded(method: &Method) -> Vec<u8> {
        let mut payload = Vec::new();
        method.encode(&mut payload);
        frame(1, 0, &payload)
    }

    fn client_properties(capabilities: bool) -> Table {
        let names = ["authentication_failure_close", "connection.blocked"];
        let entries = names.map(|it| (Name::new(it), Value::Bool(capabilities))).to_vec();
        Table(vec![
            (Name::new("product"), Value::text("golden")),
            (Name::new("connection_name"), Value::text("tests")),
            (Name::new("capabilities"), Value::Table(Table(entries))),
        ])
    }

    fn close_ok() -> Vec<u8> {
        encoded(&Method::ConnectionCloseOk {})
    }

    impl Script {
        fn messages(&self) -> Vec<Vec<u8>> {
            let (channel_max, frame_max, heartbeat_s) = self.tune_ok;
            vec![
                self.header.to_vec(),
                encoded(&Method::ConnectionStartOk {
                    client_properties: client_properties(self.capabilities),
                    mechanism: self.mechanism.into(),
                    response: crate::secret::Secret::new(&self.response),
                    locale: Name::new("en_US"),
                }),
                encoded(&Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s }),
                encoded(&Method::ConnectionOpen { virtual_host: self.vhost.into() }),
                close_ok(),
            ]
        }

        /// What the broker says to it, however the octets arrive.
        fn answers(&self) -> String {
            let octets = self.messages().concat();
            let whole = Peers::new(usize::MAX).sent(&octets);
            let single = Peers::new(1).sent(&octets);
            assert_eq!(whole, single);
            whole.join("; ")
        }
    }

    fn shown(method: &Method) -> String {
        match method {
            Method::ConnectionClose { reply_code, reply_text, class_id, method_id } => {
                format!("close {reply_code} {reply_text} ({class_id},{method_id})")
            }
            other => other.name().trim_start_matches("connection.").to_owned(),
        }
    }

    impl Peers {
        fn new(step: usize) -> Self {
            Self {
                handshake: Handshake::new(Arc::default()),
                input: BytesMut::new(),
                output: Output::new(),
                seen: Vec::new(),
                negotiated: None,
                step,
            }
        }

        /// Hands in the octets; returns what the broker has said since the beginning.
        fn sent(&mut self, octets: &[u8]) -> Vec<String> {
            for part in octets.chunks(self.step) {
                self.input.extend_from_slice(part);
                match self.turn() {
                    Ok(()) => self.look(),
                    Err(disconnect) => {
                        self.look();
                        self.seen.push(disconnect.to_string());
                        break;
                    }
                }
            }
            self.seen.clone()
        }

        fn turn(&mut self) -> Result<(), Disconnect> {
            while let Some(event) = self.handshake.receive(&mut self.input, &mut self.output)? {
                match event {
                    HandshakeEvent::Login { credentials, .. } => {
                        let is_known = credentials.is_none_or(|it| {
                            it.user.as_str() == "guest" && it.password.expose() == b"guest"
                        });
                        self.handshake.logged_in(is_known, &mut self.output)?;
                    }
                    HandshakeEvent::Open { vhost } => {
                        let answer = match vhost.as_str() {
                            "/" => Ok(()),
                            _ => Err(Refusal::NoVhost(vhost)),
                        };
                        self.negotiated = self.handshake.opened(answer, &mut self.output);
                    }
                }
            }
            Ok(())
        }

        /// Takes what the broker sent.
        fn look(&mut self) {
            let mut slices = [IoSlice::new(&[])];
            let filled = self.output.as_io_slices(&mut slices);
            let mut octets = BytesMut::new();
            slices[..filled].iter().for_each(|it| octets.extend_from_slice(it));
            self.output.advance(octets.len());
            if octets.starts_with(b"AMQP") {
                let version: Vec<String> = octets[4..].iter().map(u8::to_string).collect();
                self.seen.push(format!("AMQP {}", version.join(" ")));
                return;
            }
            while let Some(frame) = take_frame(&mut octets, 8_192).expect("good frames") {
                let method = Method::decode(&frame.payload).expect("a good method");
                self.seen.push(shown(&method));
            }
            assert!(octets.is_empty());
        }
    }

    #[test]
    fn logins_are_answered_as_observed() {
        let refused = |mechanism| {
            format!(
                "start; close 403 ACCESS_REFUSED - Login was refused using authentication \
                 mechanism {mechanism}. For details see the broker logfile. (0,0); closed by the \
                 broker"
            )
        };
        let amqplain = |password: &str| {
            let text = |it: &str| Value::text(it);
            let table = Table(vec![
                (Name::new("LOGIN"), text("guest")),
                (Name::new("PASSWORD"), text(password)),
            ]);
            let mut octets = Vec::new();
            table.encode(&mut octets);
            octets.split_off(4)
        };
        let open = "start; tune; open-ok".to_owned();
        let wrong = b"\0guest\0wrong".to_vec();
        let empty = b"\0guest\0".to_vec();
        let malformed = "start; malformed login: response does not consist of two parts, each \
                         behind a NUL"
            .to_owned();
        let unknown = "start; unknown login mechanism".to_owned();
        let silent = "start; login refused".to_owned();
        for (script, expected) in [
            (good(), open.clone()),
            (Script { header: b"AMQP\x01\x01\x00\x09", ..good() }, open.clone()),
            (Script { mechanism: "AMQPLAIN", response: amqplain("guest"), ..good() }, open),
            (
                Script { mechanism: "AMQPLAIN", response: amqplain("x"), ..good() },
                refused("AMQPLAIN"),
            ),
            (Script { response: wrong.clone(), ..good() }, refused("PLAIN")),
            (Script { response: empty.clone(), ..good() }, refused("PLAIN")),
            (Script { response: wrong, capabilities: false, ..good() }, silent.clone()),
            (Script { response: empty, capabilities: false, ..good() }, silent),
            (Script { mechanism: "FOO", ..good() }, unknown.clone()),
            (Script { mechanism: "EXTERNAL", ..good() }, unknown.clone()),
            (Script { mechanism: "ANONYMOUS", ..good() }, unknown),
            (Script { response: b"abc".to_vec(), ..good() }, malformed),
            (
                Script { vhost: "nope", ..good() },
                "start; tune; close 530 NOT_ALLOWED - vhost nope not found (10,40); closed by \
                 the broker"
                    .to_owned(),
            ),
        ] {
            assert_eq!(script.answers(), expected);
        }
    }

    #[test]
    fn tune_ok_stays_within_the_proposal() {
        for (tune_ok, is_good) in [
            ((2_047, 131_072, 60), true),
            ((1, 4_096, 0), true),
            ((2_047, 8_191, 60), true),
            ((2_047, 8_192, 600), true),
            ((2_047, 4_095, 60), false),
            ((2_047, 100, 60), false),
            ((2_047, 131_073, 60), false),
            ((2_047, 262_144, 60), false),
            ((2_047, 0, 60), false),
            ((65_535, 131_072, 60), false),
            ((2_048, 131_072, 60), false),
            ((0, 131_072, 60), false),
        ] {
            let mut peers = Peers::new(usize::MAX);
            let octets = Script { tune_ok, ..good() }.messages().concat();
            let seen = peers.sent(&octets).join("; ");
            let (channel_max, frame_max, heartbeat_s) = tune_ok;
            if is_good {
                assert_eq!(seen, "start; tune; open-ok");
                let found = peers.negotiated.expect("an open connection");
                let limits = (found.channel_max, found.frame_max, found.heartbeat_s);
                assert_eq!(limits, (channel_max, frame_max, heartbeat_s));
                let largest = frame_max as usize - 20;
                assert!(peers.output.fits(largest) && !peers.output.fits(largest + 1));
            } else {
                let with = format!("frame_max {frame_max} and channel_max {channel_max}");
                assert_eq!(seen, format!("start; tune; tune-ok with {with}"));
                assert_eq!(peers.turn(), Err(Disconnect::Closed), "and it stays over");
                assert!(peers.output.is_empty(), "without another word");
            }
        }
    }

    #[test]
    fn another_protocol_is_told_this_one() {
        for header in [
            &b"AMQP\x00\x00\x09\x00"[..],
            b"AMQP\x00\x00\x08\x00",
            b"AMQP\x00\x01\x00\x00",
            b"AMQP\x03\x01\x00\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"XXXXXXXX",
        ] {
            let expected = "AMQP 0 0 9 1; not the protocol header of AMQP 0-9-1";
            assert_eq!(Script { header, ..good() }.answers(), expected, "{header:?}");
        }
    }

    #[test]
    fn octets_that_are_no_login_are_refused() {
        let bad_table = [&[0, 10, 0, 11][..], &[0, 0, 0, 3, 1, b'k', b'z']].concat();
        let mut bad_end = frame(1, 0, &[0, 10, 0, 11]);
        *bad_end.last_mut().expect("not empty") = 0;
        let large = [&[1, 0, 0][..], &8_185_u32.to_be_bytes()].concat();
        let deaf = "";
        let answered = "; closed by the broker";
        for (octets, close, end) in [
            (bad_end, "501 FRAME_ERROR - frame ends with octet 0x00 (0,0)", deaf),
            (frame(9, 0, b"abc"), "501 FRAME_ERROR - unknown frame type 9 (0,0)", deaf),
            (
                large,
                "501 FRAME_ERROR - frame payload of 8185 octets is larger than 8184 (0,0)",
                deaf,
            ),
            (frame(8, 1, b""), "505 UNEXPECTED_FRAME - heartbeat on channel 1 (0,0)", deaf),
            (
                frame(3, 0, b"x"),
                "505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0,0)",
                answered,
            ),
            (
                frame(1, 0, &[0, 99, 0, 10]),
                "540 NOT_IMPLEMENTED - unknown method (99,10)",
                answered,
            ),
            (
                frame(1, 0, &[0, 10, 0, 11]),
                "501 FRAME_ERROR - arguments end in the middle of a field (10,11)",
                answered,
            ),
            (
                frame(1, 0, &bad_table),
                "502 SYNTAX_ERROR - unknown field type 0x7a (10,11)",
                answered,
            ),
            (
                encoded(&Method::TxSelect {}),
                "503 COMMAND_INVALID - 'tx.select' before the connection is open (90,10)",
                answered,
            ),
            (
                frame(1, 1, &[0, 90, 0, 10]),
                "504 CHANNEL_ERROR - expected 'channel.open' (90,10)",
                answered,
            ),
            (
                frame(1, 1, &[0, 10, 0, 51]),
                "503 COMMAND_INVALID - unimplemented method (10,51)",
                answered,
            ),
        ] {
            let mut peers = Peers::new(usize::MAX);
            peers.sent(&PROTOCOL_HEADER);
            let seen = peers.sent(&[octets, close_ok()].concat()).join("; ");
            assert_eq!(seen, format!("start; close {close}{end}"));
        }
    }

    #[test]
    fn after_a_close_only_its_answer_counts() {
        let mut peers = Peers::new(usize::MAX);
        peers.sent(&[&PROTOCOL_HEADER[..], &encoded(&Method::TxSelect {})].concat());
        let said = peers.seen.clone();
        assert_eq!(peers.handshake.closing().map(|it| it.code), Some(ReplyCode::CommandInvalid));
        for octets in [
            encoded(&Method::TxSelect {}),
            frame(3, 7, b"body"),
            frame(1, 1, &[0, 10, 0, 51]),
            frame(1, 0, &[0, 10]),
        ] {
            assert_eq!(peers.sent(&octets), said);
        }
        assert_eq!(peers.sent(&close_ok())[2..], ["closed by the broker"]);
    }

    #[test]
    fn after_a_broken_frame_nothing_is_read_and_nothing_is_kept() {
        let mut peers = Peers::new(usize::MAX);
        peers.sent(&PROTOCOL_HEADER);
        let said = peers.sent(&frame(9, 0, b""));
        assert_eq!(peers.sent(&[close_ok(), vec![1; 100_000]].concat()), said);
        assert!(peers.input.is_empty());
    }

    #[test]
    fn a_goodbye_is_answered_at_any_stage() {
        let close = encoded(&Method::ConnectionClose {
            reply_code: 200,
            reply_text: Name::new("bye"),
            class_id: 0,
            method_id: 0,
        });
        for said in 1..4 {
            let mut peers = Peers::new(usize::MAX);
            let mut messages = good().messages();
            messages.truncate(said);
            peers.sent(&messages.concat());
            let seen = peers.sent(&close);
            assert_eq!(seen[seen.len() - 2..], ["close-ok", "closed by the client"]);
        }
    }

    #[test]
    fn questions_wait_and_what_follows_stays_in_the_input() {
        let (mut handshake, mut output) = (Handshake::new(Arc::default()), Output::new());
        let mut input = BytesMut::from(&good().messages()[..4].concat()[..]);
        let more = frame(1, 1, &[0, 20, 0, 10, 0]);
        input.extend_from_slice(&more);
        let event = handshake.receive(&mut input, &mut output);
        assert!(matches!(event, Ok(Some(HandshakeEvent::Login { .. }))));
        let (left, sent) = (input.len(), output.len());
        assert_eq!(handshake.receive(&mut input, &mut output), Ok(None));
        assert_eq!((input.len(), output.len()), (left, sent));
        handshake.logged_in(true, &mut output).expect("known");
        let event = handshake.receive(&mut input, &mut output);
        assert_eq!(event, Ok(Some(HandshakeEvent::Open { vhost: Name::new("/") })));
        assert!(handshake.opened(Ok(()), &mut output).is_some());
        assert_eq!(handshake.receive(&mut input, &mut output), Ok(None));
        assert_eq!(&input[..], more);
    }

    #[test]
    fn the_negotiated_frame_limit_holds_at_once() {
        let mut peers = Peers::new(usize::MAX);
        let messages = Script { tune_ok: (1, 4_096, 0), ..good() }.messages();
        let large = [&[1, 0, 0][..], &4_089_u32.to_be_bytes()].concat();
        let seen = peers.sent(&[&messages[..3].concat()[..], &large].concat());
        let close =
            "close 501 FRAME_ERROR - frame payload of 4089 octets is larger than 4088 (0,0)";
        assert_eq!(seen, ["start", "tune", close]);
    }

    #[test]
    fn what_the_client_says_of_itself_is_kept() {
        let mut peers = Peers::new(usize::MAX);
        peers.sent(&good().messages()[..4].concat());
        let client = peers.negotiated.expect("an open connection").client;
        assert_eq!(client.product.as_deref(), Some("golden"));
        assert_eq!(client.connection_name.as_deref(), Some("tests"));
        let expected = ClientCapabilities {
            authentication_failure_close: true,
            connection_blocked: true,
            consumer_cancel_notify: false,
        };
        assert_eq!(client.capabilities, expected);
        assert_eq!(client.table, client_properties(true));
    }

    #[test]
    fn the_start_has_the_shape_of_the_observed_one() {
        let observed = include_str!("../tests/data/connection.start.hex").trim();
        let digit = |at: usize| u8::from_str_radix(&observed[at..at + 2], 16).expect("hex");
        let octets: Vec<u8> = (0..observed.len()).step_by(2).map(digit).collect();
        let frame = take_frame(&mut BytesMut::from(&octets[..]), 8_192).expect("a good frame");
        let theirs = Method::decode(&frame.expect("a whole frame").payload).expect("a method");
        let config = SessionConfig { identity: Identity::Rabbitmq, ..SessionConfig::default() };
        let (
            Method::ConnectionStart { server_properties: theirs, locales: their_locales, .. },
            Method::ConnectionStart {
                version_major: 0,
                version_minor: 9,
                server_properties: ours,
                mechanisms,
                locales,
            },
        ) = (theirs, start(&config))
        else {
            panic!("both are connection.start");
        };
        assert_eq!((&mechanisms[..], &locales), (&b"PLAIN AMQPLAIN"[..], &their_locales));
        let keys = |it: &Table| it.0.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&theirs));
        assert_eq!(ours.get("capabilities"), theirs.get("capabilities"));
        assert_eq!(ours.get("product"), theirs.get("product"));
        for (key, value) in &ours.0[1..] {
            assert!(value.as_text().is_some_and(|it| !it.is_empty()), "{key}");
        }
    }

    #[test]
    fn a_certificate_names_the_user() {
        let mechanisms = vec![Mechanism::Plain, Mechanism::External];
        let config = SessionConfig { mechanisms, ..SessionConfig::default() };
        let (mut handshake, mut output) = (Handshake::new(config.into()), Output::new());
        let script = Script { mechanism: "EXTERNAL", response: b"\0*\0*".to_vec(), ..good() };
        let mut input = BytesMut::from(&script.messages()[..2].concat()[..]);
        let event = handshake.receive(&mut input, &mut output);
        let expected = HandshakeEvent::Login { mechanism: Mechanism::External, credentials: None };
        assert_eq!(event, Ok(Some(expected)));
    }

    #[test]
    fn an_end_from_outside_is_told_once() {
        let forced = Refusal::Forced("shutdown".to_owned());
        let mut peers = Peers::new(usize::MAX);
        peers.handshake.end(&forced, &mut peers.output);
        assert_eq!(peers.sent(&PROTOCOL_HEADER), ["closed by the broker"]);
        let mut peers = Peers::new(usize::MAX);
        peers.sent(&PROTOCOL_HEADER);
        peers.handshake.end(&forced, &mut peers.output);
        peers.handshake.end(&forced, &mut peers.output);
        let close = "close 320 CONNECTION_FORCED - shutdown (0,0)";
        assert_eq!(peers.sent(&close_ok()), ["start", close, "closed by the broker"]);
    }

    #[test]
    fn only_failed_logins_are_ended_late() {
        let malformed = Disconnect::MalformedLogin(AuthError::Parts);
        for late in [Disconnect::UnknownMechanism, malformed, Disconnect::LoginRefused] {
            assert!(late.is_delayed());
        }
        let tune = Disconnect::Tune { frame_max: 0, channel_max: 0 };
        for at_once in [Disconnect::ProtocolHeader, tune, Disconnect::Closed, Disconnect::ByClient]
        {
            assert!(!at_once.is_delayed());
        }
    }
}
