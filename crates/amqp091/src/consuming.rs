//! Deliveries that a client holds, the consumers they came by, and how settles travel to the
//! broker.

use model::{
    ChannelId, ConsumerNumber, EntryId, Name, Outcome, QueueId, Request, Settle, Table, Value,
    limits, properties::Properties, request::SharedCredit,
};
use smallvec::smallvec;
use std::collections::VecDeque;

/// What is added to a message's size in the account of a consumer's outgoing octets.
const DELIVERY_OVERHEAD_BYTES: u64 = 64;
/// How far back a settle looks for one of the same queue that it can join.
const SETTLE_GROUPS_MAX: usize = 16;

/// Consumers that are remembered after they went.
const GONE_MAX: usize = 64;

/// One delivery that waits for its settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) tag: u64,
    pub(crate) queue: QueueId,
    pub(crate) entry: EntryId,
    /// Zero for a fetch.
    pub(crate) consumer: ConsumerNumber,
    live: bool,
}

impl Held {
    pub(crate) fn new(tag: u64, queue: QueueId, entry: EntryId, consumer: ConsumerNumber) -> Self {
        Self { tag, queue, entry, consumer, live: true }
    }

    /// Came by a consumer, so it counts against the channel's limit.
    pub(crate) fn is_consumed(&self) -> bool {
        self.consumer != ConsumerNumber::default()
    }
}

/// The unsettled deliveries of a channel in the order of their tags. Settled ones stay as dead
/// places until they reach the front or outnumber the living.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    window: VecDeque<Held>,
    live: usize,
}

impl Unsettled {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Adds a delivery; its tag is above all before it.
    pub(crate) fn push(&mut self, held: Held) {
        self.window.push_back(held);
        self.live += 1;
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let front = self.window.front()?;
        let reach = usize::try_from(tag.checked_sub(front.tag)?).unwrap_or(usize::MAX);
        let guess = reach.min(self.window.len() - 1);
        // Without automatic deliveries and compaction in between the tags are dense.
        let at = match self.window[guess].tag == tag {
            true => guess,
            false => self.window.binary_search_by_key(&tag, |it| it.tag).ok()?,
        };
        self.window[at].live.then_some(at)
    }

    fn tidy(&mut self) {
        while self.window.front().is_some_and(|it| !it.live) {
            self.window.pop_front();
        }
        if 64 + 2 * self.live < self.window.len() {
            self.window.retain(|it| it.live);
        }
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, tag: u64) -> Option<Held> {
        let at = self.find(tag)?;
        let held = self.window[at];
        self.window[at].live = false;
        self.live -= 1;
        self.tidy();
        Some(held)
    }

    /// Takes out `tag` and everything before it; false, and nothing is taken, when it is not held.
    pub(crate) fn take_through(&mut self, tag: u64, mut each: impl FnMut(Held)) -> bool {
        let Some(at) = self.find(tag) else { return false };
        let taken = self.window.drain(..=at).filter(|it| it.live).map(&mut each).count();
        self.live -= taken;
        self.tidy();
        true
    }

    /// Takes out everything.
    pub(crate) fn take_all(&mut self, each: impl FnMut(Held)) {
        self.live = 0;
        self.window.drain(..).filter(|it| it.live).for_each(each);
    }

    /// Puts back what was taken out, each at the place of its tag.
    pub(crate) fn restore(&mut self, taken: Vec<Held>) {
        if taken.is_empty() {
            return;
        }
        self.window.retain(|it| it.live);
        self.window.extend(taken);
        self.window.make_contiguous().sort_unstable_by_key(|it| it.tag);
        self.live = self.window.len();
    }
}

/// Appends the settle of one delivery, within a settle of the same queue, consumer and outcome if
/// one stands at the end of the requests.
pub(crate) fn settle(
    requests: &mut Vec<Request>,
    channel: ChannelId,
    held: &Held,
    outcome: Outcome,
) {
    let consumer = held.is_consumed().then_some(held.consumer);
    for request in requests.iter_mut().rev().take(SETTLE_GROUPS_MAX) {
        let Request::Settle(it) = request else { break };
        let same = it.channel == channel && it.queue == held.queue && it.consumer == consumer;
        if same && it.outcome == outcome {
            it.entries.push(held.entry);
            return;
        }
    }
    let entries = smallvec![held.entry];
    requests.push(Request::Settle(Settle {
        channel,
        queue: held.queue,
        consumer,
        entries,
        outcome,
    }));
}

/// How many deliveries the consumers of a channel may hold together, changed while they run.
#[derive(Debug)]
pub(crate) struct SharedLimit {
    credit: SharedCredit,
    limit: i64,
}

const UNLIMITED: i64 = limits::CHANNEL_UNSETTLED_MAX as i64;

impl SharedLimit {
    pub(crate) fn new() -> Self {
        Self { credit: SharedCredit::new(UNLIMITED), limit: UNLIMITED }
    }

    pub(crate) fn credit(&self) -> SharedCredit {
        self.credit.clone()
    }

    /// Sets the limit, 0 = none. True when consumers that had nothing left may go on.
    pub(crate) fn set(&mut self, limit: u16) -> bool {
        let limit = if limit == 0 { UNLIMITED } else { i64::from(limit) };
        let more = limit - self.limit;
        self.limit = limit;
        self.give(more)
    }

    /// Gives back what settled deliveries held. True when consumers that had nothing left may go
    /// on.
    pub(crate) fn give(&self, more: i64) -> bool {
        let before = self.credit.add(more);
        before <= 0 && 0 < before + more
    }
}

/// One consumer of the session.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) number: ConsumerNumber,
    /// The channel's number on the wire.
    pub(crate) channel: u16,
    /// The channel towards the broker.
    pub(crate) channel_id: ChannelId,
    pub(crate) tag: Name,
    /// Known once the broker has subscribed it.
    pub(crate) queue: Option<QueueId>,
    pub(crate) automatic: bool,
    /// Its channel is gone or it is cancelled: what still comes goes back.
    pub(crate) is_ending: bool,
    owed_bytes: u64,
}

/// The consumers of a session in the order of their numbers, which are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    list: Vec<Consumer>,
    last: u32,
    /// Where the last look-up ended; deliveries come in runs.
    recent: usize,
    owing: Vec<ConsumerNumber>,
    /// Those that went last, with number and id of their channel: a delivery may still be under
    /// way.
    gone: VecDeque<(ConsumerNumber, u16, ChannelId)>,
}

impl Consumers {
    /// Adds a consumer; none when the numbers are used up.
    pub(crate) fn add(
        &mut self,
        channel: u16,
        channel_id: ChannelId,
        tag: Name,
        automatic: bool,
    ) -> Option<ConsumerNumber> {
        self.last = self.last.checked_add(1)?;
        let number = ConsumerNumber(self.last);
        self.list.push(Consumer {
            number,
            channel,
            channel_id,
            tag,
            queue: None,
            automatic,
            is_ending: false,
            owed_bytes: 0,
        });
        Some(number)
    }

    fn find(&mut self, number: ConsumerNumber) -> Option<usize> {
        if self.list.get(self.recent).is_none_or(|it| it.number != number) {
            self.recent = self.list.binary_search_by_key(&number, |it| it.number).ok()?;
        }
        Some(self.recent)
    }

    pub(crate) fn get(&mut self, number: ConsumerNumber) -> Option<&mut Consumer> {
        let at = self.find(number)?;
        Some(&mut self.list[at])
    }

    /// Where it consumes, and whether it is ending; none until the broker has subscribed it.
    pub(crate) fn place(&mut self, number: ConsumerNumber) -> Option<(QueueId, bool)> {
        let consumer = self.get(number)?;
        Some((consumer.queue?, consumer.is_ending))
    }

    /// From now on what comes for it goes back. Returns where it consumes, if it is subscribed.
    pub(crate) fn end(&mut self, number: ConsumerNumber) -> Option<QueueId> {
        let consumer = self.get(number)?;
        consumer.is_ending = true;
        consumer.queue
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn remove(&mut self, number: ConsumerNumber) -> Option<Consumer> {
        let at = self.find(number)?;
        let consumer = self.list.remove(at);
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((number, consumer.channel, consumer.channel_id));
        Some(consumer)
    }

    /// The channel, by number and id, of a consumer that went not long ago.
    pub(crate) fn former_channel(&self, number: ConsumerNumber) -> Option<(u16, ChannelId)> {
        let found = self.gone.iter().rev().find(|it| it.0 == number)?;
        Some((found.1, found.2))
    }

    /// Writes down that a delivery of `size` octets is on its way to the socket.
    pub(crate) fn owe(&mut self, number: ConsumerNumber, size: u64) {
        if let Some(at) = self.find(number) {
            let consumer = &mut self.list[at];
            if consumer.owed_bytes == 0 {
                self.owing.push(number);
            }
            consumer.owed_bytes += size + DELIVERY_OVERHEAD_BYTES;
        }
    }

    /// Gives the consumers' queues back what has left for the socket.
    pub(crate) fn give_back(&mut self, requests: &mut Vec<Request>) {
        let mut owing = std::mem::take(&mut self.owing);
        for number in owing.drain(..) {
            let Some(consumer) = self.get(number) else { continue };
            let bytes = std::mem::take(&mut consumer.owed_bytes);
            if let (Some(queue), false) = (consumer.queue, consumer.is_ending) {
                requests.push(Request::Credit { consumer: number, queue, bytes });
            }
        }
        self.owing = owing;
    }
}

/// The properties of a message with the counters of its deliveries among the headers.
pub(crate) fn counted(properties: &[u8], (acquired, failed): (u32, u32)) -> Option<Vec<u8>> {
    let mut properties = Properties::decode(properties).ok()?;
    let headers = properties.headers.get_or_insert_with(Table::default);
    for (key, count) in [("x-acquired-count", acquired), ("x-delivery-count", failed)] {
        if 0 < count {
            headers.set(key, Value::I64(count.into()));
        }
    }
    Some(properties.encoded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(tag: u64) -> Held {
        Held::new(tag, QueueId(1), EntryId(tag * 10), ConsumerNumber(1))
    }

    proptest! {
        #[test]
        fn tags_are_held_until_they_are_taken(
            steps in prop::collection::vec((0..5_u8, any::<u8>()), 0..300),
        ) {
            let mut model = std::collections::BTreeSet::new();
            let mut unsettled = Unsettled::default();
            let (mut tag, mut taken) = (0, Vec::new());
            for (step, value) in steps {
                let chosen = model.iter().nth(usize::from(value) % model.len().max(1)).copied();
                let chosen = if value == 0 { tag + 1 } else { chosen.unwrap_or(1) };
                match step {
                    0 | 1 => for _ in 0..value % 9 {
                        tag += 1 + u64::from(value % 2);
                        unsettled.push(held(tag));
                        model.insert(tag);
                    },
                    2 => {
                        let one = unsettled.take(chosen);
                        prop_assert_eq!(one.map(|it| it.tag), model.take(&chosen));
                        taken.extend(one);
                    }
                    3 => {
                        let mut through = Vec::new();
                        let known = unsettled.take_through(chosen, |it| through.push(it.tag));
                        prop_assert_eq!(known, model.contains(&chosen));
                        let rest = model.split_off(&if known { chosen + 1 } else { 0 });
                        prop_assert_eq!(through, model.into_iter().collect::<Vec<_>>());
                        model = rest;
                    }
                    _ => {
                        model.extend(taken.iter().map(|it: &Held| it.tag));
                        unsettled.restore(std::mem::take(&mut taken));
                    }
                }
                prop_assert_eq!(unsettled.len(), model.len());
            }
            let mut all = Vec::new();
            unsettled.take_all(|it| all.push(it.tag));
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_stuck_delivery_does_not_keep_the_places_of_all_others() {
        let mut unsettled = Unsettled::default();
        unsettled.push(held(1));
        for tag in 2..10_000 {
            unsettled.push(held(tag));
            assert!(unsettled.take(tag).is_some());
        }
        assert!(unsettled.window.len() < 200);
        assert_eq!(unsettled.take(1), Some(held(1)));
    }

    #[test]
    fn settles_of_the_same_kind_travel_together_and_never_past_another_request() {
        let mut requests = Vec::new();
        let channel = ChannelId(1);
        let other = Held::new(5, QueueId(2), EntryId(7), ConsumerNumber::default());
        settle(&mut requests, channel, &held(1), Outcome::Accept);
        settle(&mut requests, channel, &other, Outcome::Accept);
        settle(&mut requests, channel, &held(2), Outcome::Accept);
        assert_eq!(requests.len(), 2);
        settle(&mut requests, channel, &held(3), Outcome::Requeue { failed: false });
        requests.push(Request::Barrier { channel });
        settle(&mut requests, channel, &held(4), Outcome::Accept);
        let entries = |it: &Request| match it {
            Request::Settle(it) => it.entries.iter().map(|it| it.0).collect(),
            _ => Vec::new(),
        };
        let found: Vec<_> = requests.iter().map(entries).collect();
        assert_eq!(found, [vec![10, 20], vec![7], vec![30], vec![], vec![40]]);
    }

    #[test]
    fn a_shared_limit_changes_while_deliveries_are_out() {
        let mut limit = SharedLimit::new();
        assert!(!limit.set(2));
        let credit = limit.credit();
        assert!(credit.try_take() && credit.try_take() && !credit.try_take());
        assert!(limit.set(3), "one more may go");
        assert!(!limit.set(1));
        assert_eq!(credit.left(), -1);
        assert!(!limit.give(1));
        assert!(limit.give(1));
        assert!(!limit.set(0));
        assert_eq!(credit.left(), UNLIMITED);
    }

    #[test]
    fn counters_join_the_headers_and_leave_the_rest() {
        let plain = Properties { delivery_mode: Some(2), ..Properties::default() };
        let octets = counted(&plain.encoded(), (3, 1)).expect("good properties");
        let headers = Properties::decode(&octets).expect("good").headers.expect("headers");
        assert_eq!(headers.get("x-acquired-count"), Some(&Value::I64(3)));
        assert_eq!(headers.get("x-delivery-count"), Some(&Value::I64(1)));
        let octets = counted(&plain.encoded(), (0, 0)).expect("good properties");
        assert_eq!(Properties::decode(&octets).expect("good").delivery_mode, Some(2));
    }
}
