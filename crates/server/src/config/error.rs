//! What is wrong with a configuration: all of it at once, each with its place and its cure.

use super::keys::KEYS;
use std::fmt;

/// One problem: where it stands (`ferrymq.toml:3`, a variable, a flag) and what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    pub place: String,
    pub problem: String,
}

impl ConfigError {
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: on_one_line(place.into()), problem: on_one_line(problem.into()) }
    }

    /// A key that does not exist, with the nearest one that does.
    pub fn unknown_key(place: impl Into<String>, name: &str) -> Self {
        let keys = KEYS.iter().map(|it| it.name.to_owned());
        let tables = KEYS.iter().filter_map(|it| Some(it.name.split_once('.')?.0.to_owned()));
        let hint = nearest(name, keys.chain(tables));
        Self::new(place, format!("unknown key `{}`{}", name.escape_debug(), did_you_mean(hint)))
    }
}

/// Every problem of the configuration, one line each. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The text with its control characters escaped: what was found in a file or a variable may hold
/// line breaks, and orders to a terminal.
fn on_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |it: char| if it.is_control() { it.escape_debug().collect() } else { vec![it] };
    text.chars().flat_map(escaped).collect()
}

/// The candidate most like `name`, whole or by its last part, if one is like it at all.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let name = name.to_lowercase();
    let name_last = last_part(&name);
    let likeness = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&name, &candidate);
        let last = strsim::normalized_damerau_levenshtein(name_last, last_part(&candidate));
        whole.max(0.9 * last)
    };
    let scored = candidates.map(|it| (likeness(&it), it));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= 0.55).then_some(best.1)
}

pub(super) fn did_you_mean(nearest: Option<String>) -> String {
    nearest.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
}

fn last_part(name: &str) -> &str {
    name.rsplit(['.', '/']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (typo, key) in [
            ("hartbeat", "heartbeat"),
            ("log.levle", "log.level"),
            ("level", "log.level"),
            ("listener.tcp", "listeners.tcp"),
            ("certificate", "tls.certificate"),
            ("datadir", "data_dir"),
        ] {
            let error = ConfigError::unknown_key("ferrymq.toml:1", typo);
            let expected = format!("ferrymq.toml:1: unknown key `{typo}`; did you mean `{key}`?");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_problem_is_one_line_whatever_was_found() {
        let error = ConfigError::new("ferrymq.toml:1", "found \"1\n\u{1b}[2Jé\"");
        assert_eq!(error.to_string(), "ferrymq.toml:1: found \"1\\n\\u{1b}[2Jé\"");
    }

    #[test]
    fn a_key_like_none_has_no_hint() {
        let error = ConfigError::unknown_key("x", "zzzzzz");
        assert_eq!(error.to_string(), "x: unknown key `zzzzzz`");
    }
}
