//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) on measured service: every key gets its
//! share of the workers' time, whatever its jobs turn out to take.

use model::{Name, job::Weights};
use std::collections::HashMap;

/// A weight of zero counts as the least there is: nothing is shut out by its share.
fn weight(weights: &Weights, key: &Name) -> i128 {
    weights.0.get(key).map_or(1_000, |it| i128::from((*it).max(1)))
}

/// Virtual time: service per weight.
pub(super) type Tag = i128;

/// Tags are microseconds of a key of weight 1,000, times this.
const PRECISION: i128 = 1_000_000;
/// Below this many keys nobody looks for some to forget.
const KEYS_KEPT_MIN: usize = 64;

#[derive(Debug, Default)]
struct Share {
    start: Tag,
    finish: Tag,
    running: u64,
    is_ready: bool,
}

/// Tags of the keys that have, or lately had, something to do.
#[derive(Debug, Default)]
pub(super) struct Fair {
    weights: Weights,
    now: Tag,
    shares: HashMap<Name, Share>,
    kept: usize,
}

impl Fair {
    pub(super) fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }

    fn service(&self, key: &Name, service_us: i128) -> Tag {
        service_us * PRECISION * 1_000 / weight(&self.weights, key)
    }

    /// The tag that orders `key` among the others.
    pub(super) fn start(&self, key: &Name) -> Tag {
        self.shares.get(key).map_or(self.now, |it| it.start)
    }

    /// The key has its first ready job, or none any more.
    pub(super) fn set_ready(&mut self, key: &Name, is_ready: bool) {
        self.forget_settled_keys();
        let now = self.now;
        let share = self.shares.entry(key.clone()).or_default();
        if is_ready && !share.is_ready {
            share.start = now.max(share.finish);
        }
        share.is_ready = is_ready;
    }

    /// A job of the key starts; `set_ready` is told beforehand whether it was the last ready one.
    pub(super) fn dispatched(&mut self, key: &Name, cost_us: u64) {
        let service = self.service(key, i128::from(cost_us));
        let Some(share) = self.shares.get_mut(key) else { return };
        self.now = share.start;
        share.finish = share.start + service;
        share.running += 1;
        if share.is_ready {
            share.start = share.finish;
        }
    }

    /// A job that was expected to take `cost_us` took `measured_us`: a wrong estimate is repaid.
    pub(super) fn ended(&mut self, key: &Name, cost_us: u64, measured_us: u64) {
        let service = self.service(key, i128::from(measured_us) - i128::from(cost_us));
        let Some(share) = self.shares.get_mut(key) else { return };
        share.running = share.running.saturating_sub(1);
        share.finish += service;
        if share.is_ready {
            share.start += service;
        }
    }

    /// No key has a ready job any more.
    pub(super) fn rest(&mut self) {
        self.shares.values_mut().for_each(|it| it.is_ready = false);
    }

    /// A key that rests and owes nothing is as one that was never there.
    fn forget_settled_keys(&mut self) {
        if self.shares.len() < 2 * self.kept.max(KEYS_KEPT_MIN) {
            return;
        }
        let now = self.now;
        self.shares.retain(|_, it| it.is_ready || 0 < it.running || now < it.finish);
        self.kept = self.shares.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_rest_and_owe_nothing_are_forgotten() {
        let mut fair = Fair::default();
        let busy = Name::new("busy");
        for number in 0..10_000 {
            for (key, cost_us) in [(Name::new(&number.to_string()), 5), (busy.clone(), 100)] {
                fair.set_ready(&key, true);
                fair.set_ready(&key, false);
                fair.dispatched(&key, cost_us);
                fair.ended(&key, cost_us, cost_us);
            }
        }
        assert!(fair.shares.len() < 3 * KEYS_KEPT_MIN, "{} keys", fair.shares.len());
        assert!(0 < fair.start(&busy), "who owes is remembered");
    }
}
