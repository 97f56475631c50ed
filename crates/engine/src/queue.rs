//! One queue: what each command means. After every command the queue comes to rest: nothing expired
//! stands at a head, nobody waits for a message that could be had, and no limit is passed.
//!
//! `arrival` takes messages in, `delivery` hands them out, `settlement` takes them back,
//! `subscription` keeps the consumers, `time` does what is due.

mod arrival;
mod delivery;
mod restoring;
mod settlement;
mod subscription;
mod time;

pub use restoring::Restoring;

use crate::{
    command::{Command, Place},
    consumers::Consumers,
    delayed::Delayed,
    effect::{DeathReason, Effect},
    entry::{Entry, Item},
    ready::Ready,
    seldom::Seldom,
    unsettled::Unsettled,
};
use delivery::Fetch;
use model::{
    ChannelId, EntryId, LogPosition, Notice, QueuePolicy, SessionId, Timestamp,
    policy::{DelayedRetry, Priorities},
};
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

/// Never.
const END_OF_TIME: Timestamp = Timestamp(u64::MAX);

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait.
    pub ready: u64,
    /// Octets of their bodies.
    pub ready_bytes: u64,
    /// Messages that are delivered and not settled.
    pub unsettled: u64,
    /// Messages that came back and rest before they are ready again.
    pub delayed: u64,
    pub consumers: u64,
}

/// What a moved copy of a message must carry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    pub place: Place,
    pub arrived: Timestamp,
    pub redelivered: bool,
    pub acquired: u32,
    pub failed: u32,
}

/// A queue of messages and the consumers it serves.
#[derive(Debug)]
pub struct Queue {
    policy: Arc<QueuePolicy>,
    ready: Ready,
    unsettled: Seldom<Unsettled>,
    delayed: Seldom<Delayed>,
    consumers: Seldom<Consumers>,
    /// Fetches that wait for a body from the disk, first come first served.
    fetches: VecDeque<Fetch>,
    last_entry: EntryId,
    /// The bodies asked for and not here yet.
    loading: Vec<(EntryId, Place)>,
    /// How many were asked for last.
    loaded_last: usize,
    /// Nothing at a head expires before this time.
    expiry_due: Timestamp,
    /// No delivery is overdue before this time.
    overdue_due: Timestamp,
    /// When the queue was last in use, for its lease.
    used: Timestamp,
    is_lease_over: bool,
    /// The last wish for a tick that was not fulfilled yet.
    wake_at: Option<Timestamp>,
}

impl Queue {
    /// An empty queue.
    pub fn new(policy: impl Into<Arc<QueuePolicy>>, now: Timestamp) -> Self {
        let policy = policy.into();
        Self {
            ready: Ready::new(policy.order),
            unsettled: Seldom::NONE,
            delayed: Seldom::NONE,
            consumers: Seldom::NONE,
            fetches: VecDeque::new(),
            last_entry: EntryId(0),
            loading: Vec::new(),
            loaded_last: 0,
            expiry_due: END_OF_TIME,
            overdue_due: END_OF_TIME,
            used: now,
            is_lease_over: false,
            wake_at: None,
            policy,
        }
    }

    /// Carries out one command and appends what follows from it to `effects`, in order. Time that
    /// has passed since the last command takes effect first. `now` never goes back.
    pub fn apply(&mut self, command: Command, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.next_due() <= now {
            self.pass_time(now, effects);
        }
        match command {
            Command::Enqueue(it) => self.enqueue(it, now, effects),
            Command::Subscribe(it) => self.subscribe(it, now, effects),
            Command::Unsubscribe { session, channel, consumer } => {
                self.unsubscribe(session, channel, consumer, now, effects);
            }
            Command::Credit { session, consumer, bytes } => {
                self.change(session, consumer, |it, slot| it.add_credit(slot, bytes));
            }
            Command::Prefetch { session, consumer, prefetch } => {
                self.change(session, consumer, |it, slot| it.set_prefetch(slot, prefetch));
            }
            Command::Resume { session, consumer } => {
                self.change(session, consumer, |it, slot| it.resume(slot));
            }
            Command::Settle { session, entries, outcome, .. } => {
                self.settle(session, &entries, outcome, now, effects);
            }
            Command::Fetch { session, channel, automatic } => {
                self.fetch(Fetch { session, channel, automatic }, now, effects);
            }
            Command::Purge { session, channel } => self.purge(session, channel, effects),
            Command::Loaded { messages } => self.loaded(messages, effects),
            Command::Moved { entry, from, to } => self.moved(entry, from, to),
            Command::Configure(policy) => self.configure(policy, now, effects),
            Command::Touch => self.used = now,
            Command::Tick => self.wake_at = None,
            Command::EndSession { session, .. } => self.end_session(session, now, effects),
            Command::Close => self.close(effects),
        }
        self.come_to_rest(now, effects);
        self.end_lease(now, effects);
        self.wish_tick(effects);
    }

    pub fn policy(&self) -> &Arc<QueuePolicy> {
        &self.policy
    }

    pub fn depth(&self) -> Depth {
        Depth {
            ready: self.ready.len(),
            ready_bytes: self.ready.bytes(),
            unsettled: self.unsettled.len(),
            delayed: self.delayed.len(),
            consumers: self.consumers.len() as u64,
        }
    }

    /// Octets of the messages that this queue holds in memory, waiting or unsettled.
    pub fn resident_bytes(&self) -> u64 {
        let unsettled = self.unsettled.look().map_or(0, Unsettled::resident);
        let delayed = self.delayed.look().map_or(0, Delayed::resident);
        self.ready.resident() + unsettled + delayed
    }

    /// Octets of the messages that wait in memory.
    pub fn waiting_bytes(&self) -> u64 {
        self.ready.resident()
    }

    /// Messages that have come since the queue was made or restored.
    pub fn arrivals(&self) -> u64 {
        self.last_entry.0
    }

    fn visit(&self, mut visit: impl FnMut(&Entry)) {
        self.ready.visit(|it| {
            visit(it);
            ControlFlow::Continue(())
        });
        let delayed = self.delayed.iter().map(|it| &it.entry);
        self.unsettled.iter().chain(delayed).for_each(visit);
    }

    /// Appends every message of the queue that lies in this segment of the log, in no order.
    pub fn entries_in(&self, segment: u32, out: &mut Vec<(EntryId, Place)>) {
        let delayed = self.delayed.iter().map(|it| &it.entry);
        let rest = self.unsettled.iter().chain(delayed);
        let rest = rest.filter(|it| it.segment() == Some(segment));
        out.extend(rest.map(|it| (it.id, it.place())));
        self.ready.visit_segment(segment, |it| out.push((it.id, it.place())));
    }

    /// Calls `visit` with the place of every message of the queue, in no order.
    pub fn for_each_place(&self, mut visit: impl FnMut(Place)) {
        self.visit(|it| visit(it.place()));
    }

    /// The positions of messages that survive a restart and were delivered before: what a clean
    /// stop writes down.
    pub fn redelivered_positions(&self) -> Vec<LogPosition> {
        let mut positions = Vec::new();
        self.visit(|it| positions.extend(it.kept_at().filter(|_| it.is_redelivered())));
        positions
    }

    /// What is known of a message, ready or not.
    pub fn entry_state(&self, id: EntryId) -> Option<EntryState> {
        let state = |entry: &Entry, (acquired, failed)| EntryState {
            place: entry.place(),
            arrived: entry.arrived(),
            redelivered: entry.is_redelivered(),
            acquired,
            failed,
        };
        let outside = self.unsettled.get(id).or_else(|| self.delayed.get(id));
        match outside {
            Some(item) => Some(state(&item.entry, (item.acquired, item.failed))),
            None => self.ready.look(id, state),
        }
    }

    /// The consumers, to change them.
    #[inline]
    fn consumers_mut(&mut self) -> &mut Consumers {
        let policy = &self.policy;
        self.consumers.made(|| Consumers::new(policy.single_active_consumer, policy.keeps_all))
    }

    /// The unsettled messages, to change them.
    #[inline]
    fn unsettled_mut(&mut self) -> &mut Unsettled {
        self.unsettled.made(Unsettled::new)
    }

    #[inline]
    fn come_to_rest(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let is_resting = self.ready.len() == 0 && self.fetches.is_empty();
        if !is_resting || self.expiry_due <= now {
            self.come_to_rest_by_steps(now, effects);
        }
    }

    fn come_to_rest_by_steps(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        loop {
            self.expire(now, effects);
            self.deliver(now, effects);
            let has_dropped = self.drop_excess(effects);
            if !has_dropped && now < self.expiry_due {
                return;
            }
        }
    }

    #[inline]
    fn level(&self, priority: Option<u8>) -> u8 {
        const QUORUM_ABSENT: u8 = 4;
        const QUORUM_MAX: u8 = 31;
        match self.policy.priorities {
            Priorities::None => 0,
            Priorities::UpTo(max) => priority.unwrap_or(0).min(max),
            Priorities::Quorum => priority.unwrap_or(QUORUM_ABSENT).min(QUORUM_MAX),
        }
    }

    /// Counters are kept where somebody looks at them.
    fn counts(&self) -> bool {
        self.policy.counts_deliveries
            || self.policy.delivery_limit.is_some()
            || self.policy.delayed_retry != DelayedRetry::Disabled
    }

    /// The message has left the queue for good.
    fn forget(place: Place, effects: &mut Vec<Effect>) {
        if place != Place::Memory {
            effects.push(Effect::Removed { place });
        }
    }

    /// The message leaves the queue for where dead ones go.
    fn bury(&self, item: Item, reason: DeathReason, redelivered: bool, effects: &mut Vec<Effect>) {
        let place = item.entry.place();
        if self.policy.dead_letter.is_none() {
            return Self::forget(place, effects);
        }
        let message = item.entry.message;
        effects.push(Effect::DeadLetter { message, place, reason, redelivered });
    }

    fn purge(&mut self, session: SessionId, channel: ChannelId, effects: &mut Vec<Effect>) {
        let messages = self.ready.len();
        while let Some(item) = self.ready.pop_next() {
            Self::forget(item.entry.place(), effects);
        }
        let notice = Notice::Purged { channel, messages };
        effects.push(Effect::Notify { session, notice, after: None });
    }

    #[inline(never)]
    fn moved(&mut self, id: EntryId, from: LogPosition, to: Place) {
        let known = self.entry_state(id);
        let is_there =
            |it: EntryState| matches!(it.place, Place::Log { position, .. } if position == from);
        if known.is_some_and(is_there) {
            self.ready.relocate(id, to);
            self.unsettled.there().into_iter().for_each(|it| it.relocate(id, to));
            self.delayed.there().into_iter().for_each(|it| it.relocate(id, to));
        }
    }

    fn configure(&mut self, policy: Arc<QueuePolicy>, now: Timestamp, effects: &mut Vec<Effect>) {
        self.policy = policy;
        // What is due may have changed: look at everything once.
        self.expiry_due = Timestamp(0);
        self.overdue_due = Timestamp(0);
        self.is_lease_over = false;
        self.pass_time(now, effects);
    }
}
