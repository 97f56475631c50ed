//! How many jobs may run at a time and how fast they may start, in all and for each key. Exact,
//! because one owner counts every start, whatever door the worker came through.

use model::{
    Name, Timestamp,
    job::{Limits, Rate},
};
use std::collections::HashMap;

const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// A bucket of starts, kept as the time at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at_ns: u128,
}

impl Bucket {
    /// When one start may be taken out; not after `now` means at once.
    fn open_at(&self, rate: Rate) -> Timestamp {
        let slack = u128::from(rate.interval_ns()) * u128::from(rate.burst() - 1);
        let at_ns = self.full_at_ns.saturating_sub(slack);
        let at_ms = at_ns.div_ceil(u128::from(NANOSECONDS_PER_MS));
        Timestamp(u64::try_from(at_ms).unwrap_or(u64::MAX))
    }

    fn take(&mut self, rate: Rate, now: Timestamp) {
        let now_ns = u128::from(now.0) * u128::from(NANOSECONDS_PER_MS);
        self.full_at_ns = self.full_at_ns.max(now_ns) + u128::from(rate.interval_ns());
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.full_at_ns <= u128::from(now.0) * u128::from(NANOSECONDS_PER_MS)
    }
}

/// May a job start now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Now,
    /// No job of the queue may start before one ends.
    QueueFull,
    /// No job of the queue may start before then.
    QueueUntil(Timestamp),
    /// No job of this key may start before one of its jobs ends.
    KeyFull,
    /// No job of this key may start before then.
    KeyUntil(Timestamp),
}

#[derive(Debug, Default)]
struct OfKey {
    running: u64,
    bucket: Bucket,
}

/// What runs, and what was started lately.
#[derive(Debug, Default)]
pub struct Running {
    limits: Limits,
    running: u64,
    bucket: Bucket,
    /// Keys that have something running or a bucket that is not full.
    keys: HashMap<Name, OfKey>,
    /// Keys at the last look for some to forget.
    keys_kept: usize,
}

/// Below this many keys nobody looks for some to forget.
const KEYS_KEPT_MIN: usize = 64;

impl Running {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// New limits. What runs goes on, though it be too many.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Jobs that run.
    pub fn count(&self) -> u64 {
        self.running
    }

    /// May a job of `key` start at `now`? Asks the queue's own limits first.
    pub fn admits(&self, key: &Name, now: Timestamp) -> Admission {
        let Limits { concurrency, key_concurrency, rate, key_rate } = self.limits;
        if concurrency.is_some_and(|it| it <= self.running) {
            return Admission::QueueFull;
        }
        if let Some(at) = rate.map(|it| self.bucket.open_at(it)).filter(|it| now < *it) {
            return Admission::QueueUntil(at);
        }
        let Some(of_key) = self.keys.get(key) else {
            return if key_concurrency == Some(0) { Admission::KeyFull } else { Admission::Now };
        };
        if key_concurrency.is_some_and(|it| it <= of_key.running) {
            return Admission::KeyFull;
        }
        match key_rate.map(|it| of_key.bucket.open_at(it)).filter(|it| now < *it) {
            Some(at) => Admission::KeyUntil(at),
            None => Admission::Now,
        }
    }

    /// A job of `key` starts at `now`, admitted or not.
    pub fn start(&mut self, key: &Name, now: Timestamp) {
        self.running += 1;
        if let Some(rate) = self.limits.rate {
            self.bucket.take(rate, now);
        }
        self.forget_idle_keys(now);
        // Without limits of keys as well: one that comes later must know what runs.
        let of_key = self.keys.entry(key.clone()).or_default();
        of_key.running += 1;
        if let Some(rate) = self.limits.key_rate {
            of_key.bucket.take(rate, now);
        }
    }

    /// A job of `key` that was started ends, however.
    pub fn end(&mut self, key: &Name, now: Timestamp) {
        self.running = self.running.saturating_sub(1);
        let Some(of_key) = self.keys.get_mut(key) else { return };
        of_key.running = of_key.running.saturating_sub(1);
        if of_key.running == 0 && of_key.bucket.is_full(now) {
            self.keys.remove(key);
        }
    }

    /// Keys with nothing running and a full bucket say what no entry says. Looked for when their
    /// number has doubled, so that a start costs the same on average.
    fn forget_idle_keys(&mut self, now: Timestamp) {
        if self.keys.len() < 2 * self.keys_kept.max(KEYS_KEPT_MIN) {
            return;
        }
        self.keys.retain(|_, it| 0 < it.running || !it.bucket.is_full(now));
        self.keys_kept = self.keys.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_700_000_000_000 + ms)
    }

    fn key(name: &str) -> Name {
        Name::new(name)
    }

    #[test]
    fn fifty_a_second_is_fifty_at_once_and_then_one_every_20_ms() {
        let rate = Rate::new(50, 1_000);
        let mut running = Running::new(Limits { rate, ..Limits::default() });
        let mut starts = Vec::new();
        for ms in 0..=1_000 {
            while running.admits(&key("a"), at(ms)) == Admission::Now {
                running.start(&key("a"), at(ms));
                starts.push(ms);
            }
        }
        assert_eq!(starts.len(), 100);
        assert!(starts[..50].iter().all(|it| *it == 0));
        assert!(starts[50..].iter().zip((20..).step_by(20)).all(|(found, it)| *found == it));
        assert_eq!(running.admits(&key("b"), at(1_000)), Admission::QueueUntil(at(1_020)));
    }

    #[test]
    fn no_window_has_more_than_one_second_more_than_its_rate() {
        for (starts, period_ms, per_second) in
            [(50, 1_000, 50.0), (7, 60_000, 7.0 / 60.0), (3_333, 1_000, 3_333.0)]
        {
            let rate = Rate::new(starts, period_ms);
            let mut running = Running::new(Limits { rate, ..Limits::default() });
            let mut taken = Vec::new();
            let mut ms = 0;
            let mut seed = 7_u64;
            while taken.len() < 5_000 {
                match running.admits(&key("a"), at(ms)) {
                    Admission::Now => {
                        running.start(&key("a"), at(ms));
                        taken.push(ms);
                    }
                    Admission::QueueUntil(until) => {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        ms = until.0 - at(0).0 + (seed >> 62) * (seed >> 54);
                    }
                    other => panic!("{other:?}"),
                }
            }
            for (from, first) in taken.iter().enumerate().step_by(17) {
                for (to, last) in taken.iter().enumerate().skip(from).step_by(13) {
                    let seconds = (last - first) as f64 / 1_000.0;
                    let most = (per_second * (seconds + 1.0)).max(1.0 + per_second * seconds);
                    assert!((to - from + 1) as f64 <= most + 1e-6, "{starts}: {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn running_jobs_are_counted_in_all_and_by_key() {
        let limits = Limits { concurrency: Some(3), key_concurrency: Some(2), ..Limits::default() };
        let mut running = Running::new(limits);
        running.start(&key("a"), at(0));
        running.start(&key("a"), at(0));
        assert_eq!(running.admits(&key("a"), at(0)), Admission::KeyFull);
        assert_eq!(running.admits(&key("b"), at(0)), Admission::Now);
        running.start(&key("b"), at(0));
        assert_eq!(running.admits(&key("c"), at(0)), Admission::QueueFull);
        running.end(&key("a"), at(0));
        assert_eq!(running.admits(&key("a"), at(0)), Admission::Now);
        assert_eq!(running.count(), 2);
    }

    #[test]
    fn a_limit_that_comes_later_knows_what_runs() {
        let mut running = Running::new(Limits::default());
        running.start(&key("a"), at(0));
        running.set_limits(Limits { key_concurrency: Some(1), ..Limits::default() });
        assert_eq!(running.admits(&key("a"), at(0)), Admission::KeyFull);
        running.end(&key("a"), at(0));
        assert_eq!(running.admits(&key("a"), at(0)), Admission::Now);
    }

    #[test]
    fn keys_that_say_nothing_are_forgotten() {
        let key_rate = Rate::new(5, 1_000);
        let mut running = Running::new(Limits { key_rate, ..Limits::default() });
        for number in 0..10_000 {
            let name = key(&number.to_string());
            running.start(&name, at(number * 10));
            running.end(&name, at(number * 10));
        }
        assert!(running.keys.len() < 300, "{} keys", running.keys.len());
    }

    #[test]
    fn a_rate_of_nothing_is_none() {
        assert_eq!(Rate::new(0, 1_000), None);
        assert_eq!(Rate::new(1, 0), None);
        assert_eq!(Rate::new(1_000_001, 1), None);
        assert_eq!(Rate::new(1, 3_600_000).map(|it| it.burst()), Some(1));
    }
}
