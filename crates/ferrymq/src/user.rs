//! `ferrymq user …`: users of a data folder that no server has open.

use crate::{arguments::configuration, ending::Ending};
use clap::ArgMatches;
use server::{
    exit,
    users::{Rights, Users, UsersError},
};
use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

/// Octets of a password.
const PASSWORD_BYTES_MAX: u64 = 4096;

pub(crate) fn user(matches: &ArgMatches) -> Ending {
    let Some((verb, matches)) = matches.subcommand() else { return Ending::silent() };
    let loaded = match configuration(matches) {
        Ok(loaded) => loaded,
        Err(errors) => return Ending::failed(exit::CONFIGURATION, &errors),
    };
    let password = match verb {
        "add" | "set-password" => match password(matches) {
            Ok(password) => password,
            Err(problem) => return Ending::failed(exit::USAGE, &problem),
        },
        _ => Vec::new(),
    };
    let options = server::node_options(&loaded.config, &loaded.config.data_dir);
    let done = Users::open(options).and_then(|users| {
        let said = carry_out(&users, verb, matches, &password)?;
        users.close()?;
        Ok(said)
    });
    match done {
        Ok(said) => Ending::said(&said),
        Err(error) => Ending::failed(error.exit_code(), &error),
    }
}

fn carry_out(
    users: &Users,
    verb: &str,
    matches: &ArgMatches,
    password: &[u8],
) -> Result<String, UsersError> {
    let text = |id: &str| matches.get_one::<String>(id).cloned().unwrap_or_default();
    match verb {
        "add" => {
            let tags: Vec<String> =
                matches.get_many::<String>("tag").unwrap_or_default().cloned().collect();
            users.add(&text("name"), password, &tags)?;
        }
        "set-password" => users.set_password(&text("name"), password)?,
        "delete" => users.delete(&text("name"))?,
        "set-permissions" => {
            let rights = Rights {
                vhost: text("vhost"),
                configure: text("configure"),
                write: text("write"),
                read: text("read"),
            };
            users.set_permissions(&text("name"), rights)?;
        }
        _ => return Ok(listing(users)),
    }
    Ok(String::new())
}

fn listing(users: &Users) -> String {
    let mut lines = vec!["name\ttags".to_owned()];
    for (name, tags) in users.list() {
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        lines.push(format!("{}\t{}", name.escape_debug(), tags.join(",")));
    }
    lines.join("\n")
}

/// From the file, the variable or the standard input, without the line break at the end.
fn password(matches: &ArgMatches) -> Result<Vec<u8>, String> {
    let mut password = Vec::new();
    if let Some(path) = matches.get_one::<PathBuf>("password_file") {
        let file = std::fs::File::open(path);
        let read = file.and_then(|it| it.take(PASSWORD_BYTES_MAX).read_to_end(&mut password));
        read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    } else if let Some(text) = std::env::var_os("FERRYMQ_PASSWORD") {
        password = text.into_encoded_bytes();
    } else if io::stdin().is_terminal() {
        let ways = "give the password with --password-file, in the variable FERRYMQ_PASSWORD, or \
             through the standard input";
        return Err(ways.to_owned());
    } else {
        let read = io::stdin().take(PASSWORD_BYTES_MAX).read_to_end(&mut password);
        read.map_err(|error| format!("cannot read the standard input: {error}"))?;
    }
    if password.ends_with(b"\n") {
        password.pop();
    }
    if password.ends_with(b"\r") {
        password.pop();
    }
    Ok(password)
}
