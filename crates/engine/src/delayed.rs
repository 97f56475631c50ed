//! Messages that came back and rest for a while before they are ready again.

use crate::{command::Place, entry::Item, seldom::Absent};
use model::{EntryId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// All resting messages of a queue.
#[derive(Debug)]
pub(crate) struct Delayed {
    items: BTreeMap<EntryId, (Timestamp, Item)>,
    due: BTreeSet<(Timestamp, EntryId)>,
    resident: u64,
}

impl Absent for Delayed {
    fn absent() -> &'static Self {
        static NONE: Delayed = Delayed::new();
        &NONE
    }
}

impl Delayed {
    pub(crate) const fn new() -> Self {
        Self { items: BTreeMap::new(), due: BTreeSet::new(), resident: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.items.len() as u64
    }

    /// Octets of the bodies in memory.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    pub(crate) fn insert(&mut self, item: Item, until: Timestamp) {
        self.resident += item.entry.resident();
        self.due.insert((until, item.entry.id));
        self.items.insert(item.entry.id, (until, item));
    }

    /// When the next one is ready again.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first one whose rest is over.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Item> {
        let (at, id) = *self.due.first()?;
        if now < at {
            return None;
        }
        self.due.remove(&(at, id));
        let (_, item) = self.items.remove(&id)?;
        self.resident -= item.entry.resident();
        Some(item)
    }

    pub(crate) fn get(&self, id: EntryId) -> Option<&Item> {
        self.items.get(&id).map(|(_, item)| item)
    }

    pub(crate) fn relocate(&mut self, id: EntryId, to: Place) {
        if let Some((_, item)) = self.items.get_mut(&id) {
            item.entry.set_place(to);
        }
    }

    /// Every resting message, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|(_, item)| item)
    }
}
