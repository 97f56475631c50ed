//! Publisher confirms of one channel: which numbers are open, and how answers to many of them
//! become few frames. Numbers are answered in any order; an open one is never covered.

use std::collections::VecDeque;

/// Confirms that one channel may have open before its connection is not read any more.
pub(crate) const UNCONFIRMED_MAX: u64 = 100_000;

const WORD: u64 = u64::BITS as u64;

/// One answer to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `multiple`: every number up to this one that has no answer yet.
    Ack {
        number: u64,
        multiple: bool,
    },
    Nack {
        number: u64,
    },
}

/// The numbers of a channel in confirm mode, counted from 1.
#[derive(Debug)]
pub(crate) struct Confirms {
    next: u64,
    /// Number of the lowest bit of the window; everything below is answered.
    base: u64,
    /// One bit per number, set when it is answered. The first word is never full.
    window: VecDeque<u64>,
    open: u64,
    /// Ranges, first and last, that are durable and not yet written.
    acked: Vec<(u64, u64)>,
    nacked: Vec<u64>,
}

impl Confirms {
    pub(crate) fn new() -> Self {
        let window = VecDeque::new();
        Self { next: 1, base: 1, window, open: 0, acked: Vec::new(), nacked: Vec::new() }
    }

    /// Gives the next publish its number.
    pub(crate) fn issue(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.open += 1;
        if self.base + WORD * self.window.len() as u64 <= number {
            self.window.push_back(0);
        }
        number
    }

    /// Numbers without an answer.
    pub(crate) fn open(&self) -> u64 {
        self.open
    }

    /// Answers wait for [`Confirms::flush`].
    pub(crate) fn is_due(&self) -> bool {
        !self.acked.is_empty() || !self.nacked.is_empty()
    }

    /// Takes the broker's word that `first` to `last` are safe.
    pub(crate) fn confirm(&mut self, first: u64, last: u64) {
        let (first, last) = (first.max(self.base), last.min(self.next - 1));
        if last < first {
            return;
        }
        self.answer(first, last);
        match self.acked.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => self.acked.push((first, last)),
        }
    }

    /// Takes the broker's word that a queue refused `number`.
    pub(crate) fn refuse(&mut self, number: u64) {
        if self.base <= number && number < self.next {
            self.answer(number, number);
            self.nacked.push(number);
        }
    }

    fn answer(&mut self, first: u64, last: u64) {
        let mut at = first - self.base;
        let end = last - self.base;
        while at <= end {
            let bit = at % WORD;
            let count = (WORD - bit).min(end - at + 1);
            let mask = (u64::MAX >> (WORD - count)) << bit;
            let word = &mut self.window[(at / WORD) as usize];
            self.open -= u64::from((mask & !*word).count_ones());
            *word |= mask;
            at += count;
        }
        while self.window.front() == Some(&u64::MAX) {
            self.window.pop_front();
            self.base += WORD;
        }
    }

    fn lowest_open(&self) -> u64 {
        self.base + self.window.front().map_or(0, |it| u64::from(it.trailing_ones()))
    }

    /// Hands out what came since the last call: refusals, one answer for all confirmed numbers
    /// below the lowest open one, and one for each above it.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(Answer)) {
        self.nacked.drain(..).for_each(|number| write(Answer::Nack { number }));
        let open = self.lowest_open();
        if 1 < self.acked.len() {
            self.acked.sort_unstable();
        }
        // A range never crosses an open number, so it lies wholly on one side of it.
        let below = self.acked.partition_point(|(first, _)| *first < open);
        if let Some(&(first, last)) = self.acked[..below].last() {
            write(Answer::Ack { number: last, multiple: 1 < below || first < last });
        }
        for (first, last) in self.acked.drain(..).skip(below) {
            (first..=last).for_each(|number| write(Answer::Ack { number, multiple: false }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn flushed(confirms: &mut Confirms) -> Vec<Answer> {
        let mut answers = Vec::new();
        confirms.flush(|it| answers.push(it));
        answers
    }

    fn ack(number: u64, multiple: bool) -> Answer {
        Answer::Ack { number, multiple }
    }

    #[test]
    fn a_run_from_the_start_is_one_answer_and_holes_make_singles() {
        let mut confirms = Confirms::new();
        (1..=200).for_each(|it| assert_eq!(confirms.issue(), it));
        confirms.confirm(1, 70);
        assert_eq!(flushed(&mut confirms), [ack(70, true)]);
        confirms.confirm(71, 71);
        assert_eq!(flushed(&mut confirms), [ack(71, false)]);
        confirms.confirm(74, 75);
        confirms.refuse(72);
        let nack = Answer::Nack { number: 72 };
        assert_eq!(flushed(&mut confirms), [nack, ack(74, false), ack(75, false)]);
        confirms.confirm(76, 200);
        confirms.confirm(73, 73);
        assert_eq!(flushed(&mut confirms), [ack(200, true)]);
        assert_eq!((confirms.open(), confirms.is_due()), (0, false));
    }

    #[test]
    fn numbers_that_are_not_open_are_ignored() {
        let mut confirms = Confirms::new();
        confirms.confirm(1, 9);
        confirms.refuse(1);
        assert!(!confirms.is_due());
        confirms.issue();
        confirms.confirm(0, u64::MAX);
        assert_eq!(flushed(&mut confirms), [ack(1, false)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Issue(u8),
        Confirm { at: u16, count: u8 },
        Refuse(u16),
        Flush,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            any::<u8>().prop_map(Step::Issue),
            (any::<u16>(), any::<u8>()).prop_map(|(at, count)| Step::Confirm { at, count }),
            any::<u16>().prop_map(Step::Refuse),
            Just(Step::Flush),
        ];
        prop::collection::vec(step, 0..120)
    }

    /// What a client does with the answers: a set of open numbers.
    fn hear(answers: &[Answer], client: &mut BTreeSet<u64>, broker: &BTreeSet<u64>) {
        for answer in answers {
            match *answer {
                Answer::Ack { number, multiple: false } | Answer::Nack { number } => {
                    assert!(client.remove(&number), "{number} was answered before");
                }
                Answer::Ack { number, multiple: true } => client.retain(|it| number < *it),
            }
        }
        assert_eq!(client, broker, "open at the client and at the broker");
    }

    proptest! {
        #[test]
        fn the_client_knows_exactly_what_the_broker_answered(steps in steps()) {
            let mut confirms = Confirms::new();
            let (mut broker, mut client) = (BTreeSet::new(), BTreeSet::new());
            for step in steps.into_iter().chain([Step::Flush]) {
                let nth = |set: &BTreeSet<u64>, at: u16| {
                    set.iter().nth(usize::from(at) % set.len().max(1)).copied()
                };
                match step {
                    Step::Issue(count) => for _ in 0..count {
                        let number = confirms.issue();
                        broker.insert(number);
                        client.insert(number);
                    },
                    Step::Confirm { at, count } => if let Some(first) = nth(&broker, at) {
                        let run = (first..).take(count.into()).take_while(|it| broker.contains(it));
                        let last = run.last().unwrap_or(first);
                        confirms.confirm(first, last);
                        broker.retain(|it| !(first..=last).contains(it));
                    },
                    Step::Refuse(at) => if let Some(number) = nth(&broker, at) {
                        confirms.refuse(number);
                        broker.remove(&number);
                    },
                    Step::Flush => hear(&flushed(&mut confirms), &mut client, &broker),
                }
                prop_assert_eq!(confirms.open(), broker.len() as u64);
            }
        }
    }
}
