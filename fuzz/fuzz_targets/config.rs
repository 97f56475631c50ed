//! Configurations: a file, variables and flags.
#![no_main]

use std::{path::PathBuf, sync::LazyLock};

#[path = "../../crates/server/tests/it/corpus.rs"]
mod config;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("ferrymq-fuzz-{}.toml", std::process::id()))
});

libfuzzer_sys::fuzz_target!(|octets: &[u8]| config::configuration(&FILE, octets));
