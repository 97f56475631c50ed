//! Messages of queues as a checkpoint has them: runs of one queue each, in order of position, each
//! message told by what is different from the one before it.

use engine::record::{MessageFacts, Reader, RecordError, put};
use model::{LogPosition, QueueId, Timestamp};

/// One message that a queue keeps, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) position: LogPosition,
    pub(crate) end: LogPosition,
    /// The position under which it first arrived.
    pub(crate) origin: LogPosition,
    pub(crate) arrived: Timestamp,
    pub(crate) size: u64,
    pub(crate) facts: MessageFacts,
    pub(crate) redelivered: bool,
    pub(crate) acquired: u32,
    pub(crate) failed: u32,
}

const PERSISTENT: u8 = 1;
const REDELIVERED: u8 = 1 << 1;
const HAS_ORIGIN: u8 = 1 << 2;
const HAS_TTL: u8 = 1 << 3;
const HAS_PRIORITY: u8 = 1 << 4;
const IS_COUNTED: u8 = 1 << 5;
/// Size and length of the record are those of the message before.
const SAME_SIZE: u8 = 1 << 6;

const RUN_MESSAGES_MAX: u64 = 4_096;

/// What the next message of a run is told against.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    position: u64,
    arrived: u64,
    size: u64,
    length: u64,
}

impl Before {
    fn of(kept: &Kept) -> Self {
        Self {
            position: kept.position.0,
            arrived: kept.arrived.0,
            size: kept.size,
            length: kept.end.0.wrapping_sub(kept.position.0),
        }
    }
}

fn zigzag(step: u64) -> u64 {
    let step = step.cast_signed();
    ((step << 1) ^ (step >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

fn encode(kept: &Kept, before: &mut Before, out: &mut Vec<u8>) {
    let now = Before::of(kept);
    let is_same = (now.size, now.length) == (before.size, before.length);
    let flags = [
        (PERSISTENT, kept.facts.persistent),
        (REDELIVERED, kept.redelivered),
        (HAS_ORIGIN, kept.origin != kept.position),
        (HAS_TTL, kept.facts.ttl_ms.is_some()),
        (HAS_PRIORITY, kept.facts.priority.is_some()),
        (IS_COUNTED, 0 < kept.acquired || 0 < kept.failed),
        (SAME_SIZE, is_same),
    ];
    let flags = flags.into_iter().filter(|it| it.1).fold(0, |sum, it| sum | it.0);
    out.push(flags);
    put(out, now.position.wrapping_sub(before.position));
    put(out, zigzag(now.arrived.wrapping_sub(before.arrived)));
    if !is_same {
        put(out, now.size);
        put(out, now.length);
    }
    if flags & HAS_ORIGIN != 0 {
        put(out, kept.origin.0);
    }
    if let Some(ttl_ms) = kept.facts.ttl_ms {
        put(out, ttl_ms);
    }
    out.extend(kept.facts.priority);
    if flags & IS_COUNTED != 0 {
        put(out, kept.acquired.into());
        put(out, kept.failed.into());
    }
    *before = now;
}

#[inline(always)]
fn decode(reader: &mut Reader<'_>, before: &mut Before) -> Result<Kept, RecordError> {
    let flags = reader.octet()?;
    let mut now = *before;
    now.position = before.position.wrapping_add(reader.number()?);
    now.arrived = before.arrived.wrapping_add(unzigzag(reader.number()?));
    if flags & SAME_SIZE == 0 {
        (now.size, now.length) = (reader.number()?, reader.number()?);
    }
    let position = LogPosition(now.position);
    let has = |flag| flags & flag != 0;
    let origin = if has(HAS_ORIGIN) { LogPosition(reader.number()?) } else { position };
    let ttl_ms = if has(HAS_TTL) { Some(reader.number()?) } else { None };
    let priority = if has(HAS_PRIORITY) { Some(reader.octet()?) } else { None };
    let mut count = || match has(IS_COUNTED) {
        true => reader.number().map(|it| u32::try_from(it).unwrap_or(u32::MAX)),
        false => Ok(0),
    };
    let (acquired, failed) = (count()?, count()?);
    *before = now;
    Ok(Kept {
        position,
        end: LogPosition(now.position.wrapping_add(now.length)),
        origin,
        arrived: Timestamp(now.arrived),
        size: now.size,
        facts: MessageFacts { persistent: has(PERSISTENT), priority, ttl_ms },
        redelivered: has(REDELIVERED),
        acquired,
        failed,
    })
}

/// Writes runs. Messages of one queue must come in order of position.
#[derive(Debug, Default)]
pub(crate) struct RunWriter {
    out: Vec<u8>,
    queue: Option<QueueId>,
    has_origins: bool,
    count: u64,
    before: Before,
    run: Vec<u8>,
}

impl RunWriter {
    pub(crate) fn put(&mut self, queue: QueueId, kept: &Kept) {
        if self.queue != Some(queue) || self.count == RUN_MESSAGES_MAX {
            self.end_run();
            self.queue = Some(queue);
        }
        encode(kept, &mut self.before, &mut self.run);
        self.has_origins |= kept.origin != kept.position;
        self.count += 1;
    }

    fn end_run(&mut self) {
        if let Some(queue) = self.queue.take() {
            put(&mut self.out, queue.0);
            put(&mut self.out, (self.count << 1) | u64::from(self.has_origins));
            put(&mut self.out, self.run.len() as u64);
            self.out.append(&mut self.run);
        }
        (self.has_origins, self.count, self.before) = (false, 0, Before::default());
    }

    /// Octets written so far, but for the run that is not complete.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Puts a run as it was read, behind all others.
    pub(crate) fn put_run(&mut self, run: &Run<'_>) {
        self.end_run();
        put(&mut self.out, run.queue.0);
        put(&mut self.out, (run.count << 1) | u64::from(run.has_origins));
        put(&mut self.out, run.octets.len() as u64);
        self.out.extend_from_slice(run.octets);
    }

    /// Ends the run and takes all that was written.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.end_run();
        std::mem::take(&mut self.out)
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) queue: QueueId,
    pub(crate) count: u64,
    /// Some of its messages are copies of earlier ones.
    pub(crate) has_origins: bool,
    pub(crate) octets: &'a [u8],
}

impl<'a> Run<'a> {
    /// Reads the run at the start of `octets`; returns it and what follows.
    pub(crate) fn read(octets: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let mut reader = Reader(octets);
        let queue = QueueId(reader.number()?);
        let count = reader.number()?;
        let length = usize::try_from(reader.number()?).map_err(|_| RecordError::Truncated)?;
        let (octets, rest) = reader.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        Ok((Self { queue, count: count >> 1, has_origins: count & 1 != 0, octets }, rest))
    }

    /// Where its first message lies.
    pub(crate) fn first(&self) -> Option<LogPosition> {
        self.messages().next()?.ok().map(|it| it.position)
    }

    /// Its messages; one that cannot be read is the last.
    pub(crate) fn messages(self) -> Messages<'a> {
        Messages { reader: Reader(self.octets), before: Before::default(), left: self.count }
    }
}

/// The messages of a run.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    reader: Reader<'a>,
    before: Before,
    left: u64,
}

impl Iterator for Messages<'_> {
    type Item = Result<Kept, RecordError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let kept = decode(&mut self.reader, &mut self.before);
        if kept.is_err() {
            self.left = 0;
        }
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(number: u64) -> Kept {
        let position = LogPosition(((1 + number / 50) << 32) | (number * 8 + 64));
        Kept {
            position,
            end: LogPosition(position.0 + 100 + number % 3),
            origin: LogPosition(if number.is_multiple_of(7) { number } else { position.0 }),
            arrived: Timestamp(1_000_000 - number * (number % 2)),
            size: 60 + number % 3,
            facts: MessageFacts {
                persistent: number.is_multiple_of(2),
                priority: (number.is_multiple_of(5)).then_some(number as u8),
                ttl_ms: (number.is_multiple_of(4)).then_some(number * 1_000),
            },
            redelivered: number.is_multiple_of(6),
            acquired: (number % 9 / 8) as u32,
            failed: (number % 11 / 10) as u32,
        }
    }

    #[test]
    fn runs_come_back_as_they_were_written() {
        let mut writer = RunWriter::default();
        let all: Vec<_> = (0..10_000).map(|it| (QueueId(it / 5_000), kept(it))).collect();
        all.iter().for_each(|(queue, it)| writer.put(*queue, it));
        let octets = writer.take();
        let mut rest = octets.as_slice();
        let mut read = Vec::new();
        while !rest.is_empty() {
            let (run, more) = Run::read(rest).expect("a run");
            read.extend(run.messages().map(|it| (run.queue, it.expect("a message"))));
            rest = more;
        }
        assert_eq!(read, all);
        assert!(octets.len() < 10_000 * 12, "{}", octets.len());
        let (mut again, mut rest) = (RunWriter::default(), octets.as_slice());
        while !rest.is_empty() {
            let (run, more) = Run::read(rest).expect("a run");
            assert_eq!(
                run.first(),
                run.messages().next().map(|it| it.expect("a message").position)
            );
            again.put_run(&run);
            rest = more;
        }
        assert_eq!(again.take(), octets);
    }

    #[test]
    fn run_that_is_cut_is_an_error() {
        let mut writer = RunWriter::default();
        writer.put(QueueId(1), &kept(7));
        let octets = writer.take();
        for length in 0..octets.len() {
            assert!(Run::read(&octets[..length]).is_err(), "{length}");
        }
    }
}
