//! Messages come in and are jobs, or are the same as one that is there.

use super::{Item, JobQueue, Kept, Wait, submission};
use crate::{
    command::{Enqueue, Place},
    effect::Effect,
    entry::Entry,
    job::{Admitted, Life, Origin, Submission},
};
use model::{
    EntryId, LogPosition, Message, SessionId, Timestamp,
    job::{Admission, JobAnswer, JobNotice, JobProblem, JobRefusal, JobView, ProblemKind, State},
};
use std::sync::Arc;

use super::changes::Cause;

/// A smaller message that stays gets a buffer of its own, because it would hold on to the whole
/// read buffer it came in.
const DETACHED_BYTES_MAX: u64 = 4096;

/// What a job's new message has come to.
pub(super) enum Arrived {
    Job(EntryId),
    /// Nothing was taken in; this job is why.
    Not(Admission, EntryId),
}

impl JobQueue {
    pub(super) fn next_entry(&mut self) -> EntryId {
        self.last_entry.0 += 1;
        self.last_entry
    }

    pub(super) fn enqueue(&mut self, it: Enqueue, now: Timestamp, effects: &mut Vec<Effect>) {
        self.arrive(it, now, effects);
    }

    /// A door's job: as any other, but that it is told what became of it.
    pub(super) fn submit(
        &mut self,
        session: SessionId,
        number: u64,
        it: Enqueue,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let asked = submission::read(EntryId(0), &it.message, now, self.policy.ttl_ms);
        if let Some(refusal) = asked.refusal {
            forget(it.place, effects);
            let answer = JobAnswer::Refused(JobRefusal::Invalid(refusal));
            return tell(session, number, answer, effects);
        }
        let (admission, entry) = match self.arrive(it, now, effects) {
            Arrived::Job(entry) => (Admission::New, entry),
            Arrived::Not(admission, entry) => (admission, entry),
        };
        if let Some(view) = self.view(entry, now) {
            let answer = JobAnswer::Submitted { admission, view };
            tell(session, number, answer, effects);
        }
    }

    fn arrive(&mut self, it: Enqueue, now: Timestamp, effects: &mut Vec<Effect>) -> Arrived {
        let Enqueue { message, place, room, redelivered } = it;
        let entry_id = self.next_entry();
        let asked = submission::read(entry_id, &message, now, self.policy.ttl_ms);
        let submission::Asked { mut submission, traits, wants_id, refusal } = asked;
        if wants_id {
            submission.application.id = self.chance.id(now.0);
            submission.application.origin = Origin::Server;
        }
        let (id, priority) = (submission.application.id.clone(), submission.priority);
        let start_before = submission.start_before;
        let mut out = std::mem::take(&mut self.transitions);
        let admitted = self.book.submit(submission, now, &mut out);
        let arrived = match admitted {
            Admitted::New | Admitted::Supersedes(_) => Arrived::Job(entry_id),
            Admitted::Duplicate(it) => Arrived::Not(Admission::Duplicate, it),
            Admitted::OtherPayload(it) => Arrived::Not(Admission::Conflict, it),
            Admitted::NotUnique(it) => Arrived::Not(Admission::UniqueHolder, it),
        };
        if let Arrived::Not(..) = arrived {
            self.transitions = out;
            forget(place, effects);
            return arrived;
        }
        let body_len = message.body_len();
        let mut entry = Entry::new(entry_id, place, body_len, now);
        if redelivered {
            entry.set_redelivered();
        }
        let is_fleeting = !room && place != Place::Memory;
        if is_fleeting {
            entry.set_fleeting();
        } else {
            entry.message = Some(detached(message));
        }
        self.resident += entry.resident();
        let origin = match place {
            Place::Log { position, .. } => position,
            _ => LogPosition(0),
        };
        let item = Item {
            id,
            names_itself: wants_id,
            entry,
            origin,
            traits,
            priority,
            start_before,
            started: None,
            progress: None,
            problem: None,
            result: Kept::Nothing,
            record: None,
            settled: None,
            is_ready: false,
        };
        self.items.insert(entry_id, item);
        self.transitions = out;
        let is_told = wants_id || matches!(admitted, Admitted::Supersedes(_));
        self.follow(&Cause::Submitted { is_told }, now, effects);
        if let Some(refusal) = refusal {
            self.cancel(entry_id, Some(refused(refusal)), now, effects);
        }
        Arrived::Job(entry_id)
    }

    /// Cancels a job; `problem` says why, where it was not asked for.
    pub(super) fn cancel(
        &mut self,
        entry: EntryId,
        problem: Option<JobProblem>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let mut out = std::mem::take(&mut self.transitions);
        let done = self.book.cancel(entry, now, &mut out);
        self.transitions = out;
        if done.is_ok() {
            self.follow(&Cause::Asked, now, effects);
            if let Some(problem) = problem
                && let Some(item) = self.items.get_mut(&entry)
            {
                item.problem = Some(problem);
            }
        }
    }

    /// The life of a job that nothing has happened to since its message came.
    pub(super) fn fresh_life(submission: &Submission, arrived: Timestamp) -> Life {
        Life::submitted(false, submission.due, arrived)
    }

    pub(super) fn view(&self, entry: EntryId, now: Timestamp) -> Option<Box<JobView>> {
        let (item, life) = (self.items.get(&entry)?, self.book.life(entry)?);
        let run = self.runs.get(&entry);
        let is_settled = life.state.is_settled();
        let waiting_ms =
            if life.state == State::Ready { now.0.saturating_sub(life.since.0) } else { 0 };
        let mut view = JobView {
            vhost: self.policy.vhost.clone(),
            queue: self.policy.name.clone(),
            id: item.id.clone(),
            kind: item.traits.kind.clone(),
            key: item.traits.key.clone(),
            state: life.state,
            attempt: life.attempt,
            attempts_max: self.book.attempts_max(entry),
            generation: life.generation,
            priority: item.priority,
            created: item.entry.arrived(),
            at: life.due.filter(|_| !is_settled),
            started: item.started,
            finished: is_settled.then_some(life.since),
            expires: item.start_before,
            waited_ms: life.waited_ms.saturating_add(waiting_ms),
            served_ms: life.served_ms,
            total_ms: life.total_ms(),
            lease: run.map(|it| it.lease_view()),
            progress: item.progress.clone(),
            cancel_requested: life.cancel_requested,
            has_result: !matches!(item.result, Kept::Nothing),
            problem: item.problem.clone(),
            parents: Vec::new(),
            traceparent: item.traits.traceparent.clone(),
            tag: 0,
        };
        view.tag = super::asking::tag_of(&view);
        Some(Box::new(view))
    }

    /// Tells those who wait for the job what they wait for.
    pub(super) fn tell_waiting(
        &mut self,
        entry: EntryId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut waits) = self.waits.remove(&entry) else { return };
        let Some(view) = self.view(entry, now) else {
            for Wait { session, number, .. } in waits {
                tell(session, number, JobAnswer::Refused(JobRefusal::Forgotten), effects);
            }
            return;
        };
        waits.retain(|it| {
            let happened = it.has_happened(&view);
            if happened {
                tell(it.session, it.number, JobAnswer::Job(view.clone()), effects);
            }
            !happened
        });
        if !waits.is_empty() {
            self.waits.insert(entry, waits);
        }
    }
}

fn detached(mut message: Arc<Message>) -> Arc<Message> {
    if message.size() < DETACHED_BYTES_MAX {
        let detached = message.detached();
        match Arc::get_mut(&mut message) {
            Some(own) => *own = detached,
            None => message = Arc::new(detached),
        }
    }
    message
}

/// The message asks for what cannot be had.
pub(super) fn refused(why: String) -> JobProblem {
    JobProblem { kind: ProblemKind::Refused, detail: Some(Arc::from(why)) }
}

/// The message has left the queue for good.
pub(super) fn forget(place: Place, effects: &mut Vec<Effect>) {
    if place != Place::Memory {
        effects.push(Effect::Removed { place });
    }
}

/// Says it when all that this turn writes is durable.
pub(super) fn tell(session: SessionId, number: u64, answer: JobAnswer, effects: &mut Vec<Effect>) {
    let notice = Box::new(JobNotice { number, answer });
    effects.push(Effect::TellDurable { session, notice });
}
