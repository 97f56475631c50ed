//! Reads `ferrymq.toml`: every key with its line, unknown ones with the nearest known one.

use super::{
    error::ConfigError,
    keys::{KEYS, Key},
    value::{Kind, Value},
};
use std::{ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and the line it stands in.
pub(super) type Found = (&'static Key, Value, String);

/// Reads the text of the file at `path`; what is wrong goes to `errors`.
pub(super) fn read(path: &Path, text: &str, errors: &mut Vec<ConfigError>) -> Vec<Found> {
    let mut reader = Reader { path, text, errors, found: Vec::new() };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let place = reader.place(error.span().unwrap_or(0..0));
            let problem = error.message().replace('\n', "; ");
            reader.errors.push(ConfigError::new(place, problem));
        }
    }
    reader.found
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    errors: &'a mut Vec<ConfigError>,
    found: Vec<Found>,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> String {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|it| **it == b'\n').count();
        format!("{}:{line}", self.path.display())
    }

    /// `prefix` ends with a point, or is empty at the top.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let place = self.place(key.span());
            if let Some(key) = KEYS.iter().find(|it| it.name == name) {
                match read_value(key.kind, value) {
                    Ok(value) => self.found.push((key, value, place)),
                    Err(problem) => {
                        let problem = format!("{name}: {problem}");
                        self.errors.push(ConfigError::new(place, problem));
                    }
                }
                continue;
            }
            let inner = format!("{name}.");
            match value.get_ref() {
                DeValue::Table(table) if KEYS.iter().any(|it| it.name.starts_with(&inner)) => {
                    self.table(&inner, table);
                }
                _ => self.errors.push(ConfigError::unknown_key(place, &name)),
            }
        }
    }
}

fn read_value(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    match (kind, value.get_ref()) {
        (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
        (
            Kind::Integer { .. } | Kind::Size { .. } | Kind::Time { .. },
            DeValue::Integer(number),
        ) if number.radix() == 10 => kind.read(&number.as_str().replace('_', "")),
        (Kind::Names | Kind::Addresses, DeValue::Array(array)) => {
            let mut texts = Vec::with_capacity(array.len());
            for item in array.iter() {
                texts.push(list_item(item.get_ref())?);
            }
            kind.read_list(texts.iter().map(String::as_str))
        }
        (Kind::Switch | Kind::Integer { .. }, DeValue::String(_)) => {
            Err(format!("expected {}, found a text", kind.expected()))
        }
        (_, DeValue::String(text)) => kind.read(text),
        (_, other) => Err(format!("expected {}, found {}", kind.expected(), type_of(other))),
    }
}

/// A port may stand in a list of addresses without quotation marks.
fn list_item(item: &DeValue<'_>) -> Result<String, String> {
    match item {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => Ok(number.as_str().to_owned()),
        other => Err(format!("expected a list of texts, found {} in it", type_of(other))),
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Vec<Found>, Vec<String>) {
        let mut errors = Vec::new();
        let found = read(Path::new("ferrymq.toml"), text, &mut errors);
        (found, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_are_found_with_their_lines() {
        let text =
            "heartbeat = 30\n\n[log]\nlevel = \"debug\"\n[listeners]\ntcp = [\"[::]:1\", 2]\n";
        let (found, errors) = read_text(text);
        assert_eq!(errors, [] as [String; 0]);
        let mut places: Vec<_> = found.iter().map(|it| (it.0.name, it.2.as_str())).collect();
        places.sort_unstable();
        let expected = [
            ("heartbeat", "ferrymq.toml:1"),
            ("listeners.tcp", "ferrymq.toml:6"),
            ("log.level", "ferrymq.toml:4"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn a_dotted_key_is_the_same_as_a_table() {
        let (found, errors) = read_text("log.level = \"debug\"\nlog.format = \"json\"");
        assert_eq!((found.len(), errors.len()), (2, 0));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text =
            "hartbeat = 30\nframe_max = 17\n[log]\nlevel = 3\ncolour = true\n[tsl]\nkey = 1\n";
        let (_, mut errors) = read_text(text);
        errors.sort_unstable();
        assert_eq!(
            errors,
            [
                "ferrymq.toml:1: unknown key `hartbeat`; did you mean `heartbeat`?",
                "ferrymq.toml:2: frame_max: expected a size such as 64MiB, from 4KiB to 16MiB, \
                 found \"17\"",
                "ferrymq.toml:4: log.level: expected error or warn or info or debug or trace, \
                 found a number",
                "ferrymq.toml:5: unknown key `log.colour`",
                "ferrymq.toml:6: unknown key `tsl`; did you mean `tls`?",
            ]
        );
    }

    #[test]
    fn wrong_types_are_named() {
        for (text, expected) in [
            (
                "heartbeat = true",
                "heartbeat: expected a time such as 10s, from 0s to 65535s, found true or false",
            ),
            (
                "heartbeat = 1.5",
                "heartbeat: expected a time such as 10s, from 0s to 65535s, found a fraction",
            ),
            ("loopback_users = \"guest\"", "loopback_users: found no list"),
            ("unsafe_no_sync = \"true\"", "unsafe_no_sync: expected true or false, found a text"),
            ("channel_max = \"5\"", "channel_max: expected a number from 1 to 65535, found a text"),
            ("data_dir = [\"a\"]", "data_dir: expected a path, found a list"),
            (
                "loopback_users = [true]",
                "loopback_users: expected a list of texts, found true or false in it",
            ),
        ] {
            let (found, errors) = read_text(text);
            if expected.ends_with("found no list") {
                // One text is a list of one: what environment and flags accept.
                assert_eq!((found.len(), errors.len()), (1, 0), "{text}");
            } else {
                assert_eq!(errors, [format!("ferrymq.toml:1: {expected}")]);
            }
        }
    }

    #[test]
    fn broken_syntax_names_the_line() {
        let (_, errors) = read_text("heartbeat = 30\nlog = {\n");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("ferrymq.toml:"), "{}", errors[0]);
    }

    #[test]
    fn a_key_twice_is_refused() {
        let (_, errors) = read_text("heartbeat = 30\nheartbeat = 31\n");
        assert_eq!(errors, ["ferrymq.toml:2: duplicate key"]);
    }
}
