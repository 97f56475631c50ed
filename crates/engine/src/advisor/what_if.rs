//! What another order would do to the waits of a queue. With several workers there is no formula
//! for shortest job first, so it is tried: a short simulation on the service times that were seen,
//! the same on every machine.

use super::erlang::Load;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Jobs of one trial.
const JOBS: usize = 100_000;
/// Of these the first are left out: a trial begins with an empty queue.
const WARM_UP: usize = JOBS / 20;
/// A gain of less than this share is not worth a word.
const GAIN_MIN: f64 = 0.1;

/// Mean wait in seconds if the shortest of the waiting jobs came first, with perfect knowledge of
/// how long each takes. `None` where that gains less than a tenth, where the workers do not keep
/// up, and where no service time was seen.
pub fn wait_if_shortest_first(load: Load, services_s: &[f64]) -> Option<f64> {
    let seen = services_s.iter().sum::<f64>() / services_s.len() as f64;
    if services_s.is_empty() || seen <= 0.0 || load.slots == 0 || !load.is_stable() {
        return None;
    }
    let arrival_s = 1.0 / load.arrival_rate;
    if !arrival_s.is_finite() {
        return None;
    }
    // The sample's mean is not quite the queue's own, which decides how busy the workers are.
    let stretch = load.service_s / seen;
    let wait_s = |by_size| simulate(load.slots, arrival_s, services_s, stretch, by_size);
    let (in_order, shortest) = (wait_s(false), wait_s(true));
    (shortest < (1.0 - GAIN_MIN) * in_order).then_some(shortest)
}

/// Seconds in nanoseconds: whole numbers have an order.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn simulate(slots: u64, arrival_s: f64, services_s: &[f64], stretch: f64, by_size: bool) -> f64 {
    let mut chance = Chance(0x5eed);
    // When each worker will be free; more of them than jobs would never be used.
    let workers = usize::try_from(slots).unwrap_or(JOBS).min(JOBS);
    let mut free: BinaryHeap<Reverse<u64>> = (0..workers).map(|_| Reverse(0)).collect();
    let mut waiting: BinaryHeap<Reverse<(u64, usize, u64, u64)>> = BinaryHeap::new();
    let (mut now, mut started, mut waited) = (0, 0, 0_u128);
    for number in 0..JOBS {
        now += nanoseconds(-arrival_s * chance.uniform().ln());
        // Whoever is free before this one comes takes what waits already.
        while let Some(Reverse(at)) = free.peek().copied().filter(|Reverse(at)| *at <= now) {
            let Some(Reverse((_, _, arrived, service))) = waiting.pop() else { break };
            free.pop();
            let start = at.max(arrived);
            free.push(Reverse(start + service));
            started += 1;
            if WARM_UP < started {
                waited += u128::from(start - arrived);
            }
        }
        let pick = (chance.uniform() * services_s.len() as f64) as usize;
        let service = nanoseconds(services_s[pick.min(services_s.len() - 1)] * stretch);
        waiting.push(Reverse((if by_size { service } else { 0 }, number, now, service)));
    }
    waited as f64 / 1e9 / started.saturating_sub(WARM_UP).max(1) as f64
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(mean: f64) -> Vec<f64> {
        (0..1_000).map(|it| -mean * ((f64::from(it) + 0.5) / 1_000.0).ln()).collect()
    }

    #[test]
    fn the_trial_agrees_with_the_formulas_where_there_are_some() {
        let services = exponential(0.1);
        let in_order = simulate(1, 1.0 / 8.0, &services, 1.0, false);
        assert!((in_order / 0.4 - 1.0).abs() < 0.08, "{in_order}");
        let shortest = wait_if_shortest_first(Load::markovian(8.0, 0.1, 1), &services).unwrap();
        assert!((shortest / 0.188_222 - 1.0).abs() < 0.08, "{shortest}");
    }

    #[test]
    fn several_workers_gain_less_than_one() {
        let load = Load::markovian(20.0, 0.2, 5);
        let shortest = wait_if_shortest_first(load, &exponential(0.2)).unwrap();
        assert!((shortest / 0.060_7 - 1.0).abs() < 0.08, "{shortest}");
        // The sample's mean does not count, the queue's does.
        let stretched = wait_if_shortest_first(load, &exponential(7.0)).unwrap();
        assert!((stretched / shortest - 1.0).abs() < 1e-6);
    }

    #[test]
    fn where_nothing_is_to_be_gained_nothing_is_said() {
        let load = Load::markovian(8.0, 0.1, 1);
        assert_eq!(wait_if_shortest_first(load, &[0.1]), None);
        assert_eq!(wait_if_shortest_first(load, &[]), None);
        assert_eq!(wait_if_shortest_first(load, &[0.0]), None);
        assert_eq!(wait_if_shortest_first(Load { slots: 0, ..load }, &[0.1, 0.3]), None);
        assert_eq!(wait_if_shortest_first(Load { arrival_rate: 11.0, ..load }, &[0.1, 0.3]), None);
        assert_eq!(wait_if_shortest_first(Load { arrival_rate: 0.0, ..load }, &[0.1, 0.3]), None);
    }
}
