//! Runs seeds until time is over: `torture --minutes 10 [--seed 1] [--steps 90] [--mixed]`, or
//! `--seconds 20`. With `--faults` every disk fails, with `--mixed` every third; with `--only` it
//! runs one seed and prints everything that happens.
#![allow(clippy::print_stdout, reason = "what it finds is printed")]

use sim::{Plan, run};
use std::time::{Duration, Instant};

fn number(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|it| it != name);
    arguments.nth(1).and_then(|it| it.parse().ok())
}

fn has(name: &str) -> bool {
    std::env::args().any(|it| it == name)
}

fn main() {
    let default = Plan::default();
    let plan = Plan {
        steps: number("--steps").unwrap_or(default.steps),
        images: number("--images").map_or(default.images, |it| it as usize),
        restart_every: number("--restart-every").unwrap_or(default.restart_every),
        reclaim_every: number("--reclaim-every").unwrap_or(default.reclaim_every),
        faults: has("--faults"),
        is_lenient: has("--lenient"),
        traced: false,
    };
    let first = number("--seed").unwrap_or(1);
    if has("--only") {
        let outcome = run(first, Plan { traced: true, ..plan });
        outcome.trace.iter().for_each(|it| println!("{it}"));
        println!("seed {first}: {:?}", outcome.wrong);
        return;
    }
    let minutes = number("--minutes").unwrap_or(1);
    let seconds = number("--seconds").unwrap_or(60 * minutes);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut seed, mut states, mut confirmed, mut restarts, mut failures) = (first, 0, 0, 0, 0);
    let mut failing = Vec::new();
    while Instant::now() < end {
        let outcome =
            run(seed, Plan { faults: plan.faults || has("--mixed") && seed % 3 == 0, ..plan });
        states += outcome.states;
        confirmed += outcome.confirmed;
        restarts += outcome.restarts;
        failures += outcome.failures;
        if let Some(wrong) = outcome.wrong.first() {
            println!("seed {seed}: {wrong}");
            failing.push(seed);
        }
        seed += 1;
    }
    println!(
        "{} seeds, {restarts} restarts, {states} disks judged, {confirmed} confirmed messages, \
         {failures} failures of the log; failing seeds: {failing:?}",
        seed - first
    );
    std::process::exit(i32::from(!failing.is_empty()));
}
