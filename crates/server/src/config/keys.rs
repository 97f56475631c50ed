//! The table of keys: each stands here once, and everything else is made from it.

use super::value::{
    ClientVerify, Identity, Kind, ListenAddress, LogFormat, LogLevel, LoginFrom, Secret, Value,
};
use std::{path::PathBuf, time::Duration};

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// As in the file, with points between table and key.
    pub name: &'static str,
    pub kind: Kind,
    /// As text; empty when the server decides.
    pub default: &'static str,
    /// Sentences.
    pub help: &'static str,
    /// Another flag than the one made from the name.
    pub short_flag: Option<&'static str>,
}

impl Key {
    /// The flag of `serve`, without dashes; secrets have none, because others see arguments.
    pub fn flag(&self) -> Option<String> {
        match (self.kind, self.short_flag) {
            (Kind::Secret, _) => None,
            (_, Some(flag)) => Some(flag.to_owned()),
            (_, None) => Some(self.name.replace(['.', '_'], "-")),
        }
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("FERRYMQ_{}", self.name.replace('.', "__").to_uppercase())
    }
}

macro_rules! keys {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $type:ty =
            $name:literal, $kind:expr, $default:literal $(, flag $flag:literal)?;
    )+) => {
        /// Everything that can be configured, read and in range.
        #[derive(Clone, Debug)]
        pub struct Config { $($(#[doc = $help])+ pub $field: $type,)+ }

        /// All keys, in the order of the reference page.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            kind: $kind,
            default: $default,
            help: concat!($($help),+),
            short_flag: keys!(@flag $($flag)?),
        },)+];

        impl Config {
            /// One value per key, in the order of [`KEYS`].
            pub(super) fn from_values(values: Vec<Value>) -> Self {
                let mut values = values.into_iter();
                let mut next = || values.next().expect("there is one value per key");
                Self { $($field: next().into(),)+ }
            }
        }
    };
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn time(ms_min: u64, ms_max: u64) -> Kind {
    Kind::Time { ms_min, ms_max }
}

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

keys! {
    /// The folder with everything that is kept. It is made if it is missing.
    data_dir: PathBuf = "data_dir", Kind::Path, "ferrymq-data";
    /// Addresses for AMQP without TLS: `ADDRESS:PORT`, `localhost:PORT` (the loopback addresses
    /// that exist) or `PORT` (every address).
    listeners_tcp: Vec<ListenAddress> = "listeners.tcp", Kind::Addresses, "localhost:5672",
        flag "listen";
    /// Addresses for AMQP over TLS, as above. They need `tls.certificate` and `tls.key`.
    listeners_tls: Vec<ListenAddress> = "listeners.tls", Kind::Addresses, "", flag "listen-tls";
    /// Addresses for HTTP without TLS: jobs under `/v1`. Empty: none.
    listeners_http: Vec<ListenAddress> = "listeners.http", Kind::Addresses, "",
        flag "listen-http";
    /// The same over TLS. They need `tls.certificate` and `tls.key`.
    listeners_https: Vec<ListenAddress> = "listeners.https", Kind::Addresses, "",
        flag "listen-https";
    /// PEM file with the server's certificate and the chain below its root. Read again on SIGHUP.
    tls_certificate: Option<PathBuf> = "tls.certificate", Kind::Path, "";
    /// PEM file with the key of the certificate. Read again on SIGHUP.
    tls_key: Option<PathBuf> = "tls.key", Kind::Path, "";
    /// PEM file with the authorities that sign certificates of clients. Read again on SIGHUP.
    tls_client_ca: Option<PathBuf> = "tls.client_ca", Kind::Path, "";
    /// Whether clients show a certificate: not asked for, checked if shown, or demanded.
    tls_client_verify: ClientVerify =
        "tls.client_verify", Kind::Choice(ClientVerify::CHOICES), "none";
    /// The user name of EXTERNAL: the first alternative name of the certificate, its common name,
    /// or `first`: an alternative name if there is one, otherwise the common name.
    tls_login_from: LoginFrom = "tls.login_from", Kind::Choice(LoginFrom::CHOICES), "first";
    /// How long a TLS handshake may take.
    tls_handshake_timeout: Duration = "tls.handshake_timeout", time(100, 60_000), "5s";
    /// How long a client may take from connecting to an open virtual host.
    handshake_timeout: Duration = "handshake_timeout", time(100, 10_000), "10s";
    /// The time between heartbeats that clients are offered; 0 offers none.
    heartbeat: Duration = "heartbeat", time(0, 65_535_000), "60s";
    /// The largest frame that clients are offered.
    frame_max: u64 = "frame_max", Kind::Size { min: 4096, max: 16 * MIB }, "128KiB";
    /// The largest number of channels of a connection.
    channel_max: u64 = "channel_max", count(1, 65_535), "2047";
    /// The largest body of a message.
    message_bytes_max: u64 =
        "message_bytes_max", Kind::Size { min: 1024, max: 512 * MIB }, "16MiB";
    /// Octets of message bodies that are kept in memory; more are read from the disk when they are
    /// due.
    memory_bodies: u64 = "memory.bodies", Kind::Size { min: MIB, max: TIB }, "16MiB";
    /// Loops that own queues. Not set: as many as the process has processors.
    shards: Option<u64> = "shards", count(1, 64), "";
    /// The size of a segment of the log. Not set: the size that the storage was tuned for.
    segment_bytes: Option<u64> =
        "storage.segment_bytes", Kind::Size { min: MIB, max: 1 << 30 }, "";
    /// Confirms without waiting for the disk. For measurements: a crash loses confirmed messages.
    unsafe_no_sync: bool = "unsafe_no_sync", Kind::Switch, "false";
    /// The administrator that an empty data folder gets.
    default_user: String = "default_user", Kind::Text, "guest";
    /// The password of `default_user`.
    default_pass: Secret = "default_pass", Kind::Secret, "guest";
    /// The virtual host that an empty data folder gets.
    default_vhost: String = "default_vhost", Kind::Text, "/";
    /// Users who may log in from this machine only.
    loopback_users: Vec<String> = "loopback_users", Kind::Names, "guest";
    /// What the server says it is: itself, or RabbitMQ for programs that ask for that name.
    /// Nothing else depends on it.
    identity: Identity = "compat.identity", Kind::Choice(Identity::CHOICES), "ferrymq";
    /// The cluster name that clients are told. Not set: `ferrymq@` and the name of the machine.
    cluster_name: Option<String> = "cluster_name", Kind::Text, "";
    /// The least important lines to log.
    log_level: LogLevel = "log.level", Kind::Choice(LogLevel::CHOICES), "info";
    /// How log lines are written to the standard output.
    log_format: LogFormat = "log.format", Kind::Choice(LogFormat::CHOICES), "text";
    /// Connections at a time. Fewer when the process may not open so many files.
    connections_max: u64 = "limits.connections", count(1, 1_000_000), "50000";
    /// Connections at a time that have not logged in; more have to wait.
    unauthenticated_max: u64 =
        "limits.unauthenticated_connections", count(1, 100_000), "4096";
    /// The same for one address (IPv6: for one /64 network).
    unauthenticated_per_address_max: u64 =
        "limits.unauthenticated_connections_per_address", count(1, 100_000), "512";
    /// Failed logins per minute of one user from one address; the password is not looked at above.
    failed_logins_max: u64 = "limits.failed_logins", count(1, 100_000), "20";
    /// Failed logins per minute from one address, whichever the user.
    failed_logins_per_address_max: u64 =
        "limits.failed_logins_per_address", count(1, 1_000_000), "200";
    /// How long a client may leave what it is sent unread before its connection is closed.
    write_timeout: Duration = "limits.write_timeout", time(1_000, 600_000), "30s";
    /// How long clients get at a stop to take what is on its way to them.
    shutdown_timeout: Duration = "shutdown.timeout", time(0, 600_000), "10s";
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::limits;
    use std::collections::HashSet;

    #[test]
    fn every_default_is_read_by_its_kind() {
        let values = KEYS.iter().map(|it| it.kind.read(it.default).unwrap()).collect();
        let config = Config::from_values(values);
        assert_eq!(config.frame_max, 131_072);
        assert_eq!(config.message_bytes_max, limits::MESSAGE_BYTES_DEFAULT);
        assert_eq!(config.memory_bodies, limits::BODIES_BYTES_DEFAULT);
        assert_eq!(config.heartbeat, Duration::from_secs(60));
        assert_eq!(config.listeners_tcp, [ListenAddress::Loopback(5672)]);
        assert_eq!(config.loopback_users, ["guest"]);
    }

    #[test]
    fn names_flags_and_variables_are_unique() {
        let unique = |texts: Vec<String>| {
            assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "{texts:?}");
        };
        unique(KEYS.iter().map(|it| it.name.to_owned()).collect());
        unique(KEYS.iter().filter_map(Key::flag).collect());
        unique(KEYS.iter().map(Key::variable).collect());
    }

    #[test]
    fn a_secret_has_no_flag() {
        let secrets = KEYS.iter().filter(|it| it.kind == Kind::Secret);
        assert!(secrets.clone().count() > 0);
        assert!(secrets.into_iter().all(|it| it.flag().is_none()));
    }

    #[test]
    fn the_variable_has_two_underscores_for_a_point() {
        let key = KEYS.iter().find(|it| it.name == "log.format").unwrap();
        assert_eq!(key.variable(), "FERRYMQ_LOG__FORMAT");
        assert_eq!(key.flag().as_deref(), Some("log-format"));
    }
}
