//! Connections of AMQP 0-9-1 after their opening: frames of three channels, in any order.
#![no_main]

#[allow(dead_code)]
#[path = "../../crates/amqp091/tests/session/corpus.rs"]
mod corpus;
#[allow(dead_code)]
#[path = "../../crates/amqp091/tests/session/harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    corpus::session(octets);
    amqp091::session_fuzzing::session(octets);
});
