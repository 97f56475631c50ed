//! The states of a job and what leads from one to another. A promise settles once; only a re-drive
//! or a newer message under the same id opens it again, and both begin a new generation.

use model::{
    Timestamp,
    job::{Backoff, State},
};

/// Why an attempt ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// The worker said that it failed and may be tried again, not before so many milliseconds if it
    /// said so.
    Failed { retry_after_ms: Option<u64> },
    /// The worker's connection or lease ended.
    Lost,
}

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// Its time has come.
    Due,
    /// The last job that it comes after has ended as it should.
    ParentsDone,
    /// One of them has not.
    ParentRejected,
    /// A worker gets it.
    Dispatched,
    /// The worker has done it.
    Succeeded,
    /// The worker will never do it.
    Rejected,
    SetBack(Setback),
    /// The worker gives it back unused.
    Released,
    /// Somebody does not want it any more.
    Cancel,
    /// The worker of a job whose cancellation was asked for has learned of it.
    CancelLearned,
    /// It was to be started by now.
    Expired,
    /// Somebody wants it again.
    Redrive,
}

/// What a queue lays down for its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The first one included; at least 1.
    pub max: u32,
    pub backoff: Backoff,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    #[error("the job is settled already: it has {}", .0.name())]
    Settled(State),
    #[error("a job that is {} cannot do this", .0.name())]
    Pending(State),
}

/// The life of one job, without its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub state: State,
    /// From 1; every re-drive begins another.
    pub generation: u32,
    /// Attempts started in this generation that count.
    pub attempt: u32,
    /// Cancellation was asked for while it runs.
    pub cancel_requested: bool,
    /// Not to be started before.
    pub due: Option<Timestamp>,
    /// When it first became ready, in this generation.
    pub first_ready: Option<Timestamp>,
    /// Since when it has been in its state.
    pub since: Timestamp,
    /// Milliseconds it was ready, over all attempts.
    pub waited_ms: u64,
    /// Milliseconds from the last dispatch to the settlement.
    pub served_ms: Option<u64>,
}

impl Life {
    /// A job that is submitted at `now`. `has_parents`: some that it comes after have not ended.
    pub fn submitted(has_parents: bool, due: Option<Timestamp>, now: Timestamp) -> Self {
        let mut life = Self {
            state: State::Waiting,
            generation: 1,
            attempt: 0,
            cancel_requested: false,
            due,
            first_ready: None,
            since: now,
            waited_ms: 0,
            served_ms: None,
        };
        if !has_parents {
            life.schedule(now);
        }
        life
    }

    /// Milliseconds from when it first became ready until it was settled.
    pub fn total_ms(&self) -> Option<u64> {
        let from = self.first_ready.filter(|_| self.state.is_settled())?;
        Some(self.since.0.saturating_sub(from.0))
    }

    /// Takes what happens at `now`; `chance` is any number, for the jitter of a retry. Returns the
    /// state that the job enters, `None` where it stays in its own.
    ///
    /// # Errors
    /// [`NotNow`]: it cannot happen in this state, and nothing has changed.
    pub fn take(
        &mut self,
        event: JobEvent,
        attempts: Attempts,
        now: Timestamp,
        chance: u64,
    ) -> Result<Option<State>, NotNow> {
        let before = self.state;
        match (before, event) {
            (State::Waiting, JobEvent::ParentsDone) => self.schedule(now),
            (State::Waiting, JobEvent::ParentRejected) => self.enter(State::Cancelled, now),
            (State::Scheduled, JobEvent::Due) => self.make_ready(now),
            (State::Ready, JobEvent::Dispatched) => {
                self.attempt += 1;
                self.enter(State::Running, now);
            }
            (State::Waiting | State::Scheduled | State::Ready, JobEvent::Cancel) => {
                self.enter(State::Cancelled, now);
            }
            (State::Waiting | State::Scheduled | State::Ready, JobEvent::Expired) => {
                self.enter(State::Expired, now);
            }
            (State::Running, JobEvent::Cancel) => {
                self.cancel_requested = true;
                return Ok(None);
            }
            (State::Running, event) => return self.end_attempt(event, attempts, now, chance),
            (it, JobEvent::Redrive) if it.is_settled() => self.begin_anew(now),
            (it, _) if it.is_settled() => return Err(NotNow::Settled(it)),
            (it, _) => return Err(NotNow::Pending(it)),
        }
        Ok(Some(self.state))
    }

    fn end_attempt(
        &mut self,
        event: JobEvent,
        attempts: Attempts,
        now: Timestamp,
        chance: u64,
    ) -> Result<Option<State>, NotNow> {
        match event {
            // A result that comes before the worker has learned of a cancellation wins.
            JobEvent::Succeeded => self.enter(State::Succeeded, now),
            JobEvent::Released => {
                self.attempt = self.attempt.saturating_sub(1);
                match self.cancel_requested {
                    true => self.enter(State::Cancelled, now),
                    false => self.make_ready(now),
                }
            }
            JobEvent::CancelLearned if self.cancel_requested => self.enter(State::Cancelled, now),
            JobEvent::Rejected | JobEvent::SetBack(_) if self.cancel_requested => {
                self.enter(State::Cancelled, now);
            }
            JobEvent::Rejected => self.enter(State::Failed, now),
            JobEvent::SetBack(_) if attempts.max <= self.attempt => {
                self.enter(State::Failed, now);
            }
            JobEvent::SetBack(setback) => {
                let delay_ms = match setback {
                    Setback::Failed { retry_after_ms: Some(it) } => it,
                    _ => attempts.backoff.delay_ms(self.attempt, chance),
                };
                self.due = Some(Timestamp(now.0.saturating_add(delay_ms)));
                self.schedule(now);
            }
            _ => return Err(NotNow::Pending(State::Running)),
        }
        Ok(Some(self.state))
    }

    /// Not to be started before `at`: for one that does not run yet.
    ///
    /// # Errors
    /// [`NotNow`]
    pub fn defer(&mut self, at: Timestamp, now: Timestamp) -> Result<(), NotNow> {
        match self.state {
            State::Waiting => self.due = Some(at),
            State::Ready if at <= now => {}
            State::Scheduled | State::Ready => {
                self.due = Some(at);
                self.schedule(now);
            }
            it if it.is_settled() => return Err(NotNow::Settled(it)),
            it => return Err(NotNow::Pending(it)),
        }
        Ok(())
    }

    fn schedule(&mut self, now: Timestamp) {
        match self.due.filter(|it| now < *it) {
            Some(_) => self.enter(State::Scheduled, now),
            None => self.make_ready(now),
        }
    }

    fn make_ready(&mut self, now: Timestamp) {
        self.enter(State::Ready, now);
        self.due = None;
        self.first_ready.get_or_insert(now);
    }

    fn begin_anew(&mut self, now: Timestamp) {
        let generation = self.generation.saturating_add(1);
        *self = Self { generation, ..Self::submitted(false, None, now) };
    }

    fn enter(&mut self, state: State, now: Timestamp) {
        let spent_ms = now.0.saturating_sub(self.since.0);
        match self.state {
            State::Ready => self.waited_ms = self.waited_ms.saturating_add(spent_ms),
            State::Running if state.is_settled() => self.served_ms = Some(spent_ms),
            _ => {}
        }
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPTS: Attempts = Attempts {
        max: 2,
        backoff: Backoff {
            kind: model::job::BackoffKind::Fixed,
            base_ms: 500,
            max_ms: 500,
            jitter: model::job::Jitter::None,
        },
    };
    const FAILED: JobEvent = JobEvent::SetBack(Setback::Failed { retry_after_ms: None });
    const LOST: JobEvent = JobEvent::SetBack(Setback::Lost);

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    fn life(events: &[(u64, JobEvent)]) -> Life {
        let mut life = Life::submitted(false, None, at(0));
        for (ms, event) in events {
            life.take(*event, ATTEMPTS, at(*ms), 0).unwrap();
        }
        life
    }

    fn in_state(state: State) -> Life {
        use JobEvent::{Cancel, Dispatched, Expired, Rejected, Succeeded};
        match state {
            State::Waiting => Life::submitted(true, None, at(0)),
            State::Scheduled => Life::submitted(false, Some(at(900)), at(0)),
            State::Ready => life(&[]),
            State::Running => life(&[(1, Dispatched)]),
            State::Succeeded => life(&[(1, Dispatched), (2, Succeeded)]),
            State::Failed => life(&[(1, Dispatched), (2, Rejected)]),
            State::Cancelled => life(&[(1, Cancel)]),
            State::Expired => life(&[(1, Expired)]),
        }
    }

    /// The whole table: what is not listed is refused and changes nothing.
    #[test]
    fn every_event_leads_where_the_table_says() {
        use JobEvent as E;
        use State as S;
        let rows = [
            (S::Waiting, E::ParentsDone, Some(S::Ready)),
            (S::Waiting, E::ParentRejected, Some(S::Cancelled)),
            (S::Waiting, E::Cancel, Some(S::Cancelled)),
            (S::Waiting, E::Expired, Some(S::Expired)),
            (S::Scheduled, E::Due, Some(S::Ready)),
            (S::Scheduled, E::Cancel, Some(S::Cancelled)),
            (S::Scheduled, E::Expired, Some(S::Expired)),
            (S::Ready, E::Dispatched, Some(S::Running)),
            (S::Ready, E::Cancel, Some(S::Cancelled)),
            (S::Ready, E::Expired, Some(S::Expired)),
            (S::Running, E::Succeeded, Some(S::Succeeded)),
            (S::Running, E::Rejected, Some(S::Failed)),
            (S::Running, FAILED, Some(S::Scheduled)),
            (S::Running, LOST, Some(S::Scheduled)),
            (S::Running, E::Released, Some(S::Ready)),
            (S::Running, E::Cancel, None),
            (S::Succeeded, E::Redrive, Some(S::Ready)),
            (S::Failed, E::Redrive, Some(S::Ready)),
            (S::Cancelled, E::Redrive, Some(S::Ready)),
            (S::Expired, E::Redrive, Some(S::Ready)),
        ];
        let events = [
            E::Due,
            E::ParentsDone,
            E::ParentRejected,
            E::Dispatched,
            E::Succeeded,
            E::Rejected,
            FAILED,
            LOST,
            E::Released,
            E::Cancel,
            E::CancelLearned,
            E::Expired,
            E::Redrive,
        ];
        for state in State::ALL {
            let before = in_state(state);
            assert_eq!(before.state, state);
            for event in events {
                let mut life = before.clone();
                let found = life.take(event, ATTEMPTS, at(10), 0);
                let row = rows.iter().find(|(from, it, _)| (*from, *it) == (state, event));
                match row {
                    Some((_, _, to)) => assert_eq!(found, Ok(*to), "{state:?} {event:?}"),
                    None => {
                        let settled = state.is_settled();
                        let refused =
                            if settled { NotNow::Settled(state) } else { NotNow::Pending(state) };
                        assert_eq!(found, Err(refused), "{state:?} {event:?}");
                        assert_eq!(life, before, "{state:?} {event:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_parent_that_ends_before_the_time_has_come_leaves_the_job_scheduled() {
        let mut job = Life::submitted(true, Some(at(50)), at(0));
        assert_eq!(
            job.take(JobEvent::ParentsDone, ATTEMPTS, at(10), 0),
            Ok(Some(State::Scheduled))
        );
        assert_eq!(job.due, Some(at(50)));
    }

    #[test]
    fn attempts_are_used_up_by_failures_and_losses_and_not_by_releases() {
        let mut job = life(&[(0, JobEvent::Dispatched), (5, JobEvent::Released)]);
        assert_eq!(job.attempt, 0);
        for event in [JobEvent::Dispatched, FAILED, JobEvent::Due, JobEvent::Dispatched] {
            job.take(event, ATTEMPTS, at(10), 0).unwrap();
        }
        assert_eq!((job.attempt, job.state), (2, State::Running));
        assert_eq!(job.take(LOST, ATTEMPTS, at(20), 0), Ok(Some(State::Failed)));
        job.take(JobEvent::Redrive, ATTEMPTS, at(30), 0).unwrap();
        assert_eq!((job.generation, job.attempt, job.state), (2, 0, State::Ready));
    }

    #[test]
    fn a_retry_rests_as_long_as_the_queue_or_the_worker_says() {
        let job = life(&[(0, JobEvent::Dispatched), (10, FAILED)]);
        assert_eq!(job.due, Some(at(510)));
        let later = JobEvent::SetBack(Setback::Failed { retry_after_ms: Some(7_000) });
        let job = life(&[(0, JobEvent::Dispatched), (10, later)]);
        assert_eq!(job.due, Some(at(7_010)));
        let at_once = JobEvent::SetBack(Setback::Failed { retry_after_ms: Some(0) });
        assert_eq!(life(&[(0, JobEvent::Dispatched), (10, at_once)]).state, State::Ready);
    }

    #[test]
    fn a_cancelled_run_ends_cancelled_unless_its_result_comes_first() {
        for (event, expected) in [
            (JobEvent::Succeeded, State::Succeeded),
            (JobEvent::CancelLearned, State::Cancelled),
            (JobEvent::Released, State::Cancelled),
            (JobEvent::Rejected, State::Cancelled),
            (FAILED, State::Cancelled),
            (LOST, State::Cancelled),
        ] {
            let job = life(&[(0, JobEvent::Dispatched), (1, JobEvent::Cancel), (2, event)]);
            assert_eq!(job.state, expected, "{event:?}");
        }
    }

    #[test]
    fn waits_add_up_and_service_is_that_of_the_last_attempt() {
        let job = life(&[
            (100, JobEvent::Dispatched),
            (140, FAILED),
            (640, JobEvent::Due),
            (650, JobEvent::Dispatched),
            (680, JobEvent::Succeeded),
        ]);
        assert_eq!((job.waited_ms, job.served_ms, job.total_ms()), (110, Some(30), Some(680)));
        assert_eq!(life(&[(5, JobEvent::Dispatched)]).total_ms(), None);
    }
}
