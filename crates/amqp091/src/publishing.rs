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

/// The queue name that stands for the reply address of the channel.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Class and method id of `basic.publish`.
pub(crate) const PUBLISH: MethodIds = (60, 40);

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
    pub(crate) message: Message,
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
    Some((Published { message, mandatory: view.mandatory, wants_reply }, end))
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
        let message = Message::within(Bytes::from(buffer), &layout, rest, &facts);
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
