//! How fast a consumer could work, from what a broker sees of it: deliveries and settlements, not
//! its handlers. A consumer with k handlers of rate μ and n deliveries in flight settles
//! min(n, k) · μ per second; how long it had how many in flight, and how many it settled
//! then, tells both apart.

use super::moments::Moments;

/// Levels that are told apart. More deliveries in flight than this count as so many.
const LEVELS: usize = 64;
/// Deliveries to an idle consumer that make its service time known.
const IDLE_MIN: u64 = 30;
/// Below this squared coefficient of variation service counts as constant.
const CONSTANT_SCV: f64 = 0.5;
/// What more handlers must explain better by, as a logarithm of likelihood. Without it, a load that
/// seldom needs all of them makes one or two too many of them.
const DOUBT: f64 = 1.0;
/// Share of the busy time with all handlers busy that shows how many they are.
const SATURATED_SHARE: f64 = 0.1;

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    seconds: f64,
    settled: u64,
}

/// What was seen of one consumer, or of several alike.
#[derive(Clone, Debug, Default)]
pub struct Flight {
    /// By deliveries in flight, from none to [`LEVELS`].
    levels: Vec<Level>,
    /// Seconds from delivery to settlement of deliveries that found the consumer idle.
    idle: Moments,
}

impl Flight {
    fn level(&mut self, in_flight: u64) -> &mut Level {
        let at = usize::try_from(in_flight).unwrap_or(LEVELS).min(LEVELS);
        if self.levels.len() <= at {
            self.levels.resize(at + 1, Level::default());
        }
        &mut self.levels[at]
    }

    /// Adds what was seen of a consumer like this one.
    pub fn merge(&mut self, other: &Self) {
        for (at, level) in (0..).zip(&other.levels) {
            let own = self.level(at);
            own.seconds += level.seconds;
            own.settled += level.settled;
        }
        self.idle.merge(&other.idle);
    }

    /// Deliveries that were settled.
    pub fn settled(&self) -> u64 {
        self.levels.iter().map(|it| it.settled).sum()
    }

    fn seen(&self) -> impl Iterator<Item = (usize, Level)> + '_ {
        let levels = self.levels.iter().copied().enumerate().skip(1);
        levels.filter(|(_, it)| 0.0 < it.seconds || 0 < it.settled)
    }

    /// Seconds of handlers at work, were there `handlers` of them.
    fn work_s(&self, handlers: usize) -> f64 {
        self.seen().map(|(at, it)| at.min(handlers) as f64 * it.seconds).sum()
    }

    /// How well `handlers` of them explain what was seen: logarithm of the likelihood, less what is
    /// the same for all.
    fn likelihood(&self, handlers: usize) -> f64 {
        let rate = self.settled() as f64 / self.work_s(handlers);
        let of_level = |(at, it): (usize, Level)| {
            let busy = at.min(handlers) as f64 * rate;
            it.settled as f64 * busy.ln() - busy * it.seconds
        };
        self.seen().map(of_level).sum()
    }

    /// The estimate. `None` before anything was settled.
    pub fn capacity(&self) -> Option<Capacity> {
        let highest = self.seen().map(|(at, _)| at).max()?;
        let settled = self.settled();
        if settled == 0 || self.work_s(1) <= 0.0 {
            return None;
        }
        let is_constant = IDLE_MIN <= self.idle.count() && self.idle.scv() < CONSTANT_SCV;
        let best = match is_constant {
            true => {
                let misfit =
                    |it: &usize| (settled as f64 - self.work_s(*it) / self.idle.mean()).abs();
                (1..=highest).min_by(|one, other| misfit(one).total_cmp(&misfit(other)))
            }
            false => {
                let most = (1..=highest).map(|it| self.likelihood(it)).reduce(f64::max)?;
                (1..=highest).find(|it| most - DOUBT <= self.likelihood(*it))
            }
        };
        let handlers = best?;
        let busy_s: f64 = self.seen().map(|(_, it)| it.seconds).sum();
        let full_s: f64 =
            self.seen().filter(|(at, _)| handlers <= *at).map(|(_, it)| it.seconds).sum();
        let is_saturated = SATURATED_SHARE * busy_s <= full_s;
        Some(Capacity {
            handlers: handlers as u64,
            service_s: self.work_s(handlers) / settled as f64,
            scv_service: (IDLE_MIN <= self.idle.count()).then(|| self.idle.scv()),
            certainty: match (is_saturated, IDLE_MIN <= self.idle.count()) {
                (true, _) => Certainty::Number,
                (false, true) => Certainty::AtLeast,
                (false, false) => Certainty::About,
            },
        })
    }
}

/// How to read an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// All handlers were seen at work.
    Number,
    /// There may be more handlers than were ever needed.
    AtLeast,
    /// Neither were they, nor is the service time known.
    About,
}

/// What a consumer could do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Messages that it works on at a time.
    pub handlers: u64,
    /// Mean seconds of work on one.
    pub service_s: f64,
    /// Variation of that, where enough deliveries found the consumer idle.
    pub scv_service: Option<f64>,
    pub certainty: Certainty,
}

impl Capacity {
    /// Messages per second.
    pub fn per_second(&self) -> f64 {
        self.handlers as f64 / self.service_s
    }
}

/// Watches one consumer: constant work for each delivery and settlement.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    flight: Flight,
    in_flight: u64,
    since_us: u64,
    /// The delivery that found the consumer idle, and when.
    idle: Option<(u64, u64)>,
}

impl Watch {
    fn pass(&mut self, now_us: u64) {
        let seconds = now_us.saturating_sub(self.since_us) as f64 / 1e6;
        self.since_us = now_us.max(self.since_us);
        // A consumer with nothing to do shows nothing.
        if 0 < self.in_flight {
            self.flight.level(self.in_flight).seconds += seconds;
        }
    }

    /// Delivery `number` goes out.
    pub fn delivered(&mut self, number: u64, now_us: u64) {
        self.pass(now_us);
        if self.in_flight == 0 {
            self.idle = Some((number, self.since_us));
        }
        self.in_flight += 1;
    }

    /// Delivery `number` is done with.
    pub fn settled(&mut self, number: u64, now_us: u64) {
        if self.in_flight == 0 {
            return;
        }
        self.pass(now_us);
        self.flight.level(self.in_flight).settled += 1;
        self.in_flight -= 1;
        if let Some((_, from_us)) = self.idle.take_if(|(it, _)| *it == number) {
            self.flight.idle.add((self.since_us - from_us) as f64 / 1e6);
        }
    }

    /// A delivery came back without having been worked on.
    pub fn released(&mut self, number: u64, now_us: u64) {
        if self.in_flight == 0 {
            return;
        }
        self.pass(now_us);
        self.in_flight -= 1;
        self.idle.take_if(|(it, _)| *it == number);
    }

    /// What was seen up to `now_us`, to be started anew from there.
    pub fn take(&mut self, now_us: u64) -> Flight {
        self.pass(now_us);
        std::mem::take(&mut self.flight)
    }

    /// What was seen up to the last delivery or settlement.
    pub fn flight(&self) -> &Flight {
        &self.flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_at_a_time_is_one_handler() {
        let mut watch = Watch::default();
        assert_eq!(watch.flight().capacity(), None);
        for number in 0..40 {
            watch.delivered(number, number * 250_000);
            watch.settled(number, number * 250_000 + 100_000);
        }
        let capacity = watch.flight().capacity().unwrap();
        assert_eq!((capacity.handlers, capacity.certainty), (1, Certainty::Number));
        assert!((capacity.service_s - 0.1).abs() < 1e-9);
        assert!((capacity.per_second() - 10.0).abs() < 1e-9);
        assert_eq!(capacity.scv_service, Some(0.0));
    }

    #[test]
    fn what_is_released_was_not_worked_on() {
        let mut watch = Watch::default();
        watch.delivered(1, 0);
        watch.released(1, 5_000_000);
        watch.released(1, 6_000_000);
        watch.settled(1, 7_000_000);
        assert_eq!(watch.flight().settled(), 0);
        assert_eq!(watch.flight().capacity(), None);
        assert_eq!(watch.take(8_000_000).settled(), 0);
    }
}
