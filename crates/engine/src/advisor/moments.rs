//! Mean and variation of what was measured, in constant room.

/// Mean and variance of what was added (Welford, 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let away = value - self.mean;
        self.mean += away / self.count as f64;
        self.squares += away * (value - self.mean);
    }

    /// As if all that was added to `other` had been added here (Chan, Golub and LeVeque, 1979).
    pub fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if count == 0 {
            return;
        }
        let away = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.squares += other.squares + away * away * self.count as f64 * share;
        self.mean += away * share;
        self.count = count;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// 0 where nothing was added.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Squared coefficient of variation: variance over the square of the mean.
    pub fn scv(&self) -> f64 {
        if self.count < 2 || self.mean == 0.0 {
            return 0.0;
        }
        self.squares / (self.count - 1) as f64 / (self.mean * self.mean)
    }
}

/// Whole waits and services, where a queue knows them: mean, variation and count over a window that
/// is started anew from time to time, with the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    now: Moments,
    before: Moments,
}

impl Recent {
    pub fn add(&mut self, seconds: f64) {
        self.now.add(seconds);
    }

    /// A window ends.
    pub fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// What was added in this window and the one before.
    pub fn moments(&self) -> Moments {
        let mut both = self.before;
        both.merge(&self.now);
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_same_in_one_part_and_in_two() {
        let (mut whole, mut parts) = (Moments::default(), [Moments::default(); 2]);
        for number in 0..100 {
            let value = f64::from(number * number % 37);
            whole.add(value);
            parts[usize::from(number >= 30)].add(value);
        }
        let [mut first, second] = parts;
        first.merge(&second);
        assert_eq!(first.count(), 100);
        assert!((first.mean() - whole.mean()).abs() < 1e-9);
        assert!((first.scv() - whole.scv()).abs() < 1e-9);
        first.merge(&Moments::default());
        assert!((first.mean() - whole.mean()).abs() < 1e-9);
    }

    #[test]
    fn a_window_is_remembered_until_the_next_has_ended() {
        let mut recent = Recent::default();
        recent.add(2.0);
        recent.turn();
        recent.add(4.0);
        assert_eq!((recent.moments().count(), recent.moments().mean()), (2, 3.0));
        recent.turn();
        recent.turn();
        assert_eq!(recent.moments().count(), 0);
    }
}
