//! An exchange with its bindings, indexed as its kind needs them.

use crate::{
    collections::{Map, SortedSet},
    headers::Headers,
    objects::{Binding, ExchangeFacts, ExchangeKind},
    targets::{Target, Targets},
    topic::Trie,
};
use model::Name;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// Bindings of one exchange that chooses among them: it keeps them in one list.
pub(crate) const CHOICES_MAX: usize = 1_000;

/// An exchange and the bindings it is the source of.
#[derive(Clone, Debug)]
pub struct Exchange {
    facts: Arc<ExchangeFacts>,
    bindings: SortedSet<Arc<Binding>>,
    pub(crate) index: Index,
}

#[derive(Clone, Debug)]
pub(crate) enum Index {
    Direct(Map<Name, Targets>),
    Fanout(Targets),
    Topic(Trie),
    Headers(Headers),
    /// In the order of the bindings; at most `CHOICES_MAX`.
    Choice(Arc<Vec<Choice>>),
}

/// One of the bindings of which an exchange chooses one.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) binding: Arc<Binding>,
    pub(crate) target: Target,
    /// The binding key as a number, where it is one.
    pub(crate) weight: u32,
    /// Depends on the binding alone.
    pub(crate) seed: u64,
}

impl Deref for Exchange {
    type Target = ExchangeFacts;

    fn deref(&self) -> &ExchangeFacts {
        &self.facts
    }
}

fn seed(binding: &Binding) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&binding.destination, &binding.routing_key).hash(&mut hasher);
    hasher.finish()
}

impl Exchange {
    pub(crate) fn new(facts: Arc<ExchangeFacts>) -> Self {
        let index = match facts.kind {
            ExchangeKind::Direct => Index::Direct(Map::default()),
            ExchangeKind::Fanout => Index::Fanout(Targets::default()),
            ExchangeKind::Topic => Index::Topic(Trie::default()),
            ExchangeKind::Headers => Index::Headers(Headers::default()),
            ExchangeKind::ConsistentHash
            | ExchangeKind::Random
            | ExchangeKind::LocalRandom
            | ExchangeKind::ModulusHash => Index::Choice(Arc::default()),
        };
        Self { facts, bindings: SortedSet::new_sync(), index }
    }

    /// The exchange as it was declared.
    pub fn facts(&self) -> &Arc<ExchangeFacts> {
        &self.facts
    }

    /// The bindings it is the source of, by key and destination.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.iter()
    }

    /// How many there are.
    pub fn binding_count(&self) -> usize {
        self.bindings.size()
    }

    pub fn has_binding(&self, binding: &Binding) -> bool {
        self.bindings.contains(binding)
    }

    /// Adds a binding that is not there yet.
    pub(crate) fn bind(&mut self, binding: &Arc<Binding>, target: Target) {
        self.bindings.insert_mut(binding.clone());
        match &mut self.index {
            Index::Direct(by_key) => {
                let mut targets = by_key.get(&binding.routing_key).cloned().unwrap_or_default();
                targets.add(&target);
                by_key.insert_mut(binding.routing_key.clone(), targets);
            }
            Index::Fanout(targets) => targets.add(&target),
            Index::Topic(trie) => trie.add(&binding.routing_key, &target),
            Index::Headers(headers) => headers.add(binding, &target),
            Index::Choice(choices) => {
                let choices = Arc::make_mut(choices);
                let at = choices.partition_point(|it| it.binding < *binding);
                let weight = binding.routing_key.parse().unwrap_or(1);
                let (binding, seed) = (binding.clone(), seed(binding));
                choices.insert(at, Choice { binding, target, weight, seed });
            }
        }
    }

    /// Takes a binding away that is there.
    pub(crate) fn unbind(&mut self, binding: &Arc<Binding>, target: &Target) {
        self.bindings.remove_mut(binding);
        match &mut self.index {
            Index::Direct(by_key) => {
                let Some(targets) = by_key.get_mut(&binding.routing_key) else { return };
                targets.remove(target);
                if targets.is_empty() {
                    by_key.remove_mut(&binding.routing_key);
                }
            }
            Index::Fanout(targets) => targets.remove(target),
            Index::Topic(trie) => trie.remove(&binding.routing_key, target),
            Index::Headers(headers) => headers.remove(binding),
            Index::Choice(choices) => {
                Arc::make_mut(choices).retain(|it| it.binding != *binding);
            }
        }
    }
}
