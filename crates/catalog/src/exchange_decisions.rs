//! Declaring and deleting exchanges, and what goes with the last binding.

use crate::{
    access::Who,
    arguments,
    change::Change,
    exchanges::Exchange,
    objects::{Destination, ExchangeFacts, ExchangeKind},
    queue_decisions::{RESERVED, check_size, flag_difference, named_exchange, stripped},
    state::Catalog,
    vhosts::Vhost,
};
use model::{
    Name, Permission, Refusal, ResourceKind, Value, VhostId, limits, request::DeclareExchange,
};
use std::sync::Arc;

const EXCHANGE: ResourceKind = ResourceKind::Exchange;
const ALTERNATE: &str = "alternate-exchange";

pub(crate) fn no_exchange(name: &Name, vhost: &Name) -> Refusal {
    Refusal::NotFound { kind: EXCHANGE, name: name.clone(), vhost: vhost.clone() }
}

fn check_equivalence(
    exchange: &Exchange,
    request: &DeclareExchange,
    kind: ExchangeKind,
    vhost: &Name,
) -> Result<(), Refusal> {
    let type_difference = (exchange.kind != kind).then(|| {
        format!("received '{}' but current is '{}'", kind.as_str(), exchange.kind.as_str())
    });
    let (current, received) = (exchange.arguments.get(ALTERNATE), request.arguments.get(ALTERNATE));
    let first = type_difference
        .map(|it| ("type", it))
        .or_else(|| Some(("durable", flag_difference(request.durable, exchange.durable)?)))
        .or_else(|| {
            let difference = flag_difference(request.auto_delete, exchange.auto_delete);
            Some(("auto_delete", difference?))
        })
        .or_else(|| Some(("internal", flag_difference(request.internal, exchange.internal)?)))
        .or_else(|| Some((ALTERNATE, arguments::told(current, received)?)));
    match first {
        None => Ok(()),
        Some((argument, difference)) => Err(Refusal::Inequivalent {
            argument: argument.to_owned(),
            kind: EXCHANGE,
            name: exchange.name.clone(),
            vhost: vhost.clone(),
            difference,
        }),
    }
}

/// Arguments that only one kind of exchange reads.
fn check_arguments(request: &DeclareExchange, kind: ExchangeKind) -> Result<(), Refusal> {
    check_size(&request.arguments)?;
    if kind != ExchangeKind::ConsistentHash {
        return Ok(());
    }
    let property = request.arguments.get("hash-property");
    if property.is_some() && request.arguments.get("hash-header").is_some() {
        let text = "hash-property and hash-header are mutually exclusive";
        return Err(Refusal::Invalid(text.to_owned()));
    }
    match property.map(Value::as_text) {
        None | Some(Some("message_id" | "correlation_id" | "timestamp")) => Ok(()),
        Some(other) => {
            let text = format!("Unsupported property: {}", other.unwrap_or_default());
            Err(Refusal::Invalid(text))
        }
    }
}

fn check_limit(vhost: &Vhost, name: &Name) -> Result<(), Refusal> {
    let limit = limits::VHOST_EXCHANGES_MAX;
    if vhost.exchange_count() < limit {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "cannot declare exchange '{name}' in vhost '{}': exchange limit of {limit} is reached",
        vhost.name
    )))
}

impl Catalog {
    fn authorize_exchange(
        &self,
        who: &Who<'_>,
        permission: Permission,
        name: &str,
    ) -> Result<(), Refusal> {
        self.authorize(who.user, who.vhost, permission, EXCHANGE, name)
    }

    /// Decides a declaration: `None` when the exchange is there already, as declared.
    ///
    /// # Errors
    /// [`Refusal`], by the first rule that is broken.
    pub fn declare_exchange(
        &self,
        who: &Who<'_>,
        request: &DeclareExchange,
    ) -> Result<Option<Change>, Refusal> {
        let vhost = self.entered(who)?;
        let name = stripped(&request.exchange);
        if request.passive {
            if name.is_empty() {
                return Err(Refusal::DefaultExchange);
            }
            self.authorize_any(who.user, who.vhost, EXCHANGE, &name)?;
            return match vhost.exchange(&name) {
                Some(_) => Ok(None),
                None => Err(no_exchange(&name, who.vhost)),
            };
        }
        let kind = ExchangeKind::parse(&request.kind)
            .ok_or_else(|| Refusal::UnknownExchangeType(request.kind.clone()))?;
        if name.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        self.authorize_exchange(who, Permission::Configure, &name)?;
        if let Some(exchange) = vhost.exchange(&name) {
            check_equivalence(exchange, request, kind, who.vhost)?;
            return Ok(None);
        }
        if name.starts_with(RESERVED) {
            return Err(Refusal::ReservedName { kind: EXCHANGE, name });
        }
        let described = || format!("exchange '{name}' in vhost '{}'", who.vhost);
        if let Some(alternate) = named_exchange(&request.arguments, ALTERNATE, described)? {
            self.authorize_exchange(who, Permission::Read, &name)?;
            self.authorize_exchange(who, Permission::Write, alternate)?;
        }
        check_arguments(request, kind)?;
        check_limit(vhost, &name)?;
        let exchange = Arc::new(ExchangeFacts {
            name,
            kind,
            durable: request.durable,
            auto_delete: request.auto_delete,
            internal: request.internal,
            arguments: request.arguments.clone(),
            predeclared: false,
        });
        Ok(Some(Change::ExchangeDeclared { vhost: vhost.id, exchange }))
    }

    /// Decides a deletion: the changes that follow, none when the exchange is not there.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], `SystemExchange`, `Access` or `InUse`.
    pub fn delete_exchange(
        &self,
        who: &Who<'_>,
        name: &Name,
        if_unused: bool,
    ) -> Result<Vec<Change>, Refusal> {
        let vhost = self.entered(who)?;
        let name = stripped(name);
        if name.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        if name.starts_with(RESERVED) {
            return Err(Refusal::SystemExchange { name, vhost: who.vhost.clone() });
        }
        self.authorize_exchange(who, Permission::Configure, &name)?;
        let Some(exchange) = vhost.exchange(&name) else { return Ok(Vec::new()) };
        if if_unused && exchange.binding_count() != 0 {
            return Err(Refusal::InUse { kind: EXCHANGE, name, vhost: who.vhost.clone() });
        }
        Ok(self.exchange_removal(vhost.id, exchange))
    }

    /// The changes that follow when an exchange goes.
    fn exchange_removal(&self, vhost: VhostId, exchange: &Exchange) -> Vec<Change> {
        let removal = Change::ExchangeDeleted {
            vhost,
            exchange: exchange.name.clone(),
            durable: exchange.durable,
        };
        let lost = Destination::Exchange(exchange.name.clone());
        let sources = self.sources_of(vhost, &lost);
        self.with_auto_deletions(vhost, removal, sources)
    }

    fn sources_of(&self, vhost: VhostId, destination: &Destination) -> Vec<Name> {
        let vhost = self.vhost_by_id(vhost);
        let bindings = vhost.into_iter().flat_map(|it| it.bindings_to(destination));
        bindings.map(|it| it.source.clone()).collect()
    }

    /// A change that takes bindings away from these sources, and the deletions of exchanges that go
    /// with their last binding, which may take bindings away from others.
    pub(crate) fn with_auto_deletions(
        &self,
        vhost: VhostId,
        change: Change,
        mut sources: Vec<Name>,
    ) -> Vec<Change> {
        let mut changes = vec![change];
        let goes = |catalog: &Self, name: &str| {
            let exchange = catalog.vhost_by_id(vhost).and_then(|it| it.exchange(name));
            exchange.is_some_and(|it| it.auto_delete)
        };
        sources.retain(|it| goes(self, it));
        if sources.is_empty() {
            return changes;
        }
        // On a snapshot of its own it is seen which bindings are left.
        let mut after = self.clone();
        if changes.iter().try_for_each(|it| after.apply(it)).is_err() {
            return changes;
        }
        while let Some(source) = sources.pop() {
            let found = after.vhost_by_id(vhost).and_then(|it| it.exchange(&source)).cloned();
            let Some(exchange) = found.filter(|it| it.auto_delete && it.binding_count() == 0)
            else {
                continue;
            };
            sources.extend(after.sources_of(vhost, &Destination::Exchange(source.clone())));
            let durable = exchange.durable;
            let deleted = Change::ExchangeDeleted { vhost, exchange: source, durable };
            if after.apply(&deleted).is_err() {
                break;
            }
            changes.push(deleted);
        }
        changes
    }
}
