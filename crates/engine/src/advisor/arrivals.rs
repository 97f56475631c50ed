//! How often messages come, and how evenly: decayed over one, five and fifteen minutes. An arrival
//! costs a few additions; the decay is applied once a second.

/// Seconds that a window reaches back: what is as old as this counts a third.
pub const WINDOWS_S: [f64; 3] = [60.0, 300.0, 900.0];

const SLOT_US: u64 = 1_000_000;

/// Sums that fade.
#[derive(Clone, Copy, Debug, Default)]
struct Faded {
    seconds: f64,
    arrivals: f64,
    gaps: f64,
    gap_s: f64,
    gap_squares: f64,
}

impl Faded {
    fn pass(&mut self, seconds: f64, window_s: f64) {
        let keep = (-seconds / window_s).exp();
        self.arrivals *= keep;
        self.gaps *= keep;
        self.gap_s *= keep;
        self.gap_squares *= keep;
        // The integral of the fading over the time that has passed.
        self.seconds = self.seconds * keep + window_s * (1.0 - keep);
    }
}

/// Arrivals at one queue.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    faded: [Faded; 3],
    slot_us: Option<u64>,
    last_us: Option<u64>,
    count: u64,
    gaps: Gaps,
}

/// Times between arrivals in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    count: u64,
    sum_us: u64,
    squares: f64,
}

impl Arrivals {
    /// `count` messages have come at `now_us`, in microseconds that never go back.
    pub fn add(&mut self, count: u64, now_us: u64) {
        self.pass(now_us);
        if count == 0 {
            return;
        }
        if let Some(last_us) = self.last_us {
            let gap_us = now_us.saturating_sub(last_us);
            self.gaps.count += count;
            self.gaps.sum_us += gap_us;
            self.gaps.squares += gap_us as f64 * gap_us as f64;
        } else {
            self.gaps.count += count - 1;
        }
        self.count += count;
        self.last_us = Some(now_us);
    }

    /// Time has passed.
    pub fn pass(&mut self, now_us: u64) {
        let from_us = *self.slot_us.get_or_insert(now_us);
        let slots = now_us.saturating_sub(from_us) / SLOT_US;
        if slots == 0 {
            return;
        }
        self.slot_us = Some(from_us + slots * SLOT_US);
        let (count, gaps) = (std::mem::take(&mut self.count), std::mem::take(&mut self.gaps));
        for (faded, window_s) in self.faded.iter_mut().zip(WINDOWS_S) {
            faded.pass(1.0, window_s);
            faded.arrivals += count as f64;
            faded.gaps += gaps.count as f64;
            faded.gap_s += gaps.sum_us as f64 / 1e6;
            faded.gap_squares += gaps.squares / 1e12;
            // Seconds without anything, all at once.
            faded.pass((slots - 1) as f64, window_s);
        }
    }

    /// Messages per second over the window of that number, 0 to 2. 0 before a second has passed.
    pub fn rate(&self, window: usize) -> f64 {
        match self.faded.get(window) {
            Some(it) if 0.0 < it.seconds => it.arrivals / it.seconds,
            _ => 0.0,
        }
    }

    /// Squared coefficient of variation of the times between arrivals: 1 for a Poisson stream, 0
    /// for a clock's. 1 where too little has come to say.
    pub fn scv(&self, window: usize) -> f64 {
        let Some(it) = self.faded.get(window).filter(|it| 2.0 <= it.gaps && 0.0 < it.gap_s) else {
            return 1.0;
        };
        let mean = it.gap_s / it.gaps;
        ((it.gap_squares / it.gaps) / (mean * mean) - 1.0).max(0.0)
    }

    /// Does the last minute's rate differ by less than 30 % from that of the last five?
    pub fn is_steady(&self) -> bool {
        let (minute, window) = (self.rate(0), self.rate(1));
        (minute - window).abs() <= 0.3 * window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(us: u64, until_s: u64) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for at in (0..until_s * 1_000_000).step_by(us as usize) {
            arrivals.add(1, at);
        }
        arrivals.pass(until_s * 1_000_000);
        arrivals
    }

    #[test]
    fn a_steady_stream_has_its_rate_from_the_first_second_on() {
        for seconds in [1, 10, 1_000] {
            let arrivals = every(50_000, seconds);
            for window in 0..3 {
                let rate = arrivals.rate(window);
                assert!((rate - 20.0).abs() < 0.25, "{seconds} s, window {window}: {rate}");
            }
            assert!(arrivals.is_steady());
            assert!(arrivals.scv(1) < 1e-6);
        }
    }

    #[test]
    fn messages_that_come_together_vary_more_than_a_clock() {
        let mut arrivals = Arrivals::default();
        for at in 0..1_000 {
            arrivals.add(10, at * 500_000);
        }
        arrivals.pass(500_000_000);
        assert!((arrivals.rate(1) - 20.0).abs() < 0.25);
        // Nine gaps of nothing and one of ten times the mean.
        assert!((arrivals.scv(1) - 9.0).abs() < 0.1, "{}", arrivals.scv(1));
    }

    #[test]
    fn a_change_shows_in_the_short_window_first() {
        let mut arrivals = every(100_000, 1_000);
        for at in (1_000_000_000..1_060_000_000).step_by(25_000) {
            arrivals.add(1, at);
        }
        arrivals.pass(1_060_000_000);
        let rates: Vec<f64> = (0..3).map(|it| arrivals.rate(it)).collect();
        assert!(rates[0] > 28.0 && rates[1] < 17.0 && rates[2] < 13.0, "{rates:?}");
        assert!(!arrivals.is_steady());
    }

    #[test]
    fn silence_fades_and_costs_no_loop() {
        let mut arrivals = every(50_000, 1_000);
        arrivals.pass(u64::MAX / 2);
        assert_eq!(arrivals.rate(2), 0.0);
        assert_eq!(Arrivals::default().rate(0), 0.0);
        assert_eq!(Arrivals::default().scv(0), 1.0);
    }
}
