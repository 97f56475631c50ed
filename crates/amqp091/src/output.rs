//! What waits for the socket: small octets in one growing buffer, large parts of bodies shared with
//! their messages, both in order. Writes every frame the broker sends.

use crate::{
    config::FRAME_MAX_MIN,
    frame::{
        CONTENT_HEADER_LEN, FRAME_END, FRAME_HEAD_LEN, FRAME_MAX_UNTUNED, FRAME_OVERHEAD, FrameKind,
    },
    method::Method,
};
use bytes::{Buf, Bytes};
use model::Message;
use std::{collections::VecDeque, io::IoSlice};

/// Parts of a body from this size on are not copied.
pub const SHARED_LEN_MIN: usize = 8 * 1024;
/// A buffer of this capacity is kept whatever it was used for.
const CAPACITY_KEPT: usize = 64 * 1024;
/// A larger buffer is given back as soon as it is empty.
const CAPACITY_MAX: usize = 4 * 1024 * 1024;
/// Octets that have left are moved out of the buffer when there are this many of them.
const SENT_KEPT_MAX: usize = 64 * 1024;

/// Octets on their way to one socket.
#[derive(Debug)]
pub struct Output {
    small: Vec<u8>,
    /// Octets of `small` that have left.
    start: usize,
    shared: VecDeque<Shared>,
    shared_len: usize,
    sent: u64,
    frame_max: u32,
    front: Front,
}

/// Method and header of the last delivery. The next one of the same consumer often differs in its
/// tag and the size of its body alone.
#[derive(Debug, Default)]
struct Front {
    octets: Vec<u8>,
    channel: u16,
    /// Where the delivery tag lies, behind the consumer's tag.
    place_at: usize,
    address_end: usize,
    /// Where the size of the body lies, before the properties and the end of the frame.
    size_at: usize,
}

/// Octets of a front that is worth keeping.
const FRONT_BYTES_MAX: usize = 512;
/// Where the consumer's tag lies: behind the frame's head, the method's ids and its length.
const CONSUMER_TAG_AT: usize = FRAME_HEAD_LEN + 5;
/// Octets of the delivery tag and of the bit for redelivered.
const PLACE_LEN: usize = 9;

impl Front {
    /// Whether another delivery begins as this one did.
    #[inline]
    fn is_of(&self, channel: u16, consumer_tag: &str, message: &Message) -> bool {
        if self.octets.is_empty() || self.channel != channel {
            return false;
        }
        let tag = &self.octets[CONSUMER_TAG_AT..self.place_at];
        let address = &self.octets[self.place_at + PLACE_LEN..self.address_end];
        let properties = &self.octets[self.size_at + size_of::<u64>()..];
        tag == consumer_tag.as_bytes()
            && address == message.address()
            && properties == message.properties()
    }
}

/// A part of a body that goes out before `small[at..]`.
#[derive(Debug)]
struct Shared {
    at: usize,
    octets: Bytes,
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    /// Nothing yet, for a connection that has negotiated nothing.
    pub fn new() -> Self {
        Self {
            small: Vec::new(),
            start: 0,
            shared: VecDeque::new(),
            shared_len: 0,
            sent: 0,
            frame_max: FRAME_MAX_UNTUNED,
            front: Front::default(),
        }
    }

    /// Octets of the largest frame from now on, as negotiated.
    ///
    /// # Panics
    /// When it is below the specification's minimum.
    pub fn set_frame_max(&mut self, frame_max: u32) {
        assert!(FRAME_MAX_MIN <= frame_max);
        self.frame_max = frame_max;
    }

    /// Octets that wait.
    pub fn len(&self) -> usize {
        self.small.len() - self.start + self.shared_len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets that have left since the beginning.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Octets that have left, or wait, since the beginning: what is written now has left when
    /// [`Output::sent`] reaches this.
    pub fn end(&self) -> u64 {
        self.sent + self.len() as u64
    }

    /// Octets of memory held, shared ones not counted.
    pub fn capacity(&self) -> usize {
        self.small.capacity()
    }

    /// Fills in what goes out next; returns how many slices are filled.
    pub fn as_io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.start;
        let parts = self.shared.iter().flat_map(|it| {
            let before = &self.small[at..it.at];
            at = it.at;
            [before, &it.octets[..]]
        });
        let last = self.shared.back().map_or(self.start, |it| it.at);
        let parts = parts.chain(std::iter::once(&self.small[last..]));
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(parts.filter(|it| !it.is_empty())) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `count` octets: they have left.
    ///
    /// # Panics
    /// When fewer wait.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "no more leaves than there was");
        self.sent += count as u64;
        let mut left = count;
        while 0 < left {
            let small_end = self.shared.front().map_or(self.small.len(), |it| it.at);
            let small = left.min(small_end - self.start);
            self.start += small;
            left -= small;
            if let Some(first) = self.shared.front_mut().filter(|_| 0 < left) {
                let taken = left.min(first.octets.len());
                first.octets.advance(taken);
                self.shared_len -= taken;
                left -= taken;
                if first.octets.is_empty() {
                    self.shared.pop_front();
                }
            }
        }
        if self.is_empty() {
            self.rest();
        } else if SENT_KEPT_MAX < self.start && self.small.len() < self.start * 2 {
            self.small.drain(..self.start);
            self.shared.iter_mut().for_each(|it| it.at -= self.start);
            self.start = 0;
        }
    }

    /// Nothing waits: the buffer begins anew, and shrinks when most of it was not needed this time.
    fn rest(&mut self) {
        let needed = self.small.len();
        self.small.clear();
        self.start = 0;
        let capacity = self.small.capacity();
        if CAPACITY_MAX < capacity || (CAPACITY_KEPT < capacity && needed < capacity / 4) {
            self.small.shrink_to(CAPACITY_KEPT);
            self.shared.shrink_to(0);
        }
    }

    /// Appends octets that are no frame, such as a protocol header.
    pub fn raw(&mut self, octets: &[u8]) {
        self.small.extend_from_slice(octets);
    }

    /// Appends a method frame.
    pub fn method(&mut self, channel: u16, method: &Method) {
        let at = self.method_begun(channel, method);
        debug_assert!(self.small.len() - at < self.frame_max as usize);
        self.small.push(FRAME_END);
    }

    /// Appends a method frame without its end; returns where it begins.
    fn method_begun(&mut self, channel: u16, method: &Method) -> usize {
        let at = self.small.len();
        self.small.extend_from_slice(&head(FrameKind::Method, channel, 0));
        let payload_at = self.small.len();
        method.encode(&mut self.small);
        let size = (self.small.len() - payload_at) as u32;
        self.small[payload_at - 4..payload_at].copy_from_slice(&size.to_be_bytes());
        at
    }

    pub fn heartbeat(&mut self) {
        self.small.extend_from_slice(&head(FrameKind::Heartbeat, 0, 0));
        self.small.push(FRAME_END);
    }

    /// Appends `basic.ack`, which confirms.
    pub fn ack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settled(channel, 80, delivery_tag, multiple);
    }

    /// Appends `basic.nack`, which refuses what a confirm was asked for.
    pub fn nack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.settled(channel, 120, delivery_tag, multiple);
    }

    fn settled(&mut self, channel: u16, method: u8, delivery_tag: u64, multiple: bool) {
        let mut frame = [0; 21];
        frame[..7].copy_from_slice(&head(FrameKind::Method, channel, 13));
        frame[7..11].copy_from_slice(&[0, 60, 0, method]);
        frame[11..19].copy_from_slice(&delivery_tag.to_be_bytes());
        frame[19] = multiple.into();
        frame[20] = FRAME_END;
        self.small.extend_from_slice(&frame);
    }

    /// Whether properties of this many octets fit in one frame: a content header is not split.
    pub fn fits(&self, properties_len: usize) -> bool {
        properties_len + CONTENT_HEADER_LEN + FRAME_OVERHEAD <= self.frame_max as usize
    }

    /// Appends `basic.deliver` with its content; `properties` stand in for the message's own.
    /// False, and nothing is written, when they do not fit ([`Output::fits`]).
    #[must_use]
    pub fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &str,
        delivery_tag: u64,
        redelivered: bool,
        message: &Message,
        properties: Option<&[u8]>,
    ) -> bool {
        if properties.is_none() && self.front.is_of(channel, consumer_tag, message) {
            self.deliver_another(delivery_tag, redelivered, message);
            return true;
        }
        let at = self.small.len();
        let mut place = [0; PLACE_LEN];
        place[..8].copy_from_slice(&delivery_tag.to_be_bytes());
        place[8] = redelivered.into();
        let tag_len = u8::try_from(consumer_tag.len()).expect("a tag has at most 255 octets");
        let front = [0, 60, 0, 60, tag_len];
        let method = [&front, consumer_tag.as_bytes(), &place, message.address()];
        let fits = self.content_of(channel, method, properties, message);
        if fits && properties.is_none() {
            self.keep_front(at, channel, consumer_tag, message);
        }
        fits
    }

    /// Keeps the front of the delivery that was just written at `at`.
    fn keep_front(&mut self, at: usize, channel: u16, consumer_tag: &str, message: &Message) {
        let place_at = CONSUMER_TAG_AT + consumer_tag.len();
        let address_end = place_at + PLACE_LEN + message.address().len();
        // Behind the end of the method's frame and the head of the header's: class and weight.
        let size_at = address_end + FRAME_OVERHEAD + 4;
        let end = size_at + size_of::<u64>() + message.properties().len();
        let mut octets = std::mem::take(&mut self.front.octets);
        octets.clear();
        if end <= FRONT_BYTES_MAX {
            octets.extend_from_slice(&self.small[at..at + end]);
        }
        self.front = Front { octets, channel, place_at, address_end, size_at };
    }

    /// Appends a delivery with the same front as the last one.
    #[inline]
    fn deliver_another(&mut self, delivery_tag: u64, redelivered: bool, message: &Message) {
        let at = self.small.len();
        let body_len = message.body_len();
        let copied = if body_len < SHARED_LEN_MIN as u64 { body_len as usize } else { 0 };
        self.small.reserve(self.front.octets.len() + FRAME_OVERHEAD + copied + 1);
        self.small.extend_from_slice(&self.front.octets);
        let (place_at, size_at) = (at + self.front.place_at, at + self.front.size_at);
        self.small[place_at..place_at + 8].copy_from_slice(&delivery_tag.to_be_bytes());
        self.small[place_at + 8] = redelivered.into();
        self.small[size_at..size_at + 8].copy_from_slice(&body_len.to_be_bytes());
        self.body(self.front.channel, message);
    }

    /// Appends `basic.get-ok` with its content, otherwise as [`Output::deliver`].
    #[must_use]
    pub fn fetched(
        &mut self,
        channel: u16,
        delivery_tag: u64,
        redelivered: bool,
        message_count: u32,
        message: &Message,
        properties: Option<&[u8]>,
    ) -> bool {
        let mut front = [0, 60, 0, 71, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        front[4..12].copy_from_slice(&delivery_tag.to_be_bytes());
        front[12] = redelivered.into();
        let method = [&front[..], message.address(), &message_count.to_be_bytes()];
        self.content_of(channel, method, properties, message)
    }

    /// Appends `basic.return` with its content, otherwise as [`Output::deliver`]. `reply_text` has
    /// at most 255 octets.
    #[must_use]
    pub fn returned(
        &mut self,
        channel: u16,
        reply_code: u16,
        reply_text: &str,
        message: &Message,
        properties: Option<&[u8]>,
    ) -> bool {
        let [code_high, code_low] = reply_code.to_be_bytes();
        let text_len = u8::try_from(reply_text.len()).expect("a text has at most 255 octets");
        let front = [0, 60, 0, 50, code_high, code_low, text_len];
        let method = [&front, reply_text.as_bytes(), message.address()];
        self.content_of(channel, method, properties, message)
    }

    /// Appends any method with content; `message` gives the body.
    #[must_use]
    pub fn content(
        &mut self,
        channel: u16,
        method: &Method,
        properties: &[u8],
        message: &Message,
    ) -> bool {
        if !self.fits(properties.len()) {
            return false;
        }
        self.method_begun(channel, method);
        self.header_and_body(channel, properties, message);
        true
    }

    fn content_of<const N: usize>(
        &mut self,
        channel: u16,
        method: [&[u8]; N],
        properties: Option<&[u8]>,
        message: &Message,
    ) -> bool {
        let properties = properties.unwrap_or_else(|| message.properties());
        if !self.fits(properties.len()) {
            return false;
        }
        let size: usize = method.iter().map(|it| it.len()).sum();
        // Method, header and one body frame, where the body is copied.
        let copied =
            if message.body_len() < SHARED_LEN_MIN as u64 { message.body_len() } else { 0 };
        let framing = 3 * FRAME_OVERHEAD + CONTENT_HEADER_LEN;
        self.small.reserve(framing + size + properties.len() + copied as usize);
        self.small.extend_from_slice(&head(FrameKind::Method, channel, size as u32));
        method.iter().for_each(|it| self.small.extend_from_slice(it));
        self.header_and_body(channel, properties, message);
        true
    }

    /// Ends the method frame; appends header and body frames, each within `frame_max`.
    fn header_and_body(&mut self, channel: u16, properties: &[u8], message: &Message) {
        let mut header = [0; 20];
        let size = CONTENT_HEADER_LEN + properties.len();
        header[0] = FRAME_END;
        header[1..8].copy_from_slice(&head(FrameKind::Header, channel, size as u32));
        header[9] = 60;
        header[12..].copy_from_slice(&message.body_len().to_be_bytes());
        self.small.extend_from_slice(&header);
        self.small.extend_from_slice(properties);
        self.body(channel, message);
    }

    /// Ends the header frame; appends body frames.
    #[inline]
    fn body(&mut self, channel: u16, message: &Message) {
        let body_len = message.body_len();
        if SHARED_LEN_MIN as u64 <= body_len {
            self.shared_body(channel, message);
        } else if body_len as usize + FRAME_OVERHEAD <= self.frame_max as usize
            && body_len == message.first_body_part().len() as u64
            && 0 < body_len
        {
            self.body_begun(channel, body_len);
            self.small.extend_from_slice(message.first_body_part());
        } else {
            self.copied_body(channel, message);
        }
        self.small.push(FRAME_END);
    }

    /// Ends a frame and begins a body frame; returns how many octets belong in it.
    fn body_begun(&mut self, channel: u16, left: u64) -> usize {
        let room = self.frame_max as usize - FRAME_OVERHEAD;
        let size = usize::try_from(left).map_or(room, |it| it.min(room));
        let mut between = [FRAME_END; FRAME_OVERHEAD];
        between[1..].copy_from_slice(&head(FrameKind::Body, channel, size as u32));
        self.small.extend_from_slice(&between);
        size
    }

    fn copied_body(&mut self, channel: u16, message: &Message) {
        let (mut left, mut room) = (message.body_len(), 0);
        for mut part in message.body_parts() {
            while !part.is_empty() {
                if room == 0 {
                    room = self.body_begun(channel, left);
                }
                let (piece, rest) = part.split_at(room.min(part.len()));
                self.small.extend_from_slice(piece);
                room -= piece.len();
                left -= piece.len() as u64;
                part = rest;
            }
        }
    }

    fn shared_body(&mut self, channel: u16, message: &Message) {
        let (mut left, mut room) = (message.body_len(), 0);
        for mut part in message.shared_body_parts() {
            while !part.is_empty() {
                if room == 0 {
                    room = self.body_begun(channel, left);
                }
                let piece = part.split_to(room.min(part.len()));
                room -= piece.len();
                left -= piece.len() as u64;
                if piece.len() < SHARED_LEN_MIN {
                    self.small.extend_from_slice(&piece);
                } else {
                    self.shared_len += piece.len();
                    self.shared.push_back(Shared { at: self.small.len(), octets: piece });
                }
            }
        }
    }
}

/// The seven octets in front of a payload.
fn head(kind: FrameKind, channel: u16, size: u32) -> [u8; FRAME_HEAD_LEN] {
    let [channel_high, channel_low] = channel.to_be_bytes();
    let [a, b, c, d] = size.to_be_bytes();
    [kind as u8, channel_high, channel_low, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, content_header, take_frame};
    use bytes::BytesMut;
    use model::{
        Name,
        message::Layout,
        properties::{Facts, Properties},
    };
    use proptest::prelude::*;

    const NO_PROPERTIES: [u8; 2] = [0, 0];

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|it| (it % 251) as u8).collect()
    }

    fn message(length: usize) -> Message {
        Message::new("ex", "key", &NO_PROPERTIES, &body(length))
    }

    /// A message whose body came in parts of this length.
    fn message_in_parts(length: usize, part: usize) -> Message {
        let body = body(length);
        let mut parts = body.chunks(part.max(1));
        let first = parts.next().unwrap_or_default();
        let buffer = [b"\x02ex\x03key\x00\x00", first].concat();
        let layout = Layout { address: 0, properties: 7..9, body: 9..buffer.len() };
        let rest = parts.map(Bytes::copy_from_slice).collect();
        Message::within(buffer.into(), &layout, rest, &Facts::default())
    }

    /// What goes out, taken in steps of at most `step` octets.
    fn taken(output: &mut Output, step: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = output.as_io_slices(&mut slices);
            let joined: Vec<u8> =
                slices[..filled].iter().flat_map(|it| it.iter().copied()).collect();
            assert!(!joined.is_empty() && slices[..filled].iter().all(|it| !it.is_empty()));
            let count = step.min(joined.len());
            octets.extend_from_slice(&joined[..count]);
            let before = (output.len(), output.sent(), output.end());
            output.advance(count);
            let after = (before.0 - count, before.1 + count as u64, before.2);
            assert_eq!((output.len(), output.sent(), output.end()), after);
        }
        octets
    }

    fn frames(octets: &[u8], frame_max: u32) -> Vec<Frame> {
        let mut buffer = BytesMut::from(octets);
        let frames =
            std::iter::from_fn(|| take_frame(&mut buffer, frame_max).expect("good frames"));
        let frames = frames.collect();
        assert!(buffer.is_empty());
        frames
    }

    fn encoded(method: &Method) -> Vec<u8> {
        let mut octets = Vec::new();
        method.encode(&mut octets);
        octets
    }

    #[test]
    fn a_delivery_is_what_the_method_table_encodes() {
        let mut output = Output::new();
        assert!(output.deliver(7, "tag", 1 << 33, true, &message(3), None));
        let frames = frames(&taken(&mut output, 1_000), FRAME_MAX_UNTUNED);
        let method = Method::BasicDeliver {
            consumer_tag: Name::new("tag"),
            delivery_tag: 1 << 33,
            redelivered: true,
            exchange: Name::new("ex"),
            routing_key: Name::new("key"),
        };
        assert_eq!(frames[0].payload, encoded(&method));
        assert_eq!(&frames[1].payload[..], [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0]);
        assert_eq!(frames[2].payload, body(3));
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|it| it.channel == 7));
    }

    #[test]
    fn other_content_is_what_the_method_table_encodes() {
        let (exchange, routing_key) = (Name::new("ex"), Name::new("key"));
        let get_ok = Method::BasicGetOk {
            delivery_tag: 9,
            redelivered: false,
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            message_count: 70_000,
        };
        let returned = Method::BasicReturn {
            reply_code: 312,
            reply_text: Name::new("NO_ROUTE"),
            exchange,
            routing_key,
        };
        let own = [0x10, 0, 2];
        let mut output = Output::new();
        assert!(output.fetched(1, 9, false, 70_000, &message(1), Some(&own)));
        assert!(output.returned(1, 312, "NO_ROUTE", &message(1), Some(&own)));
        let fast = taken(&mut output, 1_000);
        assert!(output.content(1, &get_ok, &own, &message(1)));
        assert!(output.content(1, &returned, &own, &message(1)));
        assert_eq!(fast, taken(&mut output, 1_000));
    }

    #[test]
    fn small_frames_are_what_the_method_table_encodes() {
        let mut output = Output::new();
        output.ack(1, 5, true);
        output.nack(2, 6, false);
        let fast = taken(&mut output, 1_000);
        output.method(1, &Method::BasicAck { delivery_tag: 5, multiple: true });
        output.method(2, &Method::BasicNack { delivery_tag: 6, multiple: false, requeue: false });
        assert_eq!(fast, taken(&mut output, 1_000));
        output.heartbeat();
        assert_eq!(taken(&mut output, 1_000), [8, 0, 0, 0, 0, 0, 0, FRAME_END]);
    }

    #[test]
    fn bodies_are_split_at_the_frame_limit_exactly() {
        let room = 4_088;
        for (length, expected) in [
            (0, vec![]),
            (1, vec![1]),
            (room, vec![room]),
            (room + 1, vec![room, 1]),
            (2 * room, vec![room, room]),
            (20_000, vec![room, room, room, room, 20_000 - 4 * room]),
        ] {
            let mut output = Output::new();
            output.set_frame_max(4_096);
            assert!(output.deliver(1, "t", 1, false, &message(length), None));
            let frames = frames(&taken(&mut output, usize::MAX), 4_096);
            let sizes: Vec<usize> = frames[2..].iter().map(|it| it.payload.len()).collect();
            assert_eq!(sizes, expected);
        }
    }

    #[test]
    fn properties_that_do_not_fit_one_frame_are_not_written() {
        let mut output = Output::new();
        output.set_frame_max(4_096);
        assert!(output.fits(4_076) && !output.fits(4_077));
        assert!(!output.deliver(1, "t", 1, false, &message(1), Some(&[0; 4_077])));
        assert!(output.is_empty());
    }

    #[test]
    fn large_bodies_are_shared() {
        let mut output = Output::new();
        output.set_frame_max(131_072);
        let large = message(1_000_000);
        assert!(output.deliver(1, "t", 1, false, &large, None));
        assert!(output.capacity() < 1_000, "{}", output.capacity());
        assert_eq!(
            output.shared.front().map(|it| it.octets.as_ptr()),
            Some(large.first_body_part().as_ptr())
        );
        output.heartbeat();
        assert_eq!(taken(&mut output, usize::MAX).last(), Some(&FRAME_END));
    }

    #[test]
    fn the_buffer_stays_small_when_it_never_runs_empty() {
        let mut output = Output::new();
        let small = message(1_000);
        for tag in 1..=2_000 {
            assert!(output.deliver(1, "t", tag, false, &small, None));
            if 1 < tag {
                output.advance(1_000);
            }
        }
        assert!(output.capacity() < 512 * 1024, "{}", output.capacity());
        taken(&mut output, 10_000);
    }

    #[test]
    fn delivery_like_the_last_one_is_written_like_any_other() {
        let properties = |priority| {
            let some = Properties { priority, ..Properties::default() };
            some.encoded()
        };
        let mut same = Output::new();
        for number in 0..2_000_u64 {
            // Each part changes now and then, and alone.
            let is_at = |every: u64| (number / every).is_multiple_of(2);
            let (channel, tag) = (if is_at(3) { 1 } else { 2 }, if is_at(5) { "t" } else { "u" });
            let key = if is_at(7) { "key" } else { "kez" };
            let exchange = if is_at(11) { "ex" } else { "" };
            let priority = is_at(13).then_some(4);
            let length = [16, 17, 0, 9_000, 5_000][(number % 5) as usize];
            let message = match number % 17 {
                0 => message_in_parts(3_000, 7),
                _ => Message::new(exchange, key, &properties(priority), &body(length)),
            };
            let own = properties(Some(9));
            let own = (number % 19 == 0).then_some(&own[..]);
            let mut fresh = Output::new();
            assert!(fresh.deliver(channel, tag, number, is_at(1), &message, own));
            assert!(same.deliver(channel, tag, number, is_at(1), &message, own));
            assert_eq!(taken(&mut same, 10_000), taken(&mut fresh, 10_000), "delivery {number}");
        }
    }

    #[test]
    fn shared_parts_keep_their_place_when_the_buffer_is_tidied() {
        let mut output = Output::new();
        let front = body(100_000);
        output.raw(&front);
        assert!(output.deliver(1, "t", 1, false, &message(20_000), None));
        output.advance(front.len());
        assert!(output.start == 0 && output.capacity() < 400_000);
        let octets = taken(&mut output, 7);
        let frames = frames(&octets, FRAME_MAX_UNTUNED);
        let joined: Vec<u8> = frames[2..].iter().flat_map(|it| it.payload.to_vec()).collect();
        assert_eq!(joined, body(20_000));
    }

    #[test]
    fn a_buffer_that_was_large_is_given_back() {
        let mut output = Output::new();
        let fill = |output: &mut Output, octets: usize| {
            output.raw(&body(octets));
            output.advance(octets);
        };
        fill(&mut output, 5 * 1024 * 1024);
        assert!(output.capacity() <= CAPACITY_KEPT);
        fill(&mut output, 1024 * 1024);
        assert!(1024 * 1024 <= output.capacity(), "a busy connection keeps it");
        fill(&mut output, 512 * 1024);
        assert!(1024 * 1024 <= output.capacity(), "though it needs half of it now and then");
        fill(&mut output, 8);
        assert!(output.capacity() <= CAPACITY_KEPT, "a quiet one does not");
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            messages in prop::collection::vec((0_usize..40_000, 1_usize..20_000), 1..6),
            frame_max in 4_096_u32..20_000,
            step in 1_usize..30_000,
        ) {
            let mut output = Output::new();
            output.set_frame_max(frame_max);
            let mut octets = Vec::new();
            for (length, part) in &messages {
                let message = message_in_parts(*length, *part);
                prop_assert!(output.deliver(1, "tag", 1, false, &message, None));
                let mut slices = [IoSlice::new(&[]); 1];
                output.as_io_slices(&mut slices);
                let count = step.min(slices[0].len());
                octets.extend_from_slice(&slices[0][..count]);
                output.advance(count);
            }
            octets.extend(taken(&mut output, step));
            let mut frames = frames(&octets, frame_max).into_iter();
            for (length, _) in messages {
                frames.next().expect("a method");
                let header = frames.next().expect("a header").payload;
                let header = content_header(&header).expect("a content header");
                prop_assert_eq!(header.body_size, length as u64);
                let mut joined = Vec::new();
                while joined.len() < length {
                    joined.extend_from_slice(&frames.next().expect("a body").payload);
                }
                prop_assert_eq!(joined, body(length));
            }
            prop_assert!(frames.next().is_none());
        }
    }
}
