//! What a shard owns and what one turn does to it: commands in, one append to the log, notices out.

use crate::{
    dead_letters,
    hand_over::{
        After, Aftermath, Dead, DeadLoad, Delete, Gone, HandOver, Load, Published, ShardCommand,
    },
    held_jobs::HeldJobs,
    mailbox::Pressure,
    occupancy::Occupancy,
    outbox::Outbox,
    pace::Pace,
    shared::Shared,
};
use engine::{Command, Effect, Enqueue, JobQueue, Place, Queue, record, record::kind};
use foldhash::HashMap;
use model::{
    EntryId, LogPosition, Notice, QueueId, Refusal, ResourceKind, SessionId, ShardId, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use stdx::seeded::{Seeded, is_sown};
use storage::{Kind, LogError};

/// Positions that one record of removals names at most, so that damage to it costs little.
const REMOVED_POSITIONS_MAX: usize = 4_096;

/// A queue and what its shard knows of it.
pub(crate) struct Held {
    pub(crate) queue: Queue,
    resident: u64,
    pace: Pace,
    wake_at: Option<Timestamp>,
    /// Dead letters of it whose bodies are being read; later ones wait behind them.
    dead_loading: u64,
    /// Where copied messages first lay: their place in the order of the queue after a restart.
    origins: BTreeMap<EntryId, LogPosition>,
}

/// Origins kept before those of messages that have gone are thrown away.
const ORIGINS_MIN: usize = 256;

impl Held {
    /// Applies a command, and tells the budget what the queue holds now.
    fn apply(
        &mut self,
        command: Command,
        shared: &Shared,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.queue.apply(command, now, effects);
        let resident = self.queue.resident_bytes();
        shared.budget.add(resident.cast_signed() - self.resident.cast_signed());
        self.resident = resident;
    }

    /// Where the message first lay, now that it is copied from `position`.
    pub(crate) fn origin(&mut self, entry: EntryId, position: LogPosition) -> LogPosition {
        if ORIGINS_MIN <= self.origins.len() && self.origins.len().is_power_of_two() {
            let queue = &self.queue;
            self.origins.retain(|it, _| queue.entry_state(*it).is_some());
        }
        *self.origins.entry(entry).or_insert(position)
    }
}

/// Everything that belongs to one shard.
pub(crate) struct State {
    pub(crate) shard: ShardId,
    /// Boxed: a table has up to twice the room that it needs, and grows beside its former self.
    pub(crate) queues: HashMap<QueueId, Box<Held>>,
    /// Queues of jobs: apart, so that plain ones are found as fast as if there were none.
    pub(crate) jobs: HashMap<QueueId, Box<HeldJobs>>,
    /// Jobs of which this turn is to write a record.
    pub(crate) job_changes: BTreeSet<(QueueId, EntryId)>,
    pub(crate) outbox: Outbox,
    pub(crate) timers: BTreeSet<(Timestamp, QueueId)>,
    /// Queues in which a session has, or had, something.
    pub(crate) presence: HashMap<SessionId, HashSet<QueueId>>,
    pub(crate) occupancy: Occupancy,
    pub(crate) spill_occupancy: Occupancy,
    /// Batches taken from the ring; empty between turns.
    pub(crate) incoming: VecDeque<HandOver>,
    pub(crate) effects: Vec<Effect>,
    removed: Vec<(QueueId, LogPosition)>,
    counted: Vec<(QueueId, LogPosition, u32, u32)>,
    pub(crate) tells: Vec<(SessionId, Notice, After)>,
    /// Sessions that settle something in this turn.
    settling: HashSet<SessionId>,
    /// The end of the log after the last turn in which a session settled something.
    settled: HashMap<SessionId, LogPosition>,
    /// Dead letters for queues of this shard.
    pub(crate) arrivals: VecDeque<Published>,
    payload: Vec<u8>,
    /// The batch fills a queue faster than its consumers empty it.
    pressure: Option<Pressure>,
}

impl State {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self {
            shard,
            queues: HashMap::default(),
            jobs: HashMap::default(),
            job_changes: BTreeSet::new(),
            outbox: Outbox::default(),
            timers: BTreeSet::new(),
            presence: HashMap::default(),
            occupancy: Occupancy::default(),
            spill_occupancy: Occupancy::default(),
            incoming: VecDeque::new(),
            effects: Vec::new(),
            removed: Vec::new(),
            counted: Vec::new(),
            tells: Vec::new(),
            settling: HashSet::new(),
            settled: HashMap::default(),
            arrivals: VecDeque::new(),
            payload: Vec::new(),
            pressure: None,
        }
    }

    /// Takes in a queue, new or restored, and where its copied messages first lay.
    pub(crate) fn insert(&mut self, queue: Queue, origins: BTreeMap<EntryId, LogPosition>) {
        let held =
            Held { queue, resident: 0, pace: Pace::new(), wake_at: None, dead_loading: 0, origins };
        self.queues.insert(held.queue.policy().queue, Box::new(held));
    }

    /// When the next timer of a queue is due.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Carries out one batch.
    pub(crate) fn take(
        &mut self,
        batch: HandOver,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        if let Some(mailbox) = &batch.mailbox {
            self.outbox.register(batch.session, mailbox);
        }
        self.pressure = None;
        for command in batch.commands {
            self.command(batch.session, command, shared, now, aftermath);
            while let Some(arrival) = self.arrivals.pop_front() {
                self.publish(batch.session, arrival, shared, now, aftermath);
            }
        }
        if let Some(mailbox) = batch.mailbox
            && let Some(pressure) = self.pressure
        {
            mailbox.press(pressure);
        }
    }

    fn command(
        &mut self,
        session: SessionId,
        command: ShardCommand,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        match command {
            ShardCommand::Publish(it) => self.publish(session, it, shared, now, aftermath),
            ShardCommand::Queue { queue, command, otherwise } => {
                self.note_presence(session, queue, &command);
                if matches!(command, Command::Settle { .. }) {
                    self.settling.insert(session);
                }
                if !self.apply(queue, command, shared, now, aftermath)
                    && let Some(notice) = otherwise
                {
                    self.outbox.push(session, *notice, None, shared.durable());
                }
            }
            ShardCommand::Job { queue, command, otherwise } => {
                self.job(session, queue, *command, otherwise, shared, now, aftermath);
            }
            ShardCommand::Create(policy) => {
                let id = policy.queue;
                match policy.jobs {
                    Some(_) => self.insert_jobs(JobQueue::new(policy, shared.key, now)),
                    None => self.insert(Queue::new(policy, now), BTreeMap::new()),
                }
                self.apply(id, Command::Touch, shared, now, aftermath);
            }
            ShardCommand::Look { queue, channel, name, after } => {
                self.apply(queue, Command::Touch, shared, now, aftermath);
                let depth = self.depth(queue).unwrap_or_default();
                let (ready, consumers) = (depth.ready, depth.consumers);
                let notice = Notice::Declared { channel, queue: name, ready, consumers };
                self.outbox.push(session, notice, after, shared.durable());
            }
            ShardCommand::Delete(it) => self.delete(session, it, shared, now, aftermath),
            ShardCommand::Tell { notice, after } => self.tells.push((session, notice, after)),
            ShardCommand::EndSession { is_orderly } => {
                self.end_session(session, is_orderly, shared, now, aftermath);
            }
            ShardCommand::DeadLetter(dead) => self.dead_letter_read(*dead, shared, now, aftermath),
            ShardCommand::Loaded { queue, messages } => {
                self.apply(queue, Command::Loaded { messages }, shared, now, aftermath);
            }
        }
    }

    fn note_presence(&mut self, session: SessionId, queue: QueueId, command: &Command) {
        if matches!(command, Command::Subscribe(_) | Command::Fetch { .. }) {
            self.presence.entry(session).or_default().insert(queue);
        }
    }

    fn publish(
        &mut self,
        session: SessionId,
        it: Published,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let mut refused = false;
        let after = it.after();
        let Published { message, place: kept, spilled, room, redelivered, queues, confirm } = it;
        let mut message = Some(message);
        for (at, queue) in queues.iter().enumerate() {
            let Some(held) = self.queues.get_mut(queue) else {
                if let Some(message) = message.clone() {
                    let enqueue = Enqueue { message, place: kept, room, redelivered };
                    self.enqueue_job(*queue, enqueue, spilled, shared, now, aftermath);
                }
                continue;
            };
            // The last one takes it, so that a message of one queue is counted once.
            let own = if at + 1 == queues.len() { message.take() } else { message.clone() };
            let Some(message) = own else { continue };
            let place = if held.queue.policy().keeps(message.persistent) { kept } else { spilled };
            match place {
                Place::Log { position, .. } => self.occupancy.arrive(position),
                Place::Spill { position } => {
                    self.spill_occupancy.arrive(position);
                    let is_consumed = 0 < held.queue.depth().consumers;
                    if is_consumed && shared.budget.is_large(held.resident) {
                        self.pressure = Some(Pressure::Memory);
                    } else if self.pressure.is_none() {
                        self.pressure = held.pace.backlog(&held.queue, now);
                    }
                }
                Place::Memory if self.pressure.is_none() => {
                    self.pressure = held.pace.backlog(&held.queue, now)
                }
                Place::Memory => {}
            }
            let enqueue = Command::Enqueue(Enqueue { message, place, room, redelivered });
            held.apply(enqueue, shared, now, &mut self.effects);
            if !self.deliver_at_once(shared) {
                refused |= self.carry_out(*queue, shared, now, aftermath);
            }
        }
        let Some((channel, number)) = confirm else { return };
        let notice = match refused {
            true => Notice::Nacked { channel, number },
            false => Notice::Confirmed { channel, first: number, last: number },
        };
        let after = if refused { None } else { after };
        self.confirm(session, notice, after, shared);
    }

    /// Most messages have one effect only, their delivery.
    #[inline]
    fn deliver_at_once(&mut self, shared: &Shared) -> bool {
        let is_delivery =
            |it: &mut Effect| matches!(it, Effect::Notify { notice: Notice::Delivery(_), .. });
        if self.effects.len() == 1
            && let Some(Effect::Notify { session, notice, after }) =
                self.effects.pop_if(is_delivery)
        {
            self.outbox.push(session, notice, after, shared.durable());
        }
        self.effects.is_empty()
    }

    /// A confirm also covers what the same session has settled before it.
    fn confirm(
        &mut self,
        session: SessionId,
        notice: Notice,
        after: Option<LogPosition>,
        shared: &Shared,
    ) {
        match after {
            Some(_) if self.settling.contains(&session) => {
                self.tells.push((session, notice, After::Turn));
            }
            Some(after) => {
                let settled = self.settled.get(&session).copied().unwrap_or_default();
                let after = Some(after.max(settled));
                self.outbox.push(session, notice, after, shared.durable());
            }
            None => self.outbox.push(session, notice, None, shared.durable()),
        }
    }

    /// Applies one command to one queue. Returns whether there is such a queue.
    pub(crate) fn apply(
        &mut self,
        queue: QueueId,
        command: Command,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) -> bool {
        let Some(held) = self.queues.get_mut(&queue) else {
            return self.apply_to_jobs(queue, command, shared, now, aftermath);
        };
        held.apply(command, shared, now, &mut self.effects);
        self.carry_out(queue, shared, now, aftermath);
        true
    }

    /// Carries out the effects of the last command. Returns whether it was refused.
    pub(crate) fn carry_out(
        &mut self,
        queue: QueueId,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) -> bool {
        let mut refused = false;
        let mut over = false;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Notify { session, notice: notice @ Notice::Purged { .. }, .. } => {
                    // It is done when the log says so: the removals follow in this turn.
                    let is_kept = self.policy(queue).is_some_and(|it| it.keeps(true));
                    let after = if is_kept { After::Turn } else { After::Position(None) };
                    self.tells.push((session, notice, after));
                }
                Effect::Notify { session, notice, after } => {
                    self.outbox.push(session, notice, after, shared.durable());
                }
                Effect::Removed { place } => self.remove(queue, place),
                Effect::Counted { position, acquired, failed } => {
                    self.counted.push((queue, position, acquired, failed));
                }
                Effect::Rejected => refused = true,
                Effect::DeadLetter { message, place, reason, redelivered } => {
                    let Some(source) = self.policy(queue).cloned() else { continue };
                    let dead = Dead { source, message, place, reason, redelivered };
                    self.dead_letter(dead, shared, now, aftermath);
                }
                Effect::Load { entries } => {
                    let load = Load::Bodies { shard: self.shard, queue, entries };
                    aftermath.loads.push(load);
                }
                Effect::WakeAt(at) => self.wake_at(queue, at),
                Effect::Unused | Effect::Expired => over = true,
                Effect::TellDurable { session, notice } => {
                    self.tells.push((session, Notice::Job(notice), After::Turn));
                }
                Effect::JobChanged { entry } => drop(self.job_changes.insert((queue, entry))),
                Effect::RecordGone { position } => self.occupancy.leave(position),
                Effect::Forward { message } => {
                    self.forward_answer(queue, message, shared, now, aftermath);
                }
                Effect::ReadResult { session, notice, position } => {
                    let shard = self.shard;
                    aftermath.loads.push(Load::Result { shard, session, notice, position });
                }
            }
        }
        self.effects = effects;
        if over {
            self.let_go(queue, shared, now, aftermath);
            aftermath.gone.push(Gone { queue, reply: None });
        }
        refused
    }

    fn remove(&mut self, queue: QueueId, place: Place) {
        match place {
            Place::Log { position, .. } => {
                self.occupancy.leave(position);
                self.removed.push((queue, position));
            }
            Place::Spill { position } => self.spill_occupancy.leave(position),
            Place::Memory => {}
        }
    }

    fn wake_at(&mut self, queue: QueueId, at: Timestamp) {
        let wake_at = match self.queues.get_mut(&queue) {
            Some(held) => &mut held.wake_at,
            None => match self.jobs.get_mut(&queue) {
                Some(held) => &mut held.wake_at,
                None => return,
            },
        };
        if let Some(before) = wake_at.replace(at) {
            self.timers.remove(&(before, queue));
        }
        self.timers.insert((at, queue));
    }

    /// Lets every queue know whose time has come.
    pub(crate) fn tick(&mut self, shared: &Shared, now: Timestamp, aftermath: &mut Aftermath) {
        while let Some((at, queue)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(held) = self.queues.get_mut(&queue) {
                held.wake_at = None;
            } else if let Some(held) = self.jobs.get_mut(&queue) {
                held.wake_at = None;
            }
            self.apply(queue, Command::Tick, shared, now, aftermath);
            while let Some(arrival) = self.arrivals.pop_front() {
                self.publish(SessionId::default(), arrival, shared, now, aftermath);
            }
        }
    }

    fn delete(
        &mut self,
        session: SessionId,
        it: Delete,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        // Expired messages are no reason to keep a queue.
        self.apply(it.queue, Command::Tick, shared, now, aftermath);
        let Some(depth) = self.depth(it.queue) else {
            if let Some(channel) = it.channel {
                let notice = Notice::Deleted { channel, messages: 0 };
                self.outbox.push(session, notice, None, shared.durable());
            }
            return;
        };
        let (name, vhost) = (it.name, it.vhost);
        let refusal = if it.if_empty && 0 < depth.ready {
            Some(Refusal::NotEmpty { name, vhost })
        } else if it.if_unused && 0 < depth.consumers {
            Some(Refusal::InUse { kind: ResourceKind::Queue, name, vhost })
        } else {
            None
        };
        match (refusal, it.channel) {
            (None, channel) => {
                self.let_go(it.queue, shared, now, aftermath);
                let reply = channel.map(|channel| (session, channel, depth.ready));
                aftermath.gone.push(Gone { queue: it.queue, reply });
            }
            (Some(refusal), Some(channel)) => {
                let refusal = refusal.into();
                let notice = Notice::Refused { channel, refusal, publish: false };
                self.outbox.push(session, notice, None, shared.durable());
            }
            (Some(_), None) => {}
        }
    }

    /// The queue ends here: consumers are told, its messages hold no segment any more. The
    /// catalog's record makes that durable.
    fn let_go(
        &mut self,
        queue: QueueId,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let Some(held) = self.queues.get_mut(&queue) else {
            return self.let_jobs_go(queue, shared, now, aftermath);
        };
        held.apply(Command::Close, shared, now, &mut self.effects);
        self.carry_out(queue, shared, now, aftermath);
        let Some(held) = self.queues.remove(&queue) else { return };
        shared.budget.add(-held.resident.cast_signed());
        if let Some(at) = held.wake_at {
            self.timers.remove(&(at, queue));
        }
        held.queue.for_each_place(|place| match place {
            Place::Log { position, .. } => self.occupancy.leave(position),
            Place::Spill { position } => self.spill_occupancy.leave(position),
            Place::Memory => {}
        });
    }

    fn end_session(
        &mut self,
        session: SessionId,
        is_orderly: bool,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        for queue in self.presence.remove(&session).unwrap_or_default() {
            let command = Command::EndSession { session, is_orderly };
            self.apply(queue, command, shared, now, aftermath);
        }
        self.outbox.forget(session);
        self.settled.remove(&session);
        self.settling.remove(&session);
    }

    fn dead_letter(
        &mut self,
        dead: Dead,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let Some(held) = self.queues.get_mut(&dead.source.queue) else {
            // A job stays where it is: this is a copy, and its body is there.
            return self.forward(&dead, shared, now, aftermath);
        };
        if dead.message.is_none() || 0 < held.dead_loading {
            held.dead_loading += 1;
            let dead = DeadLoad(Box::new(dead));
            aftermath.loads.push(Load::DeadLetter { shard: self.shard, dead });
            return;
        }
        self.forward(&dead, shared, now, aftermath);
    }

    fn dead_letter_read(
        &mut self,
        dead: Dead,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        if let Some(held) = self.queues.get_mut(&dead.source.queue) {
            held.dead_loading -= 1;
        }
        match dead.message {
            Some(_) => self.forward(&dead, shared, now, aftermath),
            // Unreadable, and reported by the reader: the queue has let it go, the log follows.
            None => self.remove(dead.source.queue, dead.place),
        }
    }

    /// The death as one record: gone from the source and arrived in every target, or neither.
    fn forward(&mut self, dead: &Dead, shared: &Shared, now: Timestamp, aftermath: &mut Aftermath) {
        let forwarded = match dead_letters::forward(dead, shared, now) {
            Ok(forwarded) => forwarded,
            Err(error) => return shared.fail(&error),
        };
        match (forwarded.record, dead.place) {
            (Some(record), Place::Log { position, .. }) => {
                self.occupancy.leave(position);
                self.occupancy.note(record.segment(), position.segment());
            }
            (_, place) => self.remove(dead.source.queue, place),
        }
        self.pass_on(forwarded.published, aftermath);
    }

    /// Gives each shard what is for its queues.
    pub(crate) fn pass_on(
        &mut self,
        published: Vec<(ShardId, Published)>,
        aftermath: &mut Aftermath,
    ) {
        for (shard, published) in published {
            match shard == self.shard {
                true => self.arrivals.push_back(published),
                false => aftermath.forwards.push((shard, published)),
            }
        }
    }

    /// Ends a turn: one append of everything that left, then the notices. Returns the newest
    /// position that somebody waits for.
    pub(crate) fn end_turn(&mut self, shared: &Shared) -> Option<LogPosition> {
        if let Err(error) = self.append(shared) {
            shared.fail(&error);
        }
        let end = LogPosition(shared.log.end().0);
        for session in self.settling.drain() {
            self.settled.insert(session, end);
        }
        for (session, notice, after) in self.tells.drain(..) {
            let after = match after {
                After::Position(after) => after,
                After::Turn => Some(end),
            };
            self.outbox.push(session, notice, after, shared.durable());
        }
        self.outbox.release(shared.durable())
    }

    fn append(&mut self, shared: &Shared) -> Result<(), LogError> {
        if self.removed.is_empty() && self.counted.is_empty() && self.job_changes.is_empty() {
            return Ok(());
        }
        if self.removed.len() % 2 == 1 && is_sown(Seeded::RemovalsApart) {
            return Ok(());
        }
        self.removed.sort_unstable();
        let mut appender = shared.log.begin()?;
        let mut positions = Vec::with_capacity(self.removed.len().min(REMOVED_POSITIONS_MAX));
        for run in self.removed.chunk_by(|one, other| one.0 == other.0) {
            for part in run.chunks(REMOVED_POSITIONS_MAX) {
                positions.clear();
                positions.extend(part.iter().map(|(_, position)| *position));
                self.payload.clear();
                record::encode_removed(run[0].0, &positions, &mut self.payload);
                let (at, _) = appender.record(Kind(kind::REMOVED), &[&self.payload])?;
                for position in &positions {
                    self.occupancy.note(at.segment().0, position.segment());
                }
            }
        }
        for (queue, position, acquired, failed) in self.counted.drain(..) {
            self.payload.clear();
            record::encode_counted(queue, position, acquired, failed, &mut self.payload);
            let (at, _) = appender.record(Kind(kind::COUNTED), &[&self.payload])?;
            self.occupancy.note(at.segment().0, position.segment());
        }
        self.removed.clear();
        drop(appender);
        if self.job_changes.is_empty() {
            return Ok(());
        }
        self.append_job_records(shared)
    }
}
