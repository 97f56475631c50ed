//! Joins the frames of a publish (method, header, bodies) to one message. Frames that lie next to
//! each other in the read buffer become one shared slice of it; others are collected part by part.

use crate::{
    frame::{self, CONTENT_HEADER_LEN, FrameKind, FramePlace},
    method::{MethodIds, PublishView},
    reply::{NO_METHOD, Reply, ReplyCode},
};
use bytes::Bytes;
use model::{
    Facts, Message,
    message::Layout,
    properties::{self, PropertiesError},
};
use std::sync::Arc;

/// The queue name that stands for the reply address of the channel.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Class and method id of `basic.publish`.
pub(crate) const PUBLISH: MethodIds = (60, 40);

/// Where the size of the body lies in a content header.
const SIZE_AT: usize = 4;
/// Bodies up to this size, in several parts, are copied together.
const COPIED_LEN_MAX: usize = 4 * 1024;

/// Why frames are no publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("immediate=true")]
    Immediate,
    #[error("expected method frame, got non method frame instead")]
    NoMethod,
    #[error("expected content header for class 60, got non content header frame instead")]
    NoHeader,
    #[error("expected content header for class 60, got one for class {0} instead")]
    OtherClass(u16),
    #[error("content header of {0} octets")]
    ShortHeader(usize),
    #[error("expected content body, got non content body frame instead")]
    NoBody,
    #[error("content body frame exceeds remaining content size")]
    BodyTooLong,
    #[error("message size {size} is larger than configured max size {max}")]
    TooLarge { size: u64, max: u64 },
    #[error("{0}")]
    Properties(#[from] PropertiesError),
}

impl From<ContentError> for Reply {
    fn from(error: ContentError) -> Self {
        let code = match error {
            ContentError::Immediate => ReplyCode::NotImplemented,
            ContentError::NoMethod
            | ContentError::NoHeader
            | ContentError::OtherClass(_)
            | ContentError::NoBody => ReplyCode::UnexpectedFrame,
            ContentError::ShortHeader(_) | ContentError::BodyTooLong => ReplyCode::FrameError,
            ContentError::TooLarge { .. } => ReplyCode::PreconditionFailed,
            ContentError::Properties(PropertiesError::Headers(_)) => ReplyCode::SyntaxError,
            ContentError::Properties(PropertiesError::NotUtf8) => {
                return Self::new(ReplyCode::FrameError, "Malformed UTF-8 in shortstr", NO_METHOD);
            }
            ContentError::Properties(_) => ReplyCode::FrameError,
        };
        let ids = if error == ContentError::NoMethod { NO_METHOD } else { PUBLISH };
        Self::new(code, &error.to_string(), ids)
    }
}

/// A publish with all its frames.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) message: Arc<Message>,
    pub(crate) mandatory: bool,
    /// Replies shall come to the channel itself.
    pub(crate) wants_reply: bool,
}

/// Looks whether header and body of the publish in `method` follow it at once. `None` when they do
/// not, or when something is wrong with them: then they are taken frame by frame. Returns also
/// where the frame after them begins.
#[inline]
pub(crate) fn whole(
    span: &Bytes,
    method: &FramePlace,
    view: &PublishView,
    bytes_max: u64,
) -> Option<(Published, usize)> {
    let header = frame::frame_at(span, method.end(), u32::MAX).ok()??;
    if header.kind != FrameKind::Header || header.channel != method.channel {
        return None;
    }
    let payload = &span[header.payload.clone()];
    let announced = frame::content_header(payload)?;
    if announced.class_id != PUBLISH.0 || bytes_max < announced.body_size || view.immediate {
        return None;
    }
    let (body, end) = match announced.body_size {
        0 => (header.payload.end..header.payload.end, header.end()),
        size => {
            let body = frame::frame_at(span, header.end(), u32::MAX).ok()??;
            let is_body = body.kind == FrameKind::Body && body.channel == method.channel;
            if !is_body || body.payload.len() as u64 != size {
                return None;
            }
            let end = body.end();
            (body.payload, end)
        }
    };
    let facts = Facts::parse(&payload[CONTENT_HEADER_LEN..]).ok()?;
    let wants_reply = facts.reply_to == Some(REPLY_TO);
    // The slice begins at the method's payload, so that all offsets are small.
    let start = method.payload.start;
    let layout = Layout {
        address: view.address(),
        properties: header.payload.start + CONTENT_HEADER_LEN - start..header.payload.end - start,
        body: body.start - start..body.end - start,
    };
    let message = Message::within(span.slice(start..body.end), &layout, Vec::new(), &facts);
    let message = Arc::new(message);
    Some((Published { message, mandatory: view.mandatory, wants_reply }, end))
}

/// The last publish of a channel, without its body. A publisher mostly sends many that differ in
/// their bodies alone: these are known by comparing octets, and nothing of them is parsed again.
#[derive(Debug)]
struct Sample {
    /// From the method's payload to the end of the header frame.
    octets: Bytes,
    /// Where in them the size of the body lies.
    size_at: usize,
    message: Message,
    mandatory: bool,
}

/// Octets that a sample has at most: it stays as long as its channel.
const SAMPLE_BYTES_MAX: usize = 1024;

/// The sample that a channel has, if any, and how often in a row it was of no use.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    last: Option<Box<Sample>>,
    misses: u32,
}

/// A publisher whose publishes all differ gets a new sample this often only.
const SAMPLE_MISSES: u32 = 64;
/// In vain as often as this: they differ.
const SAMPLE_MISSES_SOON: u32 = 2;

impl Samples {
    /// See [`Sample::another`].
    #[inline]
    pub(crate) fn another(
        &mut self,
        span: &Bytes,
        method: &FramePlace,
        bytes_max: u64,
    ) -> Option<(Published, usize)> {
        let found = self.last.as_ref()?.another(span, method, bytes_max);
        self.misses = if found.is_some() { 0 } else { self.misses.wrapping_add(1) };
        found
    }

    /// The sample was of no use for this publish, which [`whole`] has found: it may be the next.
    pub(crate) fn learn(&mut self, span: &Bytes, method: &FramePlace, published: &Published) {
        let is_due = self.misses <= SAMPLE_MISSES_SOON || self.misses.is_multiple_of(SAMPLE_MISSES);
        if self.last.is_none() || is_due {
            self.last = Sample::of(span, method, published).map(Box::new);
        }
    }
}

impl Sample {
    /// `None` when each of its kind needs a second look.
    fn of(span: &Bytes, method: &FramePlace, published: &Published) -> Option<Self> {
        let header = frame::frame_at(span, method.end(), u32::MAX).ok()??;
        let octets = &span[method.payload.start..header.end()];
        if !published.message.plain || SAMPLE_BYTES_MAX < octets.len() {
            return None;
        }
        let octets = Bytes::copy_from_slice(octets);
        Some(Self {
            size_at: header.payload.start - method.payload.start + SIZE_AT,
            message: published.message.another(octets.clone(), &(octets.len()..octets.len())),
            mandatory: published.mandatory,
            octets,
        })
    }

    /// What [`whole`] returns, when the publish in `method` and this one have the same front.
    #[inline]
    fn another(
        &self,
        span: &Bytes,
        method: &FramePlace,
        bytes_max: u64,
    ) -> Option<(Published, usize)> {
        let start = method.payload.start;
        let front = span.get(start..start + self.octets.len())?;
        let (before, rest) = front.split_at(self.size_at);
        let (size, after) = rest.split_first_chunk()?;
        let size = u64::from_be_bytes(*size);
        let is_same = *before == self.octets[..self.size_at]
            && *after == self.octets[self.size_at + size_of::<u64>()..];
        if !is_same || bytes_max < size {
            return None;
        }
        let header_end = start + self.octets.len();
        let (body, end) = match size {
            0 => (header_end - 1..header_end - 1, header_end),
            size => {
                let body = frame::frame_at(span, header_end, u32::MAX).ok()??;
                let is_body = body.kind == FrameKind::Body && body.channel == method.channel;
                if !is_body || body.payload.len() as u64 != size {
                    return None;
                }
                let end = body.end();
                (body.payload, end)
            }
        };
        let octets = span.slice(start..body.end);
        let message = self.message.another(octets, &(body.start - start..body.end - start));
        let message = Arc::new(message);
        Some((Published { message, mandatory: self.mandatory, wants_reply: false }, end))
    }
}

/// The frames of a publish that came so far.
#[derive(Debug, Default)]
pub(crate) enum Content {
    #[default]
    Nothing,
    Method {
        payload: Bytes,
        view: PublishView,
    },
    Body(Partial),
}

/// A publish of which body is missing.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Payload of the method frame.
    method: Bytes,
    view: PublishView,
    /// Payload of the header frame.
    header: Bytes,
    missing: u64,
    parts: Vec<Bytes>,
}

impl Content {
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Begins with the payload of a `basic.publish`.
    ///
    /// # Errors
    /// [`ContentError`], when another one is not at its end, or asks for what there is not.
    pub(crate) fn begin(&mut self, payload: Bytes, view: PublishView) -> Result<(), ContentError> {
        self.check_method()?;
        if view.immediate {
            return Err(ContentError::Immediate);
        }
        *self = Self::Method { payload, view };
        Ok(())
    }

    /// # Errors
    /// [`ContentError`], when this is no place for a method frame.
    pub(crate) fn check_method(&self) -> Result<(), ContentError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Method { .. } => Err(ContentError::NoHeader),
            Self::Body(_) => Err(ContentError::NoBody),
        }
    }

    /// Goes on with the payload of a header frame; returns the publish when it has no body.
    ///
    /// # Errors
    /// [`ContentError`], when no header is due, or it is wrong, or announces too large a body.
    pub(crate) fn header(
        &mut self,
        payload: Bytes,
        bytes_max: u64,
    ) -> Result<Option<Published>, ContentError> {
        let (method, view) = match std::mem::take(self) {
            Self::Nothing => return Err(ContentError::NoMethod),
            Self::Body(_) => return Err(ContentError::NoBody),
            Self::Method { payload, view } => (payload, view),
        };
        let announced = frame::content_header(&payload);
        let announced = announced.ok_or(ContentError::ShortHeader(payload.len()))?;
        if announced.class_id != PUBLISH.0 {
            return Err(ContentError::OtherClass(announced.class_id));
        }
        Facts::parse(&payload[CONTENT_HEADER_LEN..])?;
        let size = announced.body_size;
        if bytes_max < size {
            return Err(ContentError::TooLarge { size, max: bytes_max });
        }
        let partial = Partial { method, view, header: payload, missing: size, parts: Vec::new() };
        self.proceed(partial)
    }

    /// Goes on with the payload of a body frame; returns the publish when it was the last one.
    ///
    /// # Errors
    /// [`ContentError`], when no body is due, or not so much.
    pub(crate) fn body(&mut self, payload: Bytes) -> Result<Option<Published>, ContentError> {
        let mut partial = match std::mem::take(self) {
            Self::Nothing => return Err(ContentError::NoMethod),
            Self::Method { .. } => return Err(ContentError::NoHeader),
            Self::Body(partial) => partial,
        };
        let length = payload.len() as u64;
        partial.missing = partial.missing.checked_sub(length).ok_or(ContentError::BodyTooLong)?;
        if 0 < length {
            partial.parts.push(payload);
        }
        self.proceed(partial)
    }

    fn proceed(&mut self, partial: Partial) -> Result<Option<Published>, ContentError> {
        if partial.missing == 0 {
            return Ok(Some(partial.joined()?));
        }
        *self = Self::Body(partial);
        Ok(None)
    }
}

impl Partial {
    /// The whole message: address and properties in a buffer of its own, with a small body too; a
    /// large one stays in the slices it came in.
    fn joined(self) -> Result<Published, PropertiesError> {
        let address = &self.method[self.view.address()..self.view.routing_key.end];
        let properties = &self.header[CONTENT_HEADER_LEN..];
        let facts = Facts::parse(properties)?;
        let front = address.len() + properties.len();
        let body_len: usize = self.parts.iter().map(Bytes::len).sum();
        let copied = if body_len <= COPIED_LEN_MAX { body_len } else { 0 };
        let mut buffer = Vec::with_capacity(front + copied);
        buffer.extend_from_slice(address);
        buffer.extend_from_slice(properties);
        let mut rest = self.parts;
        if 0 < copied {
            rest.drain(..).for_each(|it| buffer.extend_from_slice(&it));
        }
        let layout =
            Layout { address: 0, properties: address.len()..front, body: front..buffer.len() };
        let wants_reply = facts.reply_to == Some(REPLY_TO);
        let message = Arc::new(Message::within(Bytes::from(buffer), &layout, rest, &facts));
        Ok(Published { message, mandatory: self.view.mandatory, wants_reply })
    }
}

/// The same message with the channel's reply address in place of the name that stands for it. Too
/// long an address is cut by no one: the broker makes short ones.
pub(crate) fn with_reply_address(message: &Message, address: &str) -> Message {
    let decoded = properties::Properties::decode(message.properties());
    let mut properties = decoded.unwrap_or_default();
    properties.reply_to = Some(address.into());
    message.readdressed(message.exchange(), message.routing_key(), &properties.encoded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Method, publish_view};
    use model::{Name, properties::Properties};

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let size = (payload.len() as u32).to_be_bytes();
        [&[kind][..], &channel.to_be_bytes(), &size, payload, &[frame::FRAME_END]].concat()
    }

    fn method_payload() -> Vec<u8> {
        let mut payload = Vec::new();
        let (exchange, routing_key) = (Name::new("ex"), Name::new("key"));
        Method::BasicPublish { exchange, routing_key, mandatory: true, immediate: false }
            .encode(&mut payload);
        payload
    }

    fn header_payload(size: u64) -> Vec<u8> {
        let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
        [&[0, 60, 0, 0][..], &size.to_be_bytes(), &properties.encoded()].concat()
    }

    fn view() -> PublishView {
        publish_view(&method_payload()).expect("a publish")
    }

    fn check(published: &Published, body: &[u8]) {
        let message = &published.message;
        assert_eq!((message.exchange(), message.routing_key()), ("ex", "key"));
        assert_eq!(message.body(), body);
        assert!(published.mandatory && message.persistent && !published.wants_reply);
    }

    #[test]
    fn frames_side_by_side_become_one_slice() {
        let parts = [frame(1, 7, &method_payload()), frame(2, 7, &header_payload(4))];
        let span = Bytes::from([&parts.concat()[..], &frame(3, 7, b"body"), b"more"].concat());
        let place = frame::frame_at(&span, 0, 4_096).expect("good").expect("whole");
        let (published, end) = whole(&span, &place, &view(), 100).expect("a publish");
        check(&published, b"body");
        assert_eq!(&span[end..], b"more");
        let within = span.as_ptr_range().contains(&published.message.first_body_part().as_ptr());
        assert!(within, "the body is not copied");
        assert!(whole(&span, &place, &view(), 3).is_none(), "too large is said by the slow way");
        for length in 0..span.len() - 4 {
            assert!(whole(&span.slice(..length), &place, &view(), 100).is_none());
        }
    }

    fn publish(channel: u16, body: &[u8]) -> Bytes {
        let header = frame(2, channel, &header_payload(body.len() as u64));
        let parts = [frame(1, channel, &method_payload()), header].concat();
        let body = if body.is_empty() { Vec::new() } else { frame(3, channel, body) };
        Bytes::from([parts, body].concat())
    }

    fn like_the_last(samples: &mut Samples, span: &Bytes) -> Option<(Published, usize)> {
        let place = frame::frame_at(span, 0, 4_096).expect("good").expect("whole");
        samples.another(span, &place, 100)
    }

    fn learnt(span: &Bytes) -> Samples {
        let mut samples = Samples::default();
        assert!(like_the_last(&mut samples, span).is_none());
        let place = frame::frame_at(span, 0, 4_096).expect("good").expect("whole");
        let (published, _) = whole(span, &place, &view(), 100).expect("a publish");
        samples.learn(span, &place, &published);
        samples
    }

    #[test]
    fn publish_like_the_last_one_needs_no_second_look() {
        for learnt_from in [&b"body"[..], b"", b"a longer one"] {
            let mut samples = learnt(&publish(7, learnt_from));
            for body in [&b"other"[..], b"", b"x", &[7; 100]] {
                let span = publish(7, body);
                let more = Bytes::from([&span[..], b"more"].concat());
                let (published, end) = like_the_last(&mut samples, &more).expect("alike");
                check(&published, body);
                assert_eq!(end, span.len());
                for length in 0..span.len() {
                    let cut = span.slice(..length);
                    let place = frame::frame_at(&cut, 0, 4_096).expect("good");
                    let Some(place) = place else { continue };
                    assert!(samples.another(&cut, &place, 100).is_none(), "{length} octets");
                }
            }
        }
    }

    #[test]
    fn publish_unlike_the_last_one_is_looked_at() {
        let span = publish(7, b"body");
        let mut samples = learnt(&span);
        assert!(like_the_last(&mut samples, &publish(8, b"body")).is_none(), "another channel");
        assert!(like_the_last(&mut samples, &publish(7, &[7; 101])).is_none(), "too large");
        // Another front is not this one; the body may be any but for its frame.
        for at in frame::FRAME_HEAD_LEN..span.len() - b"body".len() - 1 {
            let mut octets = span.to_vec();
            octets[at] ^= 1;
            let octets = Bytes::from(octets);
            let Ok(Some(place)) = frame::frame_at(&octets, 0, 4_096) else { continue };
            let found = samples.another(&octets, &place, 100);
            assert!(found.is_none(), "octet {at}");
        }
    }

    #[test]
    fn publish_with_headers_is_looked_at_every_time() {
        let headers =
            Properties { headers: Some(model::Table::default()), ..Properties::default() };
        let header = [&[0, 60, 0, 0][..], &0_u64.to_be_bytes(), &headers.encoded()].concat();
        let span = Bytes::from([frame(1, 7, &method_payload()), frame(2, 7, &header)].concat());
        let mut samples = learnt(&span);
        assert!(like_the_last(&mut samples, &span).is_none());
    }

    #[test]
    fn parts_are_joined_whatever_their_sizes() {
        for sizes in [vec![], vec![1], vec![3, 0, 2], vec![5_000, 1, 9]] {
            let body: Vec<u8> = (0..sizes.iter().sum()).map(|it: usize| it as u8).collect();
            let mut content = Content::default();
            content.begin(method_payload().into(), view()).expect("good");
            let header = header_payload(body.len() as u64).into();
            let mut published = content.header(header, 10_000).expect("good");
            let mut at = 0;
            for size in sizes {
                assert!(published.is_none());
                let part = Bytes::copy_from_slice(&body[at..at + size]);
                published = content.body(part).expect("good");
                at += size;
            }
            check(&published.expect("whole"), &body);
            assert!(content.is_nothing());
        }
    }

    #[test]
    fn frames_out_of_order_are_refused() {
        let begun = || {
            let mut content = Content::default();
            content.begin(method_payload().into(), view()).expect("good");
            content
        };
        let header = || Bytes::from(header_payload(2));
        let one = || Bytes::from_static(b"123");
        let refused = |it: Result<Option<Published>, ContentError>| it.expect_err("refused");
        assert_eq!(refused(Content::default().header(header(), 9)), ContentError::NoMethod);
        assert_eq!(refused(Content::default().body(one())), ContentError::NoMethod);
        assert_eq!(refused(begun().body(one())), ContentError::NoHeader);
        assert_eq!(begun().check_method(), Err(ContentError::NoHeader));
        let too_large = ContentError::TooLarge { size: 2, max: 1 };
        assert_eq!(refused(begun().header(header(), 1)), too_large);
        let short = Bytes::from_static(&[0, 60, 0, 0]);
        assert_eq!(refused(begun().header(short, 9)), ContentError::ShortHeader(4));
        let mut content = begun();
        content.header(header(), 9).expect("good");
        assert_eq!(content.check_method(), Err(ContentError::NoBody));
        assert_eq!(refused(content.body(one())), ContentError::BodyTooLong);
        let mut other = header_payload(1);
        other[1] = 50;
        assert_eq!(refused(begun().header(other.into(), 9)), ContentError::OtherClass(50));
    }

    #[test]
    fn the_reply_address_takes_the_place_of_the_name_that_stands_for_it() {
        let properties = Properties {
            reply_to: Some(REPLY_TO.into()),
            delivery_mode: Some(2),
            ..Properties::default()
        };
        let message = Message::new("ex", "key", &properties.encoded(), b"body");
        let rewritten = with_reply_address(&message, "amq.rabbitmq.reply-to.gX");
        assert_eq!(rewritten.facts().reply_to, Some("amq.rabbitmq.reply-to.gX"));
        assert!(rewritten.persistent);
        assert_eq!(rewritten.body(), b"body");
    }
}
