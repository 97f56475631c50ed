//! Topic bindings as a trie of words. Matching walks only what the routing key's words lead to, so
//! bindings that do not match cost nothing, and each node counts once a word, so that repeated `#`
//! cannot multiply.

use crate::{
    collections::Map,
    targets::{Target, Targets},
};
use model::Name;
use smallvec::SmallVec;
use std::{collections::HashSet, hash::BuildHasherDefault, hash::DefaultHasher, sync::Arc};

/// One node: the words that lead here are the path from the root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trie {
    words: Map<Name, Arc<Trie>>,
    /// Exactly one word.
    star: Option<Arc<Trie>>,
    /// No word, or more. Never directly below another one: `#.#` is `#`.
    hash: Option<Arc<Trie>>,
    targets: Targets,
}

/// The words of a routing key or pattern; the empty one has none.
fn words(key: &str) -> impl Iterator<Item = &str> {
    let skipped = usize::from(key.is_empty());
    key.split('.').skip(skipped)
}

/// How many words a routing key or pattern has.
pub(crate) fn word_count(key: &str) -> usize {
    words(key).count()
}

/// The words of a pattern with runs of `#` as one.
fn pattern(key: &str) -> SmallVec<[&str; 16]> {
    let mut collapsed = SmallVec::new();
    for word in words(key) {
        if word != "#" || collapsed.last() != Some(&"#") {
            collapsed.push(word);
        }
    }
    collapsed
}

impl Trie {
    pub(crate) fn add(&mut self, key: &str, target: &Target) {
        let mut node = self;
        for word in pattern(key) {
            let below = match word {
                "*" => node.star.get_or_insert_default(),
                "#" => node.hash.get_or_insert_default(),
                word => {
                    if !node.words.contains_key(word) {
                        node.words.insert_mut(Name::new(word), Arc::default());
                    }
                    node.words.get_mut(word).expect("it was there or has just been put there")
                }
            };
            node = Arc::make_mut(below);
        }
        node.targets.add(target);
    }

    pub(crate) fn remove(&mut self, key: &str, target: &Target) {
        self.remove_below(&pattern(key), target);
    }

    fn remove_below(&mut self, words: &[&str], target: &Target) {
        let Some((word, rest)) = words.split_first() else {
            return self.targets.remove(target);
        };
        let remove = |below: &mut Arc<Self>| {
            let below = Arc::make_mut(below);
            below.remove_below(rest, target);
            below.is_empty()
        };
        match *word {
            "*" => {
                if self.star.as_mut().is_some_and(remove) {
                    self.star = None;
                }
            }
            "#" => {
                if self.hash.as_mut().is_some_and(remove) {
                    self.hash = None;
                }
            }
            word => {
                if self.words.get_mut(word).is_some_and(remove) {
                    self.words.remove_mut(word);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.words.is_empty()
            && self.star.is_none()
            && self.hash.is_none()
            && self.targets.is_empty()
    }

    /// Calls `visit` with the targets of every pattern that matches, each pattern once; returns how
    /// many nodes were looked at.
    pub(crate) fn matching<'a>(&'a self, key: &str, mut visit: impl FnMut(&'a Targets)) -> u64 {
        let mut open = Open::default();
        let mut now: SmallVec<[&Self; 16]> = SmallVec::new();
        let mut next: SmallVec<[&Self; 16]> = SmallVec::new();
        let mut looked_at = 1;
        now.push(self);
        open.below(self);
        for word in words(key) {
            for node in now.iter().chain(&open.nodes) {
                let below = node.words.get(word).into_iter().chain(&node.star);
                next.extend(below.map(|it| &**it));
            }
            looked_at += (now.len() + open.nodes.len()) as u64;
            // What a `#` leads to is entered now: it stays open for every word to come.
            next.iter().for_each(|node| open.below(node));
            std::mem::swap(&mut now, &mut next);
            next.clear();
        }
        for node in now.iter().chain(&open.nodes) {
            looked_at += 1;
            if !node.targets.is_empty() {
                visit(&node.targets);
            }
        }
        looked_at
    }
}

/// The nodes reached by a `#`, each once. They match from now on whatever follows.
#[derive(Default)]
struct Open<'a> {
    nodes: SmallVec<[&'a Trie; 16]>,
    /// The addresses of `nodes`, once they are many.
    known: HashSet<*const Trie, BuildHasherDefault<DefaultHasher>>,
}

/// From here on a set is cheaper than looking through all.
const LIST_MAX: usize = 32;

impl<'a> Open<'a> {
    fn below(&mut self, node: &'a Trie) {
        let Some(hash) = &node.hash else { return };
        let hash = &**hash;
        if self.nodes.len() < LIST_MAX {
            if self.nodes.iter().any(|it| std::ptr::eq(*it, hash)) {
                return;
            }
        } else {
            if self.known.is_empty() {
                self.known.extend(self.nodes.iter().map(|it| std::ptr::from_ref(*it)));
            }
            if !self.known.insert(std::ptr::from_ref(hash)) {
                return;
            }
        }
        self.nodes.push(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::RoutedQueue;
    use model::{QueueId, ShardId};
    use proptest::prelude::*;

    fn target(number: u64) -> Target {
        Target::Queue(RoutedQueue {
            queue: QueueId(number),
            shard: ShardId(0),
            durable: false,
            keeps_all: false,
        })
    }

    fn found(trie: &Trie, key: &str) -> Vec<u64> {
        let mut found = Vec::new();
        trie.matching(key, |it| it.each_queue(|it| found.push(it.queue.0)));
        found.sort_unstable();
        found
    }

    /// The rule, word by word.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), None) => matches(rest, key),
            (Some((&"#", rest)), Some((_, left))) => matches(rest, key) || matches(pattern, left),
            (Some((&"*", rest)), Some((_, left))) => matches(rest, left),
            (Some((word, rest)), Some((first, left))) => word == first && matches(rest, left),
            _ => false,
        }
    }

    fn split(key: &str) -> Vec<&str> {
        words(key).collect()
    }

    const KEYS: [&str; 6] = ["", "a", "a.b", "a.", ".", "b.a.a"];

    #[test]
    fn patterns_match_as_observed() {
        for (pattern, expected) in [
            ("#", &KEYS[..]),
            ("*", &["a"]),
            ("a.*", &["a.b", "a."]),
            ("a.#", &["a", "a.b", "a."]),
            ("#.a", &["a", "b.a.a"]),
            ("*.#.*", &["a.b", "a.", ".", "b.a.a"]),
        ] {
            let mut trie = Trie::default();
            trie.add(pattern, &target(1));
            let matched: Vec<_> =
                KEYS.into_iter().filter(|key| !found(&trie, key).is_empty()).collect();
            assert_eq!(matched, expected, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn the_trie_matches_as_the_rule_does(
            patterns in prop::collection::vec("([ab*#](\\.[ab*#]){0,5})?", 0..24),
            removed in prop::collection::vec(any::<bool>(), 24),
            key in "([abc]?(\\.[abc]?){0,6})?",
        ) {
            let mut trie = Trie::default();
            for (number, pattern) in patterns.iter().enumerate() {
                trie.add(pattern, &target(number as u64));
            }
            for (number, pattern) in patterns.iter().enumerate().filter(|(at, _)| removed[*at]) {
                trie.remove(pattern, &target(number as u64));
            }
            let expected: Vec<_> = patterns
                .iter()
                .enumerate()
                .filter(|(at, pattern)| !removed[*at] && matches(&split(pattern), &split(&key)))
                .map(|(at, _)| at as u64)
                .collect();
            prop_assert_eq!(found(&trie, &key), expected);
        }

        #[test]
        fn a_trie_without_bindings_has_no_nodes(
            patterns in prop::collection::vec("[ab*#](\\.[ab*#]){0,5}", 0..24),
        ) {
            let mut trie = Trie::default();
            patterns.iter().for_each(|it| trie.add(it, &target(1)));
            patterns.iter().for_each(|it| trie.remove(it, &target(1)));
            prop_assert!(trie.is_empty());
        }
    }

    #[test]
    fn repeated_hashes_do_not_multiply() {
        let mut trie = Trie::default();
        trie.add("#.#.#.#", &target(1));
        trie.add(&["#.a"; 40].join("."), &target(2));
        let key = ["a"; 127].join(".");
        assert_eq!(found(&trie, &key), [1, 2]);
        let looked_at = trie.matching(&key, |_| {});
        assert!(looked_at < 127 * 100, "{looked_at} nodes");
    }

    #[test]
    fn bindings_that_do_not_match_cost_nothing() {
        let mut trie = Trie::default();
        let mut before = 0;
        for size in [10, 333_333] {
            for number in 0..size {
                trie.add(&format!("user.{number}.#"), &target(number));
                trie.add(&format!("#.event{number}.*"), &target(number));
                trie.add(&format!("*.{number}"), &target(number));
            }
            trie.add("order.*.created", &target(u64::MAX));
            let looked_at = trie.matching("order.7x.created", |_| {});
            assert!(before == 0 || looked_at == before, "{before} nodes, then {looked_at}");
            before = looked_at;
        }
    }
}
