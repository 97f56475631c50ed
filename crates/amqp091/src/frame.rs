//! Frames: finds them in a read buffer without copying, and refuses what is none before it is
//! waited for. Also the eight octets that come before the first frame.

use bytes::{Buf, Bytes, BytesMut};
use model::limits;
use std::ops::Range;

/// Octets in front of a payload: kind, channel, size.
pub const FRAME_HEAD_LEN: usize = 7;
/// Octets of a frame besides its payload: `frame_max` counts them.
pub const FRAME_OVERHEAD: usize = FRAME_HEAD_LEN + 1;
/// The octet behind every payload.
pub const FRAME_END: u8 = 0xce;
/// Octets of a frame while nothing is negotiated.
pub const FRAME_MAX_UNTUNED: u32 = 8_192;
/// Octets of a content header in front of the properties.
pub const CONTENT_HEADER_LEN: usize = 12;
/// What a client of this protocol sends first, and what it is answered when it sent something else.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

const PROTOCOL_HEADER_OTHER: [u8; 8] = *b"AMQP\x01\x01\x00\x09";
const HEADER_PAYLOAD_MAX: usize = CONTENT_HEADER_LEN + limits::PROPERTIES_BYTES_MAX;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Method = 1,
    Header = 2,
    Body = 3,
    Heartbeat = 8,
}

/// Why octets are no frame. The octets after them mean nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame ends with octet {0:#04x}")]
    BadEnd(u8),
    #[error("unknown frame type {0}")]
    UnknownKind(u8),
    #[error("frame payload of {size} octets is larger than {max}")]
    TooLarge { size: u32, max: u32 },
    #[error("heartbeat on channel {0}")]
    HeartbeatChannel(u16),
    #[error("heartbeat with {0} octets")]
    HeartbeatPayload(u32),
}

/// Where a whole frame lies in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePlace {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: Range<usize>,
}

impl FramePlace {
    /// Where the next frame begins.
    pub fn end(&self) -> usize {
        self.payload.end + 1
    }
}

/// A frame that shares the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: Bytes,
}

/// Looks at the frame that begins at `at`. `None` when more octets are needed; what can be refused
/// from the first seven is not waited for.
///
/// # Errors
/// [`FrameError`]; a payload larger than `frame_max` (octets of a whole frame) allows is one.
#[inline]
pub fn frame_at(
    buffer: &[u8],
    at: usize,
    frame_max: u32,
) -> Result<Option<FramePlace>, FrameError> {
    let head = buffer.get(at..).and_then(<[u8]>::first_chunk::<FRAME_HEAD_LEN>);
    let Some(&[kind, channel_high, channel_low, size @ ..]) = head else {
        return Ok(None);
    };
    let channel = u16::from_be_bytes([channel_high, channel_low]);
    let size = u32::from_be_bytes(size);
    let mut max = frame_max.saturating_sub(FRAME_OVERHEAD as u32);
    let kind = match kind {
        1 => FrameKind::Method,
        2 => {
            max = max.min(HEADER_PAYLOAD_MAX as u32);
            FrameKind::Header
        }
        3 => FrameKind::Body,
        8 if channel != 0 => return Err(FrameError::HeartbeatChannel(channel)),
        8 if size != 0 => return Err(FrameError::HeartbeatPayload(size)),
        8 => FrameKind::Heartbeat,
        unknown => return Err(FrameError::UnknownKind(unknown)),
    };
    if max < size {
        return Err(FrameError::TooLarge { size, max });
    }
    let start = at + FRAME_HEAD_LEN;
    let end = start + size as usize;
    match buffer.get(end) {
        None => Ok(None),
        Some(&FRAME_END) => Ok(Some(FramePlace { kind, channel, payload: start..end })),
        Some(&octet) => Err(FrameError::BadEnd(octet)),
    }
}

/// Takes the first frame out of the buffer. `None` when more octets are needed.
///
/// # Errors
/// As [`frame_at`]; the buffer is then left as it is.
pub fn take_frame(buffer: &mut BytesMut, frame_max: u32) -> Result<Option<Frame>, FrameError> {
    let Some(FramePlace { kind, channel, payload }) = frame_at(buffer, 0, frame_max)? else {
        return Ok(None);
    };
    buffer.advance(payload.start);
    let octets = buffer.split_to(payload.len()).freeze();
    buffer.advance(1);
    Ok(Some(Frame { kind, channel, payload: octets }))
}

/// What stands in front of the properties in a content header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader {
    pub class_id: u16,
    /// Always 0 in what the specification allows.
    pub weight: u16,
    /// Octets of the body that follows.
    pub body_size: u64,
}

/// Reads the fixed part of a header frame's payload; the properties lie behind it, from
/// [`CONTENT_HEADER_LEN`] on. `None` when the payload is too short.
#[inline]
pub fn content_header(payload: &[u8]) -> Option<ContentHeader> {
    let (class_id, rest) = payload.split_first_chunk()?;
    let (weight, rest) = rest.split_first_chunk()?;
    Some(ContentHeader {
        class_id: u16::from_be_bytes(*class_id),
        weight: u16::from_be_bytes(*weight),
        body_size: u64::from_be_bytes(*rest.first_chunk()?),
    })
}

/// What the first octets of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// They may still become a header; more are needed.
    Incomplete,
    Accepted,
    Refused,
}

/// Checks the first octets of a connection; an accepted header has eight.
pub fn protocol_header(octets: &[u8]) -> ProtocolHeader {
    let given = &octets[..octets.len().min(PROTOCOL_HEADER.len())];
    let known = [PROTOCOL_HEADER, PROTOCOL_HEADER_OTHER];
    if !known.iter().any(|it| it.starts_with(given)) {
        ProtocolHeader::Refused
    } else if given.len() < PROTOCOL_HEADER.len() {
        ProtocolHeader::Incomplete
    } else {
        ProtocolHeader::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn octets_of(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).expect("small");
        let head = [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes()].concat();
        [&head, payload, &[FRAME_END]].concat()
    }

    /// All frames of a stream that arrives in these parts, and what ended it.
    fn frames_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for part in parts {
            buffer.extend_from_slice(part);
            loop {
                match take_frame(&mut buffer, FRAME_MAX_UNTUNED) {
                    Ok(None) => break,
                    Ok(Some(frame)) => frames.push(frame),
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    fn stream() -> Vec<u8> {
        [
            octets_of(1, 0, b"\x00\x0a\x00\x33"),
            octets_of(8, 0, b""),
            octets_of(2, 65_535, &[0; 14]),
            octets_of(3, 1, b"body\xce\xce"),
            octets_of(3, 1, b""),
        ]
        .concat()
    }

    #[test]
    fn a_stream_split_at_every_octet_gives_the_same_frames() {
        let stream = stream();
        let (whole, _) = frames_of(std::iter::once(&stream[..]));
        assert_eq!(whole.len(), 5);
        assert_eq!((whole[2].kind, whole[2].channel), (FrameKind::Header, 65_535));
        assert_eq!(&whole[3].payload[..], b"body\xce\xce");
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(frames_of([left, right].into_iter()).0, whole, "split at {at}");
        }
        assert_eq!(frames_of(stream.chunks(1)).0, whole);
    }

    #[test]
    fn places_name_the_same_frames() {
        let stream = stream();
        let (mut at, mut places) = (0, Vec::new());
        while let Some(place) = frame_at(&stream, at, FRAME_MAX_UNTUNED).expect("frames") {
            at = place.end();
            places.push((place.kind, place.channel, stream[place.payload].to_vec()));
        }
        assert_eq!(at, stream.len());
        let (frames, _) = frames_of(std::iter::once(&stream[..]));
        let frames: Vec<_> =
            frames.into_iter().map(|it| (it.kind, it.channel, it.payload.to_vec())).collect();
        assert_eq!(places, frames);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused = |octets: &[u8]| frames_of(std::iter::once(octets)).1;
        let mut bad_end = octets_of(1, 1, b"\x00\x14\x00\x0a\x00");
        *bad_end.last_mut().expect("not empty") = 0;
        assert_eq!(refused(&bad_end), Some(FrameError::BadEnd(0)));
        assert_eq!(refused(&octets_of(9, 1, b"abc")), Some(FrameError::UnknownKind(9)));
        assert_eq!(refused(&octets_of(8, 1, b"")), Some(FrameError::HeartbeatChannel(1)));
        assert_eq!(refused(&octets_of(8, 0, b"x")), Some(FrameError::HeartbeatPayload(1)));
    }

    #[test]
    fn an_oversized_frame_is_refused_from_its_head() {
        let head = |kind: u8, size: u32| [&[kind, 0, 1][..], &size.to_be_bytes()].concat();
        let too_large = |size, max| Err(FrameError::TooLarge { size, max });
        assert_eq!(frame_at(&head(3, 4_088), 0, 4_096), Ok(None));
        assert_eq!(frame_at(&head(3, 4_089), 0, 4_096), too_large(4_089, 4_088));
        assert_eq!(frame_at(&head(1, u32::MAX), 0, 131_072), too_large(u32::MAX, 131_064));
        assert_eq!(frame_at(&head(2, 65_548), 0, 131_072), Ok(None));
        assert_eq!(frame_at(&head(2, 65_549), 0, 131_072), too_large(65_549, 65_548));
        assert_eq!(frame_at(&head(1, 1), 0, 0), too_large(1, 0));
    }

    #[test]
    fn a_content_header_needs_twelve_octets() {
        let octets = [0, 60, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0, 0x80];
        let header = ContentHeader { class_id: 60, weight: 7, body_size: 256 };
        assert_eq!(content_header(&octets), Some(header));
        for length in 0..CONTENT_HEADER_LEN {
            assert_eq!(content_header(&octets[..length]), None);
        }
    }

    #[test]
    fn only_this_protocol_is_accepted() {
        let cases: [(&[u8], ProtocolHeader); 13] = [
            (b"AMQP\x00\x00\x09\x01", ProtocolHeader::Accepted),
            (b"AMQP\x01\x01\x00\x09", ProtocolHeader::Accepted),
            (b"AMQP\x00\x00\x09\x01more", ProtocolHeader::Accepted),
            (b"", ProtocolHeader::Incomplete),
            (b"AMQP\x00\x00\x09", ProtocolHeader::Incomplete),
            (b"AMQP\x00\x00\x09\x00", ProtocolHeader::Refused),
            (b"AMQP\x00\x00\x08\x00", ProtocolHeader::Refused),
            (b"AMQP\x00\x01\x00\x00", ProtocolHeader::Refused),
            (b"AMQP\x03\x01\x00\x00", ProtocolHeader::Refused),
            (b"GET / HTTP/1.1\r\n\r\n", ProtocolHeader::Refused),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", ProtocolHeader::Refused),
            (b"XXXXXXXX", ProtocolHeader::Refused),
            (b"AMQPX", ProtocolHeader::Refused),
        ];
        for (octets, expected) in cases {
            assert_eq!(protocol_header(octets), expected, "{octets:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_cut_alike_however_they_arrive(
            octets in prop::collection::vec(
                prop_oneof![Just(0_u8), Just(1), Just(3), Just(8), Just(FRAME_END), any::<u8>()],
                0..200,
            ),
            part in 1_usize..40,
        ) {
            let whole = frames_of(std::iter::once(&octets[..]));
            let parts = frames_of(octets.chunks(part));
            prop_assert_eq!(whole, parts);
        }
    }
}
