//! What an operator, or an autoscaler, is told of a queue: the figures that were measured, what
//! they predict, and how many workers to have.

use super::{
    erlang::Load,
    staffing::{Target, drain_s, slots_for},
};

/// Completions in the window from which an answer is good, and fair.
const GOOD: u64 = 2_000;
const FAIR: u64 = 200;
/// Above this a wait depends on the last per cent of everything.
const UTILISATION_GOOD: f64 = 0.95;
/// Highest utilisation that is advised.
const UTILISATION_ADVISED: f64 = 0.8;

/// What was measured over the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Messages per second, and over the last minute alone.
    pub arrival_rate: f64,
    pub arrival_rate_minute: f64,
    pub scv_arrival: f64,
    pub is_steady: bool,
    /// Mean seconds of work on one; `None` where nothing was ever settled.
    pub service_s: Option<f64>,
    pub scv_service: f64,
    /// Consumers, and messages that one of them works on at a time.
    pub consumers: u64,
    pub handlers: u64,
    /// There may be more handlers than were seen at work.
    pub is_lower_bound: bool,
    pub completions: u64,
    pub ready: u64,
    /// Mean wait, where it is known.
    pub wait_mean_s: Option<f64>,
}

/// What the queue's policy asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// 95 of 100 messages are to wait no longer, in seconds.
    pub wait_p95_s: f64,
    /// A backlog is to be gone after so many seconds.
    pub drain_s: f64,
}

impl Default for Wish {
    /// A second, and five minutes.
    fn default() -> Self {
        Self { wait_p95_s: 1.0, drain_s: 300.0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    Low,
    Fair,
    Good,
}

/// Why an answer is worth less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    FewCompletions,
    NotSteady,
    NearlyFull,
    /// Predicted and observed waits differ by more than 30 %.
    NotAsPredicted,
    HandlersNotSeen,
}

/// Waits that the figures predict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    pub wait_mean_s: f64,
    pub wait_p95_s: f64,
    pub queue_length: f64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    pub workers: u64,
    /// `None` where nothing was ever settled, or nobody consumes.
    pub utilisation: Option<f64>,
    pub capacity_per_s: Option<f64>,
    /// Messages per second by which the backlog grows.
    pub growth_per_s: f64,
    /// `None` where the workers do not keep up, or the load is not steady.
    pub predicted: Option<Predicted>,
    /// Never absent: an autoscaler reads it.
    pub workers_needed: u64,
    pub consumers_needed: u64,
    /// Until the backlog is gone with the workers there are; `None`: never.
    pub drain_s: Option<f64>,
    pub confidence: Confidence,
    pub doubts: Vec<Doubt>,
}

/// Works the answer out.
pub fn advise(measured: &Measured, wish: &Wish) -> Advice {
    let handlers = measured.handlers.max(1);
    let workers = measured.consumers * handlers;
    let load = measured.service_s.map(|service_s| Load {
        arrival_rate: measured.arrival_rate,
        service_s,
        slots: workers,
        scv_arrival: measured.scv_arrival,
        scv_service: measured.scv_service,
    });
    let present = load.filter(|_| 0 < workers);
    let predicted = present.filter(|_| measured.is_steady).and_then(|it| {
        Some(Predicted {
            wait_mean_s: it.wait_mean_s()?,
            wait_p95_s: it.wait_quantile_s(0.95)?,
            queue_length: it.queue_length()?,
        })
    });
    let workers_needed = needed(measured, wish, load, workers);
    let doubts = doubts(measured, present, predicted);
    let is_low =
        doubts.iter().any(|it| *it != Doubt::FewCompletions) || measured.completions < FAIR;
    Advice {
        workers,
        utilisation: present.map(|it| it.utilisation()),
        capacity_per_s: present.map(|it| it.capacity()),
        growth_per_s: present.map_or(measured.arrival_rate, |it| it.growth()),
        predicted,
        workers_needed,
        consumers_needed: workers_needed.div_ceil(handlers),
        drain_s: match present {
            Some(it) => drain_s(measured.ready as f64, it),
            None => (measured.ready == 0).then_some(0.0),
        },
        confidence: match is_low {
            true => Confidence::Low,
            false if measured.completions < GOOD => Confidence::Fair,
            false => Confidence::Good,
        },
        doubts,
    }
}

fn needed(measured: &Measured, wish: &Wish, load: Option<Load>, present: u64) -> u64 {
    let is_idle = measured.arrival_rate_minute <= 0.0 && measured.arrival_rate <= 0.0;
    if is_idle && measured.ready == 0 {
        return 0;
    }
    let Some(load) = load else {
        // Something is to be done, and nobody knows how long it takes.
        return present.max(1);
    };
    // Where the load changes, the last minute counts, so that nobody waits for the rest to follow.
    let arrival_rate = match measured.is_steady {
        true => measured.arrival_rate,
        false => measured.arrival_rate_minute,
    };
    let load = Load { arrival_rate, ..load };
    let target = Target {
        late_share: if measured.is_steady { 0.05 } else { 1.0 },
        wait_s: wish.wait_p95_s,
        utilisation_max: UTILISATION_ADVISED,
    };
    let draining = (arrival_rate + measured.ready as f64 / wish.drain_s) * load.service_s;
    slots_for(load, target).max(draining.ceil() as u64).max(1)
}

fn doubts(measured: &Measured, load: Option<Load>, predicted: Option<Predicted>) -> Vec<Doubt> {
    let is_full = load.is_some_and(|it| UTILISATION_GOOD < it.utilisation());
    let differs = match (predicted, measured.wait_mean_s) {
        (Some(predicted), Some(observed)) => {
            0.3 * predicted.wait_mean_s < (observed - predicted.wait_mean_s).abs()
        }
        _ => false,
    };
    [
        (measured.completions < GOOD, Doubt::FewCompletions),
        (!measured.is_steady, Doubt::NotSteady),
        (is_full, Doubt::NearlyFull),
        (differs, Doubt::NotAsPredicted),
        (measured.is_lower_bound, Doubt::HandlersNotSeen),
    ]
    .into_iter()
    .filter_map(|(holds, it)| holds.then_some(it))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emails() -> Measured {
        Measured {
            arrival_rate: 20.0,
            arrival_rate_minute: 20.0,
            scv_arrival: 1.0,
            is_steady: true,
            service_s: Some(0.2),
            scv_service: 1.02,
            consumers: 5,
            handlers: 1,
            is_lower_bound: false,
            completions: 6_000,
            ready: 2,
            wait_mean_s: Some(0.118),
        }
    }

    fn tenth() -> Wish {
        Wish { wait_p95_s: 0.1, ..Wish::default() }
    }

    #[test]
    fn a_queue_that_keeps_up_is_told_its_waits_and_its_workers() {
        let advice = advise(&emails(), &tenth());
        let predicted = advice.predicted.unwrap();
        assert!((predicted.wait_mean_s - 0.112).abs() < 5e-4);
        assert!((predicted.wait_p95_s - 0.486).abs() < 5e-4);
        assert!((predicted.queue_length - 2.2).abs() < 0.05);
        assert_eq!((advice.workers_needed, advice.consumers_needed), (7, 7));
        assert_eq!((advice.utilisation, advice.capacity_per_s), (Some(0.8), Some(25.0)));
        assert_eq!((advice.confidence, advice.doubts), (Confidence::Good, vec![]));
        let four = Measured { handlers: 4, ..emails() };
        assert_eq!(advise(&four, &tenth()).consumers_needed, 2);
    }

    #[test]
    fn an_autoscaler_always_reads_a_number() {
        let quiet = Measured { arrival_rate: 0.0, arrival_rate_minute: 0.0, ready: 0, ..emails() };
        assert_eq!(advise(&quiet, &tenth()).workers_needed, 0);
        let unknown = Measured { service_s: None, completions: 0, ..emails() };
        assert_eq!(advise(&unknown, &tenth()).workers_needed, 5);
        let first = Measured { consumers: 0, ready: 1, ..unknown };
        assert_eq!(advise(&first, &tenth()).workers_needed, 1);
        assert_eq!(advise(&first, &tenth()).drain_s, None);
        let waiting = Measured { ready: 1, ..quiet };
        assert_eq!(advise(&waiting, &tenth()).workers_needed, 1);
    }

    #[test]
    fn who_does_not_keep_up_is_told_no_wait_but_a_growth() {
        let advice = advise(&Measured { arrival_rate: 30.0, ..emails() }, &tenth());
        assert_eq!(advice.predicted, None);
        assert!((advice.growth_per_s - 5.0).abs() < 1e-9);
        assert!(advice.workers_needed >= 7);
        assert_eq!(advice.drain_s, None);
        assert!(advice.doubts.contains(&Doubt::NearlyFull));
    }

    #[test]
    fn a_ramp_never_lowers_the_number() {
        let mut before = 0;
        for step in 0..=120 {
            let minute = 10.0 + f64::from(step) * 0.25;
            let window = 10.0 + f64::from((step - 60).max(0)) * 0.25;
            let measured = Measured {
                arrival_rate: window,
                arrival_rate_minute: minute,
                is_steady: (minute - window).abs() <= 0.3 * window,
                ..emails()
            };
            let now = advise(&measured, &Wish::default()).workers_needed;
            assert!(before <= now, "{before} and then {now} at {minute}");
            before = now;
        }
        assert!(before >= 8);
    }

    #[test]
    fn a_backlog_asks_for_workers_until_it_is_gone() {
        let measured = Measured { ready: 12_000, ..emails() };
        // 20/s arrive, 40/s more are to be drained, 0.2 s each.
        assert_eq!(advise(&measured, &Wish::default()).workers_needed, 12);
        assert_eq!(advise(&measured, &Wish::default()).drain_s, Some(2_400.0));
    }

    #[test]
    fn doubts_are_named_and_lower_the_confidence() {
        for (measured, doubt, confidence) in [
            (Measured { completions: 500, ..emails() }, Doubt::FewCompletions, Confidence::Fair),
            (Measured { completions: 50, ..emails() }, Doubt::FewCompletions, Confidence::Low),
            (Measured { is_steady: false, ..emails() }, Doubt::NotSteady, Confidence::Low),
            (Measured { arrival_rate: 24.5, ..emails() }, Doubt::NearlyFull, Confidence::Low),
            (
                Measured { wait_mean_s: Some(0.2), ..emails() },
                Doubt::NotAsPredicted,
                Confidence::Low,
            ),
            (
                Measured { is_lower_bound: true, ..emails() },
                Doubt::HandlersNotSeen,
                Confidence::Low,
            ),
        ] {
            let advice = advise(&measured, &tenth());
            assert!(advice.doubts.contains(&doubt), "{doubt:?}");
            assert_eq!(advice.confidence, confidence, "{doubt:?}");
        }
    }
}
