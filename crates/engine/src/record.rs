//! What the log says of queues and messages, and the octets it says it with. Records say what
//! happened. `docs/disk-format.md` draws them.

use bytes::Bytes;
use model::{LogPosition, Message, QueueId, Timestamp, message::Layout, properties::Facts};
use smallvec::SmallVec;

/// Kinds of records; below 16 are the log's own. `CATALOG` ones are written by the broker.
pub mod kind {
    /// A message and the queues it went to.
    pub const MESSAGE: u8 = 16;
    /// Messages that left a queue.
    pub const REMOVED: u8 = 17;
    /// Delivery counters of a message that waits.
    pub const COUNTED: u8 = 18;
    /// A clean stop: which waiting messages had been delivered before.
    pub const STOPPED: u8 = 19;
    /// The state of a job, and its result.
    pub const JOB: u8 = 20;
    /// One change of the catalog.
    pub const CATALOG_CHANGE: u8 = 24;
    /// A part of the whole catalog, which replaces everything before its first part.
    pub const CATALOG_SNAPSHOT: u8 = 25;
}

/// Version of every payload below; a reader refuses a newer one.
const VERSION: u8 = 1;

const PERSISTENT: u8 = 1;
const DEATHS_KNOWN: u8 = 2;
const REDELIVERED: u8 = 4;

/// One target of a message record: a queue, and what the queue knew of the message when it was
/// copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub queue: QueueId,
    /// Its place in the order of the queue: the position under which it first arrived, which a copy
    /// made by reclaim keeps. 0: this record's own position.
    pub origin: LogPosition,
    pub redelivered: bool,
    pub acquired: u32,
    pub failed: u32,
}

/// What stands in front of the message itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRecord {
    pub arrived: Timestamp,
    pub targets: SmallVec<[Target; 1]>,
    /// Messages that this one takes the place of, in one step: (queue, position of its record).
    pub replaces: SmallVec<[(QueueId, LogPosition); 1]>,
}

/// A decoded record.
#[derive(Clone, Debug)]
pub enum Record {
    Message {
        record: MessageRecord,
        size: u64,
        facts: MessageFacts,
    },
    Removed {
        queue: QueueId,
        positions: Vec<LogPosition>,
    },
    Counted {
        queue: QueueId,
        position: LogPosition,
        acquired: u32,
        failed: u32,
    },
    /// Of this queue, these had been delivered before the clean stop.
    Stopped {
        queue: QueueId,
        redelivered: Vec<LogPosition>,
    },
}

/// What recovery needs of a message without keeping it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageFacts {
    pub persistent: bool,
    pub priority: Option<u8>,
    pub ttl_ms: Option<u64>,
}

/// Why a payload is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record ends too early")]
    Truncated,
    #[error("record of version {0} is newer than this program")]
    Newer(u8),
    #[error("record of unknown kind {0}")]
    UnknownKind(u8),
    #[error("record holds no valid message")]
    Message,
    #[error("record holds no valid state of a job")]
    Job,
}

/// Appends a number, the smaller the shorter.
#[inline]
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    // LEB128: most numbers here are small.
    while 0x80 <= number {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads what [`put`] wrote.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// # Errors
    /// [`RecordError::Truncated`]
    #[inline]
    pub fn octet(&mut self) -> Result<u8, RecordError> {
        let (first, rest) = self.0.split_first().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    /// # Errors
    /// [`RecordError::Truncated`]
    #[inline]
    pub fn number(&mut self) -> Result<u64, RecordError> {
        match self.0 {
            [first, rest @ ..] if *first < 0x80 => {
                self.0 = rest;
                Ok(u64::from(*first))
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.0 = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, RecordError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            number |= u64::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Ok(number);
            }
        }
        Err(RecordError::Truncated)
    }

    fn narrow(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.number()?).map_err(|_| RecordError::Truncated)
    }

    fn version(&mut self) -> Result<(), RecordError> {
        match self.octet()? {
            VERSION => Ok(()),
            newer => Err(RecordError::Newer(newer)),
        }
    }

    /// A count of items of at least one octet each, so that nobody reserves what cannot follow.
    fn count(&mut self) -> Result<usize, RecordError> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(RecordError::Truncated),
        }
    }

    fn positions(&mut self) -> Result<Vec<LogPosition>, RecordError> {
        let count = self.count()?;
        let mut last = 0_u64;
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            let step = self.number()?;
            // Zigzag: neighbours may lie on either side.
            let step = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
            last = last.wrapping_add_signed(step);
            positions.push(LogPosition(last));
        }
        Ok(positions)
    }
}

fn put_positions(out: &mut Vec<u8>, positions: impl ExactSizeIterator<Item = LogPosition>) {
    put(out, positions.len() as u64);
    let mut last = 0_u64;
    for LogPosition(it) in positions {
        let step = it.wrapping_sub(last).cast_signed();
        put(out, ((step << 1) ^ (step >> 63)).cast_unsigned());
        last = it;
    }
}

impl MessageRecord {
    /// Appends the front of the record's payload; address, properties and body of the message
    /// follow it unchanged, which is what [`message_of`] reads.
    pub fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        out.push(VERSION);
        let mut flags = 0;
        flags |= if message.persistent { PERSISTENT } else { 0 };
        flags |= if message.deaths_known { DEATHS_KNOWN } else { 0 };
        out.push(flags);
        put(out, self.arrived.0);
        put(out, self.targets.len() as u64);
        for target in &self.targets {
            put(out, target.queue.0);
            put(out, target.origin.0);
            put(out, u64::from(if target.redelivered { REDELIVERED } else { 0 }));
            put(out, target.acquired.into());
            put(out, target.failed.into());
        }
        put(out, self.replaces.len() as u64);
        for (queue, position) in &self.replaces {
            put(out, queue.0);
            put(out, position.0);
        }
        put(out, message.address().len() as u64);
        put(out, message.properties().len() as u64);
    }

    /// Reads the front; returns it, the flags, the lengths of address and properties, and what
    /// follows.
    fn decode(payload: &[u8]) -> Result<Front<'_>, RecordError> {
        let mut reader = Reader(payload);
        reader.version()?;
        let flags = reader.octet()?;
        let mut record = Self { arrived: Timestamp(reader.number()?), ..Self::default() };
        for _ in 0..reader.count()? {
            record.targets.push(Target {
                queue: QueueId(reader.number()?),
                origin: LogPosition(reader.number()?),
                redelivered: reader.number()? & u64::from(REDELIVERED) != 0,
                acquired: reader.narrow()?,
                failed: reader.narrow()?,
            });
        }
        for _ in 0..reader.count()? {
            record.replaces.push((QueueId(reader.number()?), LogPosition(reader.number()?)));
        }
        let address_len = reader.count()?;
        let properties_len = reader.count()?;
        let rest = reader.0;
        if rest.len() < address_len + properties_len {
            return Err(RecordError::Truncated);
        }
        Ok(Front { record, flags, address_len, properties_len, rest })
    }
}

struct Front<'a> {
    record: MessageRecord,
    flags: u8,
    address_len: usize,
    properties_len: usize,
    rest: &'a [u8],
}

impl Front<'_> {
    fn check_address(&self) -> Result<(), RecordError> {
        let address = &self.rest[..self.address_len];
        let bad = RecordError::Message;
        let exchange_len = usize::from(*address.first().ok_or(bad)?);
        let key_at = 1 + exchange_len;
        let key_len = usize::from(*address.get(key_at).ok_or(bad)?);
        let fits = key_at + 1 + key_len == address.len();
        let utf8 = |it: &[u8]| std::str::from_utf8(it).is_ok();
        (fits && utf8(&address[1..key_at]) && utf8(&address[key_at + 1..])).then_some(()).ok_or(bad)
    }

    fn facts(&self) -> Result<Facts<'_>, RecordError> {
        let octets = &self.rest[self.address_len..self.address_len + self.properties_len];
        Facts::parse(octets).map_err(|_| RecordError::Message)
    }
}

/// The message of a record of kind [`kind::MESSAGE`], as a slice of its payload, and the queues it
/// went to.
///
/// # Errors
/// [`RecordError`], when the payload holds no message of a version known here.
pub fn message_of(payload: &Bytes) -> Result<(MessageRecord, Message), RecordError> {
    let front = MessageRecord::decode(payload)?;
    front.check_address()?;
    let facts = front.facts()?;
    let start = payload.len() - front.rest.len();
    let properties = start + front.address_len..start + front.address_len + front.properties_len;
    let layout = Layout { address: start, body: properties.end..payload.len(), properties };
    let mut message = Message::within(payload.clone(), &layout, Vec::new(), &facts);
    message.persistent = front.flags & PERSISTENT != 0;
    message.deaths_known = front.flags & DEATHS_KNOWN != 0;
    Ok((front.record, message))
}

/// Appends the payload of a record of kind [`kind::REMOVED`].
pub fn encode_removed(queue: QueueId, positions: &[LogPosition], out: &mut Vec<u8>) {
    out.push(VERSION);
    put(out, queue.0);
    put_positions(out, positions.iter().copied());
}

/// Appends the payload of a record of kind [`kind::COUNTED`].
pub fn encode_counted(
    queue: QueueId,
    position: LogPosition,
    acquired: u32,
    failed: u32,
    out: &mut Vec<u8>,
) {
    out.push(VERSION);
    put(out, queue.0);
    put(out, position.0);
    put(out, acquired.into());
    put(out, failed.into());
}

/// Appends the payload of a record of kind [`kind::STOPPED`].
pub fn encode_stopped(queue: QueueId, redelivered: &[LogPosition], out: &mut Vec<u8>) {
    encode_removed(queue, redelivered, out);
}

impl Record {
    /// Reads a payload without keeping the message.
    ///
    /// # Errors
    /// [`RecordError`], when the payload is of an unknown kind or version or does not decode.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, RecordError> {
        if kind == kind::MESSAGE {
            let front = MessageRecord::decode(payload)?;
            front.check_address()?;
            let facts = front.facts()?;
            let facts = MessageFacts {
                persistent: front.flags & PERSISTENT != 0,
                priority: facts.priority,
                ttl_ms: facts.expiration.and_then(|it| it.parse().ok()),
            };
            let size = (front.rest.len() - front.address_len - front.properties_len) as u64;
            return Ok(Self::Message { record: front.record, size, facts });
        }
        let mut reader = Reader(payload);
        reader.version()?;
        let queue = QueueId(reader.number()?);
        Ok(match kind {
            kind::REMOVED => Self::Removed { queue, positions: reader.positions()? },
            kind::STOPPED => Self::Stopped { queue, redelivered: reader.positions()? },
            kind::COUNTED => Self::Counted {
                queue,
                position: LogPosition(reader.number()?),
                acquired: reader.narrow()?,
                failed: reader.narrow()?,
            },
            unknown => return Err(RecordError::UnknownKind(unknown)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::properties::Properties;

    fn payload(record: &MessageRecord, message: &Message) -> Bytes {
        let mut out = Vec::new();
        record.encode(message, &mut out);
        out.extend_from_slice(message.address());
        out.extend_from_slice(message.properties());
        message.body_parts().for_each(|it| out.extend_from_slice(it));
        Bytes::from(out)
    }

    fn sample() -> (MessageRecord, Message) {
        let properties = Properties {
            delivery_mode: Some(2),
            priority: Some(7),
            expiration: Some("1500".into()),
            ..Properties::default()
        };
        let mut message = Message::new("ex", "key", &properties.encoded(), b"body");
        message.deaths_known = true;
        let target = Target {
            queue: QueueId(3),
            origin: LogPosition(1 << 40),
            redelivered: true,
            acquired: 2,
            failed: 1,
        };
        let record = MessageRecord {
            arrived: Timestamp(1_700_000_000_000),
            targets: [target, Target { queue: QueueId(900), ..Target::default() }]
                .into_iter()
                .collect(),
            replaces: [(QueueId(3), LogPosition(77))].into_iter().collect(),
        };
        (record, message)
    }

    #[test]
    fn message_comes_back_as_it_was() {
        let (record, message) = sample();
        let (again, copy) = message_of(&payload(&record, &message)).expect("decodes");
        assert_eq!(again, record);
        assert_eq!(copy.address(), message.address());
        assert_eq!(copy.properties(), message.properties());
        assert_eq!(copy.body(), b"body");
        assert!(copy.persistent && copy.deaths_known);
        assert_eq!(copy.ttl_ms, Some(1500));
    }

    #[test]
    fn every_cut_of_the_front_is_refused() {
        let (record, message) = sample();
        let whole = payload(&record, &message);
        for length in 0..whole.len() - message.body().len() {
            assert!(message_of(&whole.slice(..length)).is_err(), "{length} octets");
            assert!(Record::decode(kind::MESSAGE, &whole[..length]).is_err(), "{length} octets");
        }
    }

    #[test]
    fn positions_come_back_in_their_order() {
        let positions = [5 << 32 | 9, 5 << 32 | 4, 1, u64::MAX, 0].map(LogPosition);
        let mut out = Vec::new();
        encode_removed(QueueId(12), &positions, &mut out);
        let Ok(Record::Removed { queue, positions: again }) = Record::decode(kind::REMOVED, &out)
        else {
            panic!("decodes as removed");
        };
        assert_eq!((queue, again.as_slice()), (QueueId(12), &positions[..]));
    }

    #[test]
    fn newer_version_is_refused_by_name() {
        assert_eq!(Record::decode(kind::REMOVED, &[2, 0, 0]).err(), Some(RecordError::Newer(2)));
    }
}
