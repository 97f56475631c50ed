//! Waits of a queue with several workers: M/M/c by Erlang C (Erlang, 1917), and for other arrivals
//! and services the approximation of Allen and Cunneen (Allen, 1990), which errs towards longer
//! waits.

/// Chance that a job finds all of `slots` workers busy, at an offered load of `erlangs`. 1 where
/// the load is not below the number of workers.
///
/// By the recursion of Erlang B, which cannot overflow whatever the numbers.
pub fn busy_probability(slots: u64, erlangs: f64) -> f64 {
    if slots == 0 || slots as f64 <= erlangs {
        return 1.0;
    }
    let blocked =
        (1..=slots).fold(1.0, |blocked, it| erlangs * blocked / (it as f64 + erlangs * blocked));
    let utilisation = erlangs / slots as f64;
    blocked / (1.0 - utilisation * (1.0 - blocked))
}

/// A steady load on equal workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Arrivals per second.
    pub arrival_rate: f64,
    /// Mean service time in seconds.
    pub service_s: f64,
    /// Workers, each with one job at a time.
    pub slots: u64,
    /// Squared coefficient of variation of the times between arrivals; 1 for a Poisson stream.
    pub scv_arrival: f64,
    /// The same of service times; 1 where they are exponential.
    pub scv_service: f64,
}

impl Load {
    /// Poisson arrivals and exponential service.
    pub fn markovian(arrival_rate: f64, service_s: f64, slots: u64) -> Self {
        Self { arrival_rate, service_s, slots, scv_arrival: 1.0, scv_service: 1.0 }
    }

    /// Offered load in erlangs: workers that are busy on average.
    pub fn offered(&self) -> f64 {
        self.arrival_rate * self.service_s
    }

    /// Share of the workers' time that is used; above 1 where they cannot keep up.
    pub fn utilisation(&self) -> f64 {
        self.offered() / self.slots as f64
    }

    /// Jobs per second that the workers could do.
    pub fn capacity(&self) -> f64 {
        self.slots as f64 / self.service_s
    }

    /// Do the workers keep up?
    pub fn is_stable(&self) -> bool {
        self.utilisation() < 1.0
    }

    /// Jobs per second by which the backlog grows; 0 where the workers keep up.
    pub fn growth(&self) -> f64 {
        (self.arrival_rate - self.capacity()).max(0.0)
    }

    fn spare(&self) -> f64 {
        self.capacity() - self.arrival_rate
    }

    fn variability(&self) -> f64 {
        f64::midpoint(self.scv_arrival, self.scv_service)
    }

    /// Mean wait in seconds. `None` where the workers do not keep up: it has no bound then.
    pub fn wait_mean_s(&self) -> Option<f64> {
        let busy = busy_probability(self.slots, self.offered());
        self.is_stable().then(|| self.variability() * busy / self.spare())
    }

    /// Chance of a wait longer than `seconds`.
    pub fn wait_longer(&self, seconds: f64) -> f64 {
        if !self.is_stable() {
            return 1.0;
        }
        let busy = busy_probability(self.slots, self.offered());
        if self.variability() == 0.0 {
            return 0.0;
        }
        busy * (-self.spare() * seconds / self.variability()).exp()
    }

    /// The wait in seconds that a share `quantile` of the jobs stays below, 0 where so many do not
    /// wait at all. `None` where the workers do not keep up.
    pub fn wait_quantile_s(&self, quantile: f64) -> Option<f64> {
        let busy = busy_probability(self.slots, self.offered());
        self.is_stable().then(|| {
            let wait = (busy / (1.0 - quantile)).ln() * self.variability() / self.spare();
            wait.max(0.0)
        })
    }

    /// Mean number that waits, by Little's law.
    pub fn queue_length(&self) -> Option<f64> {
        self.wait_mean_s().map(|it| self.arrival_rate * it)
    }

    /// Chance of a response (wait and service) longer than `seconds`, for Poisson arrivals and
    /// exponential service whatever the variations say.
    pub fn response_longer(&self, seconds: f64) -> f64 {
        if !self.is_stable() {
            return 1.0;
        }
        let busy = busy_probability(self.slots, self.offered());
        let (rate, spare) = (1.0 / self.service_s, self.spare());
        let served = (-rate * seconds).exp();
        if (spare - rate).abs() < 1e-9 * rate {
            return served * (1.0 + busy * rate * seconds);
        }
        let waited = spare * served - rate * (-spare * seconds).exp();
        (1.0 - busy) * served + busy * waited / (spare - rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        let error = (found / expected - 1.0).abs();
        assert!(error < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn one_worker_is_the_textbook_queue() {
        let load = Load::markovian(8.0, 0.1, 1);
        close(load.utilisation(), 0.8);
        close(busy_probability(1, 0.8), 0.8);
        close(load.wait_mean_s().unwrap(), 0.4);
        close(load.queue_length().unwrap(), 3.2);
        close(load.wait_quantile_s(0.95).unwrap(), 1.386_294_361);
        close(load.response_longer(1.497_866_137), 0.05);
        for (arrivals, wait_s) in
            [(1.0, 1.0 / 90.0), (5.0, 0.1), (8.0, 0.4), (9.0, 0.9), (9.9, 9.9)]
        {
            close(Load::markovian(arrivals, 0.1, 1).wait_mean_s().unwrap(), wait_s);
        }
    }

    #[test]
    fn five_workers_share_one_line() {
        let load = Load::markovian(20.0, 0.2, 5);
        assert!((busy_probability(5, 4.0) - 0.554_112_6).abs() < 1e-7);
        assert!((load.wait_mean_s().unwrap() - 0.110_822_5).abs() < 1e-7);
        assert!((load.queue_length().unwrap() - 2.216_450).abs() < 1e-6);
        assert!((load.wait_quantile_s(0.95).unwrap() - 0.481_069_0).abs() < 1e-7);
        assert!((load.wait_quantile_s(0.99).unwrap() - 0.802_956_5).abs() < 1e-7);
        assert!((load.response_longer(0.839_492_5) - 0.05).abs() < 1e-7);
    }

    #[test]
    fn no_number_of_workers_overflows() {
        close(busy_probability(3, 2.0), 4.0 / 9.0);
        assert!((busy_probability(7, 4.0) - 0.135_110_2).abs() < 1e-7);
        assert!((busy_probability(100, 90.0) - 0.216_940_48).abs() < 1e-8);
        assert!((busy_probability(1_000, 950.0) - 0.068_253_42).abs() < 1e-8);
        assert!((busy_probability(101, 90.0) - 0.180_704_2).abs() < 1e-7);
        assert_eq!(busy_probability(0, 0.0), 1.0);
    }

    #[test]
    fn variation_makes_waits_longer_in_proportion() {
        for (scv_service, wait_s) in [(0.0, 0.2), (1.0, 0.4), (4.0, 1.0)] {
            let load = Load { scv_service, ..Load::markovian(8.0, 0.1, 1) };
            close(load.wait_mean_s().unwrap(), wait_s);
        }
        let load = Load { scv_service: 4.0, ..Load::markovian(20.0, 0.2, 5) };
        assert!((load.wait_mean_s().unwrap() - 0.277_1).abs() < 1e-4);
        assert!((load.wait_quantile_s(0.95).unwrap() - 1.202_7).abs() < 1e-4);
        let constant = Load { scv_arrival: 0.0, scv_service: 0.0, ..load };
        assert_eq!(constant.wait_longer(0.0), 0.0);
    }

    #[test]
    fn a_load_that_is_too_much_has_no_wait_but_a_growth() {
        let load = Load::markovian(30.0, 0.2, 5);
        assert_eq!(load.wait_mean_s(), None);
        assert_eq!(load.wait_quantile_s(0.95), None);
        assert_eq!(load.wait_longer(1e9), 1.0);
        close(load.growth(), 5.0);
        assert_eq!(Load::markovian(20.0, 0.2, 5).growth(), 0.0);
    }
}
