//! The messages that were delivered and not settled yet: found by their id in constant time, and
//! chained by who holds them, in order of delivery.

use crate::{
    command::Place,
    entry::{Entry, Item},
    seldom::Absent,
};
use model::{ConsumerNumber, EntryId, SessionId, Timestamp};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

/// No slot.
const NONE: u32 = u32::MAX;
/// Above this many slots an idle queue gives them back.
const QUIET_SLOTS_MAX: usize = 256;

/// Ids are given by the queue itself, in a row: nobody can choose ones that collide.
#[derive(Default)]
struct RowHasher(u64);

impl Hasher for RowHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|it| self.write_u64((*it).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

#[derive(Debug)]
struct Slot {
    /// Absent in a free slot.
    item: Option<Item>,
    holder: u32,
    older: u32,
    newer: u32,
    delivered: Timestamp,
}

/// Who holds deliveries: a consumer, or the fetches of a session.
#[derive(Debug)]
struct Holder {
    session: SessionId,
    number: Option<ConsumerNumber>,
    /// Its slot among the consumers while it is one.
    consumer: Option<u32>,
    oldest: u32,
    newest: u32,
}

/// A message that is unsettled no longer.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) item: Item,
    /// The slot of the consumer that held it, while it lives.
    pub(crate) consumer: Option<u32>,
}

/// All unsettled messages of a queue.
#[derive(Debug)]
pub(crate) struct Unsettled {
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    by_id: HashMap<EntryId, u32, BuildHasherDefault<RowHasher>>,
    holders: Vec<Holder>,
    free_holders: Vec<u32>,
    by_holder: BTreeMap<(SessionId, Option<ConsumerNumber>), u32>,
    resident: u64,
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than four billion deliveries are unsettled")
}

impl Absent for Unsettled {
    fn absent() -> &'static Self {
        static NONE: Unsettled = Unsettled::new();
        &NONE
    }
}

impl Unsettled {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free_slots: Vec::new(),
            by_id: HashMap::with_hasher(BuildHasherDefault::new()),
            holders: Vec::new(),
            free_holders: Vec::new(),
            by_holder: BTreeMap::new(),
            resident: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// Octets of the bodies in memory.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// The holder of this name, which is made when there is none.
    pub(crate) fn holder(&mut self, session: SessionId, number: Option<ConsumerNumber>) -> u32 {
        if let Some(at) = self.by_holder.get(&(session, number)) {
            return *at;
        }
        let holder = Holder { session, number, consumer: None, oldest: NONE, newest: NONE };
        let at = self.free_holders.pop().unwrap_or_else(|| index(self.holders.len()));
        match self.holders.get_mut(at as usize) {
            Some(it) => *it = holder,
            None => self.holders.push(holder),
        }
        self.by_holder.insert((session, number), at);
        at
    }

    /// Says which consumer stands behind a holder, or that none does any more.
    pub(crate) fn set_consumer(&mut self, holder: u32, consumer: Option<u32>) {
        self.holders[holder as usize].consumer = consumer;
        self.release(holder);
    }

    fn release(&mut self, at: u32) {
        let holder = &self.holders[at as usize];
        if holder.consumer.is_none() && holder.oldest == NONE {
            self.by_holder.remove(&(holder.session, holder.number));
            self.free_holders.push(at);
        }
    }

    pub(crate) fn insert(&mut self, holder: u32, item: Item, now: Timestamp) {
        self.resident += item.entry.resident();
        let id = item.entry.id;
        let older = self.holders[holder as usize].newest;
        let slot = Slot { item: Some(item), holder, older, newer: NONE, delivered: now };
        let at = self.free_slots.pop().unwrap_or_else(|| index(self.slots.len()));
        match self.slots.get_mut(at as usize) {
            Some(it) => *it = slot,
            None => self.slots.push(slot),
        }
        match older {
            NONE => self.holders[holder as usize].oldest = at,
            older => self.slots[older as usize].newer = at,
        }
        self.holders[holder as usize].newest = at;
        let replaced = self.by_id.insert(id, at);
        assert!(replaced.is_none(), "a message is delivered once at a time");
    }

    /// Takes a message out, if this session holds it.
    pub(crate) fn remove(&mut self, id: EntryId, session: SessionId) -> Option<Returned> {
        let at = *self.by_id.get(&id)?;
        let holder_at = self.slots[at as usize].holder;
        if self.holders[holder_at as usize].session != session {
            return None;
        }
        self.by_id.remove(&id);
        let slot = &mut self.slots[at as usize];
        let item = slot.item.take().expect("a slot found by its id is in use");
        let (older, newer) = (slot.older, slot.newer);
        match older {
            NONE => self.holders[holder_at as usize].oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.holders[holder_at as usize].newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        self.resident -= item.entry.resident();
        self.free_slots.push(at);
        let consumer = self.holders[holder_at as usize].consumer;
        if consumer.is_none() {
            self.release(holder_at);
        }
        if self.by_id.is_empty() && QUIET_SLOTS_MAX < self.slots.len() {
            self.slots = Vec::new();
            self.free_slots = Vec::new();
            self.by_id = HashMap::default();
        }
        Some(Returned { item, consumer })
    }

    /// When the delivery was made that this holder has held longest.
    pub(crate) fn oldest(&self, holder: u32) -> Option<Timestamp> {
        let oldest = self.holders[holder as usize].oldest;
        (oldest != NONE).then(|| self.slots[oldest as usize].delivered)
    }

    fn held(&self, holder: u32) -> impl Iterator<Item = &Item> {
        let mut at = self.holders[holder as usize].oldest;
        std::iter::from_fn(move || {
            let slot = (at != NONE).then(|| &self.slots[at as usize])?;
            at = slot.newer;
            slot.item.as_ref()
        })
    }

    /// How many messages a holder holds.
    pub(crate) fn count(&self, holder: u32) -> usize {
        self.held(holder).count()
    }

    /// What a holder holds, oldest message first.
    pub(crate) fn held_by(&self, holder: u32) -> Vec<EntryId> {
        let mut ids: Vec<_> = self.held(holder).map(|it| it.entry.id).collect();
        ids.sort_unstable();
        ids
    }

    /// What a session holds, oldest message first.
    pub(crate) fn held_by_session(&self, session: SessionId) -> Vec<EntryId> {
        let all = (session, None)..=(session, Some(ConsumerNumber(u32::MAX)));
        let holders = self.by_holder.range(all).map(|(_, at)| *at);
        let mut ids: Vec<_> = holders.flat_map(|it| self.held(it)).map(|it| it.entry.id).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn get(&self, id: EntryId) -> Option<&Item> {
        self.slots[*self.by_id.get(&id)? as usize].item.as_ref()
    }

    pub(crate) fn relocate(&mut self, id: EntryId, to: Place) {
        let at = self.by_id.get(&id).map(|it| *it as usize);
        if let Some(item) = at.and_then(|it| self.slots[it].item.as_mut()) {
            item.entry.set_place(to);
        }
    }

    /// Every unsettled message, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|it| it.item.as_ref()).map(|it| &it.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u64) -> Item {
        let entry = Entry::new(EntryId(id), Place::Memory, 1, Timestamp(0));
        Item { entry, level: 0, ttl_ms: None, acquired: 1, failed: 0 }
    }

    #[test]
    fn chain_of_a_holder_survives_removals_anywhere() {
        let mut unsettled = Unsettled::new();
        let session = SessionId(1);
        let holder = unsettled.holder(session, Some(ConsumerNumber(4)));
        unsettled.set_consumer(holder, Some(9));
        (1..=5).for_each(|it| unsettled.insert(holder, item(it), Timestamp(it * 10)));
        for (id, left, oldest) in
            [(3, vec![1, 2, 4, 5], 10), (1, vec![2, 4, 5], 20), (5, vec![2, 4], 20)]
        {
            let returned = unsettled.remove(EntryId(id), session).expect("is held");
            assert_eq!((returned.item.entry.id, returned.consumer), (EntryId(id), Some(9)));
            assert_eq!(unsettled.held_by(holder).iter().map(|it| it.0).collect::<Vec<_>>(), left);
            assert_eq!(unsettled.oldest(holder), Some(Timestamp(oldest)));
        }
        assert!(unsettled.remove(EntryId(2), SessionId(2)).is_none(), "held by another session");
        assert!(unsettled.remove(EntryId(1), session).is_none(), "settled already");
        assert_eq!(unsettled.len(), 2);
    }

    #[test]
    fn holder_goes_with_its_consumer_and_its_last_delivery() {
        let mut unsettled = Unsettled::new();
        let session = SessionId(1);
        for round in 0..1_000 {
            let holder = unsettled.holder(session, Some(ConsumerNumber(round)));
            unsettled.set_consumer(holder, Some(0));
            unsettled.insert(holder, item(round.into()), Timestamp(0));
            unsettled.set_consumer(holder, None);
            assert_eq!(unsettled.held_by_session(session), [EntryId(round.into())]);
            assert!(unsettled.remove(EntryId(round.into()), session).is_some());
            assert!(unsettled.by_holder.is_empty() && unsettled.holders.len() == 1);
        }
    }
}
