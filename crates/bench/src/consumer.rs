//! A consumer: one connection, one thread; of each delivery it reads no more than it needs, and
//! acks leave together.

use crate::{
    arrivals::{Arrival, Arrivals},
    clock::{Clock, Nanos},
    connection::{Connection, closing, decoded, is_end},
    error::BenchError,
    histogram::Latency,
    shared::{Phase, Shared},
    stamp::Stamps,
    wire::put_ack,
};
use amqp091::{
    frame::{FrameKind, FramePlace, content_header},
    method::Method,
};
use std::{
    fmt,
    io::{self, Write as _},
    time::Duration,
};

/// A consumer that gets nothing for so long looks whether the run is over.
const QUIET: Duration = Duration::from_millis(50);

const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
const BASIC_CONSUME_OK: [u8; 4] = [0, 60, 0, 21];

/// When deliveries are acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckMode {
    /// Never: the broker forgets a message when it is sent.
    Auto,
    Each,
    /// Every so many deliveries, all at once.
    Multiple(u64),
}

impl fmt::Display for AckMode {
    /// As the command line takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Each => f.write_str("each"),
            Self::Multiple(every) => write!(f, "multiple:{every}"),
        }
    }
}

/// What one consumer does.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerPlan {
    /// Numbers and names of the queues that it consumes from.
    pub(crate) queues: Vec<(usize, String)>,
    pub(crate) publishers: usize,
    pub(crate) ack: AckMode,
    /// 0 is no limit.
    pub(crate) prefetch: u16,
    pub(crate) body_size: usize,
}

impl ConsumerPlan {
    /// Whether the bodies that come say which message they are.
    pub(crate) fn has_identities(&self) -> bool {
        Stamps::of_size(self.body_size).has_identity
    }
}

/// What one consumer got.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    pub(crate) consumed: u64,
    pub(crate) redelivered: u64,
    /// Came to this consumer a second time.
    pub(crate) doubled: u64,
    /// Of no publisher of this run.
    pub(crate) foreign: u64,
    pub(crate) first_at: Option<Nanos>,
    pub(crate) last_at: Nanos,
    pub(crate) latency: Latency,
    /// The numbers of its queues.
    pub(crate) queues: Vec<usize>,
    /// For each of them, by publisher.
    pub(crate) arrivals: Vec<Vec<Arrivals>>,
}

/// Consumes until the run is complete and nothing more comes. Calls `on_ready` when every queue
/// has answered that its messages will come.
pub(crate) fn run(
    plan: &ConsumerPlan,
    mut connection: Connection,
    clock: Clock,
    shared: &Shared,
    on_ready: impl FnOnce(),
) -> Result<Consumed, BenchError> {
    if plan.ack != AckMode::Auto && plan.prefetch != 0 {
        connection.set_prefetch(plan.prefetch)?;
    }
    connection.inbox.grow();
    connection.stream.set_read_timeout(Some(QUIET))?;
    for (position, (_, queue)) in plan.queues.iter().enumerate() {
        connection.begin_consume(queue, &position.to_string(), plan.ack == AckMode::Auto)?;
    }
    let mut consumer = Consumer::new(plan, clock);
    let mut on_ready = Some(on_ready);
    loop {
        let has_read = match connection.inbox.fill(&connection.stream) {
            Ok(0) => return Err(connection.last_words()),
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if is_end(&error) => return Err(connection.last_words()),
            Err(error) => return Err(error.into()),
        };
        if has_read {
            let count = consumer.take_frames(&mut connection)?;
            shared.add_consumed(count);
        } else {
            consumer.ack_rest();
        }
        consumer.send_acks(&mut connection)?;
        if consumer.subscribed == plan.queues.len()
            && let Some(on_ready) = on_ready.take()
        {
            on_ready();
        }
        match shared.phase() {
            Phase::Complete if !has_read => break,
            Phase::Abandoned => return Ok(consumer.result),
            Phase::Running | Phase::Complete => {}
        }
    }
    connection.close()?;
    Ok(consumer.result)
}

struct Consumer<'a> {
    plan: &'a ConsumerPlan,
    clock: Clock,
    stamps: Stamps,
    subscribed: usize,
    /// The delivery that is being read: its tag, its queue's position, what its body lacks.
    delivery_tag: u64,
    position: usize,
    body_left: u64,
    is_body_begun: bool,
    /// Deliveries since the last ack of several.
    unacked: u64,
    acks: Vec<u8>,
    result: Consumed,
}

impl<'a> Consumer<'a> {
    fn new(plan: &'a ConsumerPlan, clock: Clock) -> Self {
        let of_queue = vec![Arrivals::default(); plan.publishers];
        Self {
            plan,
            clock,
            stamps: Stamps::of_size(plan.body_size),
            subscribed: 0,
            delivery_tag: 0,
            position: 0,
            body_left: 0,
            is_body_begun: false,
            unacked: 0,
            acks: Vec::new(),
            result: Consumed {
                queues: plan.queues.iter().map(|it| it.0).collect(),
                arrivals: vec![of_queue; plan.queues.len()],
                ..Consumed::default()
            },
        }
    }

    /// Everything that lies in the inbox; returns how many messages were whole.
    fn take_frames(&mut self, connection: &mut Connection) -> Result<u64, BenchError> {
        let before = self.result.consumed;
        let now = self.clock.now();
        while let Some(place) = connection.inbox.next()? {
            self.take_frame(&place, connection.inbox.payload(&place), now)?;
        }
        let count = self.result.consumed - before;
        if 0 < count {
            self.result.first_at.get_or_insert(now);
            self.result.last_at = now;
        }
        Ok(count)
    }

    #[inline]
    fn take_frame(
        &mut self,
        place: &FramePlace,
        payload: &[u8],
        now: Nanos,
    ) -> Result<(), BenchError> {
        match place.kind {
            FrameKind::Method => match payload.split_first_chunk() {
                Some((&BASIC_DELIVER, arguments)) => self.begin(arguments),
                Some((&BASIC_CONSUME_OK, _)) => self.subscribed += 1,
                _ => return Err(unwanted(payload)),
            },
            FrameKind::Header => {
                let header = content_header(payload)
                    .ok_or_else(|| BenchError::Protocol("a content header is cut".to_owned()))?;
                self.body_left = header.body_size;
                self.is_body_begun = false;
                if self.body_left == 0 {
                    self.complete();
                }
            }
            FrameKind::Body => {
                if !self.is_body_begun {
                    self.is_body_begun = true;
                    self.read_stamps(payload, now);
                }
                self.body_left = self.body_left.saturating_sub(payload.len() as u64);
                if self.body_left == 0 {
                    self.complete();
                }
            }
            FrameKind::Heartbeat => {}
        }
        Ok(())
    }

    /// Consumer tag, delivery tag, redelivered: the rest of the arguments does not matter.
    #[inline]
    fn begin(&mut self, arguments: &[u8]) {
        let Some((&tag_len, rest)) = arguments.split_first() else { return };
        let Some((tag, rest)) = rest.split_at_checked(tag_len.into()) else { return };
        let Some((delivery_tag, rest)) = rest.split_first_chunk() else { return };
        self.position = tag.iter().fold(0, |sum, it| sum * 10 + usize::from(it & 0x0f));
        self.delivery_tag = u64::from_be_bytes(*delivery_tag);
        self.result.redelivered += u64::from(rest.first().is_some_and(|it| it & 1 != 0));
    }

    #[inline]
    fn read_stamps(&mut self, body: &[u8], now: Nanos) {
        if let Some(due_at) = self.stamps.due_at(body) {
            self.result.latency.record(now.saturating_sub(due_at));
        }
        let Some(identity) = self.stamps.identity(body) else { return };
        let of_queue = self.result.arrivals.get_mut(self.position);
        let arrivals = of_queue.and_then(|it| it.get_mut(identity.publisher));
        match arrivals.map_or(Arrival::Foreign, |it| it.note(identity.sequence)) {
            Arrival::New => {}
            Arrival::Again => self.result.doubled += 1,
            Arrival::Foreign => self.result.foreign += 1,
        }
    }

    #[inline]
    fn complete(&mut self) {
        self.result.consumed += 1;
        match self.plan.ack {
            AckMode::Auto => {}
            AckMode::Each => put_ack(&mut self.acks, self.delivery_tag, false),
            AckMode::Multiple(every) => {
                self.unacked += 1;
                if every <= self.unacked {
                    self.ack_rest();
                }
            }
        }
    }

    fn ack_rest(&mut self) {
        if 0 < self.unacked {
            put_ack(&mut self.acks, self.delivery_tag, true);
            self.unacked = 0;
        }
    }

    fn send_acks(&mut self, connection: &mut Connection) -> Result<(), BenchError> {
        if self.acks.is_empty() {
            return Ok(());
        }
        match connection.stream.write_all(&self.acks) {
            Ok(()) => self.acks.clear(),
            Err(error) if is_end(&error) => return Err(connection.last_words()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A method that no delivery is.
fn unwanted(payload: &[u8]) -> BenchError {
    if let Some(error) = closing(payload) {
        return error;
    }
    match decoded(payload) {
        Ok(Method::BasicCancel { .. }) => {
            BenchError::Protocol("the broker cancelled a consumer".to_owned())
        }
        Ok(other) => BenchError::Protocol(format!("{} came unasked", other.name())),
        Err(error) => error,
    }
}
