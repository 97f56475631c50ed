//! The FerryMQ binary: arguments in, exit status out. What the verbs do stands in the crates.

mod allocator;
mod ending;
mod arguments;
mod serve;
mod user;
mod check;
mod bench;

use arguments::command;
use ending::Ending;
use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return Ending::of_usage(&error).tell(),
    };
    let ending = match matches.subcommand() {
        Some(("serve", verb)) => serve::serve(verb),
        Some(("user", noun)) => user::user(noun),
        Some(("check", noun)) => check::check(noun),
        Some(("bench", verb)) => bench::bench(verb),
        _ => Ending::said(&arguments::version()),
    };
    ending.tell()
}
