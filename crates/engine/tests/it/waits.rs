//! What each order of jobs does to their waits: one worker, Poisson arrivals, against the formulas
//! of Pollaczek and Khinchine (order of arrival), Cobham (priorities) and Phipps (shortest first).

use crate::chance::Chance;
use engine::job::{Admission, Dispatch, ReadyJob, Selection};
use model::{
    EntryId, Name, Timestamp,
    job::{Aging, Scheduling, Weights},
};

/// A class of jobs.
#[derive(Clone, Copy)]
struct Class {
    /// Arrivals per second.
    rate: f64,
    priority: u8,
    /// Seconds of work; where it varies, exponentially.
    work_s: f64,
    varies: bool,
}

const fn class(rate: f64, priority: u8, work_s: f64, varies: bool) -> Class {
    Class { rate, priority, work_s, varies }
}

/// Nine in ten jobs are short.
const SIZES: [Class; 2] = [class(2.25, 0, 0.1, false), class(0.25, 0, 2.0, false)];
/// The same work, of two priorities.
const PRIORITIES: [Class; 2] = [class(3.0, 9, 0.1, true), class(5.0, 0, 0.1, true)];

const JOBS: u64 = 100_000;
/// A simulated second in the milliseconds of the engine, so that a wait is known to a microsecond.
const SECOND: f64 = 1_000_000.0;
/// Microseconds in one of those milliseconds.
const STRETCH: f64 = 1_000.0;

#[derive(Debug, Default)]
struct Waits {
    mean_s: [f64; 2],
    overall_s: f64,
    square_s2: f64,
}

/// Mean waits of both classes over some runs, the first twentieth of each left out.
fn waits(classes: [Class; 2], scheduling: Scheduling) -> Waits {
    let (mut sums, mut counts, mut squares) = ([0.0; 2], [0_u64; 2], 0.0);
    for seed in 0..2 {
        let mut chance = Chance(seed);
        let mut selection = Selection::new(scheduling, Weights::default());
        let mut next = classes.map(|it| chance.exponential(1.0 / it.rate));
        let (mut free_at, mut made, mut taken) = (0.0_f64, 0_u64, 0_u64);
        let mut arrived: Vec<(f64, usize, f64)> = Vec::new();
        while taken < JOBS {
            let class = usize::from(next[1] < next[0]);
            // All that come before the worker is free stand in line when it is.
            if selection.is_empty() || next[class] <= free_at {
                let (at, Class { rate, priority, work_s, varies }) = (next[class], classes[class]);
                next[class] = at + chance.exponential(1.0 / rate);
                let work_s = if varies { chance.exponential(work_s) } else { work_s };
                free_at = if selection.is_empty() { free_at.max(at) } else { free_at };
                arrived.push((at, class, work_s));
                selection.add(ReadyJob {
                    id: EntryId(made),
                    key: Name::default(),
                    priority,
                    cost_us: (work_s * SECOND * STRETCH) as u64,
                    deadline: None,
                    ready_at: Timestamp((at * SECOND) as u64),
                });
                made += 1;
                continue;
            }
            let Dispatch::Job { job, .. } = selection.take(|_| Admission::Now) else {
                panic!("it is not empty")
            };
            let (at, class, work_s) = arrived[job.id.0 as usize];
            taken += 1;
            if JOBS / 20 <= taken {
                sums[class] += free_at - at;
                counts[class] += 1;
                squares += (free_at - at) * (free_at - at);
            }
            free_at += work_s;
            selection.ended(&job, job.cost_us);
        }
    }
    let all = (counts[0] + counts[1]) as f64;
    Waits {
        mean_s: [sums[0] / counts[0] as f64, sums[1] / counts[1] as f64],
        overall_s: (sums[0] + sums[1]) / all,
        square_s2: squares / all,
    }
}

/// A second of waiting is worth `per_second`, in the stretched time of the simulation.
fn aging(per_second: f64) -> Aging {
    Aging((per_second * 1e6) as u32)
}

fn within(found: f64, expected: f64, share: f64, what: &str) {
    assert!((found / expected - 1.0).abs() <= share, "{what}: {found} instead of {expected}");
}

#[test]
fn shortest_job_first_halves_the_mean_wait() {
    let fifo = waits(SIZES, Scheduling::Fifo);
    within(fifo.mean_s[0], 1.859, 0.08, "in order, short");
    within(fifo.mean_s[1], 1.859, 0.08, "in order, long");
    let sjf = waits(SIZES, Scheduling::Sjf(aging(0.0)));
    within(sjf.mean_s[0], 0.6597, 0.08, "shortest first, short");
    within(sjf.mean_s[1], 2.3988, 0.08, "shortest first, long");
    within(sjf.overall_s, 0.8336, 0.08, "shortest first");
    // Whatever is gained for one is paid by another.
    let paid = |it: &Waits| 0.225 * it.mean_s[0] + 0.5 * it.mean_s[1];
    within(paid(&sjf), 1.3478, 0.08, "conserved, shortest first");
    within(paid(&fifo), 1.3478, 0.08, "conserved, in order");
}

#[test]
fn aging_leads_from_shortest_first_back_to_the_order_of_arrival() {
    for (per_second, short_s, long_s, mean_s) in [
        (0.1, 0.662, 2.391, 0.835),
        (0.5, 1.032, 2.225, 1.151),
        (1.0, 1.332, 2.089, 1.408),
        (10.0, 1.791, 1.883, 1.800),
    ] {
        let found = waits(SIZES, Scheduling::Sjf(aging(per_second)));
        within(found.mean_s[0], short_s, 0.08, "short");
        within(found.mean_s[1], long_s, 0.08, "long");
        within(found.overall_s, mean_s, 0.08, "all");
    }
}

#[test]
fn priorities_wait_as_long_as_cobham_says() {
    let found = waits(PRIORITIES, Scheduling::Priority(aging(0.0)));
    within(found.mean_s[0], 0.114_286, 0.05, "high");
    within(found.mean_s[1], 0.571_429, 0.08, "low");
}

#[test]
fn last_come_first_served_waits_as_long_and_spreads_further() {
    let (fifo, lifo) = (waits(PRIORITIES, Scheduling::Fifo), waits(PRIORITIES, Scheduling::Lifo));
    within(fifo.overall_s, 0.4, 0.08, "in order");
    within(lifo.overall_s, fifo.overall_s, 0.03, "last first");
    within(fifo.square_s2, 0.4, 0.2, "in order, squares");
    within(lifo.square_s2, 2.0, 0.2, "last first, squares");
}

#[test]
fn shortest_job_first_halves_the_wait_of_exponential_jobs_too() {
    within(waits(PRIORITIES, Scheduling::Sjf(aging(0.0))).overall_s, 0.188_222, 0.08, "M/M/1");
}
