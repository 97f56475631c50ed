//! Which job is next. Ready jobs stand in one line per key, and the first of each line in a line of
//! heads; so a key that has reached a limit is passed over as a whole, and costs nothing until
//! something makes room for it.

use super::{
    fair::Fair,
    limit::Admission,
    order::{ReadyJob, Standing, standing},
};
use model::{
    EntryId, Name, Timestamp,
    job::{Scheduling, Weights},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Jobs of one key, in order.
#[derive(Debug, Default)]
struct Line {
    jobs: BTreeMap<Standing, ReadyJob>,
    /// Where it stands among the heads.
    head: Option<Standing>,
    parked: Option<Parked>,
}

/// What a key that may not start a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parked {
    UntilOneEnds,
    Until(Timestamp),
}

/// What became of the question for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// This one starts. `sequence` brings it back to its place if it is released.
    Job {
        job: ReadyJob,
        sequence: u64,
    },
    /// No job is ready, or each waits for its key.
    Nothing,
    /// The queue is at its limit until one ends, or until then.
    QueueFull,
    QueueUntil(Timestamp),
}

/// The ready jobs of a queue.
#[derive(Debug, Default)]
pub struct Selection {
    scheduling: Scheduling,
    sequence: u64,
    lines: HashMap<Name, Line>,
    heads: BTreeMap<Standing, Name>,
    places: HashMap<EntryId, (Name, Standing)>,
    wakes: BTreeSet<(Timestamp, Name)>,
    fair: Fair,
}

impl Selection {
    pub fn new(scheduling: Scheduling, weights: Weights) -> Self {
        let mut fair = Fair::default();
        fair.set_weights(weights);
        Self { scheduling, fair, ..Self::default() }
    }

    /// Ready jobs.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Another order, for the jobs that wait already as well.
    pub fn set_scheduling(&mut self, scheduling: Scheduling, weights: Weights) {
        self.fair.set_weights(weights);
        if scheduling == self.scheduling {
            return;
        }
        self.scheduling = scheduling;
        let mut jobs: Vec<(u64, ReadyJob)> = Vec::with_capacity(self.places.len());
        for (_, line) in self.lines.drain() {
            jobs.extend(line.jobs.into_iter().map(|(at, job)| (at.sequence, job)));
        }
        self.heads.clear();
        self.places.clear();
        self.wakes.clear();
        self.fair.rest();
        jobs.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (sequence, job) in jobs {
            self.put(job, sequence);
        }
    }

    /// A job became ready.
    pub fn add(&mut self, job: ReadyJob) {
        self.sequence += 1;
        self.put(job, self.sequence);
    }

    /// A job that was dispatched and released takes its place again.
    pub fn put_back(&mut self, job: ReadyJob, sequence: u64) {
        self.put(job, sequence);
    }

    /// A ready job has changed; among equals it stands where it stood.
    pub fn change(&mut self, job: ReadyJob) {
        if let Some((_, Standing { sequence, .. })) = self.places.get(&job.id) {
            self.put(job, *sequence);
        }
    }

    fn put(&mut self, job: ReadyJob, sequence: u64) {
        let key = job.key.clone();
        self.remove(job.id);
        let standing = standing(self.scheduling, &job, sequence);
        self.places.insert(job.id, (key.clone(), standing));
        let line = self.lines.entry(key.clone()).or_default();
        if line.jobs.is_empty() {
            self.fair.set_ready(&key, true);
        }
        line.jobs.insert(standing, job);
        self.place_head(&key);
    }

    /// The job is cancelled, expired or changed. `None` where it is not ready.
    pub fn remove(&mut self, id: EntryId) -> Option<ReadyJob> {
        let (key, standing) = self.places.remove(&id)?;
        let line = self.lines.get_mut(&key)?;
        let job = line.jobs.remove(&standing);
        if line.jobs.is_empty() {
            self.fair.set_ready(&key, false);
        }
        self.place_head(&key);
        job
    }

    /// The next job that `admits` lets start. Keys that are at a limit are passed over, and asked
    /// again once [`Selection::ended`] or [`Selection::wake`] says that there may be room.
    pub fn take(&mut self, mut admits: impl FnMut(&ReadyJob) -> Admission) -> Dispatch {
        while let Some(key) = self.heads.values().next().cloned() {
            let first = self.lines.get(&key).and_then(|it| it.jobs.values().next());
            let Some(job) = first else { return Dispatch::Nothing };
            match admits(job) {
                Admission::Now => {
                    let id = job.id;
                    return self.start(&key, id);
                }
                Admission::QueueFull => return Dispatch::QueueFull,
                Admission::QueueUntil(at) => return Dispatch::QueueUntil(at),
                Admission::KeyFull => self.park(&key, Parked::UntilOneEnds),
                Admission::KeyUntil(at) => self.park(&key, Parked::Until(at)),
            }
        }
        Dispatch::Nothing
    }

    fn start(&mut self, key: &Name, id: EntryId) -> Dispatch {
        let sequence = self.places.get(&id).map_or(0, |(_, it)| it.sequence);
        let Some(job) = self.remove(id) else { return Dispatch::Nothing };
        self.fair.dispatched(key, job.cost_us);
        self.place_head(key);
        Dispatch::Job { job, sequence }
    }

    /// A dispatched job has ended, however: what it took, in microseconds, counts for its key.
    pub fn ended(&mut self, job: &ReadyJob, measured_us: u64) {
        self.fair.ended(&job.key, job.cost_us, measured_us);
        if let Some(line) = self.lines.get_mut(&job.key) {
            line.parked.take_if(|it| *it == Parked::UntilOneEnds);
        }
        self.place_head(&job.key);
    }

    /// When the first of the keys that wait for a time is to be asked again.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.wakes.first().filter(|(at, _)| *at <= now).cloned() {
            self.unpark(&key);
        }
    }

    /// The limits have changed: every key is asked again.
    pub fn wake_all(&mut self) {
        let parked = self.lines.iter().filter(|(_, it)| it.parked.is_some());
        let parked: Vec<Name> = parked.map(|(key, _)| key.clone()).collect();
        for key in parked {
            self.unpark(&key);
        }
    }

    fn park(&mut self, key: &Name, parked: Parked) {
        if let Some(line) = self.lines.get_mut(key) {
            line.parked = Some(parked);
        }
        if let Parked::Until(at) = parked {
            self.wakes.insert((at, key.clone()));
        }
        self.place_head(key);
    }

    fn unpark(&mut self, key: &Name) {
        let parked = self.lines.get_mut(key).and_then(|it| it.parked.take());
        if let Some(Parked::Until(at)) = parked {
            self.wakes.remove(&(at, key.clone()));
        }
        self.place_head(key);
    }

    /// Puts the line where its first job belongs; a line of no use goes.
    fn place_head(&mut self, key: &Name) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if let Some(old) = line.head.take() {
            self.heads.remove(&old);
        }
        let Some(first) = line.jobs.keys().next().copied() else {
            if let Some(Parked::Until(at)) = line.parked {
                self.wakes.remove(&(at, key.clone()));
            }
            self.lines.remove(key);
            return;
        };
        if line.parked.is_none() {
            let head = match self.scheduling {
                Scheduling::Fair => Standing { rank: self.fair.start(key), ..first },
                _ => first,
            };
            line.head = Some(head);
            self.heads.insert(head, key.clone());
        }
    }
}
