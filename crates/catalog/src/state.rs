//! The whole catalog: applying changes, finding things, and writing all of it as changes again.

use crate::{
    change::{Change, ChangeError},
    collections::{Map, SortedMap},
    objects::{Queue, User, VhostFacts},
    vhosts::Vhost,
};
use model::{Name, QueueId, VhostId};
use std::sync::Arc;

/// What exists. A value: cloning is cheap, and a clone is a snapshot that never changes.
#[derive(Clone, Debug)]
pub struct Catalog {
    version: u64,
    next_queue: u64,
    next_vhost: u32,
    vhosts: SortedMap<Name, Arc<Vhost>>,
    vhost_names: Map<VhostId, Name>,
    queues: Map<QueueId, Arc<Queue>>,
    users: SortedMap<Name, Arc<User>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::empty()
    }
}

impl Catalog {
    pub fn empty() -> Self {
        Self {
            version: 0,
            next_queue: 1,
            next_vhost: 1,
            vhosts: SortedMap::new_sync(),
            vhost_names: Map::default(),
            queues: Map::default(),
            users: SortedMap::new_sync(),
        }
    }

    /// Counts the changes applied, so that what was worked out from one snapshot can be kept until
    /// the next one.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn vhost(&self, name: &str) -> Option<&Arc<Vhost>> {
        self.vhosts.get(name)
    }

    pub fn vhost_by_id(&self, id: VhostId) -> Option<&Arc<Vhost>> {
        self.vhosts.get(self.vhost_names.get(&id)?)
    }

    /// The virtual hosts by name.
    pub fn vhosts(&self) -> impl Iterator<Item = &Arc<Vhost>> {
        self.vhosts.values()
    }

    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// The users by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// A queue of any virtual host.
    pub fn queue(&self, id: QueueId) -> Option<&Arc<Queue>> {
        self.queues.get(&id)
    }

    /// The queues of all virtual hosts, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values()
    }

    pub fn queue_count(&self) -> usize {
        self.queues.size()
    }

    /// The number of the next queue. Never given twice, not even after a deletion.
    pub fn next_queue_id(&self) -> QueueId {
        QueueId(self.next_queue)
    }

    /// The number of the next virtual host.
    pub fn next_vhost_id(&self) -> VhostId {
        VhostId(self.next_vhost)
    }

    fn change_vhost<T>(
        &mut self,
        id: VhostId,
        change: impl FnOnce(&mut Vhost) -> T,
    ) -> Result<T, ChangeError> {
        let name = self.vhost_names.get(&id).ok_or(ChangeError::NoVhost(id))?;
        let vhost = self.vhosts.get_mut(name).ok_or(ChangeError::NoVhost(id))?;
        Ok(change(Arc::make_mut(vhost)))
    }

    /// Carries a change out. Taking away what is not there changes nothing and is no error.
    ///
    /// # Errors
    /// [`ChangeError`], when it names something that is not there or adds what is; then nothing has
    /// changed.
    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::NextQueueId(id) => self.next_queue = self.next_queue.max(id.0),
            Change::NextVhostId(id) => self.next_vhost = self.next_vhost.max(id.0),
            Change::VhostSet(facts) => self.set_vhost(facts)?,
            Change::VhostRemoved(id) => self.remove_vhost(*id),
            Change::QueueDeclared(queue) => self.declare_queue_of_change(queue)?,
            Change::QueueDeleted { queue, .. } => self.remove_queue(*queue),
            Change::ExchangeDeclared { vhost, exchange } => {
                self.change_vhost(*vhost, |it| it.add_exchange(exchange))??;
            }
            Change::ExchangeDeleted { vhost, exchange, .. } => {
                self.change_vhost(*vhost, |it| it.remove_exchange(exchange))?;
            }
            Change::Bound { vhost, binding, .. } => {
                self.change_vhost(*vhost, |it| it.bind(binding))??;
            }
            Change::Unbound { vhost, binding, .. } => {
                self.change_vhost(*vhost, |it| it.unbind(binding))?;
            }
            Change::UserSet(user) => self.users.insert_mut(user.name.clone(), user.clone()),
            Change::UserRemoved(user) => self.remove_user(user)?,
            Change::PermissionSet { vhost, user, permissions } => {
                self.known_user(user)?;
                let permissions = Some(permissions.clone());
                let set = |vhost: &mut Vhost| {
                    vhost.set_access(user, |access| access.permissions = permissions);
                };
                self.change_vhost(*vhost, set)?;
            }
            Change::PermissionRemoved { vhost, user } => {
                let remove = |vhost: &mut Vhost| {
                    vhost.set_access(user, |access| access.permissions = None);
                };
                self.change_vhost(*vhost, remove)?;
            }
            Change::TopicPermissionSet { vhost, user, permissions } => {
                self.known_user(user)?;
                let exchange = permissions.exchange.clone();
                let set = |vhost: &mut Vhost| {
                    let add = permissions.clone();
                    vhost.set_access(user, |access| access.topics.insert_mut(exchange, add));
                };
                self.change_vhost(*vhost, set)?;
            }
            Change::TopicPermissionRemoved { vhost, user, exchange } => {
                let remove = |vhost: &mut Vhost| {
                    vhost.set_access(user, |access| match exchange {
                        Some(exchange) => drop(access.topics.remove_mut(exchange)),
                        None => access.topics = SortedMap::new_sync(),
                    });
                };
                self.change_vhost(*vhost, remove)?;
            }
        }
        self.version += 1;
        Ok(())
    }

    fn known_user(&self, user: &Name) -> Result<(), ChangeError> {
        match self.users.contains_key(user) {
            true => Ok(()),
            false => Err(ChangeError::Missing { kind: "user", name: user.clone() }),
        }
    }

    fn set_vhost(&mut self, facts: &Arc<VhostFacts>) -> Result<(), ChangeError> {
        let exists = || ChangeError::Exists { kind: "virtual host", name: facts.name.clone() };
        match (self.vhost_names.get(&facts.id), self.vhosts.get_mut(&facts.name)) {
            (Some(name), Some(vhost)) if *name == facts.name => {
                Arc::make_mut(vhost).set_facts(facts.clone());
            }
            (None, None) => {
                self.vhosts.insert_mut(facts.name.clone(), Arc::new(Vhost::new(facts.clone())));
                self.vhost_names.insert_mut(facts.id, facts.name.clone());
            }
            _ => return Err(exists()),
        }
        self.next_vhost = self.next_vhost.max(facts.id.0.saturating_add(1));
        Ok(())
    }

    fn remove_vhost(&mut self, id: VhostId) {
        let Some(name) = self.vhost_names.get(&id).cloned() else { return };
        if let Some(vhost) = self.vhosts.get(&name) {
            for queue in vhost.queues() {
                self.queues.remove_mut(&queue.id);
            }
        }
        self.vhosts.remove_mut(&name);
        self.vhost_names.remove_mut(&id);
    }

    fn declare_queue_of_change(&mut self, queue: &Arc<Queue>) -> Result<(), ChangeError> {
        let vhost = self.vhost_by_id(queue.vhost).ok_or(ChangeError::NoVhost(queue.vhost))?;
        match (vhost.queue(&queue.name), self.queues.get(&queue.id)) {
            (None, None) => {}
            (Some(there), Some(_)) if there == queue => return Ok(()),
            _ => return Err(ChangeError::Exists { kind: "queue", name: queue.name.clone() }),
        }
        self.change_vhost(queue.vhost, |it| it.add_queue(queue))?;
        self.queues.insert_mut(queue.id, queue.clone());
        self.next_queue = self.next_queue.max(queue.id.0.saturating_add(1));
        Ok(())
    }

    fn remove_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id).cloned() else { return };
        self.queues.remove_mut(&id);
        // A queue stands in its virtual host as long as in the list of all.
        drop(self.change_vhost(queue.vhost, |it| it.remove_queue(&queue)));
    }

    fn remove_user(&mut self, user: &Name) -> Result<(), ChangeError> {
        self.users.remove_mut(user);
        let named = self.vhosts.values().filter(|it| it.access(user).is_some());
        let vhosts: Vec<_> = named.map(|it| it.id).collect();
        for vhost in vhosts {
            self.change_vhost(vhost, |it| it.remove_user(user))?;
        }
        Ok(())
    }

    /// The whole catalog as changes: applied to an empty one they make the same again.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let numbers =
            [Change::NextQueueId(self.next_queue_id()), Change::NextVhostId(self.next_vhost_id())];
        let users = self.users.values().map(|it| Change::UserSet(it.clone()));
        let vhosts = self.vhosts.values().flat_map(|it| vhost_changes(it));
        numbers.into_iter().chain(users).chain(vhosts)
    }
}

/// One virtual host: first what stands alone, then what leads from one to the other.
fn vhost_changes(vhost: &Vhost) -> impl Iterator<Item = Change> {
    let id = vhost.id;
    let declared = vhost.exchanges().filter(|it| !it.predeclared);
    let exchanges = declared
        .map(move |it| Change::ExchangeDeclared { vhost: id, exchange: it.facts().clone() });
    let queues = vhost.queues().map(|it| Change::QueueDeclared(it.clone()));
    let bindings = vhost.bindings().map(move |it| Change::Bound {
        vhost: id,
        binding: it.clone(),
        durable: vhost.binding_survives(it),
    });
    let permissions = vhost.permissions().map(move |(user, permissions)| Change::PermissionSet {
        vhost: id,
        user: user.clone(),
        permissions: permissions.clone(),
    });
    let topics = vhost.topic_permissions().map(move |(user, permissions)| {
        let (user, permissions) = (user.clone(), permissions.clone());
        Change::TopicPermissionSet { vhost: id, user, permissions }
    });
    std::iter::once(Change::VhostSet(vhost.facts().clone()))
        .chain(exchanges)
        .chain(queues)
        .chain(bindings)
        .chain(permissions)
        .chain(topics)
}
