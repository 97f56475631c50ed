//! Who gets the next message. Consumers that can take nothing are parked, so that a queue with
//! thousands of busy consumers finds the one that is free at once.

use crate::{command::Subscriber, seldom::Absent};
use model::{ConsumerNumber, SessionId, limits, request::SharedCredit};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

/// A running consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) session: SessionId,
    pub(crate) number: ConsumerNumber,
    pub(crate) automatic: bool,
    pub(crate) timeout_ms: Option<u64>,
    /// Where its unsettled deliveries are chained.
    pub(crate) holder: u32,
    exclusive: bool,
    priority: i64,
    prefetch: u32,
    shared: Option<SharedCredit>,
    arrival: u64,
    unsettled: usize,
    /// Octets it may still get. Below 0 by at most one message.
    credit: i64,
    /// It stands in no ring.
    parked: bool,
}

impl Consumer {
    fn has_capacity(&self) -> bool {
        let prefetch = match self.prefetch {
            0 => limits::CHANNEL_UNSETTLED_MAX,
            some => (some as usize).min(limits::CHANNEL_UNSETTLED_MAX),
        };
        let shared = || self.shared.as_ref().is_none_or(|it| 0 < it.left());
        0 < self.credit && (self.automatic || (self.unsettled < prefetch && shared()))
    }

    fn takes_shared(&self) -> bool {
        self.automatic || self.shared.as_ref().is_none_or(SharedCredit::try_take)
    }
}

/// Consumers of one priority; the ring holds those that may take something, longest idle first.
#[derive(Debug)]
struct Level {
    priority: i64,
    consumers: usize,
    ring: VecDeque<u32>,
}

/// All consumers of a queue.
#[derive(Debug)]
pub(crate) struct Consumers {
    slots: Vec<Option<Consumer>>,
    free: Vec<u32>,
    by_name: BTreeMap<(SessionId, ConsumerNumber), u32>,
    arrivals: u64,
    /// Highest priority first.
    levels: Vec<Level>,
    /// No level before this one has anybody in its ring.
    first_level: usize,
    /// Who comes first where only one is served.
    ranks: BTreeMap<(Reverse<i64>, u64), u32>,
    single_active: bool,
    priority_takes_over: bool,
    active: Option<u32>,
}

impl Absent for Consumers {
    fn absent() -> &'static Self {
        static NONE: Consumers = Consumers::new(false, false);
        &NONE
    }
}

impl Consumers {
    /// `single_active`: one is served at a time, the first to arrive; with `priority_takes_over`
    /// the first of the highest priority, as soon as its predecessor holds nothing.
    pub(crate) const fn new(single_active: bool, priority_takes_over: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: BTreeMap::new(),
            arrivals: 0,
            levels: Vec::new(),
            first_level: 0,
            ranks: BTreeMap::new(),
            single_active,
            priority_takes_over,
            active: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn has_exclusive(&self) -> bool {
        self.len() == 1 && self.ranks.values().any(|it| self.get(*it).exclusive)
    }

    #[inline]
    pub(crate) fn find(&self, session: SessionId, number: ConsumerNumber) -> Option<u32> {
        self.by_name.get(&(session, number)).copied()
    }

    /// The consumer in a slot that is in use.
    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> &Consumer {
        self.slots[slot as usize].as_ref().expect("slots of consumers that ended are forgotten")
    }

    #[inline(always)]
    fn get_mut(&mut self, slot: u32) -> &mut Consumer {
        self.slots[slot as usize].as_mut().expect("slots of consumers that ended are forgotten")
    }

    /// Everybody, in order of arrival.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<_> = self.by_name.values().copied().collect();
        slots.sort_unstable_by_key(|it| self.get(*it).arrival);
        slots
    }

    /// Those of a session, in order of arrival.
    pub(crate) fn slots_of(&self, session: SessionId) -> Vec<u32> {
        let all = (session, ConsumerNumber(0))..=(session, ConsumerNumber(u32::MAX));
        let mut slots: Vec<_> = self.by_name.range(all).map(|(_, slot)| *slot).collect();
        slots.sort_unstable_by_key(|it| self.get(*it).arrival);
        slots
    }

    fn rank(&self, consumer: &Consumer) -> (Reverse<i64>, u64) {
        let priority = if self.priority_takes_over { consumer.priority } else { 0 };
        (Reverse(priority), consumer.arrival)
    }

    /// A new consumer, whose holder holds this many deliveries already.
    pub(crate) fn add(&mut self, subscriber: Subscriber, holder: u32, unsettled: usize) -> u32 {
        let Subscriber { session, consumer: number, priority, .. } = subscriber;
        self.arrivals += 1;
        let consumer = Consumer {
            session,
            number,
            automatic: subscriber.automatic,
            timeout_ms: subscriber.timeout_ms,
            holder,
            exclusive: subscriber.exclusive,
            priority,
            prefetch: subscriber.prefetch,
            shared: subscriber.shared,
            arrival: self.arrivals,
            unsettled,
            credit: limits::OUTGOING_BYTES_MAX.cast_signed(),
            parked: true,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("consumers have a limit")
        });
        self.ranks.insert(self.rank(&consumer), slot);
        self.by_name.insert((session, number), slot);
        self.slots[slot as usize] = Some(consumer);
        let at = self.levels.partition_point(|it| priority < it.priority);
        if self.levels.get(at).is_none_or(|it| it.priority != priority) {
            self.levels.insert(at, Level { priority, consumers: 0, ring: VecDeque::new() });
            self.first_level = 0;
        }
        self.levels[at].consumers += 1;
        self.unpark(slot);
        self.elect();
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Consumer {
        let consumer = self.slots[slot as usize].take().expect("consumers are removed once");
        self.free.push(slot);
        self.by_name.remove(&(consumer.session, consumer.number));
        self.ranks.remove(&self.rank(&consumer));
        let at = self.levels.partition_point(|it| consumer.priority < it.priority);
        let level = &mut self.levels[at];
        level.consumers -= 1;
        if level.consumers == 0 {
            self.levels.remove(at);
            self.first_level = 0;
        } else if !consumer.parked {
            level.ring.retain(|it| *it != slot);
        }
        if self.active == Some(slot) {
            self.active = None;
        }
        self.elect();
        consumer
    }

    fn elect(&mut self) {
        let first = self.ranks.first_key_value().map(|(_, slot)| *slot);
        let may_change = match self.active {
            None => true,
            // A predecessor keeps what it holds to itself until it has settled it.
            Some(active) => active != first.unwrap_or(active) && self.get(active).unsettled == 0,
        };
        if self.single_active && may_change {
            self.active = first;
        }
    }

    #[inline(always)]
    fn unpark(&mut self, slot: u32) {
        let consumer = self.get_mut(slot);
        if std::mem::take(&mut consumer.parked) {
            let priority = consumer.priority;
            let at = self.levels.partition_point(|it| priority < it.priority);
            self.levels[at].ring.push_back(slot);
            self.first_level = self.first_level.min(at);
        }
    }

    /// The consumer that would get the next message.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u32> {
        if self.single_active {
            let first = self.ranks.first_key_value().map(|(_, slot)| *slot)?;
            let is_served = self.active == Some(first) && self.get(first).has_capacity();
            return is_served.then_some(first);
        }
        while let Some(level) = self.levels.get_mut(self.first_level) {
            let Some(slot) = level.ring.front().copied() else {
                self.first_level += 1;
                continue;
            };
            if self.get(slot).has_capacity() {
                return Some(slot);
            }
            self.park();
        }
        None
    }

    fn park(&mut self) {
        let parked = self.levels[self.first_level].ring.pop_front();
        if let Some(slot) = parked {
            self.get_mut(slot).parked = true;
        }
    }

    /// The consumer that gets the next message; the shared credit it needs is taken.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<u32> {
        loop {
            let slot = self.next()?;
            if !self.get(slot).takes_shared() {
                // Another queue was faster.
                if self.single_active {
                    return None;
                }
                self.park();
                continue;
            }
            if !self.single_active {
                let ring = &mut self.levels[self.first_level].ring;
                if 1 < ring.len() {
                    ring.rotate_left(1);
                }
            }
            return Some(slot);
        }
    }

    /// It got a message that costs this much.
    #[inline(always)]
    pub(crate) fn on_delivery(&mut self, slot: u32, octets: u64) {
        let consumer = self.get_mut(slot);
        consumer.credit -= octets.cast_signed();
        if !consumer.automatic {
            consumer.unsettled += 1;
        }
    }

    /// A message that it has got costs this much.
    pub(crate) fn charge(&mut self, slot: u32, octets: u64) {
        self.get_mut(slot).credit -= octets.cast_signed();
    }

    /// One of its messages is settled.
    #[inline(always)]
    pub(crate) fn on_settled(&mut self, slot: u32) {
        self.get_mut(slot).unsettled -= 1;
        self.unpark(slot);
        if self.single_active {
            self.elect();
        }
    }

    #[inline]
    pub(crate) fn add_credit(&mut self, slot: u32, octets: u64) {
        let consumer = self.get_mut(slot);
        consumer.credit = consumer.credit.saturating_add_unsigned(octets);
        self.unpark(slot);
    }

    pub(crate) fn set_prefetch(&mut self, slot: u32, prefetch: u32) {
        self.get_mut(slot).prefetch = prefetch;
        self.unpark(slot);
    }

    pub(crate) fn resume(&mut self, slot: u32) {
        self.unpark(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(number: u32, priority: i64) -> Subscriber {
        Subscriber {
            session: SessionId(1),
            channel: model::ChannelId(1),
            consumer: ConsumerNumber(number),
            automatic: false,
            exclusive: false,
            priority,
            prefetch: 1,
            shared: None,
            timeout_ms: None,
        }
    }

    fn served(consumers: &mut Consumers, times: usize) -> Vec<u32> {
        let next = || {
            let slot = consumers.take()?;
            consumers.on_delivery(slot, 1);
            Some(consumers.get(slot).number.0)
        };
        std::iter::from_fn(next).take(times).collect()
    }

    #[test]
    fn highest_priority_is_served_first_and_a_level_in_turn() {
        let mut consumers = Consumers::new(false, false);
        for (number, priority) in [(1, 0), (2, 7), (3, -1), (4, 0), (5, 7)] {
            let slot = consumers.add(subscriber(number, priority), 0, 0);
            consumers.set_prefetch(slot, 2);
        }
        assert_eq!(served(&mut consumers, 100), [2, 5, 2, 5, 1, 4, 1, 4, 3, 3]);
        let slot = consumers.find(SessionId(1), ConsumerNumber(4)).expect("is there");
        consumers.on_settled(slot);
        assert_eq!(served(&mut consumers, 100), [4]);
    }

    #[test]
    fn only_the_first_to_arrive_is_served_until_it_goes() {
        let mut consumers = Consumers::new(true, false);
        let first = consumers.add(subscriber(1, 0), 0, 0);
        consumers.add(subscriber(2, 9), 0, 0);
        assert_eq!(served(&mut consumers, 100), [1]);
        consumers.remove(first);
        assert_eq!(served(&mut consumers, 100), [2]);
    }

    #[test]
    fn higher_priority_takes_over_once_its_predecessor_holds_nothing() {
        let mut consumers = Consumers::new(true, true);
        let first = consumers.add(subscriber(1, 0), 0, 0);
        consumers.set_prefetch(first, 2);
        assert_eq!(served(&mut consumers, 1), [1]);
        consumers.add(subscriber(2, 9), 0, 0);
        assert_eq!(served(&mut consumers, 100), [0; 0]);
        consumers.on_settled(first);
        assert_eq!(served(&mut consumers, 100), [2]);
    }

    #[test]
    fn shared_credit_is_taken_only_by_who_could_take_a_message() {
        let shared = SharedCredit::new(1);
        let mut consumers = Consumers::new(false, false);
        for number in 1..=2 {
            consumers.add(
                Subscriber { shared: Some(shared.clone()), ..subscriber(number, 0) },
                0,
                0,
            );
        }
        assert_eq!(served(&mut consumers, 100), [1]);
        assert_eq!(shared.left(), 0);
        shared.add(1);
        let second = consumers.find(SessionId(1), ConsumerNumber(2)).expect("is there");
        consumers.resume(second);
        assert_eq!(served(&mut consumers, 100), [2]);
    }
}
