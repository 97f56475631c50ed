//! How long things took: every measurement counted, three digits kept.

use crate::clock::{Nanos, SECOND};
use hdrhistogram::Histogram;
use serde::Serialize;

const LONGEST: Nanos = 3_600 * SECOND;
const DIGITS: u8 = 3;

#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// The percentiles that are shown, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Of so many measurements.
    pub(crate) count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order"))
    }
}

impl Latency {
    pub(crate) fn record(&mut self, nanos: Nanos) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// `None` when nothing was measured.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            min: micros(self.0.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
            count: self.0.len(),
        })
    }
}

/// With one digit behind the point.
fn micros(nanos: Nanos) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_measurements_to_three_digits() {
        let mut latency = Latency::default();
        for micros in 1..=10_000 {
            latency.record(micros * 1_000);
        }
        let found = latency.percentiles().unwrap();
        for (value, exact) in [
            (found.p50, 5_000.0),
            (found.p90, 9_000.0),
            (found.p99, 9_900.0),
            (found.p999, 9_990.0),
            (found.max, 10_000.0),
        ] {
            assert!((value / exact - 1.0_f64).abs() < 0.002, "{value} is not {exact}");
        }
        assert_eq!(found.count, 10_000);
    }

    #[test]
    fn one_outlier_is_the_maximum_and_no_percentile() {
        let mut latency = Latency::default();
        (0..9_999).for_each(|_| latency.record(50_000));
        latency.record(2 * SECOND);
        let found = latency.percentiles().unwrap();
        assert!(found.p999 < 51.0 && 1_990_000.0 < found.max, "{found:?}");
    }

    #[test]
    fn merged_threads_count_together_and_nothing_is_no_zero() {
        let (mut one, mut other) = (Latency::default(), Latency::default());
        assert_eq!(one.percentiles(), None);
        one.record(1_000);
        other.record(3_000);
        one.merge(&other);
        let found = one.percentiles().unwrap();
        assert_eq!((found.count, found.p50 < 1.1, found.max > 2.9), (2, true, true));
        one.record(Nanos::MAX);
        assert!(one.percentiles().unwrap().max > 3.0e9, "what is too long is not dropped");
    }
}
