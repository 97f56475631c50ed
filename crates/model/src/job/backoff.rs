//! How long a failed job rests before it is tried again.

/// How the delay grows from one failed attempt to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackoffKind {
    /// `base · 2^(n−1)` after failed attempt n.
    #[default]
    Exponential,
    /// `base · n`.
    Linear,
    /// Always `base`.
    Fixed,
}

/// What chance does to a delay, so that jobs which failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Uniform, more than nothing and at most the delay.
    #[default]
    Full,
    None,
}

/// The rule of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub kind: BackoffKind,
    pub base_ms: u64,
    /// No delay is longer.
    pub max_ms: u64,
    pub jitter: Jitter,
}

impl Default for Backoff {
    /// 2 s, doubled up to an hour, with full jitter.
    fn default() -> Self {
        Self {
            kind: BackoffKind::default(),
            base_ms: 2_000,
            max_ms: 3_600_000,
            jitter: Jitter::default(),
        }
    }
}

impl Backoff {
    /// The delay after failed attempt `attempt`, which counts from 1, before chance has its say.
    pub fn delay_max_ms(&self, attempt: u32) -> u64 {
        let before = attempt.saturating_sub(1);
        let grown = match self.kind {
            BackoffKind::Exponential => {
                let factor = 1_u64.checked_shl(before).unwrap_or(u64::MAX);
                self.base_ms.saturating_mul(factor)
            }
            BackoffKind::Linear => self.base_ms.saturating_mul(u64::from(before) + 1),
            BackoffKind::Fixed => self.base_ms,
        };
        grown.min(self.max_ms)
    }

    /// The delay after failed attempt `attempt` in milliseconds. `chance`: any number, each as
    /// likely as the others.
    pub fn delay_ms(&self, attempt: u32, chance: u64) -> u64 {
        let most = self.delay_max_ms(attempt);
        match self.jitter {
            Jitter::None => most,
            // The upper half of the product is uniform in 0..most.
            Jitter::Full if 0 < most => ((u128::from(chance) * u128::from(most)) >> 64) as u64 + 1,
            Jitter::Full => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: Backoff, attempts: u32) -> Vec<u64> {
        (1..=attempts).map(|it| backoff.delay_max_ms(it) / 1_000).collect()
    }

    #[test]
    fn a_delay_doubles_until_it_is_an_hour() {
        let seconds = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 3_600, 3_600];
        assert_eq!(delays(Backoff::default(), 13), seconds);
        assert_eq!(Backoff::default().delay_max_ms(u32::MAX), 3_600_000);
    }

    #[test]
    fn other_kinds_grow_by_the_base_or_not_at_all() {
        let backoff = Backoff { max_ms: 7_000, ..Backoff::default() };
        let linear = Backoff { kind: BackoffKind::Linear, ..backoff };
        assert_eq!(delays(linear, 5), [2, 4, 6, 7, 7]);
        assert_eq!(linear.delay_max_ms(u32::MAX), 7_000);
        assert_eq!(delays(Backoff { kind: BackoffKind::Fixed, ..backoff }, 3), [2, 2, 2]);
    }

    #[test]
    fn full_jitter_is_uniform_above_nothing_and_up_to_the_delay() {
        let backoff = Backoff { base_ms: 4, ..Backoff::default() };
        let quarter = u64::MAX / 4 + 1;
        let found: Vec<u64> = (0..4).map(|it| backoff.delay_ms(1, quarter * it)).collect();
        assert_eq!(found, [1, 2, 3, 4]);
        assert_eq!(backoff.delay_ms(1, u64::MAX), 4);
        assert_eq!(Backoff { jitter: Jitter::None, ..backoff }.delay_ms(1, 0), 4);
        assert_eq!(Backoff { base_ms: 0, ..backoff }.delay_ms(1, u64::MAX), 0);
    }
}
