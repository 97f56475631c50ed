//! The jobs of one queue: who they are, where they stand, what runs, what is due. Everything that
//! changes a job comes through here and leaves a [`Transition`] behind.

use super::{
    identity::{Admitted, Application, Identities, Named, Origin},
    limit::Running,
    order::ReadyJob,
    select::{Dispatch, Selection},
    state::{Attempts, JobEvent, Life, NotNow, Setback},
};
use model::{
    EntryId, Name, Timestamp,
    job::{JobRules, State},
};
use std::collections::{BTreeSet, HashMap};

/// Says which attempt a worker speaks for: an older one settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// A message that asks to be a job.
#[derive(Clone, Debug)]
pub struct Submission {
    pub entry: EntryId,
    pub application: Application,
    pub key: Name,
    pub priority: u8,
    pub cost_us: u64,
    pub deadline: Option<Timestamp>,
    /// Not to be started before.
    pub due: Option<Timestamp>,
    /// Not to be started after.
    pub start_before: Option<Timestamp>,
    /// Overrides the queue's own number.
    pub attempts: Option<u32>,
    /// Jobs that it comes after and that have not ended.
    pub parents: u32,
}

/// A job that a worker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub entry: EntryId,
    pub fence: Fence,
    /// From 1.
    pub attempt: u32,
    pub lease_end: Option<Timestamp>,
}

/// Is there a job for a worker?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Job(Started),
    /// Not before then, or before something changes.
    None {
        until: Option<Timestamp>,
    },
}

/// How a worker ends an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Succeeded,
    Rejected,
    Failed { retry_after_ms: Option<u64> },
    Lost,
    Released,
    CancelLearned,
}

impl Verdict {
    fn event(self) -> JobEvent {
        match self {
            Self::Succeeded => JobEvent::Succeeded,
            Self::Rejected => JobEvent::Rejected,
            Self::Failed { retry_after_ms } => {
                JobEvent::SetBack(Setback::Failed { retry_after_ms })
            }
            Self::Lost => JobEvent::SetBack(Setback::Lost),
            Self::Released => JobEvent::Released,
            Self::CancelLearned => JobEvent::CancelLearned,
        }
    }
}

/// Why a request changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    #[error("no such job")]
    Unknown,
    #[error("the attempt has ended: another one counts")]
    Stale,
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub entry: EntryId,
    /// `None`: it is forgotten, or a newer message has taken its place.
    pub to: Option<State>,
    pub generation: u32,
    pub attempt: u32,
    /// When a scheduled one is due.
    pub due: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    fence: Fence,
    sequence: u64,
    lease_end: Option<Timestamp>,
}

#[derive(Debug)]
struct Job {
    id: Name,
    life: Life,
    traits: ReadyJob,
    attempts: Option<u32>,
    start_before: Option<Timestamp>,
    parents: u32,
    run: Option<Run>,
    /// The next time at which something is to be done for it.
    timer: Option<Timestamp>,
}

/// All jobs of a queue.
#[derive(Debug)]
pub struct Book {
    policy: JobRules,
    jobs: HashMap<EntryId, Job>,
    identities: Identities,
    selection: Selection,
    running: Running,
    timers: BTreeSet<(Timestamp, EntryId)>,
    last_fence: Fence,
}

impl Book {
    pub fn new(policy: JobRules) -> Self {
        Self {
            jobs: HashMap::new(),
            identities: Identities::default(),
            selection: Selection::new(policy.scheduling, policy.weights.clone()),
            running: Running::new(policy.limits),
            timers: BTreeSet::new(),
            last_fence: Fence(0),
            policy,
        }
    }

    /// New rules, for the jobs that are there as well. Attempts and times that have been given out
    /// stay.
    pub fn configure(&mut self, policy: JobRules) {
        self.selection.set_scheduling(policy.scheduling, policy.weights.clone());
        self.running.set_limits(policy.limits);
        self.selection.wake_all();
        self.policy = policy;
    }

    pub fn life(&self, entry: EntryId) -> Option<&Life> {
        self.jobs.get(&entry).map(|it| &it.life)
    }

    pub fn named(&self, id: &Name, now: Timestamp) -> Named {
        self.identities.look_up(id, now)
    }

    /// Jobs that are kept, settled ones included.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Jobs that are ready, and that run.
    pub fn counts(&self) -> (usize, u64) {
        (self.selection.len(), self.running.count())
    }

    /// Takes a message. It is a job if the answer is `New` or `Supersedes`.
    pub fn submit(
        &mut self,
        submission: Submission,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Admitted {
        let Submission { entry, application, key, priority, cost_us, deadline, .. } = submission;
        let id = application.id.clone();
        let admitted = self.identities.admit(application, entry, &self.policy.lifetimes, now);
        let mut generation = 1;
        match admitted {
            Admitted::New => {}
            Admitted::Supersedes(older) => {
                if let Some(job) = self.drop_job(older, now) {
                    generation = job.life.generation.saturating_add(1);
                    out.push(Transition { entry: older, to: None, ..transition(older, &job.life) });
                }
            }
            _ => return admitted,
        }
        let mut life = Life::submitted(0 < submission.parents, submission.due, now);
        life.generation = generation;
        let traits = ReadyJob { id: entry, key, priority, cost_us, deadline, ready_at: life.since };
        let job = Job {
            id,
            life,
            traits,
            attempts: submission.attempts,
            start_before: submission.start_before,
            parents: submission.parents,
            run: None,
            timer: None,
        };
        self.jobs.insert(entry, job);
        self.settle_in(entry, None, now, out);
        admitted
    }

    /// Puts a job back as the log knows it. `lease_end`: it runs, and its worker has so long.
    /// Returns the fence of its attempt. A job that has the id already goes.
    pub fn restore(
        &mut self,
        submission: Submission,
        mut life: Life,
        lease_end: Option<Timestamp>,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Option<Fence> {
        let Submission { entry, mut application, key, priority, cost_us, deadline, .. } =
            submission;
        let id = application.id.clone();
        // What is in the log was admitted once.
        application.origin = Origin::Returned;
        if life.state.is_settled() {
            application.unique = None;
        }
        let lifetimes = &self.policy.lifetimes;
        let mut admitted = self.identities.admit(application.clone(), entry, lifetimes, now);
        if let Admitted::NotUnique(_) = admitted {
            // It was let in when the other one's time had passed.
            application.unique = None;
            admitted = self.identities.admit(application, entry, lifetimes, now);
        }
        if let Admitted::Supersedes(older) = admitted
            && let Some(job) = self.drop_job(older, now)
        {
            life.generation = life.generation.max(job.life.generation.saturating_add(1));
            out.push(Transition { entry: older, to: None, ..transition(older, &job.life) });
        }
        let run = lease_end.filter(|_| life.state == State::Running).map(|end| {
            self.last_fence.0 += 1;
            self.running.start(&key, now);
            Run { fence: self.last_fence, sequence: 0, lease_end: Some(end) }
        });
        if life.state.is_settled() {
            self.identities.settle(&id, life.since);
        }
        let traits = ReadyJob { id: entry, key, priority, cost_us, deadline, ready_at: life.since };
        if life.state == State::Ready {
            self.selection.add(traits.clone());
        }
        let job = Job {
            id,
            life,
            traits,
            attempts: submission.attempts,
            start_before: submission.start_before,
            parents: submission.parents,
            run,
            timer: None,
        };
        self.jobs.insert(entry, job);
        self.set_timer(entry);
        run.map(|it| it.fence)
    }

    /// Attempts that the job may have.
    pub fn attempts_max(&self, entry: EntryId) -> u32 {
        self.attempts(entry).max
    }

    /// The next job for a worker, whose lease ends by itself if `is_leased`.
    pub fn next(&mut self, is_leased: bool, now: Timestamp, out: &mut Vec<Transition>) -> Next {
        self.selection.wake(now);
        let running = &self.running;
        match self.selection.take(|job| running.admits(&job.key, now)) {
            Dispatch::Job { job, sequence } => {
                let lease_end = is_leased.then(|| now.plus_ms(self.policy.lease_ms));
                match self.start(&job, sequence, lease_end, now, out) {
                    Some(started) => Next::Job(started),
                    None => Next::None { until: None },
                }
            }
            Dispatch::Nothing => Next::None { until: self.selection.wake_at() },
            Dispatch::QueueFull => Next::None { until: None },
            Dispatch::QueueUntil(at) => Next::None { until: Some(at) },
        }
    }

    fn start(
        &mut self,
        taken: &ReadyJob,
        sequence: u64,
        lease_end: Option<Timestamp>,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Option<Started> {
        let entry = taken.id;
        let attempts = self.attempts(entry);
        let job = self.jobs.get_mut(&entry)?;
        job.life.take(JobEvent::Dispatched, attempts, now, 0).ok()?;
        self.last_fence.0 += 1;
        let fence = self.last_fence;
        job.run = Some(Run { fence, sequence, lease_end });
        let attempt = job.life.attempt;
        self.running.start(&taken.key, now);
        out.push(transition(entry, &job.life));
        self.set_timer(entry);
        Some(Started { entry, fence, attempt, lease_end })
    }

    fn attempts(&self, entry: EntryId) -> Attempts {
        let own = self.jobs.get(&entry).and_then(|it| it.attempts);
        Attempts { max: own.unwrap_or(self.policy.attempts).max(1), backoff: self.policy.backoff }
    }

    /// A worker ends its attempt. `chance`: any number, for the rest before a retry.
    ///
    /// # Errors
    /// [`BookError::Stale`] where another attempt counts, or none.
    pub fn end(
        &mut self,
        entry: EntryId,
        fence: Fence,
        verdict: Verdict,
        (now, chance): (Timestamp, u64),
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        let attempts = self.attempts(entry);
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        let run = job.run.filter(|it| it.fence == fence).ok_or(BookError::Stale)?;
        let since = job.life.since;
        let state = job.life.take(verdict.event(), attempts, now, chance)?;
        let state = state.unwrap_or(State::Running);
        job.run = None;
        self.stop(entry, since, now);
        let place = (verdict == Verdict::Released).then_some(run.sequence);
        self.settle_in(entry, place, now, out);
        Ok(state)
    }

    /// What an attempt leaves behind in limits and shares.
    fn stop(&mut self, entry: EntryId, since: Timestamp, now: Timestamp) {
        let Some(job) = self.jobs.get(&entry) else { return };
        self.running.end(&job.traits.key, now);
        let measured_us = now.0.saturating_sub(since.0).saturating_mul(1_000);
        self.selection.ended(&job.traits, measured_us);
    }

    /// The worker goes on: its lease ends later. Returns the new end, and whether a cancellation
    /// was asked for.
    ///
    /// # Errors
    /// As [`Book::end`].
    pub fn extend(
        &mut self,
        entry: EntryId,
        fence: Fence,
        by_ms: u64,
        now: Timestamp,
    ) -> Result<(Option<Timestamp>, bool), BookError> {
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        let run = job.run.as_mut().filter(|it| it.fence == fence).ok_or(BookError::Stale)?;
        run.lease_end = run.lease_end.map(|_| now.plus_ms(by_ms));
        let answer = (run.lease_end, job.life.cancel_requested);
        self.set_timer(entry);
        Ok(answer)
    }

    /// Nobody wants the job any more. A running one goes on until its worker ends it.
    ///
    /// # Errors
    /// [`BookError`]
    pub fn cancel(
        &mut self,
        entry: EntryId,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        self.happen(entry, JobEvent::Cancel, now, out)
    }

    /// Somebody wants the settled job again.
    ///
    /// # Errors
    /// [`BookError`]
    pub fn redrive(
        &mut self,
        entry: EntryId,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        let state = self.happen(entry, JobEvent::Redrive, now, out)?;
        if let Some(job) = self.jobs.get_mut(&entry) {
            // The time in which it was to be started belonged to the first generation.
            job.start_before = None;
            self.identities.reopen(&job.id);
        }
        self.set_timer(entry);
        Ok(state)
    }

    /// A job that this one comes after has ended, as it should or not.
    ///
    /// # Errors
    /// [`BookError`]
    pub fn parent_ended(
        &mut self,
        entry: EntryId,
        is_done: bool,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        if !is_done {
            return self.happen(entry, JobEvent::ParentRejected, now, out);
        }
        job.parents = job.parents.saturating_sub(1);
        match job.parents {
            0 => self.happen(entry, JobEvent::ParentsDone, now, out),
            _ => Ok(job.life.state),
        }
    }

    /// Another priority, for a job that does not run yet.
    ///
    /// # Errors
    /// [`BookError`]
    pub fn reprioritise(&mut self, entry: EntryId, priority: u8) -> Result<(), BookError> {
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        match job.life.state {
            State::Waiting | State::Scheduled | State::Ready => job.traits.priority = priority,
            it if it.is_settled() => return Err(NotNow::Settled(it).into()),
            it => return Err(NotNow::Pending(it).into()),
        }
        if job.life.state == State::Ready {
            self.selection.change(job.traits.clone());
        }
        Ok(())
    }

    /// Not to be started before `at`, for a job that does not run yet.
    ///
    /// # Errors
    /// [`BookError`]
    pub fn defer(
        &mut self,
        entry: EntryId,
        at: Timestamp,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        let before = job.life.state;
        job.life.defer(at, now)?;
        let state = job.life.state;
        if before == state && state == State::Ready {
            return Ok(state);
        }
        self.settle_in(entry, None, now, out);
        Ok(state)
    }

    /// The job is lost: its message cannot be read.
    pub fn remove(&mut self, entry: EntryId, now: Timestamp) {
        if let Some(job) = self.drop_job(entry, now) {
            self.identities.forget(&job.id, &self.policy.lifetimes, now);
        }
    }

    /// A job that does not run goes before its time is over.
    pub fn forget(&mut self, entry: EntryId, now: Timestamp, out: &mut Vec<Transition>) {
        let is_running = self.jobs.get(&entry).is_none_or(|it| it.run.is_some());
        if !is_running && let Some(job) = self.drop_job(entry, now) {
            self.identities.forget(&job.id, &self.policy.lifetimes, now);
            out.push(Transition { entry, to: None, ..transition(entry, &job.life) });
        }
    }

    fn happen(
        &mut self,
        entry: EntryId,
        event: JobEvent,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) -> Result<State, BookError> {
        let attempts = self.attempts(entry);
        let job = self.jobs.get_mut(&entry).ok_or(BookError::Unknown)?;
        if job.life.take(event, attempts, now, 0)?.is_none() {
            return Ok(job.life.state);
        }
        let state = job.life.state;
        self.settle_in(entry, None, now, out);
        Ok(state)
    }

    /// Does what follows from the state that a job has just entered. `place`: where it stood among
    /// the ready ones.
    fn settle_in(
        &mut self,
        entry: EntryId,
        place: Option<u64>,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) {
        let Some(job) = self.jobs.get_mut(&entry) else { return };
        out.push(transition(entry, &job.life));
        match job.life.state {
            State::Ready => match place {
                Some(sequence) => self.selection.put_back(job.traits.clone(), sequence),
                None => {
                    job.traits.ready_at = now;
                    self.selection.add(job.traits.clone());
                }
            },
            it => {
                self.selection.remove(entry);
                if it.is_settled() {
                    self.identities.settle(&job.id, now);
                }
            }
        }
        self.set_timer(entry);
    }

    /// When something is next to be done for the job, whatever its state makes of it.
    fn set_timer(&mut self, entry: EntryId) {
        let Some(job) = self.jobs.get_mut(&entry) else { return };
        let timer = match job.life.state {
            State::Waiting | State::Ready => job.start_before,
            State::Scheduled => [job.life.due, job.start_before].into_iter().flatten().min(),
            State::Running => job.run.and_then(|it| it.lease_end),
            State::Succeeded => Some(job.life.since.plus_ms(self.policy.result_ttl_ms)),
            State::Failed | State::Cancelled | State::Expired => {
                Some(job.life.since.plus_ms(self.policy.failed_ttl_ms))
            }
        };
        let before = std::mem::replace(&mut job.timer, timer);
        if before != timer {
            before.map(|it| self.timers.remove(&(it, entry)));
            timer.map(|it| self.timers.insert((it, entry)));
        }
    }

    /// When [`Book::pass`] has something to do, at the latest.
    pub fn due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.identities.due(), self.selection.wake_at()].into_iter().flatten().min()
    }

    /// Does what is due at `now`, for at most `most` jobs; whether there may be more.
    pub fn pass(
        &mut self,
        (now, chance): (Timestamp, u64),
        most: usize,
        out: &mut Vec<Transition>,
    ) -> bool {
        self.selection.wake(now);
        let mut more = self.identities.pass(now, most);
        for count in 0_u64.. {
            let Some((at, entry)) = self.timers.first().filter(|(at, _)| *at <= now).copied()
            else {
                break;
            };
            if most as u64 <= count {
                more = true;
                break;
            }
            self.timers.remove(&(at, entry));
            if let Some(job) = self.jobs.get_mut(&entry) {
                job.timer = None;
            }
            // Jobs that fail together must not come back together.
            let chance = chance.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.time_out(entry, now, chance, out);
        }
        more
    }

    fn time_out(&mut self, entry: EntryId, now: Timestamp, chance: u64, out: &mut Vec<Transition>) {
        let Some(job) = self.jobs.get(&entry) else { return };
        let is_late = job.start_before.is_some_and(|it| it <= now);
        let done = match job.life.state {
            State::Waiting | State::Scheduled | State::Ready if is_late => {
                self.happen(entry, JobEvent::Expired, now, out)
            }
            State::Scheduled => self.happen(entry, JobEvent::Due, now, out),
            State::Running => match job.run {
                Some(Run { fence, .. }) => {
                    self.end(entry, fence, Verdict::Lost, (now, chance), out)
                }
                None => Ok(State::Running),
            },
            it if it.is_settled() => {
                if let Some(job) = self.drop_job(entry, now) {
                    self.identities.forget(&job.id, &self.policy.lifetimes, now);
                    out.push(Transition { to: None, ..transition(entry, &job.life) });
                }
                return;
            }
            it => Ok(it),
        };
        debug_assert!(done.is_ok(), "{entry:?}: {done:?}");
    }

    /// Takes a job out of everything but its identity.
    fn drop_job(&mut self, entry: EntryId, now: Timestamp) -> Option<Job> {
        let (since, is_running) =
            self.jobs.get(&entry).map(|it| (it.life.since, it.run.is_some()))?;
        if is_running {
            self.stop(entry, since, now);
        }
        self.selection.remove(entry);
        let job = self.jobs.remove(&entry)?;
        job.timer.map(|it| self.timers.remove(&(it, entry)));
        Some(job)
    }
}

fn transition(entry: EntryId, life: &Life) -> Transition {
    let Life { state, generation, attempt, due, .. } = *life;
    Transition { entry, to: Some(state), generation, attempt, due }
}
