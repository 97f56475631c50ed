//! Every limit of the broker in one place, with what must hold between them.

/// Octets of a name, routing key or consumer tag.
pub const NAME_BYTES_MAX: usize = 255;
/// Levels of tables and arrays within each other.
pub const TABLE_DEPTH_MAX: usize = 32;
/// Entries of one table or array, all levels together.
pub const TABLE_ENTRIES_MAX: usize = 4_096;
/// Octets of the arguments of one declaration.
pub const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// Octets of one encoded list of properties.
pub const PROPERTIES_BYTES_MAX: usize = 64 * 1024;
/// Octets of a message body, by default.
pub const MESSAGE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Octets of a message body that the configuration may allow at most.
pub const MESSAGE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Words of a topic, of a routing key or binding key.
pub const TOPIC_WORDS_MAX: usize = 128;
/// Consumers of one channel.
pub const CHANNEL_CONSUMERS_MAX: usize = 1_000;
/// Deliveries that one channel may hold without settling them.
pub const CHANNEL_UNSETTLED_MAX: usize = 100_000;
/// Publishes and settles that one open transaction may hold.
pub const TRANSACTION_REQUESTS_MAX: usize = 10_000;
/// Octets of bodies that one open transaction may hold.
pub const TRANSACTION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Octets that may wait in a session for its socket before its consumers get nothing more.
pub const OUTGOING_BYTES_MAX: u64 = 1024 * 1024;
/// Commands that one turn of a shard takes.
pub const TURN_COMMANDS_MAX: usize = 4_096;
/// Hand-overs that may wait for a shard before who brings more must turn it.
pub const RING_HANDOVERS_MAX: usize = 1_024;
/// Consumers of one queue.
pub const QUEUE_CONSUMERS_MAX: usize = 20_000;
/// Queues of one virtual host.
pub const VHOST_QUEUES_MAX: usize = 200_000;
/// Exchanges of one virtual host.
pub const VHOST_EXCHANGES_MAX: usize = 10_000;
/// Bindings of one virtual host.
pub const VHOST_BINDINGS_MAX: usize = 2_000_000;
/// Time to live, in milliseconds: ten years.
pub const TTL_MS_MAX: i64 = 315_360_000_000;
/// Octets of bodies kept in memory by the whole node, by default.
pub const BODIES_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Octets that may wait to be written to the log before publishers are held back.
pub const LOG_PENDING_BYTES_MAX: u64 = 8 * 1024 * 1024;

const _: () = assert!(MESSAGE_BYTES_DEFAULT <= MESSAGE_BYTES_MAX);
const _: () = assert!(ARGUMENTS_BYTES_MAX <= PROPERTIES_BYTES_MAX);
const _: () = assert!(TABLE_DEPTH_MAX < TABLE_ENTRIES_MAX);
const _: () = assert!(OUTGOING_BYTES_MAX < BODIES_BYTES_DEFAULT);
