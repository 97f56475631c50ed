//! Puts the sources over each other: flags, then environment, then files, then defaults.

use super::{
    environment,
    error::{ConfigError, ConfigErrors},
    file,
    keys::{Config, KEYS, Key},
    value::{ClientVerify, Value},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Read when no file is named; it need not exist. Its folder may hold `conf.d/*.toml` too.
const STANDARD_FILE: &str = "/etc/ferrymq/ferrymq.toml";

/// Where configuration comes from, weakest last.
#[derive(Debug, Default)]
pub struct Sources {
    /// Keys and texts of the flags that were given; a repeated flag has several texts.
    pub flags: Vec<(&'static Key, Vec<String>)>,
    /// All variables of the process.
    pub environment: Vec<(String, String)>,
    /// `--config`; otherwise `FERRYMQ_CONFIG`, otherwise the standard file and its `conf.d`.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The environment of this process; variables that are no Unicode are left out.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static Key, Vec<String>)>) -> Self {
        let text = |it: std::ffi::OsString| it.into_string().ok();
        let environment = std::env::vars_os();
        let environment = environment.filter_map(|it| Some((text(it.0)?, text(it.1)?))).collect();
        Self { flags, environment, file }
    }
}

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// A place: `ferrymq.toml:3`, a variable or a flag.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set(place) => f.write_str(place),
        }
    }
}

/// A configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// In the order of [`KEYS`].
    pub origins: Vec<Origin>,
    /// Files that were read.
    pub files: Vec<PathBuf>,
}

/// Reads all sources.
///
/// # Errors
/// Everything that is wrong in any of them, with its place.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let defaults = KEYS.iter().map(|it| it.kind.read(it.default).expect("a test reads them"));
    let mut values: Vec<Value> = defaults.collect();
    let mut origins = vec![Origin::Default; KEYS.len()];
    let mut set = |key: &Key, value: Value, place: String| {
        let index = KEYS.iter().position(|it| it.name == key.name).expect("keys are of the table");
        values[index] = value;
        origins[index] = Origin::Set(place);
    };
    let files = read_files(sources, &mut errors);
    for (path, text) in &files {
        for (key, value, place) in file::read(path, text, &mut errors) {
            set(key, value, place);
        }
    }
    for (key, value, place) in environment::read(&sources.environment, &mut errors) {
        set(key, value, place);
    }
    for (key, texts) in &sources.flags {
        let place = format!("--{}", key.flag().unwrap_or_default());
        match key.kind.read(&texts.join(",")) {
            Ok(value) => set(key, value, place),
            Err(problem) => errors.push(ConfigError::new(place, problem)),
        }
    }
    require_values(&values, &origins, &mut errors);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let config = Config::from_values(values);
    check_together(&config, &origins, &mut errors);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let files = files.into_iter().map(|it| it.0).collect();
    Ok(Loaded { config, origins, files })
}

fn read_files(sources: &Sources, errors: &mut Vec<ConfigError>) -> Vec<(PathBuf, String)> {
    let variable = sources.environment.iter().find(|it| it.0 == "FERRYMQ_CONFIG");
    let named = match (&sources.file, variable) {
        (Some(path), _) => Some((path.clone(), "--config")),
        (None, Some((_, path))) if !path.is_empty() => Some((path.into(), "FERRYMQ_CONFIG")),
        (None, _) => None,
    };
    let mut files = Vec::new();
    if let Some((path, place)) = named {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                errors.push(ConfigError::new(place, problem));
            }
        }
        return files;
    }
    for path in standard_files(Path::new(STANDARD_FILE)) {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            Err(error) => {
                let problem = format!("cannot read it: {error}");
                errors.push(ConfigError::new(path.display().to_string(), problem));
            }
        }
    }
    files
}

/// The standard file and what stands in `conf.d` beside it, in order, as far as they exist.
fn standard_files(main: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if main.exists() {
        files.push(main.to_owned());
    }
    let folder = main.with_file_name("conf.d");
    if let Ok(entries) = std::fs::read_dir(folder) {
        let paths = entries.filter_map(|it| Some(it.ok()?.path()));
        let mut parts: Vec<_> =
            paths.filter(|it| it.extension().is_some_and(|it| it == "toml")).collect();
        parts.sort_unstable();
        files.append(&mut parts);
    }
    files
}

/// A key with a default cannot be emptied, unless its type is a text, a path or a switch.
fn require_values(values: &[Value], origins: &[Origin], errors: &mut Vec<ConfigError>) {
    for ((key, value), origin) in KEYS.iter().zip(values).zip(origins) {
        if *value == Value::Unset && !key.default.is_empty() {
            let problem = format!("{}: expected {}, found nothing", key.name, key.kind.expected());
            errors.push(ConfigError::new(origin.to_string(), problem));
        }
    }
}

/// What no key alone can tell.
fn check_together(config: &Config, origins: &[Origin], errors: &mut Vec<ConfigError>) {
    let mut refuse = |name: &str, problem: &str| {
        let index = KEYS.iter().position(|it| it.name == name);
        let place = index.map_or(&Origin::Default, |it| &origins[it]);
        errors.push(ConfigError::new(place.to_string(), format!("{name}: {problem}")));
    };
    if config.listeners_tcp.is_empty() && config.listeners_tls.is_empty() {
        refuse("listeners.tcp", "no address to listen on; set it or `listeners.tls`");
    }
    let over_tls =
        [("listeners.tls", &config.listeners_tls), ("listeners.https", &config.listeners_https)];
    for (name, _) in over_tls.iter().filter(|it| !it.1.is_empty()) {
        if config.tls_certificate.is_none() {
            refuse(name, "TLS needs a certificate; set `tls.certificate`");
        }
        if config.tls_key.is_none() {
            refuse(name, "TLS needs a key; set `tls.key`");
        }
    }
    let is_used = over_tls.iter().any(|it| !it.1.is_empty());
    if config.tls_client_verify != ClientVerify::None && config.tls_client_ca.is_none() {
        refuse("tls.client_verify", "checking needs authorities; set `tls.client_ca`");
    }
    if config.tls_client_verify == ClientVerify::None && config.tls_client_ca.is_some() {
        refuse(
            "tls.client_ca",
            "nothing is checked against it; set `tls.client_verify` to optional or required",
        );
    }
    if config.tls_certificate.is_some() && !is_used {
        refuse("tls.certificate", "no listener uses it; set `listeners.tls`");
    }
    if config.tls_key.is_some() && !is_used {
        refuse("tls.key", "no listener uses it; set `listeners.tls`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(name: &str) -> &'static Key {
        KEYS.iter().find(|it| it.name == name).unwrap()
    }

    fn errors_of(sources: &Sources) -> Vec<String> {
        let errors = load(sources).unwrap_err();
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ferrymq.toml");
        std::fs::write(&path, text).unwrap();
        (folder, Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let (_folder, mut sources) =
            with_file("heartbeat = 1\nchannel_max = 1\ncluster_name = \"file\"");
        sources.environment = vec![
            ("FERRYMQ_HEARTBEAT".into(), "2".into()),
            ("FERRYMQ_CHANNEL_MAX".into(), "2".into()),
        ];
        sources.flags = vec![(key("heartbeat"), vec!["3".into()])];
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config.heartbeat, Duration::from_secs(3));
        assert_eq!(loaded.config.channel_max, 2);
        assert_eq!(loaded.config.cluster_name.as_deref(), Some("file"));
        assert_eq!(loaded.config.frame_max, 131_072);
        let origin = |name| {
            let index = KEYS.iter().position(|it| it.name == name).unwrap();
            loaded.origins[index].to_string()
        };
        assert_eq!(origin("heartbeat"), "--heartbeat");
        assert_eq!(origin("channel_max"), "FERRYMQ_CHANNEL_MAX");
        assert!(origin("cluster_name").ends_with("ferrymq.toml:3"));
        assert_eq!(origin("frame_max"), "default");
    }

    #[test]
    fn a_repeated_flag_is_a_list() {
        let flags = vec![(key("listeners.tcp"), vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()])];
        let loaded = load(&Sources { flags, ..Sources::default() }).unwrap();
        assert_eq!(loaded.config.listeners_tcp.len(), 2);
    }

    #[test]
    fn the_file_of_the_environment_is_read_and_a_missing_one_is_an_error() {
        let (_folder, sources) = with_file("channel_max = 7");
        let path = sources.file.unwrap().to_str().unwrap().to_owned();
        let environment = vec![("FERRYMQ_CONFIG".to_owned(), path)];
        let loaded = load(&Sources { environment, ..Sources::default() }).unwrap();
        assert_eq!(loaded.config.channel_max, 7);
        let file = Some("/nowhere/ferrymq.toml".into());
        let errors = errors_of(&Sources { file, ..Sources::default() });
        assert!(
            errors[0].starts_with("--config: cannot read /nowhere/ferrymq.toml: "),
            "{errors:?}"
        );
    }

    #[test]
    fn parts_of_the_folder_follow_the_main_file_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("ferrymq.toml");
        let parts = folder.path().join("conf.d");
        assert_eq!(standard_files(&main), [] as [PathBuf; 0]);
        std::fs::create_dir(&parts).unwrap();
        for name in ["20.toml", "10.toml", "readme.md"] {
            std::fs::write(parts.join(name), "").unwrap();
        }
        std::fs::write(&main, "").unwrap();
        let expected = [main.clone(), parts.join("10.toml"), parts.join("20.toml")];
        assert_eq!(standard_files(&main), expected);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (text, expected) in [
            (
                "listeners.tcp = []",
                "listeners.tcp: no address to listen on; set it or `listeners.tls`",
            ),
            (
                "tls.client_verify = \"required\"",
                "tls.client_verify: checking needs authorities; set `tls.client_ca`",
            ),
            (
                "tls.certificate = \"x\"",
                "tls.certificate: no listener uses it; set `listeners.tls`",
            ),
            (
                "tls.client_ca = \"x\"",
                "tls.client_ca: nothing is checked against it; set `tls.client_verify` to optional or required",
            ),
            (
                "heartbeat = \"\"",
                "heartbeat: expected a time such as 10s, from 0s to 65535s, found nothing",
            ),
        ] {
            let (_folder, sources) = with_file(text);
            let errors = errors_of(&sources);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].ends_with(&format!("ferrymq.toml:1: {expected}")), "{errors:?}");
        }
    }

    #[test]
    fn a_tls_listener_needs_certificate_and_key() {
        let (_folder, sources) = with_file("listeners.tls = [5671]");
        assert_eq!(errors_of(&sources).len(), 2);
    }
}
