//! Jobs come back after a restart: each from its message, and from its newest record if it has one.

use super::{Item, JobQueue, Kept, Run, Worker, changes::Cause, submission};
use crate::{
    command::Restored,
    effect::Effect,
    entry::Entry,
    job::{Fence, JobRecord, Life, Origin},
};
use model::{EntryId, LogPosition, Message, Timestamp, job::State};

/// A job that the log holds.
#[derive(Debug)]
pub struct RestoredJob<'a> {
    pub restored: Restored,
    pub message: &'a Message,
    /// Its newest record, without its result, and where that lies.
    pub record: Option<(JobRecord, LogPosition)>,
}

impl JobQueue {
    /// Puts back the next job in the order of the queue, before any command. What has been taken
    /// over by it goes.
    pub fn restore(&mut self, it: RestoredJob<'_>, now: Timestamp, effects: &mut Vec<Effect>) {
        let RestoredJob { restored, message, record } = it;
        let entry_id = self.next_entry();
        let arrived = restored.arrived;
        let asked = submission::read(entry_id, message, arrived, self.policy.ttl_ms);
        let submission::Asked { mut submission, traits, wants_id, refusal } = asked;
        let known = record.as_ref().map(|(it, _)| it);
        let is_new = known.is_none();
        if wants_id {
            let id = known.and_then(|it| it.id.clone());
            submission.application.id = id.unwrap_or_else(|| self.chance.id(arrived.0));
            submission.application.origin = Origin::Server;
        }
        let names_itself = wants_id;
        let is_unnamed = wants_id && known.is_none_or(|it| it.id.is_none());
        if let Some(it) = known {
            submission.priority = it.priority;
            submission.start_before = it.start_before;
        }
        let life = known.map_or_else(|| Self::fresh_life(&submission, arrived), life_of);
        let lease = known.and_then(|it| it.lease.clone());
        let mut entry = Entry::new(entry_id, restored.place, restored.size, arrived);
        entry.set_fleeting();
        if restored.redelivered {
            entry.set_redelivered();
        }
        let (state, since) = (life.state, life.since);
        let item = Item {
            id: submission.application.id.clone(),
            names_itself,
            entry,
            origin: restored.origin,
            traits,
            priority: submission.priority,
            start_before: submission.start_before,
            started: known.and_then(|it| it.started),
            progress: None,
            problem: known.and_then(|it| it.problem.clone()),
            result: known.and_then(|it| it.result.as_ref()).map_or(Kept::Nothing, |_| Kept::Logged),
            record: record.as_ref().map(|(_, at)| *at),
            settled: state.is_settled().then_some(since),
            is_ready: state == State::Ready,
        };
        let cancel_requested = life.cancel_requested && lease.is_none();
        let mut out = std::mem::take(&mut self.transitions);
        let lease_end = lease.as_ref().map(|it| it.end);
        let fence = self.book.restore(submission, life, lease_end, now, &mut out);
        self.transitions = out;
        self.put_item(entry_id, item);
        if let Some((lease, fence)) = lease.zip(fence) {
            let worker = Worker::Leasing { grant: None, name: lease.worker, end: lease.end };
            self.restore_run(entry_id, fence, lease.secret, worker);
        }
        self.follow(&Cause::Asked, now, effects);
        if is_unnamed {
            self.mark(entry_id, effects);
        }
        let problem = refusal.filter(|_| is_new).map(super::arrival::refused);
        if (cancel_requested && !state.is_settled()) || problem.is_some() {
            self.cancel(entry_id, problem, now, effects);
        }
    }

    fn put_item(&mut self, entry: EntryId, item: Item) {
        if item.is_ready {
            self.ready_bytes += u64::from(item.entry.body_len);
        }
        if let Some(since) = item.settled {
            self.settled.insert((since, entry));
        }
        self.items.insert(entry, item);
    }

    fn restore_run(&mut self, entry: EntryId, fence: Fence, secret: u128, worker: Worker) {
        let run = Run {
            fence,
            secret,
            worker,
            delivery: None,
            candidate: None,
            timeout_ms: None,
            overdue: None,
        };
        self.tokens.insert(secret, entry);
        self.runs.insert(entry, run);
    }
}

fn life_of(record: &JobRecord) -> Life {
    let is_left = record.state == State::Running && record.lease.is_none();
    Life {
        state: if is_left { State::Ready } else { record.state },
        generation: record.generation,
        attempt: record.attempt - u32::from(is_left && 0 < record.attempt),
        cancel_requested: record.cancel_requested,
        due: record.due,
        first_ready: record.first_ready,
        since: record.since,
        waited_ms: record.waited_ms,
        served_ms: record.served_ms,
    }
}
