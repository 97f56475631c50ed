//! `ferrymq serve`.

use crate::{
    allocator::{give_back_soon, give_back_when_idle},
    arguments::configuration,
    ending::Ending,
};
use clap::ArgMatches;
use server::{RunError, exit};
use std::io::{self, Write as _};

pub(crate) fn serve(matches: &ArgMatches) -> Ending {
    let loaded = match configuration(matches) {
        Ok(loaded) => loaded,
        Err(errors) => return Ending::failed(exit::CONFIGURATION, &errors),
    };
    give_back_soon();
    give_back_when_idle();
    match server::run(&loaded) {
        Ok(()) => Ending::silent(),
        Err(error @ RunError::LogFailed(_)) => {
            // Nothing that hangs on the disk may delay the end, so nothing is dropped in order.
            writeln!(io::stderr(), "ferrymq: {error}").ok();
            std::process::exit(error.exit_code().into());
        }
        Err(error) => Ending::failed(error.exit_code(), &error),
    }
}
