//! Which messages have come: one bit each, so that none that is lost or comes twice goes unseen.

const BITS: usize = u64::BITS as usize;
/// A sequence number this far beyond all others is not one of ours.
const GAP_MAX: usize = 1 << 28;

/// The messages of one publisher that arrived from one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    words: Vec<u64>,
}

/// What a first look at a delivery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Again,
    /// No publisher of this run can have sent it.
    Foreign,
}

impl Arrivals {
    #[inline]
    pub(crate) fn note(&mut self, sequence: u64) -> Arrival {
        let (word, bit) = (sequence as usize / BITS, 1 << (sequence as usize % BITS));
        if self.words.len() <= word {
            if self.words.len() + GAP_MAX / BITS < word {
                return Arrival::Foreign;
            }
            self.words.resize((word + 1).max(self.words.len() * 2), 0);
        }
        let known = &mut self.words[word];
        if *known & bit != 0 {
            return Arrival::Again;
        }
        *known |= bit;
        Arrival::New
    }

    /// Adds what another consumer of the queue got; returns how many both did.
    pub(crate) fn merge(&mut self, other: &Self) -> u64 {
        let mut doubled = 0;
        self.words.resize(self.words.len().max(other.words.len()), 0);
        for (ours, theirs) in self.words.iter_mut().zip(&other.words) {
            doubled += u64::from((*ours & theirs).count_ones());
            *ours |= theirs;
        }
        doubled
    }

    /// How many of the first `count` messages have not come.
    pub(crate) fn missing(&self, count: u64) -> u64 {
        let whole = count as usize / BITS;
        let partial = self.words.get(whole).copied().unwrap_or(0) & !(u64::MAX << (count % 64));
        let words = self.words.iter().take(whole).copied().chain([partial]);
        count - words.map(|it| u64::from(it.count_ones())).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_doubled_messages_are_counted() {
        let mut arrivals = Arrivals::default();
        for sequence in (0..1_000).filter(|it| it % 100 != 7) {
            assert_eq!(arrivals.note(sequence), Arrival::New);
        }
        assert_eq!(arrivals.note(64), Arrival::Again);
        assert_eq!(arrivals.missing(1_000), 10);
        assert_eq!(arrivals.missing(1_010), 20);
        assert_eq!((arrivals.missing(8), arrivals.missing(7), arrivals.missing(0)), (1, 0, 0));
        assert_eq!(arrivals.note(u64::MAX >> 16), Arrival::Foreign);
    }

    #[test]
    fn consumers_of_one_queue_are_judged_together() {
        let (mut one, mut other) = (Arrivals::default(), Arrivals::default());
        (0..300).filter(|it| it % 2 == 0).for_each(|it| assert_eq!(one.note(it), Arrival::New));
        (0..300).filter(|it| it % 2 == 1).for_each(|it| assert_eq!(other.note(it), Arrival::New));
        other.note(128);
        assert_eq!(one.missing(300), 150);
        assert_eq!(one.merge(&other), 1);
        assert_eq!(one.missing(300), 0);
    }
}
