//! Records of the log: a kind, then a payload.
#![no_main]

#[path = "../../crates/catalog/tests/it/corpus.rs"]
mod change;
#[path = "../../crates/engine/tests/it/corpus.rs"]
mod record;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    record::record(octets);
    change::change(octets);
});
