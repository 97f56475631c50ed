//! One virtual host: its queues, exchanges and bindings by name, and who may do what in it.

use crate::{
    change::ChangeError,
    collections::{Map, SortedMap, SortedSet},
    exchanges::Exchange,
    objects::{
        Binding, Destination, ExchangeFacts, ExchangeKind, Permissions, Queue, TopicPermissions,
        VhostFacts,
    },
    targets::{RoutedQueue, Target},
};
use model::{Name, Table};
use std::{ops::Deref, sync::Arc};

/// A virtual host and all that is in it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Vhost {
    facts: Arc<VhostFacts>,
    queues: Map<Name, Arc<Queue>>,
    pub(crate) exchanges: Map<Name, Arc<Exchange>>,
    by_destination: Map<Destination, SortedSet<Arc<Binding>>>,
    binding_count: usize,
    access: SortedMap<Name, Access>,
}

/// What one user may do in a virtual host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) permissions: Option<Arc<Permissions>>,
    /// By exchange.
    pub(crate) topics: SortedMap<Name, Arc<TopicPermissions>>,
}

impl Deref for Vhost {
    type Target = VhostFacts;

    fn deref(&self) -> &VhostFacts {
        &self.facts
    }
}

/// The exchanges that are there from the start.
const PREDECLARED: [(&str, ExchangeKind, bool); 8] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.rabbitmq.event", ExchangeKind::Topic, true),
];

fn missing(kind: &'static str, name: &Name) -> ChangeError {
    ChangeError::Missing { kind, name: name.clone() }
}

/// What routing must know of a queue.
pub(crate) fn routed(queue: &Queue) -> RoutedQueue {
    RoutedQueue {
        queue: queue.id,
        shard: queue.shard,
        durable: queue.durable,
        keeps_all: queue.policy.keeps_all,
    }
}

impl Vhost {
    pub(crate) fn new(facts: Arc<VhostFacts>) -> Self {
        let mut exchanges = Map::default();
        for (name, kind, internal) in PREDECLARED {
            let exchange = Exchange::new(Arc::new(ExchangeFacts {
                name: Name::new(name),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: Table::default(),
                predeclared: true,
            }));
            exchanges.insert_mut(Name::new(name), Arc::new(exchange));
        }
        Self {
            facts,
            queues: Map::default(),
            exchanges,
            by_destination: Map::default(),
            binding_count: 0,
            access: SortedMap::new_sync(),
        }
    }

    pub fn facts(&self) -> &Arc<VhostFacts> {
        &self.facts
    }

    pub(crate) fn set_facts(&mut self, facts: Arc<VhostFacts>) {
        self.facts = facts;
    }

    pub fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }

    /// The queues, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values()
    }

    pub fn queue_count(&self) -> usize {
        self.queues.size()
    }

    pub fn exchange(&self, name: &str) -> Option<&Arc<Exchange>> {
        self.exchanges.get(name)
    }

    /// The exchanges, the predeclared ones among them, in no order.
    pub fn exchanges(&self) -> impl Iterator<Item = &Arc<Exchange>> {
        self.exchanges.values()
    }

    pub fn exchange_count(&self) -> usize {
        self.exchanges.size()
    }

    /// All bindings, those of one source together. The implicit ones of the default exchange are
    /// not among them.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.exchanges.values().flat_map(|it| it.bindings())
    }

    pub fn binding_count(&self) -> usize {
        self.binding_count
    }

    /// The bindings that lead to a queue or an exchange.
    pub fn bindings_to(&self, destination: &Destination) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_destination.get(destination).into_iter().flat_map(|it| it.iter())
    }

    /// The users with permissions here, by name.
    pub fn permissions(&self) -> impl Iterator<Item = (&Name, &Arc<Permissions>)> {
        self.access.iter().filter_map(|(user, it)| Some((user, it.permissions.as_ref()?)))
    }

    /// The topic permissions here, by user and exchange.
    pub fn topic_permissions(&self) -> impl Iterator<Item = (&Name, &Arc<TopicPermissions>)> {
        self.access.iter().flat_map(|(user, it)| it.topics.values().map(move |topic| (user, topic)))
    }

    pub(crate) fn access(&self, user: &str) -> Option<&Access> {
        self.access.get(user)
    }

    /// Changes what a user may do here; what comes to nothing is not kept.
    pub(crate) fn set_access(&mut self, user: &Name, change: impl FnOnce(&mut Access)) {
        let mut access = self.access.get(user).cloned().unwrap_or_default();
        change(&mut access);
        if access.permissions.is_none() && access.topics.is_empty() {
            self.access.remove_mut(user);
        } else {
            self.access.insert_mut(user.clone(), access);
        }
    }

    pub(crate) fn remove_user(&mut self, user: &str) {
        self.access.remove_mut(user);
    }

    pub(crate) fn add_queue(&mut self, queue: &Arc<Queue>) {
        self.queues.insert_mut(queue.name.clone(), queue.clone());
    }

    pub(crate) fn remove_queue(&mut self, queue: &Queue) {
        self.unbind_all_to(&Destination::Queue(queue.name.clone()));
        self.queues.remove_mut(&queue.name);
    }

    pub(crate) fn add_exchange(&mut self, facts: &Arc<ExchangeFacts>) -> Result<(), ChangeError> {
        if let Some(there) = self.exchanges.get(&facts.name) {
            if there.facts() == facts {
                return Ok(());
            }
            return Err(ChangeError::Exists { kind: "exchange", name: facts.name.clone() });
        }
        let exchange = Arc::new(Exchange::new(facts.clone()));
        self.exchanges.insert_mut(facts.name.clone(), exchange);
        Ok(())
    }

    pub(crate) fn remove_exchange(&mut self, name: &Name) {
        self.unbind_all_to(&Destination::Exchange(name.clone()));
        let Some(exchange) = self.exchanges.get(name).cloned() else { return };
        for binding in exchange.bindings() {
            self.forget_destination(binding);
        }
        self.exchanges.remove_mut(name);
    }

    /// Where a binding leads, if that is there.
    fn target(&self, destination: &Destination) -> Option<Target> {
        match destination {
            Destination::Queue(name) => self.queue(name).map(|it| Target::Queue(routed(it))),
            Destination::Exchange(name) => {
                self.exchange(name).map(|it| Target::Exchange(it.name.clone()))
            }
        }
    }

    /// Both ends outlive a restart, so the binding does.
    pub(crate) fn binding_survives(&self, binding: &Binding) -> bool {
        let source = self.exchange(&binding.source).is_some_and(|it| it.durable);
        source
            && match &binding.destination {
                Destination::Queue(name) => self.queue(name).is_some_and(|it| it.survives()),
                Destination::Exchange(name) => self.exchange(name).is_some_and(|it| it.durable),
            }
    }

    pub(crate) fn bind(&mut self, binding: &Arc<Binding>) -> Result<(), ChangeError> {
        let target = self
            .target(&binding.destination)
            .ok_or_else(|| missing("the destination of a binding", binding.destination.name()))?;
        let source = self.exchange(&binding.source);
        if source.ok_or_else(|| missing("exchange", &binding.source))?.has_binding(binding) {
            return Ok(());
        }
        let source = self.exchanges.get_mut(&binding.source);
        Arc::make_mut(source.expect("it was found above")).bind(binding, target);
        let destination = &binding.destination;
        let mut others = match self.by_destination.get(destination) {
            Some(others) => others.clone(),
            None => SortedSet::new_sync(),
        };
        others.insert_mut(binding.clone());
        self.by_destination.insert_mut(destination.clone(), others);
        self.binding_count += 1;
        Ok(())
    }

    pub(crate) fn unbind(&mut self, binding: &Arc<Binding>) {
        let there = self.exchange(&binding.source).is_some_and(|it| it.has_binding(binding));
        if !there {
            return;
        }
        self.unbind_source(binding);
        self.forget_destination(binding);
    }

    fn unbind_source(&mut self, binding: &Arc<Binding>) {
        let Some(target) = self.target(&binding.destination) else { return };
        if let Some(source) = self.exchanges.get_mut(&binding.source) {
            Arc::make_mut(source).unbind(binding, &target);
        }
    }

    fn forget_destination(&mut self, binding: &Arc<Binding>) {
        let Some(others) = self.by_destination.get_mut(&binding.destination) else { return };
        if others.remove_mut(binding) {
            self.binding_count -= 1;
        }
        if others.is_empty() {
            self.by_destination.remove_mut(&binding.destination);
        }
    }

    fn unbind_all_to(&mut self, destination: &Destination) {
        let Some(bindings) = self.by_destination.get(destination).cloned() else { return };
        for binding in bindings.iter() {
            self.unbind_source(binding);
        }
        self.by_destination.remove_mut(destination);
        self.binding_count -= bindings.size();
    }
}
