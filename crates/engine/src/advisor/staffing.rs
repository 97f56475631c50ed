//! How many workers, and how long until a backlog is gone.

use super::erlang::Load;

/// What a queue is asked to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Share of the jobs that may wait longer, above 0.
    pub late_share: f64,
    /// Than this many seconds.
    pub wait_s: f64,
    /// Highest utilisation; 1 for no such limit.
    pub utilisation_max: f64,
}

/// No answer is larger.
const SLOTS_MAX: u64 = 1_000_000;

/// The least number of workers that keeps up with the load of `load` and meets the target; its own
/// `slots` do not count. At most 1,000,000.
pub fn slots_for(load: Load, target: Target) -> u64 {
    let least = load.offered().floor() + 1.0;
    let by_utilisation = (load.offered() / target.utilisation_max.clamp(0.01, 1.0)).ceil();
    let from = least.max(by_utilisation).clamp(1.0, SLOTS_MAX as f64) as u64;
    let meets = |slots: u64| {
        let load = Load { slots, ..load };
        load.is_stable() && load.wait_longer(target.wait_s) <= target.late_share
    };
    // More workers never make a wait longer: double until it is enough, then halve the rest.
    let (mut short, mut enough) = (from - 1, from);
    while !meets(enough) && enough < SLOTS_MAX {
        (short, enough) = (enough, (enough * 2).min(SLOTS_MAX));
    }
    while short + 1 < enough {
        let middle = u64::midpoint(short, enough);
        if meets(middle) { enough = middle } else { short = middle }
    }
    enough
}

/// Seconds until `backlog` jobs are gone. `None` where it does not shrink.
pub fn drain_s(backlog: f64, load: Load) -> Option<f64> {
    let spare = load.capacity() - load.arrival_rate;
    if backlog <= 0.0 { Some(0.0) } else { (0.0 < spare).then(|| backlog / spare) }
}

/// Attempts that a job takes on average when each fails with the chance `failing` and there are at
/// most `attempts`: what retries multiply the load by.
pub fn attempts_per_job(failing: f64, attempts: u32) -> f64 {
    if failing >= 1.0 {
        return f64::from(attempts);
    }
    (1.0 - failing.max(0.0).powi(attempts.min(i32::MAX as u32) as i32)) / (1.0 - failing.max(0.0))
}

/// Seconds until a job starts that has `ahead` others before it while all workers are busy, which
/// end `completions` jobs per second: the mean, and what a share `quantile` of such jobs stays
/// below.
/// Exact for exponential service: a sum of `ahead + 1` completions has Erlang's distribution.
pub fn start_in(ahead: u64, completions: f64, quantile: f64) -> (f64, f64) {
    let stages = ahead as f64 + 1.0;
    let mean = stages / completions;
    // The chance to be later than x falls as x grows; halve the interval that holds the answer.
    let (mut low, mut high) = (0.0, stages + 40.0 * stages.sqrt() + 40.0);
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        if later(ahead, middle) > 1.0 - quantile { low = middle } else { high = middle }
    }
    (mean, high / completions)
}

/// Chance that `ahead + 1` events of rate 1 take longer than `time`: at most `ahead` did.
fn later(ahead: u64, time: f64) -> f64 {
    // Above this many the normal distribution differs by less than anybody can see.
    const EXACT_MAX: u64 = 500;
    if ahead > EXACT_MAX {
        // Wilson and Hilferty, 1931: the cube root is nearly normal.
        let stages = ahead as f64 + 1.0;
        let spread = (1.0 / (9.0 * stages)).sqrt();
        let away = ((time / stages).cbrt() - (1.0 - 1.0 / (9.0 * stages))) / spread;
        return above(away);
    }
    let mut term = -time;
    let mut sum = 0.0;
    for events in 0..=ahead {
        if 0 < events {
            term += (time / events as f64).ln();
        }
        sum += term.exp();
    }
    sum
}

/// Chance that a standard normal number is above `away` (Abramowitz and Stegun 26.2.17, 7.5e-8).
fn above(away: f64) -> f64 {
    if away < 0.0 {
        return 1.0 - above(-away);
    }
    const FACTORS: [f64; 5] =
        [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let step = 1.0 / (1.0 + 0.231_641_9 * away);
    let sum = FACTORS.iter().rev().fold(0.0, |sum, it| (sum + it) * step);
    (-away * away / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(late_share: f64, wait_s: f64) -> Target {
        Target { late_share, wait_s, utilisation_max: 1.0 }
    }

    #[test]
    fn workers_for_a_target_are_the_least_that_meet_it() {
        let load = |arrivals, service_s| Load::markovian(arrivals, service_s, 0);
        let varied = Load { scv_service: 4.0, ..load(20.0, 0.2) };
        for (load, target, slots, tail) in [
            (load(20.0, 0.2), target(0.05, 0.1), 7, 0.030_147),
            (load(20.0, 0.2), target(0.05, 0.5), 5, 0.045_484),
            (load(20.0, 0.2), target(0.01, 0.05), 9, 0.006_807),
            (varied, target(0.05, 0.1), 8, 0.026_530),
            (load(1_000.0, 0.05), target(0.05, 0.01), 58, 0.039_255),
        ] {
            assert_eq!(slots_for(load, target), slots);
            let found = Load { slots, ..load }.wait_longer(target.wait_s);
            assert!((found - tail).abs() < 1e-6, "{found} instead of {tail}");
        }
        let capped = Target { utilisation_max: 0.8, ..target(0.05, 0.01) };
        assert_eq!(slots_for(load(1_000.0, 0.05), capped), 63);
        assert_eq!(slots_for(load(0.0, 0.2), capped), 1);
        assert_eq!(slots_for(load(1e12, 1.0), capped), SLOTS_MAX);
    }

    #[test]
    fn a_backlog_drains_by_what_is_spare() {
        assert_eq!(drain_s(12_000.0, Load::markovian(30.0, 0.2, 10)), Some(600.0));
        assert_eq!(drain_s(1.0, Load::markovian(30.0, 0.2, 5)), None);
        assert_eq!(drain_s(0.0, Load::markovian(30.0, 0.2, 5)), Some(0.0));
    }

    #[test]
    fn retries_multiply_the_load() {
        assert!((attempts_per_job(0.2, 5) - 1.249_6).abs() < 1e-9);
        assert!((attempts_per_job(0.2, u32::MAX) - 1.25).abs() < 1e-9);
        assert_eq!(attempts_per_job(0.0, 5), 1.0);
        assert_eq!(attempts_per_job(1.0, 5), 5.0);
    }

    #[test]
    fn a_job_starts_after_those_ahead_of_it() {
        let (mean, late) = start_in(17, 25.0, 0.95);
        assert!((mean - 0.72).abs() < 1e-9);
        assert!((late - 1.02).abs() < 0.005, "{late}");
        let (_, alone) = start_in(0, 1.0, 0.95);
        assert!((alone - 20.0_f64.ln()).abs() < 1e-6, "{alone}");
        // The exact sum and the approximation meet where one takes over from the other.
        let (_, exact) = start_in(500, 1.0, 0.95);
        let (_, near) = start_in(501, 1.0, 0.95);
        assert!((0.9..1.2).contains(&(near - exact)), "{exact} {near}");
    }
}
