//! A broker that misbehaves on request: it stalls, loses, doubles, refuses and hangs up, so that
//! the benchmark can be seen to notice.

use amqp091::{
    frame::{FRAME_END, FrameKind, FramePlace, PROTOCOL_HEADER, content_header, frame_at},
    method::Method,
};
use model::{Name, Table, Value};
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

const FRAME_MAX: u32 = 131_072;

/// What it does wrong. Counts are of messages, from 1; 0 is never.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) stall_at: u64,
    pub(crate) stall: Duration,
    pub(crate) lose_at: u64,
    pub(crate) double_at: u64,
    pub(crate) refuse_at: u64,
    /// Closes the connection with 320 then.
    pub(crate) hang_up_at: u64,
    /// Refuses this request, by its name, with a code.
    pub(crate) refused: Option<(&'static str, u16)>,
    /// This queue is somebody else's.
    pub(crate) existing: Option<&'static str>,
}

#[derive(Default)]
struct State {
    queues: BTreeSet<String>,
    deleted: Vec<String>,
    consumer: Option<(TcpStream, Name)>,
    messages: u64,
    waiting: Vec<Vec<u8>>,
}

pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeBroker {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        state.lock().unwrap().queues.extend(fault.existing.map(str::to_owned));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, fault) = (Arc::clone(&shared), fault.clone());
                let client = Client { stream: stream.unwrap(), state, fault, tag: 0 };
                thread::spawn(move || client.serve());
            }
        });
        Self { address, state }
    }

    pub(crate) fn queues(&self) -> Vec<String> {
        self.state.lock().unwrap().queues.iter().cloned().collect()
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        self.state.lock().unwrap().deleted.clone()
    }
}

struct Client {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    fault: Fault,
    /// Messages of this connection.
    tag: u64,
}

impl Client {
    fn serve(mut self) {
        let (mut buffer, mut at) = (Vec::new(), 0);
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).unwrap();
        assert_eq!(header, PROTOCOL_HEADER);
        let mut server_properties = Table::default();
        server_properties.set("product", Value::text("Fake"));
        server_properties.set("version", Value::text("1.2"));
        self.tell(
            0,
            &Method::ConnectionStart {
                version_major: 0,
                version_minor: 9,
                server_properties,
                mechanisms: b"AMQPLAIN PLAIN".to_vec().into(),
                locales: b"en_US".to_vec().into(),
            },
        );
        let mut body_left = 0;
        loop {
            while let Some(place) = frame_at(&buffer, at, FRAME_MAX).unwrap() {
                at = place.end();
                let FramePlace { kind, payload, .. } = place;
                let payload = &buffer[payload];
                let goes_on = match kind {
                    FrameKind::Method => self.on_method(&Method::decode(payload).unwrap()),
                    FrameKind::Header => {
                        body_left = content_header(payload).unwrap().body_size;
                        true
                    }
                    _ => {
                        body_left -= payload.len() as u64;
                        assert_eq!(body_left, 0, "bodies of tests fit in a frame");
                        self.on_message(payload)
                    }
                };
                if !goes_on {
                    return;
                }
            }
            buffer.drain(..at);
            at = 0;
            let mut more = [0; 65_536];
            match self.stream.read(&mut more) {
                Ok(count @ 1..) => buffer.extend_from_slice(&more[..count]),
                _ => return,
            }
        }
    }

    fn on_method(&mut self, method: &Method) -> bool {
        if let Some((name, code)) = self.fault.refused
            && name == method.name()
        {
            let (reply_text, class_id, method_id) = ("REFUSED - by the test".into(), 0, 0);
            let is_connection = method.ids().0 == 10;
            let (channel, close) = if is_connection {
                (0, Method::ConnectionClose { reply_code: code, reply_text, class_id, method_id })
            } else {
                (1, Method::ChannelClose { reply_code: code, reply_text, class_id, method_id })
            };
            self.tell(channel, &close);
            return true;
        }
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        let (message_count, consumer_count) = (state.waiting.len() as u32, 0);
        let answer = match method {
            Method::ConnectionStartOk { .. } => {
                Method::ConnectionTune { channel_max: 9, frame_max: FRAME_MAX, heartbeat_s: 60 }
            }
            Method::ConnectionOpen { .. } => Method::ConnectionOpenOk {},
            Method::ConnectionClose { .. } => Method::ConnectionCloseOk {},
            Method::ChannelOpen {} => Method::ChannelOpenOk {},
            Method::QueueDeclare { queue, passive: true, .. }
                if !state.queues.contains(&**queue) =>
            {
                let reply_text = "NOT_FOUND".into();
                Method::ChannelClose { reply_code: 404, reply_text, class_id: 50, method_id: 10 }
            }
            Method::QueueDeclare { queue, .. } => {
                state.queues.insert(queue.to_string());
                Method::QueueDeclareOk { queue: queue.clone(), message_count, consumer_count }
            }
            Method::QueueDelete { queue, .. } => {
                state.queues.remove(&**queue);
                state.deleted.push(queue.to_string());
                Method::QueueDeleteOk { message_count }
            }
            Method::ConfirmSelect { .. } => Method::ConfirmSelectOk {},
            Method::BasicQos { .. } => Method::BasicQosOk {},
            Method::BasicConsume { consumer_tag, .. } => {
                state.consumer = Some((self.stream.try_clone().unwrap(), consumer_tag.clone()));
                Method::BasicConsumeOk { consumer_tag: consumer_tag.clone() }
            }
            _ => return true,
        };
        self.tell(if method.ids().0 == 10 { 0 } else { 1 }, &answer);
        let is_consume = matches!(method, Method::BasicConsume { .. });
        let waiting = if is_consume { std::mem::take(&mut state.waiting) } else { Vec::new() };
        for body in waiting {
            deliver(&mut state, &body);
        }
        !matches!(method, Method::ConnectionClose { .. })
    }

    /// Delivers it and confirms it, one way or the other.
    fn on_message(&mut self, body: &[u8]) -> bool {
        self.tag += 1;
        let fault = &self.fault;
        if fault.stall_at == self.tag {
            let (_never, nothing) = mpsc::channel::<()>();
            nothing.recv_timeout(fault.stall).unwrap_err();
        }
        let state = Arc::clone(&self.state);
        let mut state = state.lock().unwrap();
        state.messages += 1;
        let copies = match self.tag {
            it if it == fault.lose_at || it == fault.refuse_at => 0,
            it if it == fault.double_at => 2,
            _ => 1,
        };
        (0..copies).for_each(|_| deliver(&mut state, body));
        if fault.hang_up_at == self.tag {
            let (reply_text, class_id, method_id) = ("CONNECTION_FORCED - test".into(), 0, 0);
            let close =
                Method::ConnectionClose { reply_code: 320, reply_text, class_id, method_id };
            self.tell(0, &close);
            return false;
        }
        let delivery_tag = self.tag;
        let confirm = if self.tag == fault.refuse_at {
            Method::BasicNack { delivery_tag, multiple: false, requeue: false }
        } else {
            Method::BasicAck { delivery_tag, multiple: false }
        };
        self.tell(1, &confirm);
        true
    }

    fn tell(&mut self, channel: u16, method: &Method) {
        let mut out = Vec::new();
        put_frame(&mut out, FrameKind::Method, channel, |it| method.encode(it));
        // Who has hung up does not want to hear it.
        self.stream.write_all(&out).ok();
    }
}

fn deliver(state: &mut State, body: &[u8]) {
    let Some((stream, consumer_tag)) = &mut state.consumer else {
        state.waiting.push(body.to_vec());
        return;
    };
    let deliver = Method::BasicDeliver {
        consumer_tag: consumer_tag.clone(),
        delivery_tag: 1,
        redelivered: false,
        exchange: "".into(),
        routing_key: "".into(),
    };
    let mut out = Vec::new();
    put_frame(&mut out, FrameKind::Method, 1, |it| deliver.encode(it));
    put_frame(&mut out, FrameKind::Header, 1, |it| {
        it.extend_from_slice(&[0, 60, 0, 0]);
        it.extend_from_slice(&(body.len() as u64).to_be_bytes());
        it.extend_from_slice(&[0, 0]);
    });
    put_frame(&mut out, FrameKind::Body, 1, |it| it.extend_from_slice(body));
    stream.write_all(&out).ok();
}

fn put_frame(
    out: &mut Vec<u8>,
    kind: FrameKind,
    channel: u16,
    put_payload: impl FnOnce(&mut Vec<u8>),
) {
    let mut payload = Vec::new();
    put_payload(&mut payload);
    out.push(kind as u8);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&payload);
    out.push(FRAME_END);
}
