//! Gives segments of the log back. A segment goes when nothing in it is needed; what is still
//! needed in a mostly dead one is written again at the log's end first, so that a slow queue holds
//! no disk hostage.

use crate::{
    broker::Broker,
    hand_over::Aftermath,
    occupancy::{Messages, Occupancy},
    reclaim_progress::Progress,
    shard::Shard,
    turn::State,
};
use engine::{Command, Place, Record, record, record::kind};
use model::{EntryId, LogPosition, Message, QueueId, Timestamp};
use std::collections::{BTreeMap, HashSet};
use storage::{Kind, LogError, Position, SegmentId, Space};

/// A segment with at most one live message in so many is mostly dead.
const MOSTLY_DEAD: u64 = 4;
/// Messages read and written again at a time.
const BATCH_MESSAGES: usize = 256;

impl Broker {
    /// One look at the log and the spill file. Returns whether there is more to do at once.
    ///
    /// # Errors
    /// [`LogError`], when the log has failed.
    pub fn reclaim(&self, now: Timestamp) -> Result<bool, LogError> {
        let mut progress = self.reclaim_state().0.lock();
        let retired = self.retire_condemned(&mut progress)?;
        self.reclaim_spill()?;
        let sealed = self.sealed_segments();
        if sealed.is_empty() {
            return Ok(retired);
        }
        let occupancy = self.occupancy_at_rest(now);
        let existing: HashSet<u32> =
            self.shared().log.segments().iter().map(|it| it.id.0).collect();
        progress.evacuated.retain(|it| existing.contains(it));
        progress.counted.retain(|it, _| existing.contains(it));
        let is_short = self.shared().log.space() == Space::Low;
        let mut evacuated = false;
        for segment in sealed {
            if progress.condemned.contains_key(&segment) || self.is_pinned(segment) {
                continue;
            }
            let messages = occupancy.messages(segment);
            let moved = progress.evacuated.contains(&segment);
            let needed = self.holds_catalog(segment) || (0 < occupancy.notes(segment) && !moved);
            if messages.live == 0 && !needed {
                let end = LogPosition(self.shared().log.end().0);
                progress.condemned.insert(segment, end);
                self.shared().want_durable(end);
            } else if !evacuated
                && is_mostly_dead(messages)
                && (progress.is_resting(segment, messages, now) || is_short)
            {
                // One at a time: what is written again must not outrun what is given back.
                self.evacuate(segment, &existing, now)?;
                progress.evacuated.insert(segment);
                evacuated = true;
            }
        }
        Ok(retired || evacuated || !progress.condemned.is_empty())
    }

    fn sealed_segments(&self) -> Vec<u32> {
        let current = self.shared().log.durable().segment();
        let segments = self.shared().log.segments();
        let may_go = |it: &&storage::SegmentInfo| it.sealed && !it.joined && it.id < current;
        segments.iter().filter(may_go).map(|it| it.id.0).collect()
    }

    fn retire_condemned(&self, progress: &mut Progress) -> Result<bool, LogError> {
        let durable = self.shared().durable();
        let ready: Vec<u32> = progress
            .condemned
            .iter()
            .filter(|(_, after)| **after <= durable)
            .map(|(segment, _)| *segment)
            .collect();
        for segment in &ready {
            progress.condemned.remove(segment);
            match self.shared().log.retire(SegmentId(*segment)) {
                Ok(()) => {}
                // Something in quarantine points into it: it stays until the copy is made.
                Err(LogError::Kept(..)) => {
                    self.pin(*segment);
                    continue;
                }
                Err(error) => return Err(error),
            }
            for shard in self.shards() {
                shard.lock().occupancy.retired(*segment);
            }
        }
        Ok(!ready.is_empty())
    }

    fn reclaim_spill(&self) -> Result<(), LogError> {
        let Some(spill) = self.shared().spill.existing() else { return Ok(()) };
        // A file must not go before all that was appended to it has been written.
        let current = spill.durable().segment();
        let sealed: Vec<SegmentId> =
            spill.segments().iter().map(|it| it.id).filter(|it| *it < current).collect();
        if sealed.is_empty() {
            return Ok(());
        }
        let mut occupancy = Occupancy::default();
        {
            let _world = self.world().write();
            self.turn_all_held(Timestamp::default());
            self.shards().iter().for_each(|it| occupancy.add(&it.lock().spill_occupancy));
        }
        for segment in sealed {
            if occupancy.messages(segment.0).live == 0 {
                match spill.retire(segment) {
                    Ok(()) | Err(LogError::Kept(..)) => {}
                    Err(error) => return Err(error),
                }
                for shard in self.shards() {
                    shard.lock().spill_occupancy.retired(segment.0);
                }
            }
        }
        Ok(())
    }

    /// Counts with nobody at work: whatever is in a sealed segment has reached its queues.
    fn occupancy_at_rest(&self, now: Timestamp) -> Occupancy {
        let _world = self.world().write();
        self.turn_all_held(now);
        let mut sum = Occupancy::default();
        self.shards().iter().for_each(|it| sum.add(&it.lock().occupancy));
        sum
    }

    fn evacuate(
        &self,
        segment: u32,
        existing: &HashSet<u32>,
        now: Timestamp,
    ) -> Result<(), LogError> {
        if self.holds_catalog(segment) {
            self.write_catalog_snapshot()?;
        }
        self.move_notes(segment, existing)?;
        for shard in self.shards() {
            let (mut entries, mut records) = (Vec::new(), Vec::new());
            {
                let state = shard.lock();
                for (queue, held) in &state.queues {
                    let mut found = Vec::new();
                    held.queue.entries_in(segment, &mut found);
                    entries.extend(found.into_iter().map(|(entry, place)| (*queue, entry, place)));
                }
                for (queue, held) in &state.jobs {
                    let mut found = Vec::new();
                    held.queue.entries_in(segment, &mut found);
                    entries.extend(found.into_iter().map(|(entry, place)| (*queue, entry, place)));
                    let mut found = Vec::new();
                    held.queue.records_in(segment, &mut found);
                    records.extend(found.into_iter().map(|(entry, at)| (*queue, entry, at)));
                }
            }
            for batch in entries.chunks(BATCH_MESSAGES) {
                let messages = self.read_batch(batch);
                let mut state = shard.lock();
                for ((queue, entry, place), message) in batch.iter().zip(messages) {
                    if let Some(message) = message {
                        self.move_message(&mut state, *queue, *entry, *place, &message, now)?;
                    }
                }
                shard.finish(&mut state, self.shared());
            }
            for batch in records.chunks(BATCH_MESSAGES) {
                self.move_job_records(shard, batch)?;
            }
        }
        Ok(())
    }

    /// Writes the newest records of these jobs again.
    fn move_job_records(
        &self,
        shard: &Shard,
        batch: &[(QueueId, EntryId, LogPosition)],
    ) -> Result<(), LogError> {
        let positions: Vec<_> = batch.iter().map(|(_, _, at)| Position(at.0)).collect();
        let mut read = Vec::with_capacity(positions.len());
        self.shared().log.read_many(&positions, &mut read);
        let mut state = shard.lock();
        for ((queue, entry, from), found) in batch.iter().zip(read) {
            match found {
                Ok(it) => {
                    state.move_job_record(*queue, *entry, *from, &it.payload, self.shared())?;
                }
                Err(error) => {
                    let what = format!("state of a job of queue {queue} at {from}: {error}");
                    self.shared().hooks.damaged(&what);
                }
            }
        }
        shard.finish(&mut state, self.shared());
        Ok(())
    }

    fn read_batch(&self, batch: &[(QueueId, EntryId, Place)]) -> Vec<Option<Message>> {
        let position = |place: &Place| match place {
            Place::Log { position, .. } => Position(position.0),
            Place::Memory | Place::Spill { .. } => Position(0),
        };
        let positions: Vec<Position> = batch.iter().map(|(_, _, place)| position(place)).collect();
        let queue = batch.first().map_or(QueueId(0), |(queue, _, _)| *queue);
        let read = self.read_messages(queue, &self.shared().log, &positions);
        read.into_iter().map(|it| it.map(|it| (*it).clone())).collect()
    }

    /// Writes the message again, unless it has been settled meanwhile.
    fn move_message(
        &self,
        state: &mut State,
        queue: QueueId,
        entry: EntryId,
        from: Place,
        message: &Message,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let Place::Log { position, .. } = from else { return Ok(()) };
        let known = match state.queues.get_mut(&queue) {
            Some(held) => {
                let known = held.queue.entry_state(entry).filter(|it| it.place == from);
                known.map(|it| (it, held.origin(entry, position)))
            }
            None => state.jobs.get(&queue).and_then(|held| {
                let known = held.queue.entry_state(entry).filter(|it| it.place == from);
                known.zip(held.queue.origin(entry))
            }),
        };
        let Some((known, origin)) = known else { return Ok(()) };
        let from = position;
        let target = record::Target {
            queue,
            origin,
            redelivered: known.redelivered,
            acquired: known.acquired,
            failed: known.failed,
        };
        let front = record::MessageRecord {
            arrived: known.arrived,
            targets: std::iter::once(target).collect(),
            replaces: std::iter::once((queue, from)).collect(),
        };
        let (position, end) = self.shared().append_message(&front, message)?;
        state.occupancy.leave(from);
        state.occupancy.arrive(position);
        state.occupancy.note(position.segment(), from.segment());
        let to = Place::Log { position, end };
        let mut aftermath = Aftermath::default();
        let moved = Command::Moved { entry, from, to };
        state.apply(queue, moved, self.shared(), now, &mut aftermath);
        self.defer(aftermath);
        Ok(())
    }

    /// Writes again what the segment says about messages of other segments that still exist.
    fn move_notes(&self, segment: u32, existing: &HashSet<u32>) -> Result<(), LogError> {
        let mut removed: BTreeMap<QueueId, Vec<LogPosition>> = BTreeMap::new();
        let mut counted = Vec::new();
        let is_needed =
            |it: &LogPosition| it.segment() != segment && existing.contains(&it.segment());
        let scanned = self.shared().log.scan(SegmentId(segment), &mut |it| match Record::decode(
            it.kind.0, it.payload,
        ) {
            Ok(Record::Removed { queue, positions }) => {
                removed.entry(queue).or_default().extend(positions.into_iter().filter(is_needed));
            }
            Ok(Record::Message { record, .. }) => {
                for (queue, position) in record.replaces.iter().filter(|it| is_needed(&it.1)) {
                    removed.entry(*queue).or_default().push(*position);
                }
            }
            Ok(Record::Counted { queue, position, acquired, failed }) if is_needed(&position) => {
                counted.push((queue, position, acquired, failed));
            }
            _ => {}
        });
        if let Err(error) = scanned {
            self.shared().hooks.damaged(&format!("segment {segment} while reclaiming: {error}"));
            self.pin(segment);
            return Ok(());
        }
        let Some(first) = self.shards().first() else { return Ok(()) };
        let mut state = first.lock();
        let mut payload = Vec::new();
        let mut appender = self.shared().log.begin()?;
        for (queue, positions) in removed.into_iter().filter(|(_, it)| !it.is_empty()) {
            payload.clear();
            record::encode_removed(queue, &positions, &mut payload);
            let (at, _) = appender.record(Kind(kind::REMOVED), &[&payload])?;
            for position in positions {
                state.occupancy.note(at.segment().0, position.segment());
            }
        }
        for (queue, position, acquired, failed) in counted {
            payload.clear();
            record::encode_counted(queue, position, acquired, failed, &mut payload);
            let (at, _) = appender.record(Kind(kind::COUNTED), &[&payload])?;
            state.occupancy.note(at.segment().0, position.segment());
        }
        Ok(())
    }
}

fn is_mostly_dead(messages: Messages) -> bool {
    messages.live * MOSTLY_DEAD <= messages.ever
}
