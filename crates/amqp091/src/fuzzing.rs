//! Entry points for fuzz targets and their corpora: each takes any octets, feeds a decoder as the
//! broker would and checks what must hold of whatever comes out.

use crate::{
    config::SessionConfig,
    frame::{FRAME_MAX_UNTUNED, Frame, FrameError, frame_at, take_frame},
    handshake::{Handshake, HandshakeEvent},
    method::{Method, ack_view, publish_view},
    output::Output,
};
use bytes::BytesMut;
use model::{Name, Refusal};
use std::sync::Arc;

/// Cuts the octets into frames, whole and in parts as long as the first octet says: the frames and
/// the error are the same.
pub fn frames(octets: &[u8]) {
    let part_len = octets.first().map_or(1, |it| usize::from(*it).max(1));
    let whole = frames_in(octets, octets.len().max(1));
    assert_eq!(whole, frames_in(octets, part_len));
    let (mut at, mut count) = (0, 0);
    while let Ok(Some(place)) = frame_at(octets, at, FRAME_MAX_UNTUNED) {
        assert_eq!(octets[place.payload.clone()], whole.0[count].payload);
        (at, count) = (place.end(), count + 1);
    }
    assert_eq!(count, whole.0.len());
}

fn frames_in(octets: &[u8], part_len: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for part in octets.chunks(part_len) {
        buffer.extend_from_slice(part);
        loop {
            match take_frame(&mut buffer, FRAME_MAX_UNTUNED) {
                Ok(None) => break,
                Ok(Some(frame)) => found.push(frame),
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// Decodes the octets as a method: what decodes encodes to the same meaning, and the views see
/// exactly the publishes and acks.
pub fn method(octets: &[u8]) {
    let decoded = Method::decode(octets);
    let is_publish = matches!(decoded, Ok(Method::BasicPublish { .. }));
    assert_eq!(is_publish, publish_view(octets).is_some());
    let is_ack = matches!(decoded, Ok(Method::BasicAck { .. }));
    assert_eq!(is_ack, ack_view(octets).is_some());
    if let Ok(method) = decoded {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        method.encode(&mut once);
        let again = Method::decode(&once).expect("what was encoded decodes");
        again.encode(&mut twice);
        // Compared as octets: a NaN in a table does not equal itself.
        assert_eq!(once, twice);
    }
}

/// Plays the octets against a broker that knows every user whose name is not empty, and every
/// virtual host but the empty one.
pub fn handshake(octets: &[u8]) {
    let (mut handshake, mut output) = (Handshake::new(Arc::default()), Output::new());
    let mut input = BytesMut::from(octets);
    while let Ok(Some(event)) = handshake.receive(&mut input, &mut output) {
        match event {
            HandshakeEvent::Login { credentials, .. } => {
                let is_known = credentials.is_some_and(|it| !it.user.is_empty());
                if handshake.logged_in(is_known, &mut output).is_err() {
                    break;
                }
            }
            HandshakeEvent::Open { vhost } => {
                let answer =
                    if vhost.is_empty() { Err(Refusal::NoVhost(Name::default())) } else { Ok(()) };
                handshake.opened(answer, &mut output);
            }
        }
    }
    let limits = SessionConfig::default();
    assert!(output.len() < limits.frame_max as usize, "a handshake is short");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::PROTOCOL_HEADER, secret::Secret};
    use model::{Table, Value};
    use proptest::prelude::*;

    fn frame(channel: u16, method: &Method) -> Vec<u8> {
        let mut output = Output::new();
        output.method(channel, method);
        let mut slices = [std::io::IoSlice::new(&[])];
        output.as_io_slices(&mut slices);
        slices[0].to_vec()
    }

    /// A good handshake, and a little more.
    fn seed() -> Vec<u8> {
        let close = Value::Table(Table(vec![(
            Name::new("authentication_failure_close"),
            Value::Bool(true),
        )]));
        let start_ok = Method::ConnectionStartOk {
            client_properties: Table(vec![(Name::new("capabilities"), close)]),
            mechanism: Name::new("PLAIN"),
            response: Secret::new(b"\0guest\0guest"),
            locale: Name::new("en_US"),
        };
        let tune_ok =
            Method::ConnectionTuneOk { channel_max: 10, frame_max: 8_192, heartbeat_s: 1 };
        [
            PROTOCOL_HEADER.to_vec(),
            frame(0, &start_ok),
            frame(0, &tune_ok),
            frame(0, &Method::ConnectionOpen { virtual_host: Name::new("/") }),
            frame(1, &Method::ChannelOpen {}),
        ]
        .concat()
    }

    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let damages = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        (damages, any::<prop::sample::Index>()).prop_map(|(damages, cut)| {
            let mut octets = seed();
            for (place, octet) in damages {
                let place = place.index(octets.len());
                octets[place] = octet;
            }
            octets.truncate(cut.index(octets.len() + 1));
            octets
        })
    }

    #[test]
    fn every_single_damage_is_survived() {
        let seed = seed();
        for at in 0..seed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut octets = seed.clone();
                octets[at] ^= flip;
                handshake(&octets);
                frames(&octets[PROTOCOL_HEADER.len()..]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(octets: Vec<u8>) {
            frames(&octets);
            method(&octets);
            handshake(&octets);
            handshake(&[&PROTOCOL_HEADER[..], &octets].concat());
        }

        #[test]
        fn damaged_handshakes_are_survived(octets in damaged()) {
            frames(&octets);
            handshake(&octets);
        }
    }
}
