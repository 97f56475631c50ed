//! Folders of the log with damaged files, and with records that nobody would write.
#![no_main]

#[path = "../../crates/storage/tests/corpus.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| log::spoiled(octets));
