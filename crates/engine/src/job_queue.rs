//! A queue of jobs: another machine behind the same commands. Each message is a job that is kept
//! until its time is over; a worker is a consumer, a fetch or a lease; what it answers is kept with
//! the job.
//!
//! `submission` reads what a message asks for, `arrival` takes it in, `delivery` hands jobs out,
//! `settlement` ends attempts, `changes` does what follows from them, `asking` answers doors,
//! `consuming` keeps the consumers, `restoring` puts jobs back.

mod submission;
mod arrival;
mod delivery;
mod settlement;
mod changes;
mod asking;
mod consuming;
mod restoring;

pub use restoring::RestoredJob;

use crate::{
    command::{Command, Enqueue, Place},
    consumers::Consumers,
    effect::{DeathReason, Effect},
    entry::Entry,
    job::{Book, Chance, Fence, Transition},
    queue::{Depth, EntryState},
};
use model::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, Message, Name, QueuePolicy, SessionId,
    Timestamp,
    job::{JobAsk, JobProblem, JobResult, JobRules, Progress, Until},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};
use submission::Traits;

/// Never.
const END_OF_TIME: Timestamp = Timestamp(u64::MAX);
/// Jobs that are given out, or whose bodies are read, at a time.
const STARTING_MAX: usize = 512;
/// Jobs that one look at the clock deals with.
const PASS_MAX: usize = 1_024;
/// Settled jobs that are kept at most; the oldest ones are forgotten before their time.
const SETTLED_MAX: usize = 100_000;
/// Tokens of attempts that have ended whose late answers are still passed on.
const LATE_MAX: usize = 10_000;

/// What only a queue of jobs can be told.
#[derive(Clone, Debug)]
pub enum JobCommand {
    /// A door submits a job.
    Submit { session: SessionId, number: u64, enqueue: Enqueue },
    /// A door asks; not `Submit`.
    Ask { session: SessionId, number: u64, ask: JobAsk },
    /// Somebody has published this to the address of an attempt.
    Answer { secret: u128, message: Arc<Message> },
}

/// The result of a job.
#[derive(Debug)]
enum Kept {
    Nothing,
    /// Here, and in the record that is still to be written.
    Here(JobResult),
    /// In the newest record of the job.
    Logged,
}

/// A job as the queue keeps it beside the book.
#[derive(Debug)]
struct Item {
    id: Name,
    /// The id stands in no message: records name it.
    names_itself: bool,
    entry: Entry,
    /// The position under which the message first arrived.
    origin: LogPosition,
    traits: Traits,
    priority: u8,
    start_before: Option<Timestamp>,
    started: Option<Timestamp>,
    progress: Option<Progress>,
    problem: Option<JobProblem>,
    result: Kept,
    /// Where its newest record lies.
    record: Option<LogPosition>,
    settled: Option<Timestamp>,
    is_ready: bool,
}

/// Who works on a job.
#[derive(Clone, Debug)]
enum Worker {
    /// A consumer, or the fetch of a channel (number 0).
    Connected {
        session: SessionId,
        consumer: ConsumerNumber,
        automatic: bool,
    },
    Leasing {
        grant: Option<(SessionId, u64)>,
        name: Name,
        end: Timestamp,
    },
}

/// Who is to get a job that has been taken and not handed out yet.
#[derive(Clone, Copy, Debug)]
enum Seeker {
    Consumer,
    Fetch { channel: ChannelId },
    Lease,
}

/// One attempt.
#[derive(Debug)]
struct Run {
    fence: Fence,
    secret: u128,
    worker: Worker,
    /// The number of its delivery.
    delivery: Option<EntryId>,
    candidate: Option<Arc<Message>>,
    /// The delivery may take so long without a sign of life, and past this it has.
    timeout_ms: Option<u64>,
    overdue: Option<Timestamp>,
}

/// A delivery that its session has not settled.
#[derive(Clone, Copy, Debug)]
struct Held {
    session: SessionId,
    consumer: ConsumerNumber,
    job: EntryId,
}

/// Somebody asks for one job.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    session: SessionId,
    channel: ChannelId,
    automatic: bool,
}

#[derive(Clone, Debug)]
struct LeaseWait {
    session: SessionId,
    number: u64,
    worker: Name,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    session: SessionId,
    number: u64,
    until: Until,
}

/// Where answers go that come after their attempt has ended.
#[derive(Clone, Debug)]
struct Late {
    reply_to: Name,
    correlation_id: Option<Name>,
}

/// A queue of jobs and the workers it serves.
#[derive(Debug)]
pub struct JobQueue {
    policy: Arc<QueuePolicy>,
    book: Book,
    items: BTreeMap<EntryId, Item>,
    runs: HashMap<EntryId, Run>,
    /// Live tokens.
    tokens: HashMap<u128, EntryId>,
    late: HashMap<u128, Late>,
    late_order: VecDeque<u128>,
    consumers: Consumers,
    /// By number of delivery.
    held: BTreeMap<EntryId, Held>,
    held_by: BTreeSet<(SessionId, ConsumerNumber, EntryId)>,
    fetches: VecDeque<Fetch>,
    leases: VecDeque<LeaseWait>,
    waits: HashMap<EntryId, Vec<Wait>>,
    /// Taken and not handed out yet, in order: the body of the first is on its way.
    starting: VecDeque<(EntryId, Seeker)>,
    loading: Vec<(EntryId, Place)>,
    /// Dead letters that wait for their bodies.
    letters: BTreeMap<EntryId, DeathReason>,
    overdue: BTreeSet<(Timestamp, EntryId)>,
    settled: BTreeSet<(Timestamp, EntryId)>,
    chance: Chance,
    last_entry: EntryId,
    resident: u64,
    ready_bytes: u64,
    /// No job may start before.
    limited_until: Option<Timestamp>,
    /// There may be more that is due already.
    is_late: bool,
    used: Timestamp,
    is_lease_over: bool,
    wake_at: Option<Timestamp>,
    transitions: Vec<Transition>,
}

fn rules(policy: &QueuePolicy) -> JobRules {
    policy.jobs.as_deref().cloned().unwrap_or_default()
}

impl JobQueue {
    /// An empty queue. `key`: secret, and another one in every process.
    pub fn new(policy: Arc<QueuePolicy>, key: [u64; 2], now: Timestamp) -> Self {
        Self {
            book: Book::new(rules(&policy)),
            items: BTreeMap::new(),
            runs: HashMap::new(),
            tokens: HashMap::new(),
            late: HashMap::new(),
            late_order: VecDeque::new(),
            consumers: Consumers::new(policy.single_active_consumer, policy.keeps_all),
            held: BTreeMap::new(),
            held_by: BTreeSet::new(),
            fetches: VecDeque::new(),
            leases: VecDeque::new(),
            waits: HashMap::new(),
            starting: VecDeque::new(),
            loading: Vec::new(),
            letters: BTreeMap::new(),
            overdue: BTreeSet::new(),
            settled: BTreeSet::new(),
            chance: Chance::new(key, policy.queue),
            last_entry: EntryId(0),
            resident: 0,
            ready_bytes: 0,
            limited_until: None,
            is_late: false,
            used: now,
            is_lease_over: false,
            wake_at: None,
            transitions: Vec::new(),
            policy,
        }
    }

    /// Carries out one command and appends what follows from it to `effects`, in order.
    pub fn apply(&mut self, command: Command, now: Timestamp, effects: &mut Vec<Effect>) {
        self.pass_time(now, effects);
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
                self.used = now;
                self.fetches.push_back(Fetch { session, channel, automatic });
            }
            Command::Purge { session, channel } => self.purge(session, channel, now, effects),
            Command::Loaded { messages } => self.loaded(messages, now, effects),
            Command::Moved { entry, from, to } => self.moved(entry, from, to),
            Command::Configure(policy) => self.configure(policy, now),
            Command::Touch => self.used = now,
            Command::Tick => self.wake_at = None,
            Command::EndSession { session, is_orderly } => {
                self.end_session(session, is_orderly, now, effects);
            }
            Command::Close => self.close(effects),
        }
        self.come_to_rest(now, effects);
    }

    /// The same for what only a queue of jobs is told.
    pub fn ask(&mut self, command: JobCommand, now: Timestamp, effects: &mut Vec<Effect>) {
        self.pass_time(now, effects);
        match command {
            JobCommand::Submit { session, number, enqueue } => {
                self.submit(session, number, enqueue, now, effects);
            }
            JobCommand::Ask { session, number, ask } => {
                self.answer(session, number, ask, now, effects);
            }
            JobCommand::Answer { secret, message } => {
                self.on_answer(secret, message, now, effects);
            }
        }
        self.come_to_rest(now, effects);
    }

    fn come_to_rest(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.serve(now, effects);
        if self.lease_end().is_some_and(|it| it <= now) {
            self.is_lease_over = true;
            effects.push(Effect::Expired);
        }
        self.wish_tick(now, effects);
    }

    pub fn policy(&self) -> &Arc<QueuePolicy> {
        &self.policy
    }

    pub fn depth(&self) -> Depth {
        let (ready, running) = self.book.counts();
        let pending = self.items.len() - self.settled.len();
        Depth {
            ready: ready as u64,
            ready_bytes: self.ready_bytes,
            unsettled: running,
            delayed: (pending as u64).saturating_sub(ready as u64 + running),
            consumers: self.consumers.len() as u64,
        }
    }

    /// Octets that its jobs hold in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.resident
    }

    /// Appends every message of the queue that lies in this segment of the log.
    pub fn entries_in(&self, segment: u32, out: &mut Vec<(EntryId, Place)>) {
        let there = self.items.iter().filter(|(_, it)| it.entry.segment() == Some(segment));
        out.extend(there.map(|(id, it)| (*id, it.entry.place())));
    }

    /// Appends every job whose newest record lies in this segment, and where.
    pub fn records_in(&self, segment: u32, out: &mut Vec<(EntryId, LogPosition)>) {
        let found = self.items.iter().filter_map(|(id, it)| Some((*id, it.record?)));
        out.extend(found.filter(|(_, it)| it.segment() == segment));
    }

    /// Calls `visit` with the place of every message of the queue.
    pub fn for_each_place(&self, mut visit: impl FnMut(Place)) {
        self.items.values().for_each(|it| visit(it.entry.place()));
    }

    /// Calls `visit` with the place of the newest record of every job that has one.
    pub fn for_each_record(&self, visit: impl FnMut(LogPosition)) {
        self.items.values().filter_map(|it| it.record).for_each(visit);
    }

    /// The positions of messages that survive a restart and were delivered before.
    pub fn redelivered_positions(&self) -> Vec<LogPosition> {
        let delivered = self.items.values().filter(|it| it.entry.is_redelivered());
        delivered.filter_map(|it| it.entry.kept_at()).collect()
    }

    /// Where the newest record of the job lies.
    pub fn record_of(&self, entry: EntryId) -> Option<LogPosition> {
        self.items.get(&entry)?.record
    }

    /// The position under which the message first arrived.
    pub fn origin(&self, entry: EntryId) -> Option<LogPosition> {
        self.items.get(&entry).map(|it| it.origin)
    }

    /// What is known of a message.
    pub fn entry_state(&self, id: EntryId) -> Option<EntryState> {
        self.items.get(&id).map(|it| EntryState {
            place: it.entry.place(),
            arrived: it.entry.arrived(),
            redelivered: it.entry.is_redelivered(),
            acquired: 0,
            failed: 0,
        })
    }

    fn moved(&mut self, id: EntryId, from: LogPosition, to: Place) {
        if let Some(item) = self.items.get_mut(&id)
            && item.entry.kept_at() == Some(from)
        {
            item.entry.set_place(to);
        }
    }

    fn configure(&mut self, policy: Arc<QueuePolicy>, now: Timestamp) {
        self.policy = policy;
        self.book.configure(rules(&self.policy));
        self.is_lease_over = false;
        self.used = now;
        self.is_late = true;
    }

    fn lease_end(&self) -> Option<Timestamp> {
        let expires_ms = self.policy.expires_ms?;
        let is_unused = self.consumers.len() == 0 && self.leases.is_empty() && !self.is_lease_over;
        is_unused.then(|| self.used.plus_ms(expires_ms))
    }

    fn next_due(&self) -> Timestamp {
        let overdue = self.overdue.first().map(|(at, _)| *at);
        let due = [self.book.due(), overdue, self.limited_until].into_iter().flatten().min();
        due.unwrap_or(END_OF_TIME)
    }

    fn wish_tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut due = self.next_due().min(self.lease_end().unwrap_or(END_OF_TIME));
        if self.is_late {
            due = now;
        }
        if due < self.wake_at.unwrap_or(END_OF_TIME) {
            self.wake_at = Some(due);
            effects.push(Effect::WakeAt(due));
        }
    }
}
