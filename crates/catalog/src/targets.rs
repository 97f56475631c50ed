//! Sets of destinations: what one routing key, or one fan-out, leads to. A set of one costs no
//! allocation, a large one is a persistent trie over the queues' numbers that is walked without
//! one.

use crate::collections::SortedMap;
use model::{Name, QueueId, ShardId};
use std::sync::Arc;

/// A queue as far as routing needs to know it. None of it ever changes in a queue's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutedQueue {
    pub queue: QueueId,
    pub shard: ShardId,
    pub durable: bool,
    /// Every message is kept (quorum semantics).
    pub keeps_all: bool,
}

impl RoutedQueue {
    /// A message with this wish is written to the log when it comes to this queue.
    pub fn keeps(&self, persistent: bool) -> bool {
        self.keeps_all || (self.durable && persistent)
    }
}

/// Where a binding leads, resolved.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Queue(RoutedQueue),
    Exchange(Name),
}

/// A set of targets, each with the number of bindings that lead to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    queues: Queues,
    /// Rare, so absent most of the time.
    exchanges: Option<Arc<SortedMap<Name, u32>>>,
}

#[derive(Clone, Debug, Default)]
enum Queues {
    #[default]
    None,
    One(Leaf),
    Many(Arc<Node>),
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    queue: RoutedQueue,
    bindings: u32,
}

/// Sixteen ways by four bits of the number, lowest first: numbers are dense, so this is balanced.
#[derive(Clone, Debug, Default)]
struct Node {
    occupied: u16,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Leaf(Leaf),
    Node(Arc<Node>),
}

impl Node {
    fn slot(&self, digit: u32) -> Result<usize, usize> {
        let before = (self.occupied & ((1 << digit) - 1)).count_ones() as usize;
        if self.occupied & (1 << digit) == 0 { Err(before) } else { Ok(before) }
    }

    fn put(&mut self, added: Leaf, depth: u32) {
        let digit = digit(added.queue.queue, depth);
        match self.slot(digit) {
            Err(at) => {
                self.occupied |= 1 << digit;
                self.children.insert(at, Child::Leaf(added));
            }
            Ok(at) => match &mut self.children[at] {
                Child::Node(node) => Arc::make_mut(node).put(added, depth + 1),
                Child::Leaf(leaf) if leaf.queue.queue == added.queue.queue => {
                    leaf.bindings += added.bindings;
                }
                Child::Leaf(leaf) => {
                    let mut node = Self::default();
                    node.put(*leaf, depth + 1);
                    node.put(added, depth + 1);
                    self.children[at] = Child::Node(Arc::new(node));
                }
            },
        }
    }

    /// Takes one binding away, and keeps the trie in the shape that its content alone decides.
    fn take(&mut self, queue: QueueId, depth: u32) {
        let digit = digit(queue, depth);
        let Ok(at) = self.slot(digit) else { return };
        match &mut self.children[at] {
            Child::Leaf(leaf) if leaf.queue.queue != queue => {}
            Child::Leaf(leaf) if 1 < leaf.bindings => leaf.bindings -= 1,
            Child::Leaf(_) => {
                self.children.remove(at);
                self.occupied &= !(1 << digit);
            }
            Child::Node(node) => {
                let node = Arc::make_mut(node);
                node.take(queue, depth + 1);
                if let [Child::Leaf(last)] = node.children[..] {
                    self.children[at] = Child::Leaf(last);
                }
            }
        }
    }

    fn each(&self, visit: &mut impl FnMut(RoutedQueue)) {
        for child in &self.children {
            match child {
                Child::Leaf(leaf) => visit(leaf.queue),
                Child::Node(node) => node.each(visit),
            }
        }
    }
}

fn digit(queue: QueueId, depth: u32) -> u32 {
    (queue.0 >> (4 * depth)) as u32 & 15
}

impl Targets {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.queues, Queues::None) && self.exchanges.is_none()
    }

    /// One more binding leads to `target`.
    pub(crate) fn add(&mut self, target: &Target) {
        match target {
            Target::Exchange(name) => {
                let exchanges = Arc::make_mut(self.exchanges.get_or_insert_default());
                let bindings = exchanges.get(name).copied().unwrap_or(0);
                exchanges.insert_mut(name.clone(), bindings + 1);
            }
            Target::Queue(queue) => {
                let added = Leaf { queue: *queue, bindings: 1 };
                match &mut self.queues {
                    Queues::None => self.queues = Queues::One(added),
                    Queues::One(leaf) if leaf.queue.queue == queue.queue => leaf.bindings += 1,
                    Queues::One(leaf) => {
                        let mut node = Node::default();
                        node.put(*leaf, 0);
                        node.put(added, 0);
                        self.queues = Queues::Many(Arc::new(node));
                    }
                    Queues::Many(node) => Arc::make_mut(node).put(added, 0),
                }
            }
        }
    }

    /// One binding less leads to `target`.
    pub(crate) fn remove(&mut self, target: &Target) {
        match target {
            Target::Exchange(name) => {
                let Some(exchanges) = &mut self.exchanges else { return };
                let exchanges = Arc::make_mut(exchanges);
                match exchanges.get(name).copied() {
                    Some(bindings) if 1 < bindings => {
                        exchanges.insert_mut(name.clone(), bindings - 1);
                    }
                    _ => drop(exchanges.remove_mut(name)),
                }
                if exchanges.is_empty() {
                    self.exchanges = None;
                }
            }
            Target::Queue(queue) => match &mut self.queues {
                Queues::One(leaf) if leaf.queue.queue == queue.queue => {
                    if leaf.bindings == 1 {
                        self.queues = Queues::None;
                    } else {
                        leaf.bindings -= 1;
                    }
                }
                Queues::None | Queues::One(_) => {}
                Queues::Many(node) => {
                    let node = Arc::make_mut(node);
                    node.take(queue.queue, 0);
                    match node.children[..] {
                        [Child::Leaf(last)] => self.queues = Queues::One(last),
                        [] => self.queues = Queues::None,
                        _ => {}
                    }
                }
            },
        }
    }

    /// Calls `visit` with each queue, once each. The order depends on the content alone.
    pub(crate) fn each_queue(&self, mut visit: impl FnMut(RoutedQueue)) {
        match &self.queues {
            Queues::None => {}
            Queues::One(leaf) => visit(leaf.queue),
            Queues::Many(node) => node.each(&mut visit),
        }
    }

    /// The exchanges, by name.
    pub(crate) fn exchanges(&self) -> impl Iterator<Item = &Name> {
        self.exchanges.iter().flat_map(|it| it.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn routed(number: u64) -> RoutedQueue {
        RoutedQueue { queue: QueueId(number), shard: ShardId(0), durable: false, keeps_all: false }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_a_counting_map_holds(
            steps in prop::collection::vec(
                (any::<bool>(), prop_oneof![0..40_u64, any::<u64>()]),
                0..200,
            ),
        ) {
            let mut targets = Targets::default();
            let mut expected = BTreeMap::<u64, u32>::new();
            for (add, number) in steps {
                if add {
                    targets.add(&Target::Queue(routed(number)));
                    *expected.entry(number).or_default() += 1;
                } else {
                    targets.remove(&Target::Queue(routed(number)));
                    if let Some(count) = expected.get_mut(&number) {
                        *count -= 1;
                        if *count == 0 {
                            expected.remove(&number);
                        }
                    }
                }
                prop_assert_eq!(targets.is_empty(), expected.is_empty());
            }
            let mut found = Vec::new();
            targets.each_queue(|it| found.push(it.queue.0));
            found.sort_unstable();
            prop_assert_eq!(found, expected.into_keys().collect::<Vec<_>>());
        }
    }
}
