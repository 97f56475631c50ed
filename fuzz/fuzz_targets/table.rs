//! Tables of field values, and properties with a table of headers in them.
#![no_main]

#[path = "../../crates/model/tests/corpus.rs"]
mod table;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    table::table(octets);
    table::properties(octets);
});
