//! Bodies back from the disk, on whatever thread has time for it.

use crate::{
    broker::Broker,
    hand_over::{After, DeadLoad, HandOver, Load, ShardCommand},
};
use engine::{Place, job::JobRecord, record};
use model::{
    EntryId, LogPosition, Message, Notice, QueueId, SessionId, ShardId, Timestamp,
    job::{JobAnswer, JobNotice, JobRefusal},
};
use std::sync::Arc;
use storage::{Log, OwnedRecord, Position, ReadError};

impl Broker {
    /// Reads what the oldest waiting queue needs and hands it over. Returns whether there was
    /// anything.
    pub fn serve_load(&self, now: Timestamp) -> bool {
        let Some(load) = self.take_load() else { return false };
        let (shard, command) = match load {
            Load::Bodies { shard, queue, entries } => {
                let messages = self.read_bodies(queue, entries);
                (shard, ShardCommand::Loaded { queue, messages })
            }
            Load::DeadLetter { shard, dead: DeadLoad(mut dead) } => {
                if dead.message.is_none() {
                    dead.message = self.read_body(dead.source.queue, dead.place);
                }
                (shard, ShardCommand::DeadLetter(dead))
            }
            Load::Result { shard, session, mut notice, position } => {
                self.read_result(&mut notice, position);
                let (notice, after) = (Notice::Job(notice), After::Position(None));
                let commands = vec![ShardCommand::Tell { notice, after }];
                self.carry(shard, HandOver { session, mailbox: None, commands }, now);
                return true;
            }
        };
        self.hand_over_and_run(shard, command, now);
        true
    }

    /// Puts the result that the record at this position holds into the answer.
    fn read_result(&self, notice: &mut JobNotice, position: LogPosition) {
        let mut read = Vec::with_capacity(1);
        self.shared().log.read_many(&[Position(position.0)], &mut read);
        let found = match read.pop() {
            Some(Ok(it)) => JobRecord::decode(&it.payload).map_err(|it| it.to_string()),
            // The job was forgotten, or its record moved, while the read was on its way.
            None | Some(Err(ReadError::Absent(_))) => {
                notice.answer = JobAnswer::Refused(JobRefusal::Resource("ask again".to_owned()));
                return;
            }
            Some(Err(error)) => Err(error.to_string()),
        };
        match (found, &mut notice.answer) {
            (Ok(record), JobAnswer::Result { result, .. }) => *result = record.result,
            (Ok(_), _) => {}
            (Err(why), answer) => {
                let what = format!("result of a job at {position} is lost: {why}");
                self.shared().hooks.damaged(&what);
                *answer = JobAnswer::Refused(JobRefusal::Resource(what));
            }
        }
    }

    fn hand_over_and_run(&self, shard: ShardId, command: ShardCommand, now: Timestamp) {
        let commands = vec![command];
        let batch = HandOver { session: SessionId::default(), mailbox: None, commands };
        self.carry(shard, batch, now);
    }

    fn read_body(&self, queue: QueueId, place: Place) -> Option<Arc<Message>> {
        let read = self.read_bodies(queue, vec![(EntryId(0), place)]);
        read.into_iter().next().and_then(|(_, message)| message)
    }

    fn read_bodies(
        &self,
        queue: QueueId,
        entries: Vec<(EntryId, Place)>,
    ) -> Vec<(EntryId, Option<Arc<Message>>)> {
        let shared = self.shared();
        let positions_in = |wanted: fn(&Place) -> Option<LogPosition>| -> Vec<Position> {
            entries.iter().filter_map(|(_, place)| wanted(place)).map(|it| Position(it.0)).collect()
        };
        let in_log = positions_in(|it| match it {
            Place::Log { position, .. } => Some(*position),
            _ => None,
        });
        let in_spill = positions_in(|it| match it {
            Place::Spill { position } => Some(*position),
            _ => None,
        });
        let mut from_log = self.read_messages(queue, &shared.log, &in_log).into_iter();
        let spilled = shared.spill.existing();
        let from_spill = spilled.map(|it| self.read_messages(queue, it, &in_spill));
        let mut from_spill = from_spill.unwrap_or_default().into_iter();
        let read = entries.into_iter().map(|(entry, place)| {
            let message = match place {
                Place::Log { .. } => from_log.next().flatten(),
                Place::Spill { .. } => from_spill.next().flatten(),
                Place::Memory => None,
            };
            (entry, message)
        });
        read.collect()
    }

    /// The messages of these records; `None`, and a report, where one is damaged.
    pub(crate) fn read_messages(
        &self,
        queue: QueueId,
        log: &Log,
        positions: &[Position],
    ) -> Vec<Option<Arc<Message>>> {
        let mut read = Vec::with_capacity(positions.len());
        if !positions.is_empty() {
            log.read_many(positions, &mut read);
        }
        let message = |(position, result): (&Position, Result<OwnedRecord, ReadError>)| {
            let why = match result {
                Ok(found) => match record::message_of(&found.payload) {
                    Ok((_, message)) => return Some(Arc::new(message)),
                    Err(error) => error.to_string(),
                },
                // The message was settled and its segment given back while the read was on its way.
                Err(ReadError::Absent(_)) => return None,
                Err(error) => error.to_string(),
            };
            let what = format!("message at {position} of queue {queue} is lost: {why}");
            self.shared().hooks.damaged(&what);
            None
        };
        positions.iter().zip(read).map(message).collect()
    }
}
