//! The one who changes the catalog: under its lock a change is written to the log, applied, and
//! shown to readers as a new snapshot, in this order, so that nothing refers to what the log does
//! not have.

use crate::{
    changes::{SNAPSHOT_FIRST, SNAPSHOT_LAST, listed_changes},
    shared::Shared,
};
use catalog::{Catalog, Change};
use engine::record::kind;
use foldhash::HashMap;
use model::{LogPosition, QueueId, SessionId, ShardId};
use std::{collections::BTreeSet, sync::Arc};
use storage::{Kind, LogError};

pub(crate) struct Owner {
    catalog: Catalog,
    /// Queues that end with a session.
    exclusive: HashMap<SessionId, Vec<QueueId>>,
    /// Segments with what rebuilds the catalog.
    segments: BTreeSet<u32>,
    shards: usize,
    next_shard: usize,
    /// The end of the last change's record: who is told of the catalog as it is waits for it too.
    last: Option<LogPosition>,
}

impl Owner {
    pub(crate) fn new(catalog: Catalog, segments: &BTreeSet<u32>, shards: usize) -> Self {
        let segments = segments.clone();
        let exclusive = HashMap::default();
        Self { catalog, exclusive, segments, shards, next_shard: 0, last: None }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Where the next new queue goes.
    pub(crate) fn next_shard(&mut self) -> ShardId {
        self.next_shard = (self.next_shard + 1) % self.shards;
        ShardId(u16::try_from(self.next_shard).unwrap_or(0))
    }

    /// What must be durable before anybody is told of the catalog as it is.
    pub(crate) fn last(&self) -> Option<LogPosition> {
        self.last
    }

    /// Carries the changes out. Returns the position that must be durable before anybody is told,
    /// if there is anything to wait for.
    pub(crate) fn commit(
        &mut self,
        changes: &[Change],
        shared: &Shared,
    ) -> Result<Option<LogPosition>, LogError> {
        if changes.is_empty() {
            return Ok(self.last);
        }
        let mut after = None;
        if changes.iter().any(Change::durable) {
            let mut payload = Vec::new();
            let mut appender = shared.log.begin()?;
            if 1 < changes.len() {
                appender.atomic();
            }
            for change in changes.iter().filter(|it| it.durable()) {
                payload.clear();
                change.encode(&mut payload);
                let kind = Kind(kind::CATALOG_CHANGE);
                let (at, end) = appender.record_twice(kind, &[&payload])?;
                self.segments.insert(at.segment().0);
                self.segments.insert(end.segment().0);
                after = Some(LogPosition(end.0));
            }
        }
        for change in changes {
            self.note_exclusive(change);
            let applied = self.catalog.apply(change);
            assert!(applied.is_ok(), "a decision of this catalog applies to it: {applied:?}");
        }
        shared.catalog.store(Arc::new(self.catalog.clone()));
        self.last = after.or(self.last);
        Ok(after)
    }

    fn note_exclusive(&mut self, change: &Change) {
        match change {
            Change::QueueDeclared(queue) => {
                if let Some(session) = queue.exclusive_to {
                    self.exclusive.entry(session).or_default().push(queue.id);
                }
            }
            Change::QueueDeleted { queue, .. } => {
                let owner = self.catalog.queue(*queue).and_then(|it| it.exclusive_to);
                if let Some(owned) = owner.and_then(|it| self.exclusive.get_mut(&it)) {
                    owned.retain(|it| it != queue);
                }
            }
            _ => {}
        }
    }

    /// The queues that end with this session, which has ended.
    pub(crate) fn take_exclusive(&mut self, session: SessionId) -> Vec<QueueId> {
        self.exclusive.remove(&session).unwrap_or_default()
    }

    /// A queue's shard has let it go. Returns its shard and what to wait for; `None` if it is gone
    /// already.
    pub(crate) fn forget_queue(
        &mut self,
        queue: QueueId,
        shared: &Shared,
    ) -> Result<Option<(ShardId, Option<LogPosition>)>, LogError> {
        let Some(known) = self.catalog.queue(queue).cloned() else {
            return Ok(Some((ShardId(0), self.last)));
        };
        let changes = self.catalog.queue_removal(&known);
        let after = self.commit(&changes, shared)?;
        Ok(Some((known.shard, after)))
    }

    pub(crate) fn holds(&self, segment: u32) -> bool {
        self.segments.contains(&segment)
    }

    /// Writes the whole catalog at the log's end, so that older segments are not needed for it.
    pub(crate) fn write_snapshot(&mut self, shared: &Shared) -> Result<(), LogError> {
        let mut parts = listed_changes(&self.catalog);
        if let Some(first) = parts.first_mut() {
            first[0] |= SNAPSHOT_FIRST;
        }
        if let Some(last) = parts.last_mut() {
            last[0] |= SNAPSHOT_LAST;
        }
        let mut segments = BTreeSet::new();
        for part in parts {
            // The log's lock is let go between two parts; this owner's is not.
            let mut appender = shared.log.begin()?;
            let (at, end) = appender.record_twice(Kind(kind::CATALOG_SNAPSHOT), &[&part])?;
            segments.insert(at.segment().0);
            segments.insert(end.segment().0);
        }
        self.segments = segments;
        Ok(())
    }
}
