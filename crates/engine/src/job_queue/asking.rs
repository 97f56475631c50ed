//! What doors ask, and what they are answered.

use super::{
    JobQueue, Kept, LeaseWait, Run, Wait, Worker, arrival::tell, changes::Cause, settlement,
};
use crate::{
    effect::Effect,
    job::{BookError, Named, NotNow, Token, Verdict},
};
use model::{
    EntryId, Name, SessionId, Timestamp,
    job::{
        JobAnswer, JobAsk, JobFilter, JobNotice, JobRefusal, JobResult, JobVerdict, JobView,
        LeaseView, Progress, Until,
    },
};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Jobs that one page holds at most, and that are looked at for it.
const PAGE_MAX: usize = 1_000;
const LOOKS_MAX: usize = 10_000;

/// A number that stands for all of the view but what passes with time.
pub(super) fn tag_of(view: &JobView) -> u64 {
    let mut hasher = DefaultHasher::new();
    (view.state, view.attempt, view.generation, view.priority).hash(&mut hasher);
    (view.cancel_requested, view.has_result).hash(&mut hasher);
    [view.at, view.started, view.finished, view.expires].hash(&mut hasher);
    let lease = view.lease.as_ref();
    lease.map(|it| (&it.worker, it.until)).hash(&mut hasher);
    view.progress.as_ref().map(|it| (it.percent, it.note.as_deref())).hash(&mut hasher);
    hasher.finish()
}

impl Wait {
    pub(super) fn has_happened(&self, view: &JobView) -> bool {
        view.state.is_settled() || matches!(self.until, Until::TagDiffers(tag) if tag != view.tag)
    }
}

impl Run {
    pub(super) fn lease_view(&self) -> LeaseView {
        match &self.worker {
            Worker::Leasing { name, end, .. } => {
                LeaseView { worker: name.clone(), until: Some(*end) }
            }
            Worker::Connected { session, consumer, .. } => LeaseView {
                worker: Name::from(format!("session {session}, consumer {consumer}")),
                until: self.overdue,
            },
        }
    }
}

impl JobQueue {
    /// What the queue knows of an id.
    pub fn named(&self, id: &Name, now: Timestamp) -> Named {
        self.book.named(id, now)
    }

    fn find(&self, id: &Name, now: Timestamp) -> Result<EntryId, JobRefusal> {
        match self.book.named(id, now) {
            Named::Job(entry) => Ok(entry),
            Named::Forgotten => Err(JobRefusal::Forgotten),
            Named::Unknown => Err(JobRefusal::UnknownJob),
        }
    }

    fn show(&self, entry: EntryId, now: Timestamp) -> Result<Box<JobView>, JobRefusal> {
        self.view(entry, now).ok_or(JobRefusal::UnknownJob)
    }

    fn refused(&self, error: BookError, entry: EntryId, now: Timestamp) -> JobRefusal {
        let Some(view) = self.view(entry, now) else { return JobRefusal::UnknownJob };
        match error {
            BookError::Unknown => JobRefusal::UnknownJob,
            BookError::Stale => JobRefusal::StaleToken,
            BookError::NotNow(NotNow::Settled(_)) => JobRefusal::Settled(view),
            BookError::NotNow(NotNow::Pending(_)) => JobRefusal::Pending(view),
        }
    }

    pub(super) fn answer(
        &mut self,
        session: SessionId,
        number: u64,
        ask: JobAsk,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let answered = match ask {
            JobAsk::Submit { queue, .. } => Err(JobRefusal::NotJobQueue(queue)),
            JobAsk::Look { id, .. } => self.look(&id, now),
            JobAsk::Wait { id, until, .. } => {
                let wait = Wait { session, number, until };
                self.wait(&id, wait, now)
            }
            JobAsk::Result { id, .. } => self.result(session, number, &id, now, effects),
            JobAsk::Lease { worker, .. } => {
                self.leases.push_back(LeaseWait { session, number, worker });
                Ok(None)
            }
            JobAsk::Complete { token, verdict, result } => {
                self.complete(&token, verdict, result, now, effects)
            }
            JobAsk::Extend { token, by_ms, progress } => {
                self.extend(&token, by_ms, progress, now, effects)
            }
            JobAsk::Release { token } => self.give_back(&token, now, effects),
            JobAsk::Cancel { id, .. } => self.cancel_by_id(&id, now, effects),
            JobAsk::Retry { id, .. } => self.retry(&id, now, effects),
            JobAsk::Patch { id, priority, at, .. } => self.patch(&id, priority, at, now, effects),
            JobAsk::List { filter, cursor, limit, .. } => {
                Ok(Some(self.list(&filter, cursor, limit, now)))
            }
            JobAsk::Forget { number } => {
                self.forget_wish(session, number, now, effects);
                Ok(None)
            }
        };
        match answered {
            Ok(Some(answer)) => tell(session, number, answer, effects),
            Ok(None) => {}
            Err(refusal) => tell(session, number, JobAnswer::Refused(refusal), effects),
        }
    }

    fn look(&self, id: &Name, now: Timestamp) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        Ok(Some(JobAnswer::Job(self.show(entry, now)?)))
    }

    fn wait(
        &mut self,
        id: &Name,
        wait: Wait,
        now: Timestamp,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        let view = self.show(entry, now)?;
        if wait.has_happened(&view) {
            return Ok(Some(JobAnswer::Job(view)));
        }
        self.waits.entry(entry).or_default().push(wait);
        Ok(None)
    }

    fn result(
        &self,
        session: SessionId,
        number: u64,
        id: &Name,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        let view = self.show(entry, now)?;
        let item = self.items.get(&entry).ok_or(JobRefusal::UnknownJob)?;
        let result = match (&item.result, item.record) {
            (Kept::Here(result), _) => Some(result.clone()),
            (Kept::Logged, Some(position)) => {
                let answer = JobAnswer::Result { view, result: None };
                let notice = Box::new(JobNotice { number, answer });
                effects.push(Effect::ReadResult { session, notice, position });
                return Ok(None);
            }
            _ => None,
        };
        Ok(Some(JobAnswer::Result { view, result }))
    }

    /// The job whose attempt this token speaks for.
    fn leased(&self, token: &Name) -> Result<EntryId, JobRefusal> {
        let token = Token::parse(token).filter(|it| it.queue == self.policy.queue);
        let entry = token.and_then(|it| self.tokens.get(&it.secret));
        entry.copied().ok_or(JobRefusal::StaleToken)
    }

    fn ended(&self, entry: EntryId, now: Timestamp) -> Result<Option<JobAnswer>, JobRefusal> {
        Ok(Some(JobAnswer::Ended(self.show(entry, now)?)))
    }

    fn complete(
        &mut self,
        token: &Name,
        verdict: JobVerdict,
        result: JobResult,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.leased(token)?;
        let detail = settlement::detail_of(&result);
        let (verdict, cause) = match verdict {
            JobVerdict::Fulfilled => (Verdict::Succeeded, Cause::Fulfilled(Some(result))),
            JobVerdict::Rejected { retryable, retry_after_ms } => {
                let is_final = !retryable;
                let cause = Cause::Rejected { is_final, result: Some(result), detail };
                let failed = Verdict::Failed { retry_after_ms };
                (if retryable { failed } else { Verdict::Rejected }, cause)
            }
        };
        self.end(entry, verdict, &cause, now, effects);
        self.ended(entry, now)
    }

    fn extend(
        &mut self,
        token: &Name,
        by_ms: Option<u64>,
        progress: Option<Progress>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.leased(token)?;
        self.go_on(entry, by_ms, progress, now, effects);
        let until = self.runs.get(&entry).and_then(|it| it.lease_view().until);
        let cancel_requested = self.book.life(entry).is_some_and(|it| it.cancel_requested);
        if cancel_requested {
            // Now the worker has learned of it.
            self.end(entry, Verdict::CancelLearned, &Cause::Asked, now, effects);
        }
        Ok(Some(JobAnswer::Extended { until, cancel_requested }))
    }

    fn give_back(
        &mut self,
        token: &Name,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.leased(token)?;
        self.release(entry, now, effects);
        self.ended(entry, now)
    }

    fn cancel_by_id(
        &mut self,
        id: &Name,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        let mut out = std::mem::take(&mut self.transitions);
        let done = self.book.cancel(entry, now, &mut out);
        self.transitions = out;
        done.map_err(|it| self.refused(it, entry, now))?;
        self.follow(&Cause::Asked, now, effects);
        // Of a running one the request alone is news.
        self.mark(entry, effects);
        self.tell_waiting(entry, now, effects);
        self.look(id, now)
    }

    fn retry(
        &mut self,
        id: &Name,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        let mut out = std::mem::take(&mut self.transitions);
        let done = self.book.redrive(entry, now, &mut out);
        self.transitions = out;
        done.map_err(|it| self.refused(it, entry, now))?;
        self.follow(&Cause::Asked, now, effects);
        self.look(id, now)
    }

    fn patch(
        &mut self,
        id: &Name,
        priority: Option<u8>,
        at: Option<Timestamp>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<JobAnswer>, JobRefusal> {
        let entry = self.find(id, now)?;
        let mut done = Ok(());
        if let Some(priority) = priority {
            done = self.book.reprioritise(entry, priority);
            if let (Ok(()), Some(item)) = (&done, self.items.get_mut(&entry)) {
                item.priority = priority;
            }
        }
        if let Some(at) = at.filter(|_| done.is_ok()) {
            let mut out = std::mem::take(&mut self.transitions);
            done = self.book.defer(entry, at, now, &mut out).map(drop);
            self.transitions = out;
        }
        done.map_err(|it| self.refused(it, entry, now))?;
        self.follow(&Cause::Asked, now, effects);
        self.mark(entry, effects);
        self.tell_waiting(entry, now, effects);
        self.look(id, now)
    }

    fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<u64>,
        limit: usize,
        now: Timestamp,
    ) -> JobAnswer {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut jobs = Vec::new();
        let mut next = None;
        let from = EntryId(cursor.unwrap_or(0));
        for (looks, (entry, item)) in self.items.range(from..).enumerate() {
            if looks == LOOKS_MAX || jobs.len() == limit {
                next = Some(entry.0);
                break;
            }
            let state = self.book.life(*entry).map(|it| it.state);
            let is_wanted = filter.state.is_none_or(|it| Some(it) == state)
                && filter.kind.as_ref().is_none_or(|it| item.traits.kind.as_ref() == Some(it))
                && filter.key.as_ref().is_none_or(|it| item.traits.key.as_ref() == Some(it));
            if is_wanted && let Some(view) = self.view(*entry, now) {
                jobs.push(*view);
            }
        }
        JobAnswer::Listed { jobs, next }
    }
}
