//! Runs one case over so many messages and says nothing, for valgrind and perf:
//!
//!     cargo build --profile quick -p ferrymq-counts
//!     target/quick/ferrymq-counts whole-transient 1000000
//!
//! `perf record -g` and `valgrind --tool=callgrind` see the names of functions with that profile.
//! Instructions per message are those of 2n messages less those of n, divided by n, so that neither
//! start nor setup counts; `cargo xtask counts` does that for every case that `--list` names.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => list(),
        [case, messages] => match (counts::cases::named(case), messages.parse()) {
            (Some(case), Ok(messages)) => {
                (case.run)(messages);
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

/// Each case and how many messages it takes at least.
fn list() -> ExitCode {
    let lines: String =
        counts::cases::CASES.iter().map(|it| format!("{} {}\n", it.name, it.messages)).collect();
    match stdout().write_all(lines.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage() -> ExitCode {
    // Nobody may read it.
    let _ = writeln!(stderr(), "usage: ferrymq-counts --list | CASE MESSAGES");
    ExitCode::from(2)
}
