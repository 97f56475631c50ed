//! Seeds after seeds: crashes at any moment, torn writes, orderly stops, killed processes, failing
//! disks. `SLOW=1` runs ten times as many.

use sim::{Outcome, Plan, run};

/// Failing seeds that are shown; with so many, the rest says nothing new.
const WRONG_SHOWN: usize = 3;

fn seeds(first: u64, count: u64, plan: Plan) -> Outcome {
    let times = if std::env::var_os("SLOW").is_some() { 10 } else { 1 };
    let mut all = Outcome::default();
    let mut wrong = Vec::new();
    for seed in first..first + count * times {
        let outcome = run(seed, plan);
        all.states += outcome.states;
        all.confirmed += outcome.confirmed;
        all.restarts += outcome.restarts;
        all.failures += outcome.failures;
        all.checkpoints += outcome.checkpoints;
        all.checkpointed += outcome.checkpointed;
        if let Some(what) = outcome.wrong.first() {
            wrong.push(format!("seed {seed}: {what}"));
        }
        if wrong.len() == WRONG_SHOWN {
            break;
        }
    }
    assert!(wrong.is_empty(), "seeds fail, {plan:?}\n{}", wrong.join("\n"));
    // A run in which nothing happened proves nothing.
    assert!(all.restarts > 0 && all.confirmed > count, "{all:?}");
    assert!(all.checkpoints > 0 && all.checkpointed > 0, "{all:?}");
    all
}

/// A retired segment that a crash left behind was counted; a file of the spill log went too early.
#[test]
fn seeds_that_once_failed_pass() {
    let failing = Plan { faults: true, restart_every: 12, ..Plan::default() };
    let good = Plan::default();
    for (seed, plan) in
        [(20_261_138_500_044, failing), (3_000_053, good), (3_000_266, good), (3_000_530, good)]
    {
        let outcome = run(seed, plan);
        assert_eq!(outcome.wrong, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn nothing_confirmed_is_lost_by_crashes() {
    let all = seeds(1, 180, Plan::default());
    assert!(5_000 < all.states, "{all:?}");
}

#[test]
fn nothing_confirmed_is_lost_by_more_crashes() {
    let all = seeds(50_000, 180, Plan::default());
    assert!(5_000 < all.states, "{all:?}");
}

#[test]
fn long_lives_with_few_crashes_keep_what_they_confirmed() {
    let all = seeds(100_000, 25, Plan { steps: 400, restart_every: 100, ..Plan::default() });
    assert!(600 < all.states, "{all:?}");
}

#[test]
fn one_crash_after_the_other_keeps_what_was_confirmed() {
    let plan = Plan { steps: 60, restart_every: 8, images: 10, ..Plan::default() };
    let all = seeds(200_000, 90, plan);
    assert!(4_000 < all.states, "{all:?}");
}

#[test]
fn failing_disks_lose_nothing_and_confirm_nothing() {
    let all = seeds(300_000, 150, Plan { faults: true, ..Plan::default() });
    assert!(4_000 < all.states && 15 < all.failures, "{all:?}");
}

#[test]
fn same_seed_does_the_same_again() {
    for seed in 400_000..400_012 {
        let plan = Plan { traced: true, ..Plan::default() };
        let (one, other) = (run(seed, plan), run(seed, plan));
        assert_eq!(one.states, other.states, "seed {seed}");
        for (one, other) in one.trace.iter().zip(&other.trace) {
            assert_eq!(one, other, "seed {seed}");
        }
    }
}
