//! The book of jobs: cases of its contract, and what must hold whatever happens.

use engine::job::{
    Admitted, Application, Book, BookError, Named, Next, NotNow, Origin, Started, Submission,
    Transition, Verdict,
};
use model::{
    EntryId, Name, Timestamp,
    job::{Backoff, BackoffKind, Jitter, JobRules, Lifetimes, Limits, Scheduling, State, Weights},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn policy() -> JobRules {
    JobRules {
        scheduling: Scheduling::Fifo,
        weights: Weights::default(),
        limits: Limits::default(),
        attempts: 2,
        backoff: Backoff {
            kind: BackoffKind::Fixed,
            base_ms: 100,
            max_ms: 100,
            jitter: Jitter::None,
        },
        lease_ms: 1_000,
        result_ttl_ms: 10_000,
        failed_ttl_ms: 20_000,
        lifetimes: Lifetimes { dedupe_ms: 5_000, tombstone_ms: 50_000, unique_ms: None },
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp(1_000_000 + ms)
}

fn submission(entry: u64, id: &str) -> Submission {
    Submission {
        entry: EntryId(entry),
        application: Application {
            id: Name::new(id),
            origin: Origin::Client,
            digest: 0,
            unique: None,
        },
        key: Name::default(),
        priority: 0,
        cost_us: 0,
        deadline: None,
        due: None,
        start_before: None,
        attempts: None,
        parents: 0,
    }
}

/// A book, and what it has said.
struct Desk {
    book: Book,
    out: Vec<Transition>,
}

impl Desk {
    fn new(policy: JobRules) -> Self {
        Self { book: Book::new(policy), out: Vec::new() }
    }

    fn submit(&mut self, submission: Submission, ms: u64) -> Admitted {
        self.book.submit(submission, at(ms), &mut self.out)
    }

    fn started(&mut self, is_leased: bool, ms: u64) -> Option<Started> {
        match self.book.next(is_leased, at(ms), &mut self.out) {
            Next::Job(started) => Some(started),
            Next::None { .. } => None,
        }
    }

    fn end(&mut self, it: Started, verdict: Verdict, ms: u64) -> Result<State, BookError> {
        self.book.end(it.entry, it.fence, verdict, (at(ms), 0), &mut self.out)
    }

    fn pass(&mut self, ms: u64) {
        while self.book.pass((at(ms), 0), 3, &mut self.out) {}
    }

    fn state(&self, entry: u64) -> Option<State> {
        self.book.life(EntryId(entry)).map(|it| it.state)
    }

    /// States that the job has entered since the last question.
    fn story(&mut self, entry: u64) -> Vec<Option<State>> {
        let (its, others): (Vec<_>, Vec<_>) =
            self.out.drain(..).partition(|it| it.entry == EntryId(entry));
        self.out = others;
        its.into_iter().map(|it| it.to).collect()
    }
}

#[test]
fn a_job_that_is_done_is_kept_and_then_forgotten() {
    let mut desk = Desk::new(policy());
    assert_eq!(desk.submit(submission(1, "a"), 0), Admitted::New);
    let run = desk.started(false, 10).unwrap();
    assert_eq!((run.entry, run.attempt, run.lease_end), (EntryId(1), 1, None));
    assert_eq!(desk.end(run, Verdict::Succeeded, 30), Ok(State::Succeeded));
    assert_eq!(desk.end(run, Verdict::Succeeded, 31), Err(BookError::Stale));
    assert_eq!(desk.book.due(), Some(at(10_030)));
    desk.pass(10_029);
    assert_eq!(desk.book.named(&Name::new("a"), at(10_029)), Named::Job(EntryId(1)));
    desk.pass(10_030);
    assert_eq!(desk.book.named(&Name::new("a"), at(10_030)), Named::Forgotten);
    desk.pass(60_030);
    assert_eq!(desk.book.named(&Name::new("a"), at(60_030)), Named::Unknown);
    assert_eq!((desk.book.len(), desk.book.due()), (0, None));
    let story = [Some(State::Ready), Some(State::Running), Some(State::Succeeded), None];
    assert_eq!(desk.story(1), story);
}

#[test]
fn a_lease_that_ends_is_an_attempt_and_its_worker_is_stale() {
    let mut desk = Desk::new(policy());
    desk.submit(submission(1, "a"), 0);
    let first = desk.started(true, 0).unwrap();
    assert_eq!(first.lease_end, Some(at(1_000)));
    let extended = desk.book.extend(first.entry, first.fence, 1_000, at(900));
    assert_eq!(extended, Ok((Some(at(1_900)), false)));
    desk.pass(1_899);
    assert_eq!(desk.state(1), Some(State::Running));
    desk.pass(1_900);
    assert_eq!(desk.state(1), Some(State::Scheduled));
    assert_eq!(desk.end(first, Verdict::Succeeded, 1_950), Err(BookError::Stale));
    desk.pass(2_000);
    let second = desk.started(true, 2_000).unwrap();
    assert_eq!(second.attempt, 2);
    let late = desk.book.extend(first.entry, first.fence, 1_000, at(2_001));
    assert_eq!(late, Err(BookError::Stale));
    desk.pass(3_000);
    assert_eq!(desk.state(1), Some(State::Failed));
    assert_eq!(desk.book.due(), Some(at(23_000)));
}

#[test]
fn a_released_job_comes_first_again_and_has_used_no_attempt() {
    let mut desk = Desk::new(policy());
    for entry in 1..=3 {
        desk.submit(submission(entry, &entry.to_string()), entry);
    }
    let first = desk.started(false, 10).unwrap();
    assert_eq!(desk.end(first, Verdict::Released, 20), Ok(State::Ready));
    let again = desk.started(false, 30).unwrap();
    assert_eq!((again.entry, again.attempt), (EntryId(1), 1));
    assert_ne!(again.fence, first.fence);
}

#[test]
fn what_is_not_started_in_time_expires_wherever_it_waits() {
    let mut desk = Desk::new(policy());
    let late = |entry: u64| Submission {
        start_before: Some(at(50)),
        ..submission(entry, &entry.to_string())
    };
    desk.submit(late(1), 0);
    desk.submit(Submission { due: Some(at(99)), ..late(2) }, 0);
    desk.submit(Submission { parents: 1, ..late(3) }, 0);
    desk.submit(late(4), 0);
    let run = desk.started(false, 1).unwrap();
    assert_eq!(run.entry, EntryId(1));
    desk.pass(50);
    let states: Vec<_> = (1..=4).map(|it| desk.state(it).unwrap()).collect();
    assert_eq!(states, [State::Running, State::Expired, State::Expired, State::Expired]);
    // A retry is a start, too.
    desk.end(run, Verdict::Failed { retry_after_ms: None }, 60).unwrap();
    desk.pass(60);
    assert_eq!(desk.state(1), Some(State::Expired));
    assert_eq!(desk.started(false, 999), None);
    // Who wants it again has no such time.
    desk.book.redrive(EntryId(4), at(1_000), &mut desk.out).unwrap();
    desk.pass(1_001);
    let run = desk.started(false, 1_001).unwrap();
    assert_eq!(run.entry, EntryId(4));
    assert_eq!(desk.book.life(EntryId(4)).map(|it| it.generation), Some(2));
}

#[test]
fn a_newer_message_takes_the_place_and_ends_the_run_of_the_older() {
    let limits = Limits { concurrency: Some(1), ..Limits::default() };
    let mut desk = Desk::new(JobRules { limits, ..policy() });
    let task = |entry: u64| {
        let mut it = submission(entry, "task");
        it.application.origin = Origin::Task;
        it
    };
    desk.submit(task(1), 0);
    let older = desk.started(false, 0).unwrap();
    assert_eq!(desk.submit(task(2), 5), Admitted::Supersedes(EntryId(1)));
    assert_eq!(desk.end(older, Verdict::Succeeded, 6), Err(BookError::Unknown));
    let newer = desk.started(false, 7).unwrap();
    assert_eq!(newer.entry, EntryId(2));
    assert_eq!(desk.book.life(EntryId(2)).map(|it| it.generation), Some(2));
    assert_eq!(desk.story(1), [Some(State::Ready), Some(State::Running), None]);
}

#[test]
fn a_job_comes_after_others_and_not_after_one_that_was_rejected() {
    let mut desk = Desk::new(policy());
    desk.submit(Submission { parents: 2, ..submission(1, "a") }, 0);
    desk.submit(Submission { parents: 2, due: Some(at(70)), ..submission(2, "b") }, 0);
    desk.submit(Submission { parents: 2, ..submission(3, "c") }, 0);
    for entry in 1..=2 {
        let mut parent = |ms| desk.book.parent_ended(EntryId(entry), true, at(ms), &mut desk.out);
        assert_eq!(parent(10), Ok(State::Waiting));
        assert!(parent(20).is_ok());
    }
    desk.book.parent_ended(EntryId(3), false, at(20), &mut desk.out).unwrap();
    let states: Vec<_> = (1..=3).map(|it| desk.state(it).unwrap()).collect();
    assert_eq!(states, [State::Ready, State::Scheduled, State::Cancelled]);
}

#[test]
fn priorities_change_until_a_job_runs() {
    let none = model::job::Aging(0);
    let mut desk = Desk::new(JobRules { scheduling: Scheduling::Priority(none), ..policy() });
    for entry in 1..=3 {
        desk.submit(submission(entry, &entry.to_string()), entry);
    }
    desk.book.reprioritise(EntryId(3), 9).unwrap();
    let run = desk.started(false, 10).unwrap();
    assert_eq!(run.entry, EntryId(3));
    let refused = Err(BookError::NotNow(NotNow::Pending(State::Running)));
    assert_eq!(desk.book.reprioritise(EntryId(3), 1), refused);
    assert_eq!(desk.book.reprioritise(EntryId(7), 1), Err(BookError::Unknown));
    assert_eq!(desk.started(false, 11).map(|it| it.entry), Some(EntryId(1)));
}

#[test]
fn a_job_that_is_wanted_again_keeps_its_id() {
    let mut desk = Desk::new(policy());
    desk.submit(submission(1, "a"), 0);
    let run = desk.started(false, 0).unwrap();
    desk.end(run, Verdict::Rejected, 10).unwrap();
    desk.book.redrive(EntryId(1), at(20), &mut desk.out).unwrap();
    // Longer after its settlement than a repetition is known by.
    assert_eq!(desk.submit(submission(2, "a"), 9_000), Admitted::Duplicate(EntryId(1)));
}

#[test]
fn a_repeated_submission_is_no_job() {
    let mut desk = Desk::new(policy());
    desk.submit(submission(1, "a"), 0);
    assert_eq!(desk.submit(submission(2, "a"), 1), Admitted::Duplicate(EntryId(1)));
    assert_eq!((desk.book.len(), desk.state(2)), (1, None));
}

#[derive(Clone, Debug)]
enum Step {
    Submit { key: u8, delay_ms: Option<u64>, start_in_ms: Option<u64>, parents: u32, task: bool },
    Next { is_leased: bool },
    End { pick: usize, verdict: u8 },
    Cancel { pick: usize },
    Redrive { pick: usize },
    Parent { pick: usize, is_done: bool },
    Configure { scheduling: u8, concurrency: u64 },
    Pass { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = 0..64_usize;
    let submit = (
        0..4_u8,
        prop::option::of(0..300_u64),
        prop::option::weighted(0.3, 1..900_u64),
        prop_oneof![4 => Just(0), 1 => 1..3_u32],
        prop::bool::weighted(0.2),
    );
    let step = prop_oneof![
        4 => submit.prop_map(|(key, delay_ms, start_in_ms, parents, task)| Step::Submit {
            key, delay_ms, start_in_ms, parents, task
        }),
        4 => any::<bool>().prop_map(|is_leased| Step::Next { is_leased }),
        4 => (pick.clone(), 0..6_u8).prop_map(|(pick, verdict)| Step::End { pick, verdict }),
        1 => pick.clone().prop_map(|pick| Step::Cancel { pick }),
        1 => pick.clone().prop_map(|pick| Step::Redrive { pick }),
        1 => (pick, any::<bool>()).prop_map(|(pick, is_done)| Step::Parent { pick, is_done }),
        1 => (0..6_u8, 1..4_u64)
            .prop_map(|(scheduling, concurrency)| Step::Configure { scheduling, concurrency }),
        3 => (0..400_u64).prop_map(|ms| Step::Pass { ms }),
    ];
    prop::collection::vec(step, 1..120)
}

fn scheduling(number: u8) -> Scheduling {
    let aging = model::job::Aging::default();
    match number {
        0 => Scheduling::Fifo,
        1 => Scheduling::Lifo,
        2 => Scheduling::Priority(aging),
        3 => Scheduling::Sjf(aging),
        4 => Scheduling::Edf,
        _ => Scheduling::Fair,
    }
}

/// What the book has said, kept as a list of states.
#[derive(Default)]
struct Told {
    states: BTreeMap<EntryId, (State, u32)>,
    settled: BTreeMap<(EntryId, u32), u32>,
}

impl Told {
    fn hear(&mut self, out: &mut Vec<Transition>) {
        for it in out.drain(..) {
            let Some(to) = it.to else {
                self.states.remove(&it.entry).expect("it was told of");
                continue;
            };
            if to.is_settled() {
                *self.settled.entry((it.entry, it.generation)).or_default() += 1;
            }
            self.states.insert(it.entry, (to, it.generation));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_no_job_is_lost_or_settled_twice(steps in steps()) {
        let mut desk = Desk::new(policy());
        let mut told = Told::default();
        let (mut now, mut next_entry) = (0, 1_u64);
        let mut runs: Vec<Started> = Vec::new();
        let mut concurrency = u64::MAX;
        for step in steps {
            match step {
                Step::Submit { key, delay_ms, start_in_ms, parents, task } => {
                    let id = if task { format!("task {key}") } else { next_entry.to_string() };
                    let mut it = submission(next_entry, &id);
                    it.application.origin = if task { Origin::Task } else { Origin::Client };
                    it.key = Name::new(&key.to_string());
                    it.due = delay_ms.map(|it| at(now + it));
                    it.start_before = start_in_ms.map(|it| at(now + it));
                    it.parents = parents;
                    desk.submit(it, now);
                    next_entry += 1;
                }
                Step::Next { is_leased } => {
                    let (_, running) = desk.book.counts();
                    if let Some(started) = desk.started(is_leased, now) {
                        prop_assert!(running < concurrency, "a limit was passed");
                        prop_assert!(runs.iter().all(|it| it.fence < started.fence));
                        runs.push(started);
                    }
                }
                Step::End { pick, verdict } if !runs.is_empty() => {
                    let run = runs[pick % runs.len()];
                    let verdict = [
                        Verdict::Succeeded,
                        Verdict::Rejected,
                        Verdict::Failed { retry_after_ms: None },
                        Verdict::Lost,
                        Verdict::Released,
                        Verdict::Failed { retry_after_ms: Some(7) },
                    ][usize::from(verdict)];
                    let last = runs.iter().filter(|it| it.entry == run.entry).map(|it| it.fence);
                    let is_last = last.max() == Some(run.fence);
                    let done = desk.end(run, verdict, now);
                    prop_assert!(is_last || done.is_err(), "a stale worker has settled a job");
                    prop_assert!(desk.end(run, Verdict::Succeeded, now).is_err());
                }
                Step::Cancel { pick } => {
                    let entry = EntryId(pick as u64 % next_entry);
                    desk.book.cancel(entry, at(now), &mut desk.out).ok();
                }
                Step::Redrive { pick } => {
                    let entry = EntryId(pick as u64 % next_entry);
                    desk.book.redrive(entry, at(now), &mut desk.out).ok();
                }
                Step::Parent { pick, is_done } => {
                    let entry = EntryId(pick as u64 % next_entry);
                    desk.book.parent_ended(entry, is_done, at(now), &mut desk.out).ok();
                }
                Step::Configure { scheduling: number, concurrency: most } => {
                    concurrency = most;
                    let limits = Limits { concurrency: Some(most), ..Limits::default() };
                    let scheduling = scheduling(number);
                    desk.book.configure(JobRules { scheduling, limits, ..policy() });
                }
                Step::Pass { ms } => {
                    now += ms;
                    desk.pass(now);
                    prop_assert!(desk.book.due().is_none_or(|it| at(now) < it));
                }
                Step::End { .. } => {}
            }
            told.hear(&mut desk.out);
            let lives: BTreeMap<EntryId, (State, u32)> = (0..next_entry)
                .filter_map(|it| desk.book.life(EntryId(it)).map(|life| (EntryId(it), life)))
                .map(|(entry, life)| (entry, (life.state, life.generation)))
                .collect();
            prop_assert_eq!(&lives, &told.states, "what is and what was told");
            let count = |state: State| lives.values().filter(|(it, _)| *it == state).count();
            let counts = (count(State::Ready), count(State::Running) as u64);
            prop_assert_eq!(desk.book.counts(), counts);
            prop_assert!(told.settled.values().all(|it| *it == 1), "settled twice");
        }
        // Everybody works on, and time passes: nothing is left behind.
        desk.book.configure(policy());
        for entry in 0..next_entry {
            desk.book.cancel(EntryId(entry), at(now), &mut desk.out).ok();
        }
        for run in runs {
            desk.end(run, Verdict::Lost, now).ok();
        }
        desk.pass(now + 1_000_000);
        desk.pass(now + 2_000_000);
        prop_assert_eq!((desk.book.len(), desk.book.due()), (0, None));
    }
}
