//! What a listener tells its connections about themselves: announced texts, proposals and limits.

use model::limits;
use std::fmt;

/// The smallest `frame_max` of the specification.
pub const FRAME_MAX_MIN: u32 = 4_096;

/// Which product is announced. It changes texts, never behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    #[default]
    Ferrymq,
    /// For software that refuses a product it does not know.
    Rabbitmq,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Amqplain,
    /// By the certificate that the client showed when TLS began.
    External,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::Amqplain, Self::External];

    /// The mechanism with this name on the wire.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Amqplain => "AMQPLAIN",
            Self::External => "EXTERNAL",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Settings shared by every connection of a listener.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    pub identity: Identity,
    /// Own version, `MAJOR.MINOR.PATCH`.
    pub version: String,
    pub platform: String,
    pub copyright: String,
    pub information: String,
    pub cluster_name: String,
    /// Proposed octets of a frame with its 8 octets of frame; at least [`FRAME_MAX_MIN`].
    pub frame_max: u32,
    /// Proposed number of open channels; at least 1.
    pub channel_max: u16,
    /// Proposed seconds between heartbeats; 0 proposes none.
    pub heartbeat_s: u16,
    /// In the order they are announced.
    pub mechanisms: Vec<Mechanism>,
    /// Octets of a message body.
    pub message_bytes_max: u64,
    pub consumers_per_channel_max: usize,
    pub consumers_per_connection_max: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            platform: "Rust".to_owned(),
            copyright: "Copyright (c) the FerryMQ authors".to_owned(),
            information: "Licensed under Apache 2.0 or MIT".to_owned(),
            cluster_name: "ferrymq".to_owned(),
            frame_max: 131_072,
            channel_max: 2_047,
            heartbeat_s: 60,
            mechanisms: vec![Mechanism::Plain, Mechanism::Amqplain],
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT,
            consumers_per_channel_max: limits::CHANNEL_CONSUMERS_MAX,
            consumers_per_connection_max: 20_000,
        }
    }
}

impl SessionConfig {
    /// The announced product.
    pub fn product(&self) -> &str {
        match self.identity {
            Identity::Ferrymq => "FerryMQ",
            Identity::Rabbitmq => "RabbitMQ",
        }
    }

    /// The announced version.
    pub fn announced_version(&self) -> &str {
        match self.identity {
            Identity::Ferrymq => &self.version,
            Identity::Rabbitmq => "4.3.0",
        }
    }

    /// The mechanisms as announced, separated by spaces.
    pub fn mechanism_names(&self) -> String {
        let names: Vec<&str> = self.mechanisms.iter().map(|it| it.name()).collect();
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_changes_product_and_version() {
        let own = SessionConfig::default();
        assert_eq!((own.product(), own.announced_version()), ("FerryMQ", &*own.version));
        let other = SessionConfig { identity: Identity::Rabbitmq, ..SessionConfig::default() };
        assert_eq!((other.product(), other.announced_version()), ("RabbitMQ", "4.3.0"));
    }

    #[test]
    fn mechanisms_are_found_by_their_whole_name() {
        assert_eq!(Mechanism::named("AMQPLAIN"), Some(Mechanism::Amqplain));
        for name in ["", "plain", "PLAINX", "ANONYMOUS"] {
            assert_eq!(Mechanism::named(name), None, "{name}");
        }
        assert_eq!(SessionConfig::default().mechanism_names(), "PLAIN AMQPLAIN");
    }
}
