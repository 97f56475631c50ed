//! `ferrymq check …`: questions, answered by the exit status.

use crate::{arguments::configuration, ending::Ending};
use clap::ArgMatches;
use node::Node;
use server::{
    config::{KEYS, Loaded, Origin},
    exit,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn check(matches: &ArgMatches) -> Ending {
    let Some((verb, matches)) = matches.subcommand() else { return Ending::silent() };
    let loaded = match configuration(matches) {
        Ok(loaded) => loaded,
        Err(errors) => return Ending::failed(exit::CONFIGURATION, &errors),
    };
    match verb {
        "ready" => ready(&loaded),
        "data" => data(&loaded),
        _ => Ending::said(&origins(&loaded)),
    }
}

fn ready(loaded: &Loaded) -> Ending {
    match server::check::ready(&loaded.config, PATIENCE) {
        Ok(addresses) => {
            let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Ending::said(&format!("ready at {}", shown.join(" ")))
        }
        Err(error) => Ending::failed(exit::NO, &format!("not ready at {error}")),
    }
}

fn origins(loaded: &Loaded) -> String {
    let mut lines = vec!["the configuration is fine".to_owned()];
    for (key, origin) in KEYS.iter().zip(&loaded.origins) {
        if *origin != Origin::Default {
            lines.push(format!("{}: set by {origin}", key.name));
        }
    }
    lines.join("\n")
}

fn data(loaded: &Loaded) -> Ending {
    let folder = &loaded.config.data_dir;
    if !folder.is_dir() {
        let problem = format!("there is no data folder {}", folder.display());
        return Ending::failed(exit::IO, &problem);
    }
    let mut options = server::node_options(&loaded.config, folder);
    options.administrator = None;
    options.thorough = true;
    let node = match Node::open(options) {
        Ok(node) => node,
        Err(error) => return Ending::failed(server::open_exit_code(&error), &error),
    };
    let (recovery, restored) = (node.recovery(), node.restoration());
    let summary = format!(
        "{} queues, {} messages; stopped in order: {}; quarantined: {}, missing: {}, orphans: {}",
        restored.queues,
        restored.messages,
        recovery.orderly,
        recovery.quarantined.len(),
        recovery.missing.len(),
        restored.orphans,
    );
    let has_damage = recovery.has_damage();
    if let Err(error) = node.close() {
        return Ending::failed(exit::IO, &error);
    }
    if has_damage { Ending::failed(exit::NO, &summary) } else { Ending::said(&summary) }
}
