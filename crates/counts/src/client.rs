//! What clients send: frames as octets, made before anything is measured.

use amqp091::{frame::FRAME_END, method::Method};
use model::{Name, properties::Properties};

/// Where a publish goes and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub exchange: &'static str,
    pub routing_key: &'static str,
    pub persistent: bool,
    pub body_bytes: usize,
}

/// The octets of one method.
pub fn method(channel: u16, method: &Method) -> Vec<u8> {
    let mut payload = Vec::new();
    method.encode(&mut payload);
    frame(1, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[FRAME_END]].concat()
}

/// One publish: method, header and body, as client libraries send them.
pub fn publish(shape: &Shape) -> Vec<u8> {
    let publish = Method::BasicPublish {
        exchange: Name::new(shape.exchange),
        routing_key: Name::new(shape.routing_key),
        mandatory: false,
        immediate: false,
    };
    let mode = if shape.persistent { 2 } else { 1 };
    let properties = Properties { delivery_mode: Some(mode), ..Properties::default() }.encoded();
    let body_size = (shape.body_bytes as u64).to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &body_size, &properties].concat();
    let body = vec![b'x'; shape.body_bytes];
    [method(1, &publish), frame(2, 1, &header), frame(3, 1, &body)].concat()
}

/// Appends the ack of one delivery, or of all up to it.
pub fn ack(delivery_tag: u64, multiple: bool, octets: &mut Vec<u8>) {
    octets.extend_from_slice(&[1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80]);
    octets.extend_from_slice(&delivery_tag.to_be_bytes());
    octets.extend_from_slice(&[u8::from(multiple), FRAME_END]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_is_the_codec_s_own() {
        for multiple in [false, true] {
            let mut octets = Vec::new();
            ack(7, multiple, &mut octets);
            assert_eq!(octets, method(1, &Method::BasicAck { delivery_tag: 7, multiple }));
        }
    }
}
