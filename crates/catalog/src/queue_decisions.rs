//! Declaring, deleting and using queues: what is refused, in which order and with which words.

use crate::{
    access::Who,
    arguments::{self, Identity},
    change::Change,
    objects::{Destination, Queue, QueueKind},
    state::Catalog,
    vhosts::Vhost,
};
use model::{
    Name, Permission, Refusal, ResourceKind, ShardId, Table, Value, limits, request::DeclareQueue,
};
use std::sync::Arc;

/// What a declaration comes to.
#[derive(Clone, Debug)]
pub enum Declared {
    /// The queue is there already, as declared.
    Exists(Arc<Queue>),
    /// The queue will be there once the change is applied.
    Created(Change, Arc<Queue>),
}

impl Declared {
    pub fn queue(&self) -> &Arc<Queue> {
        match self {
            Self::Exists(it) | Self::Created(_, it) => it,
        }
    }
}

/// Names that begin so are the broker's.
pub(crate) const RESERVED: &str = "amq.";
/// The reply address of a channel, and what its requests carry instead.
const REPLY: &str = "amq.rabbitmq.reply-to";
const QUEUE: ResourceKind = ResourceKind::Queue;

/// A name as it counts: without the line ends that some clients leave in.
pub(crate) fn stripped(name: &Name) -> Name {
    if name.contains(['\r', '\n']) {
        Name::from(name.replace(['\r', '\n'], ""))
    } else {
        name.clone()
    }
}

/// The name of a channel's reply address.
pub(crate) fn is_reply_name(name: &str) -> bool {
    name.strip_prefix(REPLY).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The name of an opened reply address, not the word that stands for one's own.
pub(crate) fn is_volatile(name: &str) -> bool {
    is_reply_name(name) && name != REPLY
}

/// Arguments larger than a declaration may carry.
pub(crate) fn check_size(arguments: &Table) -> Result<(), Refusal> {
    if arguments.is_empty() {
        return Ok(());
    }
    let mut encoded = Vec::new();
    arguments.encode(&mut encoded);
    if encoded.len() <= limits::ARGUMENTS_BYTES_MAX {
        return Ok(());
    }
    let max = limits::ARGUMENTS_BYTES_MAX;
    Err(Refusal::Invalid(format!("arguments are larger than {max} octets")))
}

/// The exchange that an argument names, if it is there; `object` is whose argument it is.
pub(crate) fn named_exchange<'a>(
    arguments: &'a Table,
    key: &str,
    object: impl FnOnce() -> String,
) -> Result<Option<&'a str>, Refusal> {
    match arguments.get(key) {
        None => Ok(None),
        Some(value) => match value.as_text() {
            Some(name) => Ok(Some(name)),
            None => Err(Refusal::Invalid(format!(
                "invalid type '{}' for arg '{key}' in {}",
                crate::terms::type_name(value),
                object()
            ))),
        },
    }
}

/// A queue that is exclusive to another session is closed to this one.
fn check_lock(queue: &Queue, who: &Who<'_>) -> Result<(), Refusal> {
    match queue.exclusive_to {
        Some(owner) if owner != who.session => Err(locked(queue)),
        _ => Ok(()),
    }
}

fn locked(queue: &Queue) -> Refusal {
    Refusal::Locked { name: queue.name.clone(), vhost: queue.vhost_name.clone() }
}

/// A declaration finds this queue: it must have meant one like it.
fn check_equivalence(
    queue: &Queue,
    request: &DeclareQueue,
    who: &Who<'_>,
    default: QueueKind,
) -> Result<(), Refusal> {
    if queue.exclusive_to != request.exclusive.then_some(who.session) {
        return Err(locked(queue));
    }
    let inequivalent = |argument: &str, difference: String| Refusal::Inequivalent {
        argument: argument.to_owned(),
        kind: QUEUE,
        name: queue.name.clone(),
        vhost: queue.vhost_name.clone(),
        difference,
    };
    let durable = request.durable && !request.exclusive;
    flag_difference(durable, queue.durable)
        .map_or(Ok(()), |it| Err(inequivalent("durable", it)))?;
    flag_difference(request.auto_delete, queue.auto_delete)
        .map_or(Ok(()), |it| Err(inequivalent("auto_delete", it)))?;
    if let Some(it) = arguments::kind_difference(queue.kind, &request.arguments, default) {
        return Err(inequivalent("x-queue-type", it));
    }
    match arguments::difference(queue, &request.arguments) {
        Some((argument, it)) => Err(inequivalent(argument, it)),
        None => Ok(()),
    }
}

/// How two flags differ, if they do.
pub(crate) fn flag_difference(received: bool, current: bool) -> Option<String> {
    let told = || format!("received '{received}' but current is '{current}'");
    (received != current).then(told)
}

/// The flags that a kind of queue cannot have.
fn check_properties(
    kind: QueueKind,
    request: &DeclareQueue,
    name: &Name,
    vhost: &Name,
) -> Result<(), Refusal> {
    if kind == QueueKind::Classic {
        return Ok(());
    }
    let wrong = [
        ("auto-delete", request.auto_delete),
        ("exclusive-owner", request.exclusive),
        ("non-durable", !request.durable),
    ];
    match wrong.into_iter().find(|(_, has)| *has) {
        None => Ok(()),
        Some((property, _)) => {
            Err(Refusal::InvalidProperty { property, name: name.clone(), vhost: vhost.clone() })
        }
    }
}

impl Catalog {
    /// The virtual host that a session is in. It may have been deleted under it.
    pub(crate) fn entered(&self, who: &Who<'_>) -> Result<&Arc<Vhost>, Refusal> {
        self.vhost(who.vhost).ok_or_else(|| Refusal::NoVhost(who.vhost.clone()))
    }

    fn no_queue(name: &Name, who: &Who<'_>) -> Refusal {
        Refusal::NotFound { kind: QUEUE, name: name.clone(), vhost: who.vhost.clone() }
    }

    fn authorize_queue(
        &self,
        who: &Who<'_>,
        permission: Permission,
        name: &Name,
    ) -> Result<(), Refusal> {
        self.authorize(who.user, who.vhost, permission, QUEUE, name)
    }

    /// Decides a declaration. A new queue belongs to `shard_for_new`.
    ///
    /// # Errors
    /// [`Refusal`], by the first rule that is broken.
    pub fn declare_queue(
        &self,
        who: &Who<'_>,
        request: &DeclareQueue,
        shard_for_new: ShardId,
    ) -> Result<Declared, Refusal> {
        let vhost = self.entered(who)?;
        let asked = stripped(&request.queue);
        if request.passive {
            return self.find_queue_passively(who, &asked).map(Declared::Exists);
        }
        let name = queue_name(vhost, request, asked)?;
        self.authorize_queue(who, Permission::Configure, &name)?;
        if is_reply_name(&name) {
            return Err(Self::no_queue(&name, who));
        }
        if let Some(queue) = vhost.queue(&name) {
            check_equivalence(queue, request, who, vhost.default_queue_kind)?;
            return Ok(Declared::Exists(queue.clone()));
        }
        let arguments = &request.arguments;
        check_size(arguments)?;
        let described = || format!("queue '{name}' in vhost '{}'", who.vhost);
        if let Some(target) = named_exchange(arguments, "x-dead-letter-exchange", described)? {
            self.authorize_queue(who, Permission::Read, &name)?;
            let exchange = ResourceKind::Exchange;
            self.authorize(who.user, who.vhost, Permission::Write, exchange, target)?;
        }
        let kind = arguments::check(arguments, vhost.default_queue_kind, &name, who.vhost)?;
        check_properties(kind, request, &name, who.vhost)?;
        check_limit(vhost, &name)?;
        let queue = self.new_queue(who, vhost, request, name, kind, shard_for_new);
        Ok(Declared::Created(Change::QueueDeclared(queue.clone()), queue))
    }

    fn new_queue(
        &self,
        who: &Who<'_>,
        vhost: &Vhost,
        request: &DeclareQueue,
        name: Name,
        kind: QueueKind,
        shard: ShardId,
    ) -> Arc<Queue> {
        let id = self.next_queue_id();
        // An exclusive queue ends with its session, so it has nothing to outlive a restart for.
        let durable = request.durable && !request.exclusive;
        let identity = Identity {
            id,
            shard,
            name: &name,
            vhost: &vhost.name,
            kind,
            durable,
            auto_delete: request.auto_delete,
        };
        let policy = Arc::new(arguments::policy(&identity, &request.arguments));
        Arc::new(Queue {
            id,
            vhost: vhost.id,
            vhost_name: vhost.name.clone(),
            name,
            durable,
            exclusive_to: request.exclusive.then_some(who.session),
            auto_delete: request.auto_delete,
            kind,
            arguments: stored(&request.arguments, kind),
            shard,
            policy,
        })
    }

    fn find_queue_passively(&self, who: &Who<'_>, name: &Name) -> Result<Arc<Queue>, Refusal> {
        self.authorize_any(who.user, who.vhost, QUEUE, name)?;
        let queue = self.entered(who)?.queue(name).ok_or_else(|| Self::no_queue(name, who))?;
        check_lock(queue, who)?;
        Ok(queue.clone())
    }

    /// The queue that is to be deleted, if it is there. Whether it is unused and empty is known to
    /// itself only; `queue_removal` is what follows when it goes.
    ///
    /// # Errors
    /// [`Refusal::Access`] or `Locked`.
    pub fn delete_queue(&self, who: &Who<'_>, name: &Name) -> Result<Option<Arc<Queue>>, Refusal> {
        let vhost = self.entered(who)?;
        let name = stripped(name);
        self.authorize_queue(who, Permission::Configure, &name)?;
        let Some(queue) = vhost.queue(&name) else { return Ok(None) };
        check_lock(queue, who)?;
        Ok(Some(queue.clone()))
    }

    /// The queue, for who wants to consume, fetch or purge (`Permission::Read`).
    ///
    /// # Errors
    /// [`Refusal::Access`], `NotFound` or `Locked`.
    pub fn queue_for(
        &self,
        who: &Who<'_>,
        name: &Name,
        permission: Permission,
    ) -> Result<Arc<Queue>, Refusal> {
        let vhost = self.entered(who)?;
        let name = stripped(name);
        self.authorize_queue(who, permission, &name)?;
        let queue = vhost.queue(&name).ok_or_else(|| Self::no_queue(&name, who))?;
        check_lock(queue, who)?;
        Ok(queue.clone())
    }

    /// The changes that follow when a queue goes, whatever the reason: itself with its bindings,
    /// then the exchanges that go with their last binding.
    pub fn queue_removal(&self, queue: &Queue) -> Vec<Change> {
        let removal = Change::QueueDeleted { queue: queue.id, durable: queue.survives() };
        let lost = Destination::Queue(queue.name.clone());
        match self.vhost_by_id(queue.vhost) {
            Some(vhost) if vhost.queue(&queue.name).is_some_and(|it| it.id == queue.id) => {
                let sources = vhost.bindings_to(&lost).map(|it| it.source.clone()).collect();
                self.with_auto_deletions(queue.vhost, removal, sources)
            }
            _ => Vec::new(),
        }
    }
}

/// The name of a queue that may be declared.
fn queue_name(vhost: &Vhost, request: &DeclareQueue, asked: Name) -> Result<Name, Refusal> {
    if asked.is_empty() {
        let kind = arguments::kind_of(&request.arguments, vhost.default_queue_kind);
        return match kind {
            Ok(kind @ QueueKind::Quorum) => {
                Err(Refusal::ServerNamed { queue_type: arguments::implementation(kind) })
            }
            _ => Ok(Name::from(format!("{RESERVED}gen-{}", request.unique))),
        };
    }
    if asked.starts_with(RESERVED) && !is_reply_name(&asked) {
        return Err(Refusal::ReservedName { kind: QUEUE, name: asked });
    }
    Ok(asked)
}

fn check_limit(vhost: &Vhost, name: &Name) -> Result<(), Refusal> {
    let own = limits::VHOST_QUEUES_MAX as u64;
    let limit = vhost.limits.queues_max.map_or(own, |it| it.min(own));
    if (vhost.queue_count() as u64) < limit {
        return Ok(());
    }
    Err(Refusal::ObjectLimit { kind: QUEUE, name: name.clone(), vhost: vhost.name.clone(), limit })
}

/// The arguments as they are kept: the kind stands among them, so that a new default of the virtual
/// host changes no queue that is there.
fn stored(arguments: &Table, kind: QueueKind) -> Table {
    let mut stored = arguments.clone();
    stored.set("x-queue-type", Value::text(kind.as_str()));
    stored
}
