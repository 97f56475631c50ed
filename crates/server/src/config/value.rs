//! The kinds of values that a key may have: how each is written, and what is said when it is not.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// How the value of a key is written, and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A text that is never shown.
    Secret,
    Path,
    Switch,
    Integer {
        min: u64,
        max: u64,
    },
    /// Octets, with an optional unit.
    Size {
        min: u64,
        max: u64,
    },
    /// Milliseconds; written with a unit, or as a number of seconds.
    Time {
        ms_min: u64,
        ms_max: u64,
    },
    Choice(&'static [&'static str]),
    Names,
    Addresses,
}

/// A value that was read by its key's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Left to the server: the key's help says what it does then.
    Unset,
    Text(String),
    Switch(bool),
    Number(u64),
    Time(Duration),
    Names(Vec<String>),
    Addresses(Vec<ListenAddress>),
}

const KIB: u64 = 1024;
const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", KIB),
    ("MiB", KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("TiB", KIB * KIB * KIB * KIB),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];

impl Kind {
    /// Whether the value is a list; its texts are separated by commas where lists do not exist.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Names | Self::Addresses)
    }

    /// Reads one text, as an environment variable or a flag has it. An empty text is `Unset`.
    ///
    /// # Errors
    /// Half a sentence: what was expected and what was found. It holds no secret.
    pub fn read(self, text: &str) -> Result<Value, String> {
        if self.is_list() {
            let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
            return self.read_list(parts);
        }
        if text.is_empty() {
            return Ok(Value::Unset);
        }
        let found = || format!("found \"{text}\"");
        match self {
            Self::Text | Self::Secret | Self::Path => Ok(Value::Text(text.to_owned())),
            Self::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err(format!("expected true or false, {}", found())),
            },
            Self::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err(format!("expected {}, {}", self.expected(), found())),
            Self::Integer { min, max } => match text.parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                _ => Err(format!("expected {}, {}", self.expected(), found())),
            },
            Self::Size { min, max } => match with_unit(text, &SIZE_UNITS, 1) {
                Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::Number(bytes)),
                _ => Err(format!("expected {}, {}", self.expected(), found())),
            },
            Self::Time { ms_min, ms_max } => match with_unit(text, &TIME_UNITS, 1_000) {
                Some(ms) if (ms_min..=ms_max).contains(&ms) => {
                    Ok(Value::Time(Duration::from_millis(ms)))
                }
                _ => Err(format!("expected {}, {}", self.expected(), found())),
            },
            Self::Names | Self::Addresses => unreachable!("lists are read above"),
        }
    }

    /// Reads the texts of a list.
    ///
    /// # Errors
    /// As [`Kind::read`].
    pub fn read_list<'a>(self, texts: impl Iterator<Item = &'a str>) -> Result<Value, String> {
        match self {
            Self::Names => Ok(Value::Names(texts.map(str::to_owned).collect())),
            Self::Addresses => {
                let addresses = texts.map(ListenAddress::read).collect::<Result<_, _>>()?;
                Ok(Value::Addresses(addresses))
            }
            _ => Err(format!("expected {}, found a list", self.expected())),
        }
    }

    /// What is accepted, as the end of a sentence.
    pub fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Integer { min, max } => format!("a number from {min} to {max}"),
            Self::Size { min, max } => {
                format!("a size such as 64MiB, from {} to {}", show_size(min), show_size(max))
            }
            Self::Time { ms_min, ms_max } => {
                format!("a time such as 10s, from {} to {}", show_time(ms_min), show_time(ms_max))
            }
            Self::Choice(choices) => choices.join(" or "),
            Self::Names => "a list of texts".to_owned(),
            Self::Addresses => "a list of addresses such as 127.0.0.1:5672".to_owned(),
        }
    }

    /// The name of the value in a usage line.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "TEXT",
            Self::Path => "PATH",
            Self::Switch => "BOOL",
            Self::Integer { .. } => "NUMBER",
            Self::Size { .. } => "SIZE",
            Self::Time { .. } => "TIME",
            Self::Choice(_) => "CHOICE",
            Self::Names => "NAME",
            Self::Addresses => "ADDRESS",
        }
    }
}

fn with_unit(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    let factor = match unit {
        "" => bare,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

fn show_size(bytes: u64) -> String {
    let unit =
        SIZE_UNITS[..4].iter().rev().find(|(_, it)| bytes >= *it && bytes.is_multiple_of(*it));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}"),
    }
}

fn show_time(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// Where a listener binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `localhost:PORT`: every loopback address that the machine has.
    Loopback(u16),
    /// `PORT`: every address of the machine, IPv6 and IPv4.
    Everywhere(u16),
    At(SocketAddr),
}

impl ListenAddress {
    fn read(text: &str) -> Result<Self, String> {
        let port = |digits: &str| digits.parse::<u16>().ok();
        if let Some(port) = port(text) {
            return Ok(Self::Everywhere(port));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Ok(Self::Loopback(port));
        }
        text.parse().map(Self::At).map_err(|_| {
            format!(
                "expected addresses such as 127.0.0.1:5672, [::]:5672, localhost:5672 or 5672, \
                 found \"{text}\""
            )
        })
    }

    /// Whether only programs of this machine reach it.
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Loopback(_) => true,
            Self::Everywhere(_) => false,
            Self::At(address) => address.ip().is_loopback(),
        }
    }

    /// The addresses to try to bind, and whether one of them is enough.
    pub fn candidates(self) -> (Vec<SocketAddr>, bool) {
        match self {
            Self::Loopback(port) => {
                let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                (vec![four, SocketAddr::from((Ipv6Addr::LOCALHOST, port))], true)
            }
            Self::Everywhere(port) => {
                (vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))], false)
            }
            Self::At(address) => (vec![address], false),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(port) => write!(f, "localhost:{port}"),
            Self::Everywhere(port) => write!(f, "{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// A text that neither logs nor errors show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

macro_rules! choice {
    (
        $(#[$meta:meta])*
        $name:ident { $($variant:ident = $text:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const CHOICES: &[&str] = &[$($text),+];
        }

        impl From<Value> for $name {
            fn from(value: Value) -> Self {
                match value {
                    $(Value::Text(text) if text == $text => Self::$variant,)+
                    other => unreachable!("{other:?} was read by a key's kind"),
                }
            }
        }
    };
}

choice! {
    /// What the server says it is.
    Identity { Ferrymq = "ferrymq", Rabbitmq = "rabbitmq" }
}
choice! {
    /// How log lines are written.
    LogFormat { Text = "text", Json = "json" }
}
choice! {
    /// Whether TLS clients show a certificate.
    ClientVerify { None = "none", Optional = "optional", Required = "required" }
}
choice! {
    /// Which part of a client's certificate is its user name.
    LoginFrom {
        First = "first",
        SubjectAlternativeName = "subject_alternative_name",
        CommonName = "common_name",
    }
}
choice! {
    /// The least important lines that are written.
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

macro_rules! from_value {
    ($($type:ty { $($pattern:pat => $result:expr),+ $(,)? })+) => {
        $(impl From<Value> for $type {
            fn from(value: Value) -> Self {
                match value {
                    $($pattern => $result,)+
                    other => unreachable!("{other:?} was read by a key's kind"),
                }
            }
        })+
    };
}

from_value! {
    String { Value::Text(text) => text, Value::Unset => Self::new() }
    Option<String> { Value::Text(text) => Some(text), Value::Unset => None }
    Secret { Value::Text(text) => Self(text), Value::Unset => Self(String::new()) }
    PathBuf { Value::Text(text) => text.into(), Value::Unset => Self::new() }
    Option<PathBuf> { Value::Text(text) => Some(text.into()), Value::Unset => None }
    bool { Value::Switch(on) => on, Value::Unset => false }
    u64 { Value::Number(number) => number }
    Option<u64> { Value::Number(number) => Some(number), Value::Unset => None }
    Duration { Value::Time(time) => time }
    Vec<String> { Value::Names(names) => names }
    Vec<ListenAddress> { Value::Addresses(addresses) => addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = Kind::Size { min: 1024, max: 1 << 30 };
    const TIME: Kind = Kind::Time { ms_min: 100, ms_max: 60_000 };

    #[test]
    fn a_size_has_a_unit_or_is_octets() {
        assert_eq!(SIZE.read("2048"), Ok(Value::Number(2048)));
        assert_eq!(SIZE.read("64MiB"), Ok(Value::Number(64 << 20)));
        assert_eq!(SIZE.read("1 GiB"), Ok(Value::Number(1 << 30)));
        assert_eq!(SIZE.read("5MB"), Ok(Value::Number(5_000_000)));
    }

    #[test]
    fn a_size_out_of_range_names_the_range() {
        for text in ["2GiB", "12", "x", "-1", "99999999999999999999", "20000000TiB", "1mib"] {
            let error = SIZE.read(text).unwrap_err();
            let expected =
                format!("expected a size such as 64MiB, from 1KiB to 1GiB, found \"{text}\"");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        assert_eq!(TIME.read("10"), Ok(Value::Time(Duration::from_secs(10))));
        assert_eq!(TIME.read("250ms"), Ok(Value::Time(Duration::from_millis(250))));
        assert_eq!(TIME.read("1min"), Ok(Value::Time(Duration::from_secs(60))));
        let error = TIME.read("2h").unwrap_err();
        assert_eq!(error, "expected a time such as 10s, from 100ms to 60s, found \"2h\"");
    }

    #[test]
    fn an_address_is_a_socket_address_localhost_or_a_port() {
        let read = Kind::Addresses.read("127.0.0.1:1, [::1]:2,localhost:3, 4").unwrap();
        let Value::Addresses(addresses) = read else { panic!("not addresses") };
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:1", "[::1]:2", "localhost:3", "4"]);
        let loopback: Vec<_> = addresses.iter().map(|it| it.is_loopback()).collect();
        assert_eq!(loopback, [true, true, true, false]);
    }

    #[test]
    fn an_address_without_port_is_refused_with_examples() {
        let error = Kind::Addresses.read("127.0.0.1").unwrap_err();
        assert!(error.starts_with("expected addresses such as 127.0.0.1:5672"), "{error}");
        assert!(error.ends_with("found \"127.0.0.1\""), "{error}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hush".into())), "Secret");
    }
}
