//! Which job an id names: whether a message is a new job, the same again, or a newer message of one
//! that is there; and, once a job is forgotten, that it was there.

use model::{EntryId, Name, Timestamp, job::Lifetimes};
use std::collections::{BTreeSet, HashMap};

/// Where the id of a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client has chosen it, so that the same may be sent twice and counts once.
    Client,
    /// The client has chosen it, and uses it again for every retry of the same task.
    Task,
    /// The message has come before and returns by dead-lettering.
    Returned,
    /// The server has made it: nobody else has it.
    Server,
}

/// A message that asks to be a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    pub id: Name,
    pub origin: Origin,
    /// Says whether two payloads are the same.
    pub digest: u64,
    /// At most one pending job of the queue has this.
    pub unique: Option<Name>,
}

/// What the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    New,
    /// The current message of this job from now on; what the older one is worth has ended.
    Supersedes(EntryId),
    /// Dropped: this job is the same.
    Duplicate(EntryId),
    /// Refused: this job has the id and another payload.
    OtherPayload(EntryId),
    /// Dropped: this pending job has the same uniqueness.
    NotUnique(EntryId),
}

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Job(EntryId),
    /// It was there.
    Forgotten,
    Unknown,
}

#[derive(Clone, Debug)]
struct Holder {
    entry: EntryId,
    digest: u64,
    settled: Option<Timestamp>,
    unique: Option<Name>,
}

#[derive(Clone, Debug)]
struct Unique {
    id: Name,
    until: Option<Timestamp>,
}

/// The ids of one queue.
#[derive(Debug, Default)]
pub struct Identities {
    jobs: HashMap<Name, Holder>,
    uniques: HashMap<Name, Unique>,
    tombstones: HashMap<Name, Timestamp>,
    /// When each tombstone goes.
    ends: BTreeSet<(Timestamp, Name)>,
}

impl Identities {
    /// Decides what a message is that became `entry` at `now`, and remembers it where it is a job.
    pub fn admit(
        &mut self,
        application: Application,
        entry: EntryId,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Admitted {
        let Application { id, origin, digest, unique } = application;
        let holder = self.jobs.get(&id);
        let admitted = match (holder, origin) {
            (Some(it), Origin::Task | Origin::Returned) => Admitted::Supersedes(it.entry),
            (Some(it), Origin::Client | Origin::Server) if it.is_current(lifetimes, now) => {
                return match it.digest == digest {
                    true => Admitted::Duplicate(it.entry),
                    false => Admitted::OtherPayload(it.entry),
                };
            }
            _ => Admitted::New,
        };
        if let Some(other) = unique.as_ref().and_then(|it| self.holder_of(it, &id, now)) {
            return Admitted::NotUnique(other);
        }
        self.release_unique(&id);
        self.remove_tombstone(&id);
        if let Some(unique) = &unique {
            let until = lifetimes.unique_ms.map(|it| Timestamp(now.0.saturating_add(it)));
            self.uniques.insert(unique.clone(), Unique { id: id.clone(), until });
        }
        self.jobs.insert(id, Holder { entry, digest, settled: None, unique });
        admitted
    }

    /// The pending job, other than `id`, that keeps others with this uniqueness away.
    fn holder_of(&self, unique: &Name, id: &Name, now: Timestamp) -> Option<EntryId> {
        let held = self.uniques.get(unique)?;
        let is_over = held.until.is_some_and(|it| it <= now);
        (!is_over && held.id != *id).then(|| self.jobs.get(&held.id).map(|it| it.entry)).flatten()
    }

    fn release_unique(&mut self, id: &Name) {
        let unique = self.jobs.get_mut(id).and_then(|it| it.unique.take());
        if let Some(unique) = unique
            && self.uniques.get(&unique).is_some_and(|it| it.id == *id)
        {
            self.uniques.remove(&unique);
        }
    }

    /// The job is settled: others may have its uniqueness.
    pub fn settle(&mut self, id: &Name, now: Timestamp) {
        self.release_unique(id);
        if let Some(holder) = self.jobs.get_mut(id) {
            holder.settled = Some(now);
        }
    }

    /// The job is pending again.
    pub fn reopen(&mut self, id: &Name) {
        if let Some(holder) = self.jobs.get_mut(id) {
            holder.settled = None;
        }
    }

    /// The job is not kept any longer.
    pub fn forget(&mut self, id: &Name, lifetimes: &Lifetimes, now: Timestamp) {
        self.release_unique(id);
        if self.jobs.remove(id).is_some() && 0 < lifetimes.tombstone_ms {
            let end = Timestamp(now.0.saturating_add(lifetimes.tombstone_ms));
            self.tombstones.insert(id.clone(), end);
            self.ends.insert((end, id.clone()));
        }
    }

    pub fn look_up(&self, id: &Name, now: Timestamp) -> Named {
        match self.jobs.get(id) {
            Some(it) => Named::Job(it.entry),
            None if self.tombstones.get(id).is_some_and(|it| now < *it) => Named::Forgotten,
            None => Named::Unknown,
        }
    }

    /// Drops the tombstones that have ended, at most `most` of them; whether there may be more.
    pub fn pass(&mut self, now: Timestamp, most: usize) -> bool {
        for _ in 0..most {
            let Some((_, id)) = self.ends.first().filter(|(at, _)| *at <= now).cloned() else {
                return false;
            };
            self.remove_tombstone(&id);
        }
        true
    }

    /// When the next tombstone ends.
    pub fn due(&self) -> Option<Timestamp> {
        self.ends.first().map(|(at, _)| *at)
    }

    fn remove_tombstone(&mut self, id: &Name) {
        if let Some(end) = self.tombstones.remove(id) {
            self.ends.remove(&(end, id.clone()));
        }
    }
}

impl Holder {
    fn is_current(&self, lifetimes: &Lifetimes, now: Timestamp) -> bool {
        self.settled.is_none_or(|at| now.0 < at.0.saturating_add(lifetimes.dedupe_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes =
        Lifetimes { dedupe_ms: 1_000, tombstone_ms: 5_000, unique_ms: Some(300) };

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms)
    }

    fn of(id: &str, origin: Origin) -> Application {
        Application { id: Name::new(id), origin, digest: 7, unique: None }
    }

    fn unique(id: &str) -> Application {
        Application { unique: Some(Name::new("only")), ..of(id, Origin::Client) }
    }

    fn admit(ids: &mut Identities, it: Application, entry: u64, now: u64) -> Admitted {
        ids.admit(it, EntryId(entry), &LIFETIMES, at(now))
    }

    #[test]
    fn the_same_id_is_the_same_job_until_some_time_after_its_settlement() {
        let mut ids = Identities::default();
        let one = EntryId(1);
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 1, 0), Admitted::New);
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 2, 99_999), Admitted::Duplicate(one));
        let other = Application { digest: 8, ..of("a", Origin::Client) };
        assert_eq!(admit(&mut ids, other, 2, 99_999), Admitted::OtherPayload(one));
        ids.settle(&Name::new("a"), at(100_000));
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 2, 100_999), Admitted::Duplicate(one));
        ids.reopen(&Name::new("a"));
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 2, 200_000), Admitted::Duplicate(one));
        ids.settle(&Name::new("a"), at(200_000));
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 2, 201_000), Admitted::New);
        assert_eq!(ids.look_up(&Name::new("a"), at(201_000)), Named::Job(EntryId(2)));
    }

    #[test]
    fn a_retry_under_its_own_id_takes_the_place_of_what_was_there() {
        let mut ids = Identities::default();
        for (entry, origin) in [(1, Origin::Task), (2, Origin::Task), (3, Origin::Returned)] {
            let expected = match entry {
                1 => Admitted::New,
                it => Admitted::Supersedes(EntryId(it - 1)),
            };
            assert_eq!(admit(&mut ids, of("a", origin), entry, 0), expected);
            assert_eq!(ids.look_up(&Name::new("a"), at(0)), Named::Job(EntryId(entry)));
        }
    }

    #[test]
    fn one_pending_job_has_a_uniqueness_and_its_settlement_frees_it() {
        let mut ids = Identities::default();
        assert_eq!(admit(&mut ids, unique("a"), 1, 0), Admitted::New);
        assert_eq!(admit(&mut ids, unique("b"), 2, 10), Admitted::NotUnique(EntryId(1)));
        assert_eq!(ids.look_up(&Name::new("b"), at(10)), Named::Unknown);
        ids.settle(&Name::new("a"), at(20));
        assert_eq!(admit(&mut ids, unique("b"), 2, 20), Admitted::New);
        // No longer than the policy says, even while it is pending.
        assert_eq!(admit(&mut ids, unique("c"), 3, 319), Admitted::NotUnique(EntryId(2)));
        assert_eq!(admit(&mut ids, unique("c"), 3, 320), Admitted::New);
        // What was taken over is not freed by the one that had it before.
        ids.settle(&Name::new("b"), at(330));
        assert_eq!(admit(&mut ids, unique("d"), 4, 340), Admitted::NotUnique(EntryId(3)));
    }

    #[test]
    fn gone_and_never_seen_are_two_answers() {
        let mut ids = Identities::default();
        let id = Name::new("a");
        assert_eq!(ids.look_up(&id, at(0)), Named::Unknown);
        admit(&mut ids, unique("a"), 1, 0);
        ids.settle(&id, at(10));
        ids.forget(&id, &LIFETIMES, at(100));
        assert_eq!(ids.look_up(&id, at(5_099)), Named::Forgotten);
        assert_eq!(ids.look_up(&id, at(5_100)), Named::Unknown);
        assert_eq!(ids.due(), Some(at(5_100)));
        assert!(!ids.pass(at(5_099), 10) && ids.due().is_some());
        assert!(!ids.pass(at(5_100), 10) && ids.due().is_none());
    }

    #[test]
    fn a_forgotten_id_may_be_used_again() {
        let mut ids = Identities::default();
        admit(&mut ids, of("a", Origin::Client), 1, 0);
        ids.forget(&Name::new("a"), &LIFETIMES, at(0));
        assert_eq!(admit(&mut ids, of("a", Origin::Client), 2, 1), Admitted::New);
        assert_eq!(ids.due(), None, "its tombstone is gone");
        for number in 0..10 {
            admit(&mut ids, of(&format!("b{number}"), Origin::Server), number, 2);
            ids.forget(&Name::new(&format!("b{number}")), &LIFETIMES, at(2));
        }
        assert!(ids.pass(at(9_000), 4) && ids.due().is_some());
        assert!(!ids.pass(at(9_000), 40) && ids.tombstones.is_empty());
    }
}
