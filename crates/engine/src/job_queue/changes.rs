//! What follows from what happens to jobs: records, dead letters, news for those who wait, and the
//! end of what an attempt held.

use super::{
    Item, JobQueue, Kept, LATE_MAX, Late, PASS_MAX, Run, SETTLED_MAX, Worker, arrival::forget,
};
use crate::{
    command::Place,
    effect::{DeathReason, Effect},
    job::{JobRecord, LeaseRecord, Transition},
};
use model::{
    EntryId, LogPosition, Timestamp,
    job::{JobProblem, JobResult, ProblemKind, State},
};
use std::sync::Arc;

/// Why jobs change.
#[derive(Debug)]
pub(super) enum Cause {
    /// `is_told`: only a record tells the id, or the generation.
    Submitted {
        is_told: bool,
    },
    Started {
        is_leased: bool,
    },
    /// The worker is done.
    Fulfilled(Option<JobResult>),
    /// The worker failed, or will never do it (`is_final`).
    Rejected {
        is_final: bool,
        result: Option<JobResult>,
        detail: Option<Arc<str>>,
    },
    Lost,
    /// The worker gave it back.
    Released {
        was_leased: bool,
    },
    /// Somebody asked for it.
    Asked,
    /// Its time has come.
    Time,
}

impl JobQueue {
    /// Does what is due.
    pub(super) fn pass_time(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.limited_until.is_some_and(|it| it <= now) {
            self.limited_until = None;
        }
        if now < self.next_due() && !self.is_late {
            return;
        }
        while let Some((at, entry)) = self.overdue.first().copied()
            && at <= now
        {
            self.overdue.remove(&(at, entry));
            self.end_lost(entry, now, effects);
        }
        let chance = self.chance.number();
        let mut out = std::mem::take(&mut self.transitions);
        self.is_late = self.book.pass((now, chance), PASS_MAX, &mut out);
        self.transitions = out;
        self.follow(&Cause::Time, now, effects);
    }

    /// Does what follows from the transitions that the book has made.
    pub(super) fn follow(&mut self, cause: &Cause, now: Timestamp, effects: &mut Vec<Effect>) {
        let transitions = std::mem::take(&mut self.transitions);
        for it in &transitions {
            self.follow_one(it, cause, now, effects);
        }
        if self.transitions.is_empty() {
            self.transitions = transitions;
            self.transitions.clear();
        }
        while SETTLED_MAX < self.settled.len()
            && let Some((_, oldest)) = self.settled.first().copied()
        {
            let mut out = std::mem::take(&mut self.transitions);
            self.book.forget(oldest, now, &mut out);
            for it in out.drain(..) {
                self.follow_one(&it, &Cause::Time, now, effects);
            }
            self.transitions = out;
        }
    }

    fn follow_one(
        &mut self,
        it: &Transition,
        cause: &Cause,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let entry = it.entry;
        let Some(to) = it.to else { return self.drop_item(entry, now, effects) };
        let was_leased = self.runs.get(&entry).is_some_and(Run::is_leased);
        if to != State::Running {
            let is_settled = to.is_settled();
            self.end_run(entry, is_settled);
        }
        let Some(item) = self.items.get_mut(&entry) else { return };
        // It belongs to the attempt.
        item.progress = None;
        let is_ready = to == State::Ready;
        if std::mem::replace(&mut item.is_ready, is_ready) != is_ready {
            let bytes = u64::from(item.entry.body_len);
            self.ready_bytes = match is_ready {
                true => self.ready_bytes + bytes,
                false => self.ready_bytes - bytes,
            };
        }
        if let Some(at) = item.settled.take() {
            // Somebody wants it again.
            self.settled.remove(&(at, entry));
            item.start_before = None;
            item.problem = None;
            self.resident -= item.result.resident();
            item.result = Kept::Nothing;
        }
        match to {
            State::Running => item.started = Some(now),
            it if it.is_settled() => self.settle_item(entry, to, cause, now, effects),
            _ => {}
        }
        let is_written = match cause {
            Cause::Submitted { is_told } => *is_told,
            Cause::Started { is_leased } => *is_leased,
            Cause::Released { was_leased } => *was_leased || to.is_settled(),
            Cause::Time => !is_ready || was_leased,
            _ => true,
        };
        if is_written {
            self.mark(entry, effects);
        }
        self.tell_waiting(entry, now, effects);
    }

    /// A record of the job is to be written, if it survives a restart.
    pub(super) fn mark(&self, entry: EntryId, effects: &mut Vec<Effect>) {
        if self.items.get(&entry).is_some_and(|it| it.entry.kept_at().is_some()) {
            effects.push(Effect::JobChanged { entry });
        }
    }

    fn settle_item(
        &mut self,
        entry: EntryId,
        to: State,
        cause: &Cause,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(item) = self.items.get_mut(&entry) else { return };
        item.settled = Some(now);
        self.settled.insert((now, entry));
        let (result, detail) = match cause {
            Cause::Fulfilled(result) => (result.clone(), None),
            Cause::Rejected { result, detail, .. } => (result.clone(), detail.clone()),
            _ => (None, None),
        };
        let kind = match (to, cause) {
            (State::Expired, _) => Some(ProblemKind::Expired),
            (State::Cancelled, _) => Some(ProblemKind::Cancelled),
            (State::Failed, Cause::Rejected { is_final: true, .. }) => {
                Some(ProblemKind::WorkerRejected)
            }
            (State::Failed, Cause::Rejected { .. }) => Some(ProblemKind::AttemptsExhausted),
            (State::Failed, _) => Some(ProblemKind::LeaseLost),
            _ => None,
        };
        item.problem = kind.map(|kind| JobProblem { kind, detail });
        if let Some(result) = result {
            item.result = Kept::Here(result);
            self.resident += item.result.resident();
        }
        let reason = match kind {
            Some(ProblemKind::Expired) => Some(DeathReason::Expired),
            Some(ProblemKind::WorkerRejected) => Some(DeathReason::Rejected),
            Some(ProblemKind::AttemptsExhausted | ProblemKind::LeaseLost) => {
                Some(DeathReason::DeliveryLimit)
            }
            _ => None,
        };
        if let Some(reason) = reason {
            self.bury(entry, reason, effects);
        }
    }

    /// A copy of the job's message goes where dead ones go; the job stays.
    fn bury(&mut self, entry: EntryId, reason: DeathReason, effects: &mut Vec<Effect>) {
        let Some(item) = self.items.get(&entry).filter(|_| self.policy.dead_letter.is_some())
        else {
            return;
        };
        match &item.entry.message {
            Some(message) => {
                let message = Some(Arc::clone(message));
                let (place, redelivered) = (Place::Memory, false);
                effects.push(Effect::DeadLetter { message, place, reason, redelivered });
            }
            None => {
                self.letters.insert(entry, reason);
            }
        }
    }

    /// The job is kept no longer.
    pub(super) fn drop_item(&mut self, entry: EntryId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.end_run(entry, true);
        let Some(item) = self.items.remove(&entry) else { return };
        self.resident -= item.entry.resident() + item.result.resident();
        if item.is_ready {
            self.ready_bytes -= u64::from(item.entry.body_len);
        }
        if let Some(at) = item.settled {
            self.settled.remove(&(at, entry));
        }
        if let Some(position) = item.record {
            effects.push(Effect::RecordGone { position });
        }
        self.letters.remove(&entry);
        forget(item.entry.place(), effects);
        self.tell_waiting(entry, now, effects);
    }

    /// The attempt ends. `is_over`: what its worker says from now on still goes to the submitter.
    fn end_run(&mut self, entry: EntryId, is_over: bool) {
        let Some(run) = self.runs.remove(&entry) else { return };
        self.tokens.remove(&run.secret);
        if let Some(at) = run.overdue {
            self.overdue.remove(&(at, entry));
        }
        if let Some(candidate) = run.candidate {
            self.resident -= candidate.size();
        }
        let reply_to = self.items.get(&entry).and_then(|it| it.traits.reply_to.clone());
        if let Some(reply_to) = reply_to.filter(|_| is_over) {
            let correlation_id =
                self.items.get(&entry).and_then(|it| it.traits.correlation_id.clone());
            self.late.insert(run.secret, Late { reply_to, correlation_id });
            self.late_order.push_back(run.secret);
            if LATE_MAX < self.late_order.len()
                && let Some(oldest) = self.late_order.pop_front()
            {
                self.late.remove(&oldest);
            }
        }
        self.starting.retain(|(it, _)| *it != entry);
        // An automatic delivery is never settled by its session.
        if let Worker::Connected { automatic: true, .. } = run.worker
            && let Some(delivery) = run.delivery
        {
            self.release_held(delivery);
        }
    }

    /// What the log is to say of the job: the payload of its record.
    pub fn record(&self, entry: EntryId, out: &mut Vec<u8>) -> bool {
        let Some((item, life)) = self.items.get(&entry).zip(self.book.life(entry)) else {
            return false;
        };
        let run = self.runs.get(&entry);
        let lease = run.and_then(Run::lease_record);
        // What a connected worker holds comes back when the broker stops, and does not count.
        let is_back = life.state == State::Running && lease.is_none();
        let record = JobRecord {
            queue: self.policy.queue,
            origin: item.origin,
            state: if is_back { State::Ready } else { life.state },
            generation: life.generation,
            attempt: life.attempt - u32::from(is_back && 0 < life.attempt),
            priority: item.priority,
            cancel_requested: life.cancel_requested,
            since: life.since,
            waited_ms: life.waited_ms,
            id: item.names_itself.then(|| item.id.clone()),
            due: life.due,
            first_ready: life.first_ready,
            started: item.started,
            served_ms: life.served_ms,
            start_before: item.start_before,
            lease,
            problem: item.problem.clone(),
            result: match &item.result {
                Kept::Here(result) => Some(result.clone()),
                Kept::Nothing | Kept::Logged => None,
            },
        };
        record.encode(out);
        true
    }

    /// The newest record of the job lies there now. Returns where the one before lay.
    pub fn recorded(&mut self, entry: EntryId, at: LogPosition) -> Option<LogPosition> {
        let item = self.items.get_mut(&entry)?;
        if matches!(item.result, Kept::Here(_)) {
            self.resident -= item.result.resident();
            item.result = Kept::Logged;
        }
        item.record.replace(at)
    }
}

impl Item {
    /// It survives a restart.
    pub(super) fn is_kept(&self) -> bool {
        self.entry.kept_at().is_some()
    }
}

impl Kept {
    pub(super) fn resident(&self) -> u64 {
        match self {
            Self::Here(result) => result.body.len() as u64,
            Self::Nothing | Self::Logged => 0,
        }
    }
}

impl Run {
    pub(super) fn is_leased(&self) -> bool {
        matches!(self.worker, Worker::Leasing { .. })
    }

    fn lease_record(&self) -> Option<LeaseRecord> {
        match &self.worker {
            Worker::Leasing { name, end, .. } => {
                let worker = name.clone();
                Some(LeaseRecord { secret: self.secret, end: *end, worker })
            }
            Worker::Connected { .. } => None,
        }
    }
}
