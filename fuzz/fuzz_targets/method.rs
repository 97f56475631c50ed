//! Payloads of method frames of AMQP 0-9-1.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| amqp091::fuzzing::method(octets));
