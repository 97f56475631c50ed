//! Octets from a client of AMQP 0-9-1: cut into frames, and taken for the opening of a connection.
#![no_main]

use amqp091::{frame::PROTOCOL_HEADER, fuzzing};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    fuzzing::frames(octets);
    fuzzing::handshake(octets);
    if let Some(frames) = octets.strip_prefix(&PROTOCOL_HEADER[..]) {
        fuzzing::frames(frames);
    }
});
