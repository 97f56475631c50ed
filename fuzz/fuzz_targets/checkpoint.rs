//! A checkpoint with damaged octets, and one that says what nobody would write.
#![no_main]

#[path = "../../crates/broker/tests/it/corpus.rs"]
mod corpus;
#[path = "../../crates/broker/tests/it/host.rs"]
mod host;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| corpus::spoiled(octets));
