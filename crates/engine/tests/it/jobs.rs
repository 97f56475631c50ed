//! Orders and shares of ready jobs, by the tables that the documentation of jobs promises.

use engine::job::{Admission, Dispatch, ReadyJob, Selection};
use model::{
    EntryId, Name, Timestamp,
    job::{Aging, Scheduling, Weights},
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

fn job(id: u64, key: &str, ready_s: u64) -> ReadyJob {
    ReadyJob {
        id: EntryId(id),
        key: Name::new(key),
        priority: 0,
        cost_us: 1_000_000,
        deadline: None,
        ready_at: Timestamp(ready_s * 1_000),
    }
}

fn taken(selection: &mut Selection) -> Option<ReadyJob> {
    match selection.take(|_| Admission::Now) {
        Dispatch::Job { job, .. } => Some(job),
        _ => None,
    }
}

fn weights(of: &[(&str, u32)]) -> Weights {
    Weights(of.iter().map(|(key, it)| (Name::new(key), it * 1_000)).collect())
}

/// Six jobs that all wait when the only worker becomes free at ten seconds.
fn order_of(scheduling: Scheduling, weights: Weights) -> String {
    let rows = [
        ("red", 0, 8, Some(60)),
        ("red", 5, 2, Some(30)),
        ("blue", 0, 1, None),
        ("red", 9, 4, Some(20)),
        ("green", 5, 2, Some(40)),
        ("blue", 0, 6, Some(12)),
    ];
    let mut selection = Selection::new(scheduling, weights);
    for (number, (key, priority, cost_s, deadline_s)) in (0..).zip(rows) {
        selection.add(ReadyJob {
            priority,
            cost_us: cost_s * 1_000_000,
            deadline: deadline_s.map(|it: u64| Timestamp(it * 1_000)),
            ..job(number, key, number)
        });
    }
    let mut order = String::new();
    while let Some(job) = taken(&mut selection) {
        order.push(char::from(b'a' + job.id.0 as u8));
        selection.ended(&job, job.cost_us);
    }
    order
}

#[test]
fn each_policy_takes_the_six_jobs_in_its_order() {
    let aging = |per_second: u32| Aging(per_second * 1_000_000);
    for (scheduling, expected) in [
        (Scheduling::Fifo, "abcdef"),
        (Scheduling::Lifo, "fedcba"),
        (Scheduling::Priority(aging(0)), "dbeacf"),
        (Scheduling::Priority(aging(2)), "bdaecf"),
        (Scheduling::Sjf(aging(0)), "cbedfa"),
        (Scheduling::Sjf(aging(1)), "bcedaf"),
        (Scheduling::Edf, "fdbeac"),
        (Scheduling::Fair, "acefbd"),
    ] {
        assert_eq!(order_of(scheduling, Weights::default()), expected, "{scheduling:?}");
    }
    assert_eq!(order_of(Scheduling::Fair, weights(&[("red", 16)])), "acebdf");
}

/// Keys with something to do at all times, on `slots` workers, for `seconds` of simulated time.
/// Returns the service that each key received in microseconds, of jobs that have ended, and the
/// widest difference of weighted service between two keys at the end of any job.
fn served(keys: &[(&str, u64, u64)], of: Weights, slots: usize, seconds: u64) -> (Vec<u64>, f64) {
    let weight_of = |key: &str| of.0.get(&Name::new(key)).map_or(1.0, |it| f64::from(*it) / 1e3);
    let mut selection = Selection::new(Scheduling::Fair, of.clone());
    let mut next_id = 0;
    let mut add = |selection: &mut Selection, key: &str, estimated_us: u64| {
        next_id += 1;
        selection.add(ReadyJob { cost_us: estimated_us, ..job(next_id, key, 0) });
    };
    for (key, _, estimated_us) in keys {
        add(&mut selection, key, *estimated_us);
        add(&mut selection, key, *estimated_us);
    }
    let mut service: BTreeMap<&str, u64> = keys.iter().map(|(key, ..)| (*key, 0)).collect();
    let mut running: HashMap<EntryId, ReadyJob> = HashMap::new();
    let mut ends = BinaryHeap::new();
    let (mut now, mut widest) = (0, 0.0_f64);
    loop {
        while running.len() < slots {
            let job = taken(&mut selection).expect("every key has a job");
            let (key, real_us, estimated_us) =
                keys.iter().find(|(key, ..)| Name::new(key) == job.key).expect("it is known");
            add(&mut selection, key, *estimated_us);
            ends.push(Reverse((now + real_us, job.id, *key, *real_us)));
            running.insert(job.id, job);
        }
        let Some(Reverse((end, id, key, real_us))) = ends.pop() else { break };
        if seconds * 1_000_000 < end {
            break;
        }
        now = end;
        selection.ended(&running.remove(&id).expect("it runs"), real_us);
        *service.entry(key).or_default() += real_us;
        // Jobs that end at the same time end together.
        if ends.peek().is_none_or(|Reverse((next, ..))| now < *next) {
            let weighted = service.iter().map(|(key, it)| *it as f64 / 1e6 / weight_of(key));
            let (low, high) = weighted
                .fold((f64::MAX, 0.0), |(low, high), it| (f64::min(low, it), f64::max(high, it)));
            widest = widest.max(high - low);
        }
    }
    (service.into_values().map(|it| it / 1_000_000).collect(), widest)
}

#[test]
fn keys_receive_service_by_weight_whatever_their_jobs_take() {
    const S: u64 = 1_000_000;
    let equal = Weights::default;
    for (keys, of, slots, seconds, expected, bound) in [
        ([("A", S, S), ("B", 3 * S, 3 * S)], equal(), 1, 600, [300, 300], 3.0),
        ([("A", S, S), ("B", S, S)], weights(&[("A", 3)]), 1, 400, [300, 100], 1.0),
        ([("A", S, S), ("B", 10 * S, S)], equal(), 1, 2_000, [1_000, 1_000], 10.0),
        ([("A", S, S), ("B", 10 * S, S)], equal(), 4, 2_000, [4_000, 4_000], 35.0),
    ] {
        let (service, widest) = served(&keys, of, slots, seconds);
        for (found, expected) in service.iter().zip(expected) {
            assert!(
                (*found as f64 - f64::from(expected)).abs() <= bound,
                "{keys:?} on {slots}: {service:?}"
            );
        }
        assert!(widest <= bound + 1e-9, "{keys:?} on {slots}: {widest} s apart");
    }
}

#[test]
fn who_was_never_served_comes_before_a_crowd() {
    let mut selection = Selection::new(Scheduling::Fair, Weights::default());
    for id in 0..10_000 {
        selection.add(job(id, "A", 0));
    }
    for _ in 0..500 {
        let job = taken(&mut selection).expect("there are more");
        selection.ended(&job, job.cost_us);
    }
    selection.add(job(10_000, "C", 0));
    assert_eq!(taken(&mut selection).map(|it| it.key), Some(Name::new("C")));
}

#[test]
fn a_key_at_its_limit_is_passed_over_until_there_is_room() {
    for scheduling in [Scheduling::Fifo, Scheduling::Fair, Scheduling::Edf] {
        let mut selection = Selection::new(scheduling, Weights::default());
        for (id, key) in [(1, "full"), (2, "full"), (3, "later"), (4, "free")] {
            selection.add(job(id, key, 0));
        }
        let until = Timestamp(5_000);
        let mut asked = 0;
        let mut take = |selection: &mut Selection| {
            selection.take(|job| {
                asked += 1;
                match job.key.as_str() {
                    "full" => Admission::KeyFull,
                    "later" => Admission::KeyUntil(until),
                    _ => Admission::Now,
                }
            })
        };
        let Dispatch::Job { job: free, .. } = take(&mut selection) else { panic!("none") };
        assert_eq!(free.id, EntryId(4));
        assert_eq!(take(&mut selection), Dispatch::Nothing);
        assert_eq!(take(&mut selection), Dispatch::Nothing);
        assert_eq!(asked, 3, "who is passed over is not asked again");
        assert_eq!(selection.wake_at(), Some(until));
        selection.wake(Timestamp(4_999));
        assert_eq!(taken(&mut selection), None);
        selection.wake(until);
        assert_eq!(taken(&mut selection).map(|it| it.id), Some(EntryId(3)));
        selection.ended(&job(9, "full", 0), 0);
        assert_eq!(taken(&mut selection).map(|it| it.id), Some(EntryId(1)));
        assert_eq!(selection.len(), 1);
    }
}

#[test]
fn a_queue_at_its_limit_dispatches_nothing_and_keeps_its_order() {
    let mut selection = Selection::new(Scheduling::Fifo, Weights::default());
    selection.add(job(1, "a", 0));
    assert_eq!(selection.take(|_| Admission::QueueFull), Dispatch::QueueFull);
    let until = Timestamp(7);
    assert_eq!(selection.take(|_| Admission::QueueUntil(until)), Dispatch::QueueUntil(until));
    assert_eq!(taken(&mut selection).map(|it| it.id), Some(EntryId(1)));
    assert!(selection.is_empty());
}

#[test]
fn a_released_job_takes_its_place_again() {
    let mut selection = Selection::new(Scheduling::Fifo, Weights::default());
    for id in 1..=3 {
        selection.add(job(id, "", 0));
    }
    let Dispatch::Job { job: first, sequence } = selection.take(|_| Admission::Now) else {
        panic!("none")
    };
    selection.ended(&first, 0);
    selection.put_back(first, sequence);
    let order: Vec<u64> = std::iter::from_fn(|| taken(&mut selection)).map(|it| it.id.0).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn another_order_holds_for_jobs_that_wait_already() {
    let mut selection = Selection::new(Scheduling::Fair, Weights::default());
    for (id, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        selection.add(job(id, key, id));
    }
    selection.remove(EntryId(3));
    selection.set_scheduling(Scheduling::Lifo, Weights::default());
    let order: Vec<u64> = std::iter::from_fn(|| taken(&mut selection)).map(|it| it.id.0).collect();
    assert_eq!(order, [4, 2, 1]);
}
