//! `ferrymq bench`.

use crate::ending::Ending;
use ::bench::EndKind;
use clap::ArgMatches;
use server::exit;

/// Nothing came in time; it may another time.
const TIMEOUT: u8 = 75;
/// As a shell says it of a program that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

pub(crate) fn bench(matches: &ArgMatches) -> Ending {
    let ::bench::Ended { said, error } = ::bench::run(matches);
    let Some(error) = error else { return Ending::said(&said) };
    let code = match error.kind() {
        EndKind::No => exit::NO,
        EndKind::Usage => exit::USAGE,
        EndKind::Data => exit::DATA,
        EndKind::Unavailable => exit::UNAVAILABLE,
        EndKind::Io => exit::IO,
        EndKind::Timeout => TIMEOUT,
        EndKind::Permission => exit::PERMISSION,
        EndKind::Interrupted => INTERRUPTED,
    };
    Ending { said, ..Ending::failed(code, &error) }
}
