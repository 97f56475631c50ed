//! Numbers with a meaning. Each has its own type, so that none can be taken for another.

use std::fmt;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One session of one client: what a connection is to the broker. Never used twice in a
    /// process.
    SessionId(u64)
}
number! {
    /// An independent sequence of requests within a session.
    ChannelId(u16)
}
number! {
    /// A consumer within its session; the session maps it to its channel and tag.
    ConsumerNumber(u32)
}
number! {
    /// A queue for ever: given once by the catalog, written in the log, never used again.
    QueueId(u64)
}
number! {
    /// The loop that owns a queue.
    ShardId(u16)
}
number! {
    /// A virtual host for ever, like [`QueueId`].
    VhostId(u32)
}
number! {
    /// A message's place in the order of one queue. Given at arrival, kept through requeues, not
    /// written to the log: a restart numbers anew in the same order.
    EntryId(u64)
}
number! {
    /// A place in the log: segment number in the upper 32 bits, octet offset in the lower ones.
    /// Grows over the whole life of a data folder.
    LogPosition(u64)
}
number! {
    /// Milliseconds since the Unix epoch by the broker's clock, which never goes back while the
    /// process lives.
    Timestamp(u64)
}

impl LogPosition {
    /// The number of the segment file.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The octet offset in the segment file.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl Timestamp {
    /// This time and `millis` more; stays at the end of time instead of wrapping.
    pub const fn plus_ms(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}
