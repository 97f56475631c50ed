//! Frames to and from a plain socket: what is written is prepared whole, what is read stays in its
//! buffer.

use crate::error::BenchError;
use amqp091::{
    frame::{
        CONTENT_HEADER_LEN, FRAME_END, FRAME_HEAD_LEN, FRAME_OVERHEAD, FrameKind, FramePlace,
        frame_at,
    },
    method::Method,
};
use model::properties::Properties;
use std::{
    io::{self, Read as _},
    net::TcpStream,
};

/// Octets of a frame that we ask for, and the most that we take.
pub(crate) const FRAME_MAX: u32 = 131_072;
/// The one channel of each connection.
pub(crate) const CHANNEL: u16 = 1;

const CLASS_BASIC: u16 = 60;
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
/// Room for a whole frame behind what is left of another.
const INBOX_LEN: usize = 2 * FRAME_MAX as usize;

pub(crate) fn put_method(out: &mut Vec<u8>, channel: u16, method: &Method) {
    put_frame(out, FrameKind::Method, channel, |it| method.encode(it));
}

pub(crate) fn put_ack(out: &mut Vec<u8>, delivery_tag: u64, multiple: bool) {
    put_frame(out, FrameKind::Method, CHANNEL, |it| {
        it.extend_from_slice(&BASIC_ACK);
        it.extend_from_slice(&delivery_tag.to_be_bytes());
        it.push(multiple.into());
    });
}

#[inline]
fn put_frame(
    out: &mut Vec<u8>,
    kind: FrameKind,
    channel: u16,
    put_payload: impl FnOnce(&mut Vec<u8>),
) {
    out.push(kind as u8);
    out.extend_from_slice(&channel.to_be_bytes());
    let size_at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_payload(out);
    let size = u32::try_from(out.len() - size_at - 4).expect("a payload fits its frame");
    out[size_at..size_at + 4].copy_from_slice(&size.to_be_bytes());
    out.push(FRAME_END);
}

/// A whole publish, encoded; only its stamps change from message to message.
pub(crate) struct EncodedPublish {
    pub(crate) octets: Vec<u8>,
    /// Where its body begins, or its first part.
    pub(crate) body_at: usize,
}

impl EncodedPublish {
    pub(crate) fn new(
        (exchange, routing_key): (&str, &str),
        is_persistent: bool,
        body_size: usize,
        frame_max: u32,
    ) -> Self {
        let mut octets = Vec::with_capacity(body_size + 256);
        let publish = Method::BasicPublish {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            mandatory: false,
            immediate: false,
        };
        put_method(&mut octets, CHANNEL, &publish);
        let delivery_mode = Some(if is_persistent { 2 } else { 1 });
        let properties = Properties { delivery_mode, ..Properties::default() }.encoded();
        put_frame(&mut octets, FrameKind::Header, CHANNEL, |it| {
            let mut head = [0; CONTENT_HEADER_LEN];
            head[..2].copy_from_slice(&CLASS_BASIC.to_be_bytes());
            head[4..].copy_from_slice(&(body_size as u64).to_be_bytes());
            it.extend_from_slice(&head);
            it.extend_from_slice(&properties);
        });
        let body_at = octets.len() + if body_size == 0 { 0 } else { FRAME_HEAD_LEN };
        let body = vec![b'x'; body_size];
        for part in body.chunks(frame_max as usize - FRAME_OVERHEAD) {
            put_frame(&mut octets, FrameKind::Body, CHANNEL, |it| it.extend_from_slice(part));
        }
        Self { octets, body_at }
    }
}

/// What was read and not yet looked at.
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new(len: usize) -> Self {
        Self { buffer: vec![0; len], start: 0, end: 0 }
    }

    /// For one that must take frames of any size.
    pub(crate) fn grow(&mut self) {
        self.buffer.resize(INBOX_LEN.max(self.buffer.len()), 0);
    }

    /// One read; 0 at the end of the connection. An error of kind `WouldBlock` says that nothing
    /// came in the time that the socket gives.
    pub(crate) fn fill(&mut self, mut stream: &TcpStream) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() / 2 < self.end {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole frame, if there is one; its payload stays until the next `fill`.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<FramePlace>, BenchError> {
        let frame_max = FRAME_MAX.min(self.buffer.len() as u32);
        match frame_at(&self.buffer[..self.end], self.start, frame_max) {
            Ok(Some(place)) => {
                self.start = place.end();
                Ok(Some(place))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(BenchError::Protocol(error.to_string())),
        }
    }

    #[inline]
    pub(crate) fn payload(&self, place: &FramePlace) -> &[u8] {
        &self.buffer[place.payload.clone()]
    }

    /// The first octets that are there, whatever they are.
    pub(crate) fn peek(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amqp091::frame::content_header;

    fn frames(octets: &[u8]) -> Vec<(FrameKind, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        while let Some(place) = frame_at(octets, at, FRAME_MAX).unwrap() {
            at = place.end();
            found.push((place.kind, octets[place.payload].to_vec()));
        }
        assert_eq!(at, octets.len());
        found
    }

    #[test]
    fn publish_is_a_method_a_header_and_as_many_body_frames_as_it_needs() {
        for (size, parts) in [(0, 0), (1, 1), (4_088, 1), (4_089, 2), (100_000, 25)] {
            let publish = EncodedPublish::new(("x", "key"), true, size, 4_096);
            let frames = frames(&publish.octets);
            assert_eq!(frames.len(), 2 + parts, "{size}");
            let Ok(Method::BasicPublish { exchange, routing_key, .. }) =
                Method::decode(&frames[0].1)
            else {
                unreachable!()
            };
            assert_eq!((&*exchange, &*routing_key), ("x", "key"));
            assert_eq!(content_header(&frames[1].1).unwrap().body_size, size as u64);
            assert_eq!(frames[1].1[CONTENT_HEADER_LEN..], [0x10, 0, 2]);
            let body = &publish.octets[publish.body_at..];
            assert_eq!(body.first(), (0 < size).then_some(&b'x'));
            assert_ne!(publish.octets[publish.body_at - 1], b'x');
        }
    }

    #[test]
    fn acks_are_what_the_codec_reads() {
        let mut out = Vec::new();
        put_ack(&mut out, 77, true);
        let ack = Method::BasicAck { delivery_tag: 77, multiple: true };
        assert_eq!(Method::decode(&frames(&out)[0].1), Ok(ack));
    }
}
