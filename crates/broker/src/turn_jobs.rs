//! What a turn does for queues of jobs.

use crate::{
    dead_letters,
    hand_over::{Aftermath, ShardCommand},
    held_jobs::HeldJobs,
    restore::RestoredQueues,
    shared::Shared,
    turn::State,
};
use engine::{
    Command, Depth, Enqueue, JobCommand, JobQueue, Place,
    job::Token,
    record::{self, kind},
};
use model::{
    EntryId, LogPosition, Message, Notice, QueueId, QueuePolicy, SessionId, Timestamp,
    job::{JOB_PREFIX, JobAsk},
};
use std::sync::Arc;
use storage::{Kind, LogError, OwnedRecord, Position, ReadError};

impl State {
    /// Takes in a queue of jobs, new or restored.
    pub(crate) fn insert_jobs(&mut self, queue: JobQueue) {
        self.jobs.insert(queue.policy().queue, Box::new(HeldJobs::new(queue)));
    }

    /// Puts the jobs of a queue back. What follows is carried out by the first turn.
    pub(crate) fn restore_jobs(
        &mut self,
        policy: &Arc<QueuePolicy>,
        restored: &mut RestoredQueues,
        shared: &Shared,
        now: Timestamp,
    ) {
        let id = policy.queue;
        let mut queue = JobQueue::new(Arc::clone(policy), shared.key, now);
        let read = |positions: &[LogPosition]| {
            let positions: Vec<_> = positions.iter().map(|it| Position(it.0)).collect();
            let mut read = Vec::with_capacity(positions.len());
            shared.log.read_many(&positions, &mut read);
            let message = |found: Result<OwnedRecord, ReadError>| {
                let found = found.map_err(|it| it.to_string())?;
                let (_, message) =
                    record::message_of(&found.payload).map_err(|it| it.to_string())?;
                Ok(message)
            };
            read.into_iter().map(message).collect()
        };
        let occupancy = &mut self.occupancy;
        let arrive = |position: LogPosition| occupancy.arrive_again(position.segment(), 1);
        let effects = restored.fill_jobs(&mut queue, now, &read, arrive);
        self.insert_jobs(queue);
        self.effects = effects;
        let mut aftermath = Aftermath::default();
        self.carry_out_jobs(id, shared, now, &mut aftermath);
        debug_assert!(aftermath.is_empty(), "jobs that are put back ask for nothing");
    }

    /// The rules of a queue of either kind.
    pub(crate) fn policy(&self, queue: QueueId) -> Option<&Arc<QueuePolicy>> {
        let jobs = || self.jobs.get(&queue).map(|it| it.queue.policy());
        self.queues.get(&queue).map(|it| it.queue.policy()).or_else(jobs)
    }

    pub(crate) fn depth(&self, queue: QueueId) -> Option<Depth> {
        let jobs = || self.jobs.get(&queue).map(|it| it.queue.depth());
        self.queues.get(&queue).map(|it| it.queue.depth()).or_else(jobs)
    }

    /// A message has come to a queue of jobs. `enqueue.place` is for one that keeps it.
    #[inline(never)]
    pub(crate) fn enqueue_job(
        &mut self,
        queue: QueueId,
        mut enqueue: Enqueue,
        spilled: Place,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let Some(held) = self.jobs.get_mut(&queue) else { return };
        if !held.queue.policy().keeps(enqueue.message.persistent) {
            enqueue.place = spilled;
        }
        let place = enqueue.place;
        held.apply(Command::Enqueue(enqueue), shared, now, &mut self.effects);
        self.arrive(place);
        self.carry_out_jobs(queue, shared, now, aftermath);
    }

    fn arrive(&mut self, place: Place) {
        match place {
            Place::Log { position, .. } => self.occupancy.arrive(position),
            Place::Spill { position } => self.spill_occupancy.arrive(position),
            Place::Memory => {}
        }
    }

    /// Applies a command that plain queues know too. Returns whether there is such a queue.
    #[inline(never)]
    pub(crate) fn apply_to_jobs(
        &mut self,
        queue: QueueId,
        command: Command,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) -> bool {
        let Some(held) = self.jobs.get_mut(&queue) else { return false };
        held.apply(command, shared, now, &mut self.effects);
        self.carry_out_jobs(queue, shared, now, aftermath);
        true
    }

    /// Carries out what only a queue of jobs is told.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what every command has, and its own")]
    pub(crate) fn job(
        &mut self,
        session: SessionId,
        queue: QueueId,
        command: JobCommand,
        otherwise: Option<Box<Notice>>,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let Some(held) = self.jobs.get_mut(&queue) else {
            if let Some(notice) = otherwise {
                self.outbox.push(session, *notice, None, shared.durable());
            }
            return;
        };
        let waits = |it: &JobCommand| match it {
            JobCommand::Ask { ask, .. } => {
                matches!(ask, JobAsk::Wait { .. } | JobAsk::Lease { .. })
            }
            _ => false,
        };
        if waits(&command) {
            self.presence.entry(session).or_default().insert(queue);
        }
        let place = match &command {
            JobCommand::Submit { enqueue, .. } => enqueue.place,
            _ => Place::Memory,
        };
        held.ask(command, shared, now, &mut self.effects);
        self.arrive(place);
        self.carry_out_jobs(queue, shared, now, aftermath);
    }

    // One caller more, so that the way of plain queues stays in one piece.
    #[inline(never)]
    fn carry_out_jobs(
        &mut self,
        queue: QueueId,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        self.carry_out(queue, shared, now, aftermath);
    }

    /// A copy of a worker's answer goes where the submitter wants it: to the session that asks, to
    /// another attempt, or to a queue.
    #[inline(never)]
    pub(crate) fn forward_answer(
        &mut self,
        queue: QueueId,
        message: Arc<Message>,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        if let Some(requester) = shared.replies.requester(message.routing_key()) {
            return requester.reply(message);
        }
        if let Some(text) = message.routing_key().strip_prefix(JOB_PREFIX) {
            if let Some(Token { shard, queue, secret }) = Token::parse(text) {
                let command = Box::new(JobCommand::Answer { secret, message });
                let command = ShardCommand::Job { queue, command, otherwise: None };
                aftermath.commands.push((shard, command));
            }
            return;
        }
        let Some(vhost) = self.policy(queue).map(|it| it.vhost.clone()) else { return };
        match dead_letters::send(&message, &vhost, shared, now) {
            Ok(published) => self.pass_on(published, aftermath),
            Err(error) => shared.fail(&error),
        }
    }

    /// The queue ends here, as a plain one does.
    #[inline(never)]
    pub(crate) fn let_jobs_go(
        &mut self,
        queue: QueueId,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        let Some(held) = self.jobs.get_mut(&queue) else { return };
        held.apply(Command::Close, shared, now, &mut self.effects);
        self.carry_out_jobs(queue, shared, now, aftermath);
        let Some(mut held) = self.jobs.remove(&queue) else { return };
        held.leave_budget(shared);
        if let Some(at) = held.wake_at {
            self.timers.remove(&(at, queue));
        }
        held.queue.for_each_record(|it| self.occupancy.leave(it));
        held.queue.for_each_place(|place| match place {
            Place::Log { position, .. } => self.occupancy.leave(position),
            Place::Spill { position } => self.spill_occupancy.leave(position),
            Place::Memory => {}
        });
    }

    /// Writes the state of every job that has changed in this turn.
    #[inline(never)]
    pub(crate) fn append_job_records(&mut self, shared: &Shared) -> Result<(), LogError> {
        let mut payload = Vec::new();
        let mut appender = shared.log.begin()?;
        for (queue, entry) in std::mem::take(&mut self.job_changes) {
            let Some(held) = self.jobs.get_mut(&queue) else { continue };
            payload.clear();
            if !held.queue.record(entry, &mut payload) {
                continue;
            }
            let (at, _) = appender.record(Kind(kind::JOB), &[&payload])?;
            let at = LogPosition(at.0);
            self.occupancy.arrive(at);
            if let Some(before) = held.queue.recorded(entry, at) {
                self.occupancy.leave(before);
            }
            held.tell_budget(shared);
        }
        Ok(())
    }

    /// Writes the newest record of a job again, unless it is not the newest any more.
    pub(crate) fn move_job_record(
        &mut self,
        queue: QueueId,
        entry: EntryId,
        from: LogPosition,
        payload: &[u8],
        shared: &Shared,
    ) -> Result<(), LogError> {
        let Some(held) = self.jobs.get_mut(&queue) else { return Ok(()) };
        if held.queue.record_of(entry) != Some(from) {
            return Ok(());
        }
        let (at, _) = shared.log.begin()?.record(Kind(kind::JOB), &[payload])?;
        let at = LogPosition(at.0);
        self.occupancy.arrive(at);
        self.occupancy.leave(from);
        held.queue.recorded(entry, at);
        Ok(())
    }
}
