//! Inputs of the fuzz target `session`: frames of several channels in any order, with a broker that
//! answers now, later or with a refusal. What the session makes of them is compared with a second
//! reading of the same octets, which knows nothing but frames. The target judges by the same
//! function.

#[path = "../../../../fuzz/source.rs"]
mod source;

#[path = "../../../../fuzz/corpus.rs"]
mod inputs;

use self::source::Source;
use crate::harness::{CLOSE_OK, Client, Peer, delivery, frame, header_frame, method_frame};
use amqp091::{
    Event,
    frame::{CONTENT_HEADER_LEN, FrameKind, content_header, take_frame},
    method::{METHODS, Method},
    session_fuzzing::answer,
};
use bytes::BytesMut;
use model::{
    ChannelId, ConsumerNumber, Facts, Message, Name, Notice, Refusal, Request,
    properties::Properties,
};
use std::{collections::BTreeMap, io::IoSlice};

const CHANNELS: u16 = 3;
/// Octets of the parts in which the input comes; 0: all that there is at once.
const PARTS: [usize; 4] = [0, 1, 7, 300];
/// Parts that frames are cut into at most.
const PARTS_MAX: usize = 64;

/// A publish as the frames say it.
#[derive(Debug, Default)]
struct Publish {
    exchange: Name,
    routing_key: Name,
    mandatory: bool,
    properties: Option<Vec<u8>>,
    body_size: u64,
    body: Vec<u8>,
}

struct Run {
    peer: Peer,
    part_len: usize,
    answers_at_once: bool,
    /// Octets that wait to be given together.
    held: Vec<u8>,
    /// All octets that were given.
    given: BytesMut,
    asked: Vec<Request>,
    published: Vec<(ChannelId, bool, Message)>,
    entry: u64,
    /// The session said that something ended.
    has_closed: bool,
}

impl Run {
    fn new(flags: u8) -> Self {
        let frame_max = if flags & 16 == 0 { 131_072 } else { 4_096 };
        let mut peer = Peer::open(Client { frame_max, ..Client::default() });
        for channel in 1..=CHANNELS {
            peer.send(channel, Method::ChannelOpen {});
        }
        peer.heard();
        Self {
            peer,
            part_len: PARTS[usize::from(flags & 3)],
            answers_at_once: flags & 4 != 0,
            held: Vec::new(),
            given: BytesMut::new(),
            asked: Vec::new(),
            published: Vec::new(),
            entry: 1,
            has_closed: false,
        }
    }

    fn is_over(&self) -> bool {
        self.peer.event == Some(Event::Finished)
    }

    fn give_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let part_len = if self.part_len == 0 { held.len() } else { self.part_len };
        // A large body octet by octet takes longer than it tells.
        let part_len = part_len.max(held.len() / PARTS_MAX).max(1);
        for part in held.chunks(part_len) {
            if self.is_over() {
                return;
            }
            self.given.extend_from_slice(part);
            self.peer.octets(part);
            self.look();
        }
    }

    /// Takes note of what the session asks for and writes.
    fn look(&mut self) {
        let mut requests = std::mem::take(&mut self.peer.requests);
        for request in &requests {
            match request {
                Request::Commit { requests, .. } => requests.iter().for_each(|it| self.note(it)),
                other => self.note(other),
            }
        }
        self.asked.append(&mut requests);
        let output = &mut self.peer.output;
        let mut octets = BytesMut::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = output.as_io_slices(&mut slices);
            let before = octets.len();
            slices[..filled].iter().for_each(|it| octets.extend_from_slice(it));
            output.advance(octets.len() - before);
        }
        self.has_closed |= read_output(octets);
        if self.answers_at_once && !self.asked.is_empty() && !self.is_over() {
            self.answer();
        }
    }

    fn note(&mut self, request: &Request) {
        if let Request::Publish(it) = request {
            self.published.push((it.channel, it.mandatory, (*it.message).clone()));
        }
    }

    fn tell(&mut self, notices: impl IntoIterator<Item = Notice>) {
        self.peer.tell(notices);
        self.look();
    }

    fn answer(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.tell(asked.iter().filter_map(answer).collect::<Vec<_>>());
    }

    /// The last request is refused, those before it are answered.
    fn refuse(&mut self) {
        let Some(last) = self.asked.pop() else { return };
        self.answer();
        let refusal = Refusal::Invalid("no".to_owned()).into();
        let refused = |channel, publish| Notice::Refused { channel, refusal, publish };
        let notice = match (&last, answer(&last)) {
            (Request::Publish(it), _) => refused(it.channel, true),
            (_, Some(Notice::Declared { channel, .. }))
            | (_, Some(Notice::Done { channel }))
            | (_, Some(Notice::Purged { channel, .. }))
            | (_, Some(Notice::Subscribed { channel, .. }))
            | (_, Some(Notice::Fetched { channel, .. }))
            | (_, Some(Notice::Committed { channel })) => refused(channel, false),
            (_, Some(other)) => other,
            (_, None) => return,
        };
        self.tell([notice]);
    }

    /// Something that happens besides the client's octets.
    fn happen(&mut self, what: u8, source: &mut Source<'_>) -> Option<()> {
        self.give_held();
        if self.is_over() {
            return None;
        }
        match what % 8 {
            0 => self.answer(),
            1 => self.refuse(),
            2 => {
                let consumer = u32::from(source.octet()? % 6);
                self.entry += 1;
                let some = delivery(consumer, self.entry);
                self.tell([Notice::Delivery(some)]);
            }
            3 => self.tell([Notice::Blocked { reason: "low on disk" }]),
            4 => self.tell([Notice::Unblocked]),
            5 => {
                self.peer.session.flushed(&mut self.peer.requests);
                self.look();
            }
            6 => {
                let consumer = ConsumerNumber(u32::from(source.octet()? % 6));
                self.tell([Notice::Cancelled { consumer }]);
            }
            _ => {
                self.peer.now = self.peer.now.plus_ms(500);
                self.peer.event = self.peer.session.tick(self.peer.now, &mut self.peer.output);
                self.look();
            }
        }
        Some(())
    }

    /// Takes one piece of the input; `None` at its end and at that of the session.
    fn piece(&mut self, source: &mut Source<'_>) -> Option<()> {
        let tag = source.octet()?;
        let channel = 1 + u16::from(tag >> 3) % CHANNELS;
        let octets = match tag % 8 {
            0 => {
                let (kind, channel) = (source.octet()?, u16::from(source.octet()?));
                frame(kind, channel, source.counted()?)
            }
            1 => {
                let ((class_id, method_id), _) =
                    METHODS[usize::from(source.octet()?) % METHODS.len()];
                let ids = [class_id.to_be_bytes(), method_id.to_be_bytes()].concat();
                frame(1, channel, &[&ids, source.counted()?].concat())
            }
            2 => method_frame(channel, &publish(source.octet()?)),
            3 => {
                let size = u64::from(source.octet()?);
                let head = [&[0, 60, 0, 0][..], &size.to_be_bytes()].concat();
                frame(2, channel, &[&head, source.counted()?].concat())
            }
            4 => frame(3, channel, source.counted()?),
            5 => {
                // A good header of a body that may be larger than the input, and parts of it.
                let size = usize::from(source.octet()?) * 64;
                let part = usize::from(source.octet()?).max(1) * 64;
                let mut body = Vec::with_capacity(size);
                (0..=255).take(size / 64).for_each(|it| body.extend_from_slice(&[it; 64]));
                let method = method_frame(channel, &publish(source.octet()?));
                let header = header_frame(channel, size as u64, &Properties::default());
                let mut frames = [method, header].concat();
                body.chunks(part).for_each(|it| frames.extend_from_slice(&frame(3, channel, it)));
                frames
            }
            6 => {
                self.held.extend_from_slice(source.counted()?);
                return Some(());
            }
            _ => return self.happen(source.octet()?, source),
        };
        self.held.extend_from_slice(&octets);
        if self.part_len != 0 {
            self.give_held();
        }
        (!self.is_over()).then_some(())
    }

    /// Whatever happened, a session that is open and answered keeps nothing back.
    fn settle(&mut self) {
        self.give_held();
        self.answers_at_once = false;
        if self.is_over() {
            return;
        }
        self.tell([Notice::Unblocked]);
        for _ in 0..10_000 {
            self.answer();
            self.peer.octets(&[]);
            self.look();
            if self.asked.is_empty() || self.is_over() {
                break;
            }
        }
        let session = &self.peer.session;
        assert!(!session.holds_back(), "every request was answered");
    }

    /// Every publish is one that was sent, in the order of its channel; and where nothing ended,
    /// all that were sent are published.
    fn compare(&mut self) {
        let (mut expected, is_simple) = read_input(self.given.clone());
        let is_complete = is_simple && !self.has_closed && self.peer.session.is_open();
        for (channel, mandatory, message) in &self.published {
            let is_it = |it: &Publish| is_same(it, *mandatory, message);
            let found = if is_simple {
                let sent = expected.entry(channel.0).or_default();
                let place = sent.iter().position(is_it);
                assert!(!is_complete || place.is_none_or(|it| it == 0), "publishes are left out");
                place.map(|it| sent.drain(..=it).count())
            } else {
                // The broker knows a channel that was opened again by another number.
                expected.values_mut().find_map(|sent| {
                    let place = sent.iter().position(is_it)?;
                    sent.remove(place);
                    Some(1)
                })
            };
            let (address, length) = (message.address(), message.body_len());
            assert!(found.is_some(), "nobody sent {address:?} with {length} octets on {channel}");
        }
        let rest: usize = expected.values().map(Vec::len).sum();
        assert!(!is_complete || rest == 0, "{rest} publishes went nowhere");
    }
}

fn publish(choice: u8) -> Method {
    let names = ["", "q", "amq.topic", "amq.rabbitmq.reply-to"];
    Method::BasicPublish {
        exchange: Name::new(names[usize::from(choice & 3)]),
        routing_key: Name::new(names[usize::from(choice >> 2 & 3)]),
        mandatory: choice & 16 != 0,
        immediate: choice & 32 != 0,
    }
}

fn is_same(publish: &Publish, mandatory: bool, message: &Message) -> bool {
    let properties = publish.properties.as_deref().unwrap_or_default();
    let facts = Facts::parse(properties).expect("only good properties are published");
    // Both are written anew: the address of the replies, and what has another spelling.
    let is_kept = facts.reply_to != Some("amq.rabbitmq.reply-to") && !facts.is_aliased;
    publish.exchange.as_str() == message.exchange()
        && publish.routing_key.as_str() == message.routing_key()
        && publish.mandatory == mandatory
        && publish.body == message.body_parts().collect::<Vec<_>>().concat()
        && publish.body.len() as u64 == message.body_len()
        && (!is_kept || properties == message.properties())
        && facts.persistent == message.persistent
}

/// The publishes of each channel that the octets hold, and whether nothing in them takes a publish
/// back or ends anything.
fn read_input(mut octets: BytesMut) -> (BTreeMap<u16, Vec<Publish>>, bool) {
    let mut found: BTreeMap<u16, Vec<Publish>> = BTreeMap::new();
    let mut begun: BTreeMap<u16, Publish> = BTreeMap::new();
    let mut is_simple = true;
    while let Ok(Some(it)) = take_frame(&mut octets, 131_072) {
        let before = begun.remove(&it.channel);
        let publish = match (it.kind, before) {
            (FrameKind::Heartbeat, before) => before,
            (FrameKind::Method, _) => match Method::decode(&it.payload) {
                Ok(Method::BasicPublish { exchange, routing_key, mandatory, .. }) => {
                    Some(Publish { exchange, routing_key, mandatory, ..Publish::default() })
                }
                Ok(other) => {
                    is_simple &= !matches!(other.ids(), (10, _) | (20, _) | (90, _));
                    None
                }
                Err(_) => None,
            },
            (FrameKind::Header, Some(before)) if before.properties.is_none() => {
                content_header(&it.payload).filter(|it| it.class_id == 60).map(|head| Publish {
                    properties: Some(it.payload[CONTENT_HEADER_LEN..].to_vec()),
                    body_size: head.body_size,
                    ..before
                })
            }
            (FrameKind::Body, Some(mut before)) if before.properties.is_some() => {
                before.body.extend_from_slice(&it.payload);
                Some(before)
            }
            _ => None,
        };
        let Some(publish) = publish else { continue };
        if publish.properties.as_ref().is_some_and(|it| Facts::parse(it).is_err()) {
            continue;
        }
        match (publish.properties.is_some(), publish.body.len() as u64) {
            (true, length) if length == publish.body_size => {
                found.entry(it.channel).or_default().push(publish);
            }
            (true, length) if publish.body_size < length => {}
            _ => _ = begun.insert(it.channel, publish),
        }
    }
    (found, is_simple)
}

/// What the session writes is whole frames, and content is never torn apart; tells whether one of
/// them closes something.
fn read_output(mut octets: BytesMut) -> bool {
    let mut has_closed = false;
    let mut content: Option<(u16, Option<u64>)> = None;
    while let Some(it) = take_frame(&mut octets, u32::MAX).expect("the session writes frames") {
        content = match (it.kind, content) {
            (FrameKind::Heartbeat, None) => None,
            (FrameKind::Method, None) => {
                let method = Method::decode(&it.payload).expect("the session writes methods");
                has_closed |= matches!(method.ids(), (10, 50) | (10, 51) | (20, 40) | (20, 41));
                let has_content = matches!(method.ids(), (60, 50) | (60, 60) | (60, 71));
                has_content.then_some((it.channel, None))
            }
            (FrameKind::Header, Some((channel, None))) if channel == it.channel => {
                let size = content_header(&it.payload).expect("whole").body_size;
                (size > 0).then_some((channel, Some(size)))
            }
            (FrameKind::Body, Some((channel, Some(left)))) if channel == it.channel => {
                let length = it.payload.len() as u64;
                let left = left.checked_sub(length).expect("no more than was announced");
                (left > 0).then_some((channel, Some(left)))
            }
            (kind, content) => panic!("{kind:?} while {content:?} is written"),
        };
    }
    assert!(octets.is_empty() && content.is_none(), "the session writes whole frames");
    has_closed
}

/// Takes the input for what happens to a session with three channels.
pub(crate) fn session(octets: &[u8]) {
    let mut source = Source(octets);
    let Some(flags) = source.octet() else { return };
    let mut run = Run::new(flags);
    if flags & 8 == 0 {
        while run.piece(&mut source).is_some() {}
    } else {
        run.held.extend_from_slice(source.0);
    }
    run.settle();
    run.compare();
    if !run.is_over() {
        // The goodbye is heard whatever came before, unless something is in the middle.
        run.held = method_frame(0, &CLOSE_OK);
        run.give_held();
    }
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("session", session);
}

#[test]
fn frames_methods_and_handshakes_of_the_corpora_are_taken() {
    inputs::replay("frame", |octets| {
        amqp091::fuzzing::frames(octets);
        amqp091::fuzzing::handshake(octets);
    });
    inputs::replay("method", amqp091::fuzzing::method);
}
