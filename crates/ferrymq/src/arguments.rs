//! The verbs and their arguments. The flags of `serve` are made from the table of keys.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use server::config::{ConfigErrors, KEYS, Key, Kind, Loaded, Sources, load};
use std::path::PathBuf;

const CONFIG: &str = "config";
const DATA_DIR: &str = "data_dir";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("ferrymq")
        .about("A message broker for AMQP 0-9-1")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(user())
        .subcommand(check())
        .subcommand(::bench::command())
        .subcommand(Command::new("version").about("Print the version"))
}

pub(crate) fn version() -> String {
    format!("ferrymq {}", env!("CARGO_PKG_VERSION"))
}

fn serve() -> Command {
    Command::new("serve")
        .about("Run the server")
        .after_help(
            "Examples:\n  ferrymq serve\n  \
             ferrymq serve --data-dir /var/lib/ferrymq --listen 5672\n  \
             ferrymq serve --config /etc/ferrymq/ferrymq.toml --log-format json",
        )
        .arg(config_argument())
        .args(KEYS.iter().filter_map(key_argument))
}

fn user() -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true).help("The user");
    let password = || {
        Arg::new("password_file").long("password-file").value_name("PATH").value_parser(
            value_parser!(PathBuf),
        )
        .help(
            "File with the password; without it, the variable FERRYMQ_PASSWORD, and without that \
             the standard input",
        )
    };
    let pattern = |id: &'static str, help: &'static str| {
        Arg::new(id).value_name("PATTERN").required(true).allow_hyphen_values(true).help(help)
    };
    let verb = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(config_argument()).arg(data_dir_argument())
    };
    let tags = Arg::new("tag").long("tag").value_name("TAG").action(ArgAction::Append);
    Command::new("user")
        .about("Users of a data folder that no server has open")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Examples:\n  ferrymq user add app --password-file app.secret\n  \
             ferrymq user set-permissions app '.*' '.*' '.*'",
        )
        .subcommand(
            verb("add", "Add a user")
                .visible_alias("mk")
                .arg(name())
                .arg(password())
                .arg(tags.help("Such as administrator or monitoring; may be repeated")),
        )
        .subcommand(verb("list", "List users and their tags").visible_alias("ls"))
        .subcommand(verb("delete", "Delete a user").visible_alias("rm").arg(name()))
        .subcommand(
            verb("set-password", "Change a password; the tags stay").arg(name()).arg(password()),
        )
        .subcommand(
            verb("set-permissions", "Say what a user may do in a virtual host")
                .arg(name())
                .arg(pattern("configure", "Names that it may declare and delete"))
                .arg(pattern("write", "Names that it may publish to"))
                .arg(pattern("read", "Names that it may consume from"))
                .arg(
                    Arg::new("vhost")
                        .long("vhost")
                        .value_name("VHOST")
                        .default_value("/")
                        .help("The virtual host"),
                ),
        )
}

fn check() -> Command {
    let verb = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(config_argument())
    };
    Command::new("check")
        .about("Ask a question; the status is 0 for yes and 1 for no")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help("Examples:\n  ferrymq check config\n  ferrymq check ready --listen 5672")
        .subcommand(
            verb("ready", "Does a server accept clients at the configured addresses?").args(
                KEYS.iter().filter(|it| it.name.starts_with("listeners.")).filter_map(key_argument),
            ),
        )
        .subcommand(verb("config", "Is the configuration fine? Prints where values came from"))
        .subcommand(
            verb("data", "Is the data folder, which no server has open, without damage?")
                .arg(data_dir_argument()),
        )
}

fn config_argument() -> Arg {
    Arg::new(CONFIG)
        .long("config")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file [env: FERRYMQ_CONFIG]")
}

fn data_dir_argument() -> Arg {
    let key = KEYS.iter().find(|it| it.name == DATA_DIR).expect("the table has this key");
    key_argument(key).expect("this key has a flag")
}

/// The flag of a key; secrets have none.
fn key_argument(key: &'static Key) -> Option<Arg> {
    let argument = Arg::new(key.name)
        .long(key.flag()?)
        .value_name(key.kind.placeholder())
        .help(key.flag_help());
    Some(match key.kind {
        Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        kind if kind.is_list() => argument.action(ArgAction::Append),
        _ => argument,
    })
}

/// Reads the configuration with the flags that were given.
pub(crate) fn configuration(matches: &ArgMatches) -> Result<Loaded, ConfigErrors> {
    let given = |key: &'static Key| {
        let texts = matches.try_get_many::<String>(key.name).ok()??;
        Some((key, texts.cloned().collect()))
    };
    let flags = KEYS.iter().filter_map(given).collect();
    load(&Sources::of_process(matches.get_one::<PathBuf>(CONFIG).cloned(), flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_of_serve_reach_the_configuration() {
        let line = ["ferrymq", "serve", "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2"];
        let line = line.into_iter().chain(["--unsafe-no-sync", "--heartbeat", "5s"]);
        let matches = command().try_get_matches_from(line).unwrap();
        let config = configuration(matches.subcommand().unwrap().1).unwrap().config;
        assert_eq!(config.listeners_tcp.len(), 2);
        assert!(config.unsafe_no_sync);
        assert_eq!(config.heartbeat.as_secs(), 5);
    }

    #[test]
    fn no_password_can_be_given_as_an_argument() {
        for line in [
            &["ferrymq", "serve", "--default-pass", "x"][..],
            &["ferrymq", "user", "add", "app", "secret"],
            &["ferrymq", "user", "add", "app", "--password", "secret"],
        ] {
            assert!(command().try_get_matches_from(line).is_err(), "{line:?}");
        }
    }
}
