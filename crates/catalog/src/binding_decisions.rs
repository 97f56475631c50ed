//! Making and undoing bindings, of queues and of exchanges.

use crate::{
    access::{Who, check_words},
    change::Change,
    exchange_decisions::no_exchange,
    exchanges::{CHOICES_MAX, Exchange},
    headers,
    objects::{Binding, Destination, ExchangeKind},
    queue_decisions::{check_size, is_volatile, stripped},
    state::Catalog,
    terms,
    vhosts::Vhost,
};
use model::{Name, Permission, Refusal, ResourceKind, limits, request};
use std::sync::Arc;

/// Weights of bindings of a hash exchange.
const WEIGHT_MAX: u32 = 1_000_000;

fn destination(request: &request::Binding) -> Destination {
    let name = stripped(&request.destination);
    if request.to_exchange { Destination::Exchange(name) } else { Destination::Queue(name) }
}

fn kind(destination: &Destination) -> ResourceKind {
    match destination {
        Destination::Queue(_) => ResourceKind::Queue,
        Destination::Exchange(_) => ResourceKind::Exchange,
    }
}

/// Key and arguments are such as the exchange can work with.
fn check_binding(exchange: &Exchange, binding: &Binding) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::Invalid(text));
    match exchange.kind {
        ExchangeKind::Topic => check_words("binding key", &binding.routing_key),
        ExchangeKind::Headers => {
            headers::wrong_arguments(&binding.arguments).map_or(Ok(()), invalid)
        }
        ExchangeKind::ConsistentHash => match binding.routing_key.parse::<i64>() {
            Err(_) => invalid(format!(
                "The binding key must be an integer: {}",
                terms::binary(binding.routing_key.as_bytes())
            )),
            Ok(weight) if weight < 1 => {
                invalid("The binding key must be greater than 0".to_owned())
            }
            Ok(weight) if i64::from(WEIGHT_MAX) < weight => {
                invalid(format!("The binding key must not be greater than {WEIGHT_MAX}"))
            }
            Ok(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_limits(vhost: &Vhost, exchange: &Exchange) -> Result<(), Refusal> {
    let chooses = matches!(
        exchange.kind,
        ExchangeKind::ConsistentHash
            | ExchangeKind::Random
            | ExchangeKind::LocalRandom
            | ExchangeKind::ModulusHash
    );
    let refused = |of: String, max: usize| {
        Err(Refusal::Invalid(format!("cannot bind: binding limit of {of} ({max}) is reached")))
    };
    if chooses && CHOICES_MAX <= exchange.binding_count() {
        return refused(
            format!("exchange '{}' in vhost '{}'", exchange.name, vhost.name),
            CHOICES_MAX,
        );
    }
    if limits::VHOST_BINDINGS_MAX <= vhost.binding_count() {
        return refused(format!("vhost '{}'", vhost.name), limits::VHOST_BINDINGS_MAX);
    }
    Ok(())
}

impl Catalog {
    /// What binding and unbinding have to pass alike: names that cannot be bound, then permissions.
    fn check_ends(
        &self,
        who: &Who<'_>,
        source: &Name,
        to: &Destination,
        routing_key: &str,
    ) -> Result<(), Refusal> {
        if source.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        match to {
            Destination::Exchange(name) if name.is_empty() => return Err(Refusal::DefaultExchange),
            Destination::Queue(name) if is_volatile(name) => return Err(Refusal::VolatileQueue),
            _ => {}
        }
        self.authorize(who.user, who.vhost, Permission::Write, kind(to), to.name())?;
        let read = Permission::Read;
        self.authorize(who.user, who.vhost, read, ResourceKind::Exchange, source)?;
        match self.entered(who)?.exchange(source) {
            Some(it) if it.kind == ExchangeKind::Topic => {
                self.authorize_topic(who, read, source, routing_key)
            }
            _ => Ok(()),
        }
    }

    /// Decides a binding: `None` when it is there already.
    ///
    /// # Errors
    /// [`Refusal`], by the first rule that is broken.
    pub fn bind(
        &self,
        who: &Who<'_>,
        request: &request::Binding,
    ) -> Result<Option<Change>, Refusal> {
        let vhost = self.entered(who)?;
        let (source, to) = (stripped(&request.source), destination(request));
        self.check_ends(who, &source, &to, &request.routing_key)?;
        let exchange = vhost.exchange(&source).ok_or_else(|| no_exchange(&source, who.vhost))?;
        Self::check_destination(vhost, &to, who)?;
        check_size(&request.arguments)?;
        let binding = Binding::new(source, to, request.routing_key.clone(), &request.arguments);
        check_binding(exchange, &binding)?;
        if exchange.has_binding(&binding) {
            return Ok(None);
        }
        check_limits(vhost, exchange)?;
        let durable = vhost.binding_survives(&binding);
        Ok(Some(Change::Bound { vhost: vhost.id, binding: Arc::new(binding), durable }))
    }

    fn check_destination(vhost: &Vhost, to: &Destination, who: &Who<'_>) -> Result<(), Refusal> {
        match to {
            Destination::Exchange(name) if vhost.exchange(name).is_some() => Ok(()),
            Destination::Exchange(name) => Err(no_exchange(name, who.vhost)),
            Destination::Queue(name) => match vhost.queue(name) {
                Some(queue) if queue.exclusive_to.is_some_and(|it| it != who.session) => {
                    Err(Refusal::Locked { name: name.clone(), vhost: who.vhost.clone() })
                }
                Some(_) => Ok(()),
                None => Err(Refusal::NotFound {
                    kind: ResourceKind::Queue,
                    name: name.clone(),
                    vhost: who.vhost.clone(),
                }),
            },
        }
    }

    /// Decides an unbinding: the changes that follow, none when there is no such binding.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], `VolatileQueue`, `Access`, `TopicAccess` or `Locked`.
    pub fn unbind(
        &self,
        who: &Who<'_>,
        request: &request::Binding,
    ) -> Result<Vec<Change>, Refusal> {
        let vhost = self.entered(who)?;
        let (source, to) = (stripped(&request.source), destination(request));
        self.check_ends(who, &source, &to, &request.routing_key)?;
        let Some(exchange) = vhost.exchange(&source) else { return Ok(Vec::new()) };
        match Self::check_destination(vhost, &to, who) {
            Ok(()) => {}
            Err(Refusal::NotFound { .. }) => return Ok(Vec::new()),
            Err(refusal) => return Err(refusal),
        }
        let key = request.routing_key.clone();
        let binding = Binding::new(source.clone(), to, key, &request.arguments);
        if !exchange.has_binding(&binding) {
            return Ok(Vec::new());
        }
        let durable = vhost.binding_survives(&binding);
        let removal = Change::Unbound { vhost: vhost.id, binding: Arc::new(binding), durable };
        Ok(self.with_auto_deletions(vhost.id, removal, vec![source]))
    }
}
