//! A publisher: one connection, one thread, messages encoded once and written in large pieces.

use crate::{
    clock::{self, Clock, MILLISECOND, Nanos},
    connection::{Connection, PATIENCE, closing, decoded, is_end},
    error::BenchError,
    histogram::Latency,
    pacing::Pace,
    shared::{Phase, Shared},
    stamp::{Identity, Stamps, UNMEASURED},
    unconfirmed::Unconfirmed,
    wire::EncodedPublish,
};
use amqp091::{
    frame::FrameKind,
    method::{Method, ack_view},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Write as _},
    ops::Range,
};

/// Octets written at once, if so many messages may go.
const BATCH_BYTES: usize = 128 * 1024;
/// So often a waiting publisher looks whether the run is over.
const LOOK_AFTER: Nanos = 100 * MILLISECOND;
/// After this time it looks what the broker says, even if it could go on writing.
const LISTEN_AFTER: Nanos = MILLISECOND;

/// What one publisher does.
#[derive(Clone, Debug)]
pub(crate) struct PublisherPlan {
    /// Its number, from 0.
    pub(crate) index: usize,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body_size: usize,
    pub(crate) is_persistent: bool,
    /// Most messages that wait for a confirm; without it none is asked for.
    pub(crate) window: Option<u64>,
    pub(crate) count_max: u64,
    pub(crate) duration_max: Nanos,
    /// Messages a second and phase; without it as fast as it goes.
    pub(crate) rate: Option<(f64, f64)>,
    /// What is due in this time from the start is left out of the latencies.
    pub(crate) warmup: Nanos,
}

/// What one publisher did.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) index: usize,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    /// Negative confirms.
    pub(crate) rejected: u64,
    /// When all was written; without confirms, when the broker had read it.
    pub(crate) published_at: Nanos,
    pub(crate) confirmed_at: Nanos,
    pub(crate) confirm_latency: Latency,
    /// How long the broker asked it to stop (`connection.blocked`).
    pub(crate) blocked: Nanos,
}

/// Publishes until the plan is fulfilled or the run is over, then waits for what is unconfirmed.
pub(crate) fn run(
    plan: &PublisherPlan,
    connection: Connection,
    clock: Clock,
    shared: &Shared,
) -> Result<Published, BenchError> {
    clock::want_precise_timers();
    connection.stream.set_nonblocking(true)?;
    let mut publisher = Publisher::new(plan, connection, clock, shared);
    publisher.publish_all()?;
    let Publisher { connection, mut result, .. } = publisher;
    if shared.phase() != Phase::Abandoned {
        connection.close()?;
        if plan.window.is_none() {
            result.published_at = clock.now();
        }
    }
    Ok(result)
}

struct Publisher<'a> {
    plan: &'a PublisherPlan,
    connection: Connection,
    clock: Clock,
    shared: &'a Shared,
    started: Nanos,
    pace: Option<Pace>,
    stamps: Stamps,
    /// Copies of the encoded message; before they are written they are stamped.
    batch: Vec<u8>,
    message_len: usize,
    body_at: usize,
    unsent: Range<usize>,
    unconfirmed: Unconfirmed,
    blocked_since: Option<Nanos>,
    listened_at: Nanos,
    result: Published,
}

impl<'a> Publisher<'a> {
    fn new(
        plan: &'a PublisherPlan,
        connection: Connection,
        clock: Clock,
        shared: &'a Shared,
    ) -> Self {
        let address = (plan.exchange.as_str(), plan.routing_key.as_str());
        let publish =
            EncodedPublish::new(address, plan.is_persistent, plan.body_size, connection.frame_max);
        let message_len = publish.octets.len();
        let started = clock.now();
        Self {
            plan,
            connection,
            clock,
            shared,
            started,
            pace: plan.rate.map(|(rate, phase)| Pace::new(started, rate, phase)),
            stamps: Stamps::of_size(plan.body_size),
            batch: publish.octets.repeat((BATCH_BYTES / message_len).max(1)),
            message_len,
            body_at: publish.body_at,
            unsent: 0..0,
            unconfirmed: Unconfirmed::new(),
            blocked_since: None,
            listened_at: started,
            result: Published {
                index: plan.index,
                published_at: started,
                confirmed_at: started,
                ..Published::default()
            },
        }
    }

    fn publish_all(&mut self) -> Result<(), BenchError> {
        while self.shared.phase() != Phase::Abandoned {
            let now = self.clock.now();
            let is_over = self.plan.count_max <= self.result.published
                || self.started + self.plan.duration_max <= now;
            if self.unsent.is_empty() && !is_over {
                self.prepare(now);
            }
            let has_sent = !self.unsent.is_empty() && self.send()?;
            if is_over && self.unsent.is_empty() && self.unconfirmed.len() == 0 {
                break;
            }
            if has_sent && !is_over && self.pace.is_none() && 0 < self.room() {
                if self.listened_at + LISTEN_AFTER < now {
                    self.listen()?;
                }
            } else {
                self.wait(now, is_over)?;
            }
        }
        Ok(())
    }

    /// How many messages may go before another confirm comes.
    fn room(&self) -> u64 {
        if self.blocked_since.is_some() {
            return 0;
        }
        let unconfirmed = self.unconfirmed.len();
        self.plan.window.map_or(u64::MAX, |it| it.saturating_sub(unconfirmed))
    }

    /// Stamps the next messages.
    fn prepare(&mut self, now: Nanos) {
        let first = self.result.published;
        let whole_batch = (self.batch.len() / self.message_len) as u64;
        let due = self.pace.map_or(u64::MAX, |it| it.due_count(now));
        let count = whole_batch
            .min(self.room())
            .min(self.plan.count_max - first)
            .min(due.saturating_sub(first));
        for (sequence, message) in
            (first..first + count).zip(self.batch.chunks_exact_mut(self.message_len))
        {
            let due_at = self.pace.map_or(now, |it| it.due_at(sequence));
            let identity = Identity { publisher: self.plan.index, sequence };
            let is_measured = self.started + self.plan.warmup <= due_at;
            let stamp = if is_measured { due_at } else { UNMEASURED };
            self.stamps.write(&mut message[self.body_at..], identity, stamp);
            if self.plan.window.is_some() {
                self.unconfirmed.push(due_at);
            }
        }
        self.unsent = 0..count as usize * self.message_len;
        self.result.published += count;
        self.shared.add_published(count);
    }

    /// Writes what the socket takes; whether that was everything.
    fn send(&mut self) -> Result<bool, BenchError> {
        while !self.unsent.is_empty() {
            match self.connection.stream.write(&self.batch[self.unsent.clone()]) {
                Ok(count) => self.unsent.start += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_end(&error) => return Err(self.connection.last_words()),
                Err(error) => return Err(error.into()),
            }
        }
        self.result.published_at = self.clock.now();
        Ok(true)
    }

    /// Sleeps until the broker says something, the socket takes more, or a message is due.
    fn wait(&mut self, now: Nanos, is_over: bool) -> Result<(), BenchError> {
        let next_due = match self.pace {
            Some(pace) if !is_over && 0 < self.room() => pace.due_at(self.result.published),
            _ => now + LOOK_AFTER,
        };
        let timeout = next_due.saturating_sub(self.clock.now()).min(LOOK_AFTER);
        let mut flags = PollFlags::IN;
        if !self.unsent.is_empty() {
            flags |= PollFlags::OUT;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout as i64 };
        let mut sockets = [PollFd::new(&self.connection.stream, flags)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let found = sockets[0].revents();
        if found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return self.listen();
        }
        let last_news = self.result.confirmed_at.max(self.result.published_at);
        let waits = 0 < self.unconfirmed.len() && self.blocked_since.is_none();
        if waits && last_news + PATIENCE.as_nanos() as Nanos <= now {
            return Err(BenchError::Silent { wanted: "confirm", seconds: PATIENCE.as_secs() });
        }
        Ok(())
    }

    /// One read, if there is something: confirms, mostly.
    fn listen(&mut self) -> Result<(), BenchError> {
        match self.connection.inbox.fill(&self.connection.stream) {
            Ok(0) => return Err(self.connection.last_words()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_end(&error) => return Err(self.connection.last_words()),
            Err(error) => return Err(error.into()),
        }
        let now = self.clock.now();
        self.listened_at = now;
        while let Some(place) = self.connection.inbox.next()? {
            if place.kind != FrameKind::Method {
                continue;
            }
            let payload = self.connection.inbox.payload(&place);
            if let Some(ack) = ack_view(payload) {
                let count = self.settle(ack.delivery_tag, ack.multiple, now);
                self.result.confirmed += count;
                self.shared.add_confirmed(count);
                continue;
            }
            if let Some(error) = closing(payload) {
                return Err(error);
            }
            match decoded(payload)? {
                Method::BasicNack { delivery_tag, multiple, .. } => {
                    self.result.rejected += self.settle(delivery_tag, multiple, now);
                }
                Method::ConnectionBlocked { .. } => self.blocked_since = Some(now),
                Method::ConnectionUnblocked {} => {
                    let since = self.blocked_since.take().unwrap_or(now);
                    self.result.blocked += now - since;
                }
                other => {
                    return Err(BenchError::Protocol(format!("{} came unasked", other.name())));
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, tag: u64, multiple: bool, now: Nanos) -> u64 {
        let measured_from = self.started + self.plan.warmup;
        let latency = &mut self.result.confirm_latency;
        self.result.confirmed_at = now;
        self.unconfirmed.settle(tag, multiple, |due_at| {
            if measured_from <= due_at {
                latency.record(now.saturating_sub(due_at));
            }
        })
    }
}
