//! Runs one case so many times and says nothing, for valgrind and perf:
//!
//!     cargo build --profile quick -p ferrymq-counts
//!     target/quick/ferrymq-counts whole-transient 1000000
//!
//! `perf record -g` and `valgrind --tool=callgrind` see the names with that profile. Instructions
//! per message are those of 2n messages less those of n, divided by n; `cargo xtask counts` does
//! that for every case.

use counts::whole::{FANOUT, PERSISTENT, TRANSIENT, Whole};
use std::{
    io::{Write, stderr},
    process::ExitCode,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [case, messages] = arguments[..] else { return usage() };
    let load = match case {
        "whole-transient" => &TRANSIENT,
        "whole-persistent" => &PERSISTENT,
        "whole-fanout" => &FANOUT,
        _ => return usage(),
    };
    let Ok(messages) = messages.parse() else { return usage() };
    Whole::new(load).run(messages);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    // Nobody may read it.
    let _ = writeln!(stderr(), "usage: ferrymq-counts CASE MESSAGES");
    ExitCode::from(2)
}
