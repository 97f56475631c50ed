//! What a checkpoint says of the messages in the segments that it stands for, kept as it was
//! written, and what later records have changed about them.

use crate::runs::{Kept, Run};
use engine::record::RecordError;
use foldhash::HashMap;
use model::{LogPosition, QueueId};
use std::collections::BTreeSet;
use stdx::seeded::{Seeded, is_sown};

/// Where a run lies: number of the part, octet in it.
type RunPlace = (u32, u32);

/// Positions in order, to be asked for in order: whoever asks in another gets the answer later.
#[derive(Debug)]
pub(crate) struct Sorted<'a> {
    positions: &'a [LogPosition],
    /// Those before it were less than what was asked for last.
    next: usize,
}

impl<'a> Sorted<'a> {
    pub(crate) fn new(positions: &'a [LogPosition]) -> Self {
        Self { positions, next: 0 }
    }

    #[inline]
    pub(crate) fn has(&mut self, position: LogPosition) -> bool {
        !self.positions.is_empty() && self.finds(position)
    }

    fn finds(&mut self, position: LogPosition) -> bool {
        let is_less = |it: &LogPosition| *it < position;
        if !self.positions[..self.next].last().is_none_or(is_less) {
            self.next = 0;
        }
        let rest = &self.positions[self.next..];
        if rest.first().is_some_and(is_less) {
            let is_neighbour = !rest.get(1).is_some_and(is_less);
            self.next += if is_neighbour { 1 } else { rest.partition_point(is_less) };
        }
        self.positions.get(self.next) == Some(&position)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Base {
    /// The checkpoint stands for segments with a lower number.
    before: u32,
    parts: Vec<Vec<u8>>,
    runs: HashMap<QueueId, Vec<RunPlace>>,
    copied: BTreeSet<QueueId>,
    /// Messages that have left their queue since.
    gone: HashMap<QueueId, Vec<LogPosition>>,
    counted: HashMap<(QueueId, LogPosition), (u32, u32)>,
    /// Queues that were deleted since.
    deleted: BTreeSet<QueueId>,
    /// The segments that are there.
    exists: BTreeSet<u32>,
    /// All segments from here to the checkpoint's end are there.
    whole_from: u32,
}

impl Base {
    /// A base whose messages are read elsewhere.
    pub(crate) fn before(segment: u32) -> Self {
        Self { before: segment, ..Self::default() }
    }

    /// Takes a part with runs.
    pub(crate) fn part(&mut self, part: Vec<u8>) -> Result<(), RecordError> {
        let number = u32::try_from(self.parts.len()).map_err(|_| RecordError::Truncated)?;
        let mut rest = part.get(1..).unwrap_or(&[]);
        while !rest.is_empty() {
            let at = part.len() - rest.len();
            let (run, more) = Run::read(rest)?;
            // While the log can still be read instead.
            run.messages().find_map(Result::err).map_or(Ok(()), Err)?;
            let at = u32::try_from(at).map_err(|_| RecordError::Truncated)?;
            self.runs.entry(run.queue).or_default().push((number, at));
            if run.has_origins {
                self.copied.insert(run.queue);
            }
            rest = more;
        }
        self.parts.push(part);
        Ok(())
    }

    /// Does the checkpoint speak about the message at this position?
    pub(crate) fn covers(&self, position: LogPosition) -> bool {
        position.segment() < self.before
    }

    pub(crate) fn remove(&mut self, queue: QueueId, position: LogPosition) {
        if is_sown(Seeded::CheckpointNotChanged) {
            return;
        }
        self.gone.entry(queue).or_default().push(position);
    }

    pub(crate) fn count(
        &mut self,
        queue: QueueId,
        position: LogPosition,
        acquired: u32,
        failed: u32,
    ) {
        let counts = self.counted.entry((queue, position)).or_default();
        *counts = (counts.0.max(acquired), counts.1.max(failed));
    }

    pub(crate) fn delete(&mut self, queue: QueueId) {
        self.forget(queue);
        self.deleted.insert(queue);
    }

    /// All changes are known.
    pub(crate) fn settle(&mut self, exists: BTreeSet<u32>) {
        self.whole_from = self.before;
        while self.whole_from.checked_sub(1).is_some_and(|it| exists.contains(&it)) {
            self.whole_from -= 1;
        }
        self.exists = exists;
        self.gone.values_mut().for_each(|it| it.sort_unstable());
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.runs.keys().copied()
    }

    /// Some messages of the queue are copies of earlier ones.
    pub(crate) fn has_copies(&self, queue: QueueId) -> bool {
        self.copied.contains(&queue)
    }

    fn runs(&self, queue: QueueId) -> impl Iterator<Item = Run<'_>> {
        let places = self.runs.get(&queue).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|(part, at)| {
            let octets = self.parts.get(*part as usize)?.get(*at as usize..)?;
            Run::read(octets).ok().map(|(run, _)| run)
        })
    }

    /// The messages of the queue that are still there, in log order.
    pub(crate) fn messages(
        &self,
        queue: QueueId,
    ) -> impl Iterator<Item = Result<Kept, RecordError>> {
        self.runs(queue).flat_map(move |run| self.remaining(run))
    }

    /// The same for a start that everybody waits for.
    pub(crate) fn for_each_message(
        &self,
        queue: QueueId,
        mut visit: impl FnMut(Result<Kept, RecordError>),
    ) {
        let mut since = self.since(queue);
        let is_deleted = since.is_deleted;
        for run in self.runs(queue).filter(|_| !is_deleted) {
            for message in run.messages() {
                if let Some(it) = since.of(message) {
                    visit(it);
                }
            }
        }
    }

    fn since(&self, queue: QueueId) -> Since<'_> {
        let gone = self.gone.get(&queue).map_or(&[][..], Vec::as_slice);
        let is_deleted = self.deleted.contains(&queue);
        Since { base: self, queue, is_deleted, gone: Sorted::new(gone), there: None }
    }

    /// Is all of the run as it was written? No is a safe answer.
    pub(crate) fn is_untouched(&self, run: &Run<'_>) -> bool {
        let Some(first) = run.first() else { return false };
        let gone = self.gone.get(&run.queue).and_then(|it| it.last());
        self.whole_from <= first.segment()
            && gone.is_none_or(|it| *it < first)
            && self.counted.is_empty()
            && !self.deleted.contains(&run.queue)
    }

    /// The messages of a run that are still there, with their newest counts.
    pub(crate) fn remaining<'a>(
        &'a self,
        run: Run<'a>,
    ) -> impl Iterator<Item = Result<Kept, RecordError>> + 'a {
        let mut since = self.since(run.queue);
        let run = (!since.is_deleted).then_some(run);
        run.into_iter().flat_map(Run::messages).filter_map(move |it| since.of(it))
    }

    /// The queue has been put back; the parts stay until all have.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        self.runs.remove(&queue);
        self.gone.remove(&queue);
    }
}

/// What has changed about the messages of a queue.
struct Since<'a> {
    base: &'a Base,
    queue: QueueId,
    is_deleted: bool,
    gone: Sorted<'a>,
    /// A segment that is there.
    there: Option<u32>,
}

impl Since<'_> {
    /// The message with its newest counts, if it is still there.
    #[inline]
    fn of(&mut self, kept: Result<Kept, RecordError>) -> Option<Result<Kept, RecordError>> {
        let Ok(mut kept) = kept else { return Some(kept) };
        let segment = kept.position.segment();
        if self.there != Some(segment) {
            if !self.base.exists.contains(&segment) {
                return None;
            }
            self.there = Some(segment);
        }
        if self.gone.has(kept.position) {
            return None;
        }
        if !self.base.counted.is_empty()
            && let Some((acquired, failed)) = self.base.counted.get(&(self.queue, kept.position))
        {
            kept.acquired = kept.acquired.max(*acquired);
            kept.failed = kept.failed.max(*failed);
        }
        Some(Ok(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn positions_are_found_in_whatever_order(
            mut positions in vec(0..40_u64, 0..20),
            mut asked in vec(0..40_u64, 0..60),
            is_in_order: bool,
        ) {
            positions.sort_unstable();
            if is_in_order {
                asked.sort_unstable();
            }
            let positions: Vec<_> = positions.into_iter().map(LogPosition).collect();
            let mut sorted = Sorted::new(&positions);
            for position in asked.into_iter().map(LogPosition) {
                prop_assert_eq!(sorted.has(position), positions.contains(&position));
            }
        }
    }
}
