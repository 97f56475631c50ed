//! Reads the environment: `FERRYMQ_…` for every key, with `_FILE` for a file that holds the value,
//! and RabbitMQ's three variables for the first user.

use super::{
    error::{ConfigError, did_you_mean, nearest},
    keys::{KEYS, Key},
    value::{Kind, Value},
};

/// Variables of RabbitMQ's image that mean the same here; ours win over them.
const RABBITMQ_VARIABLES: [(&str, &str); 3] = [
    ("RABBITMQ_DEFAULT_USER", "default_user"),
    ("RABBITMQ_DEFAULT_PASS", "default_pass"),
    ("RABBITMQ_DEFAULT_VHOST", "default_vhost"),
];
/// Variables of ours that are no keys: the configuration file, the password of `user add`, and the
/// broker of `bench`.
const OTHER_VARIABLES: [&str; 3] = ["FERRYMQ_CONFIG", "FERRYMQ_PASSWORD", "FERRYMQ_URI"];
const FILE_SUFFIX: &str = "_FILE";

/// A value and the variable it came from.
pub(super) type Found = (&'static Key, Value, String);

/// Picks the keys from all variables, the weaker ones first. What is wrong goes to `errors`.
pub(super) fn read(variables: &[(String, String)], errors: &mut Vec<ConfigError>) -> Vec<Found> {
    let mut found = Vec::new();
    for (variable, key) in RABBITMQ_VARIABLES {
        let key = KEYS.iter().find(|it| it.name == key).expect("the table has these keys");
        found.extend(read_one(key, variable, variables, errors));
    }
    for key in KEYS {
        found.extend(read_one(key, &key.variable(), variables, errors));
    }
    for (name, _) in variables {
        if name.starts_with("FERRYMQ_") && !is_known(name) && !is_service_link(name) {
            let hint = nearest(name, KEYS.iter().map(Key::variable));
            let problem = format!("unknown variable{}", did_you_mean(hint));
            errors.push(ConfigError::new(name.escape_debug().to_string(), problem));
        }
    }
    found
}

fn read_one(
    key: &'static Key,
    variable: &str,
    variables: &[(String, String)],
    errors: &mut Vec<ConfigError>,
) -> Option<Found> {
    let lookup = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    let file_variable = format!("{variable}{FILE_SUFFIX}");
    let (place, text) = match (lookup(variable), lookup(&file_variable)) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let problem = format!("{file_variable} is set too; keep one of them");
            errors.push(ConfigError::new(variable, problem));
            return None;
        }
        (Some(text), None) => (variable.to_owned(), text.to_owned()),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => (file_variable, without_line_break(&text).to_owned()),
            Err(error) => {
                errors
                    .push(ConfigError::new(file_variable, format!("cannot read {path}: {error}")));
                return None;
            }
        },
    };
    match key.kind.read(&text) {
        Ok(value) => Some((key, value, place)),
        Err(problem) => {
            let secret = key.kind == Kind::Secret;
            let problem = if secret { "unusable value".to_owned() } else { problem };
            errors.push(ConfigError::new(place, problem));
            None
        }
    }
}

fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn is_known(name: &str) -> bool {
    let base = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
    OTHER_VARIABLES.contains(&base) || KEYS.iter().any(|it| it.variable() == base)
}

/// What Kubernetes puts into every pod of a namespace with a service called `ferrymq…`.
fn is_service_link(name: &str) -> bool {
    let part = |it: &str| name.ends_with(it) || name.contains(&format!("{it}_"));
    part("_SERVICE_HOST") || part("_SERVICE_PORT") || part("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> (Vec<(&'static str, Value)>, Vec<String>) {
        let variables: Vec<_> = pairs.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
        let mut errors = Vec::new();
        let found = read(&variables, &mut errors);
        let found = found.into_iter().map(|it| (it.0.name, it.1)).collect();
        (found, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_variable_sets_its_key() {
        let (found, errors) = read_pairs(&[
            ("FERRYMQ_LOG__FORMAT", "json"),
            ("FERRYMQ_LISTENERS__TCP", "[::]:1,[::]:2"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(errors, [] as [String; 0]);
        assert_eq!(found.len(), 2);
        assert!(found.contains(&("log.format", Value::Text("json".into()))));
    }

    #[test]
    fn our_variable_comes_after_rabbitmqs_and_wins() {
        let (found, _) =
            read_pairs(&[("FERRYMQ_DEFAULT_USER", "ours"), ("RABBITMQ_DEFAULT_USER", "theirs")]);
        assert_eq!(found.last(), Some(&("default_user", Value::Text("ours".into()))));
        assert_eq!(found.first(), Some(&("default_user", Value::Text("theirs".into()))));
    }

    #[test]
    fn a_file_variable_reads_the_value_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        let (found, errors) = read_pairs(&[("RABBITMQ_DEFAULT_PASS_FILE", path.to_str().unwrap())]);
        assert_eq!(errors, [] as [String; 0]);
        assert_eq!(found, [("default_pass", Value::Text("hush".into()))]);
    }

    #[test]
    fn a_missing_file_names_variable_and_path() {
        let (_, errors) = read_pairs(&[("FERRYMQ_DEFAULT_PASS_FILE", "/nowhere/secret")]);
        let expected = "FERRYMQ_DEFAULT_PASS_FILE: cannot read /nowhere/secret: No such file";
        assert!(errors[0].starts_with(expected), "{}", errors[0]);
    }

    #[test]
    fn a_variable_and_its_file_together_are_refused() {
        let (_, errors) =
            read_pairs(&[("FERRYMQ_HEARTBEAT", "1"), ("FERRYMQ_HEARTBEAT_FILE", "/x")]);
        let expected = "FERRYMQ_HEARTBEAT: FERRYMQ_HEARTBEAT_FILE is set too; keep one of them";
        assert_eq!(errors, [expected]);
    }

    #[test]
    fn an_unknown_variable_names_the_nearest() {
        let (_, errors) = read_pairs(&[("FERRYMQ_HARTBEAT", "1")]);
        let expected = "FERRYMQ_HARTBEAT: unknown variable; did you mean `FERRYMQ_HEARTBEAT`?";
        assert_eq!(errors, [expected]);
    }

    #[test]
    fn links_of_kubernetes_are_no_keys() {
        let (found, errors) = read_pairs(&[
            ("FERRYMQ_SERVICE_HOST", "10.0.0.1"),
            ("FERRYMQ_PORT", "tcp://10.0.0.1:5672"),
            ("FERRYMQ_PORT_5672_TCP_ADDR", "10.0.0.1"),
            ("FERRYMQ_CONFIG", "/etc/x"),
        ]);
        assert_eq!((found.len(), errors.len()), (0, 0));
    }

    #[test]
    fn a_wrong_value_names_the_variable() {
        let (_, errors) = read_pairs(&[("FERRYMQ_CHANNEL_MAX", "0")]);
        let expected = "FERRYMQ_CHANNEL_MAX: expected a number from 1 to 65535, found \"0\"";
        assert_eq!(errors, [expected]);
    }
}
