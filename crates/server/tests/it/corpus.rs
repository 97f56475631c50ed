//! Inputs of the fuzz target `config`: a configuration file, variables and flags. The target judges
//! by the same function.

#[path = "../../../../fuzz/corpus.rs"]
mod inputs;

use server::config::{ConfigErrors, KEYS, Loaded, Origin, Sources, load};
use std::{path::Path, time::Duration};

/// Stands between the file, each variable and each flag.
const BETWEEN: char = '\u{1f}';
/// Begins a part that is a flag.
const FLAG: &str = "--";
/// A text shorter than this may be in an error by chance.
const SECRET_LEN_MIN: usize = 8;

/// Takes the input for all that configures a server: it is read or refused with its reasons, each
/// of them one line and without a secret, and what was read is in range. The file is written to
/// `path`.
pub(crate) fn configuration(path: &Path, octets: &[u8]) {
    let input = String::from_utf8_lossy(octets);
    let mut parts = input.split(BETWEEN);
    std::fs::write(path, parts.next().unwrap_or_default()).expect("the path can be written");
    let mut sources = Sources { file: Some(path.to_owned()), ..Sources::default() };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if let Some(flag) = name.strip_prefix(FLAG) {
            let key = KEYS.iter().find(|it| it.flag().as_deref() == Some(flag));
            sources.flags.extend(key.map(|it| (it, vec![value.to_owned(), value.to_owned()])));
        } else if !name.ends_with("_FILE") {
            // Which files a variable may name is not the input's to say.
            sources.environment.push((name.to_owned(), value.to_owned()));
        }
    }
    let result = load(&sources);
    match &result {
        Ok(loaded) => check(loaded, path),
        Err(ConfigErrors(errors)) => {
            assert!(!errors.is_empty());
            for error in errors {
                let line = error.to_string();
                assert!(!line.contains(['\n', '\r', '\u{1b}']), "{line:?}");
            }
        }
    }
    for (_, secret) in sources.environment.iter().filter(|it| it.0.ends_with("_DEFAULT_PASS")) {
        if SECRET_LEN_MIN <= secret.len() && input.matches(secret.as_str()).count() == 1 {
            let said = format!("{result:?}");
            assert!(!said.contains(secret), "{said} tells {secret}");
        }
    }
}

fn check(loaded: &Loaded, path: &Path) {
    let config = &loaded.config;
    assert!((4_096..=16 << 20).contains(&config.frame_max));
    assert!((1..=65_535).contains(&config.channel_max));
    assert!((1_024..=512 << 20).contains(&config.message_bytes_max));
    assert!(config.heartbeat <= Duration::from_secs(65_535));
    assert!(config.shards.is_none_or(|it| (1..=64).contains(&it)));
    assert!(config.segment_bytes.is_none_or(|it| (1 << 20..=1 << 30).contains(&it)));
    assert!(!config.listeners_tcp.is_empty() || !config.listeners_tls.is_empty());
    assert!(config.listeners_tls.is_empty() == config.tls_certificate.is_none());
    assert_eq!(loaded.origins.len(), KEYS.len());
    let lines = std::fs::read_to_string(path).map_or(0, |it| it.split('\n').count());
    let file = format!("{}:", path.display());
    for origin in &loaded.origins {
        if let Origin::Set(place) = origin
            && let Some(line) = place.strip_prefix(&file)
        {
            let line: usize = line.parse().expect("a place ends in a line");
            assert!((1..=lines).contains(&line));
        }
    }
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    let own = tempfile::tempdir().expect("there is room");
    let file = own.path().join("ferrymq.toml");
    inputs::replay("config", |octets| configuration(&file, octets));
}
