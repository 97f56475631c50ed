//! The way of a dead letter: new address and headers, routed like a publish that needs nobody's
//! permission, written as one record that takes it out of its source and into its targets.

use crate::{
    hand_over::{Dead, Published, Queues},
    shared::Shared,
};
use catalog::{Catalog, Route, RoutedQueue};
use engine::{
    Place, dead_letter,
    record::{MessageRecord, Target},
};
use model::{LogPosition, Message, QueueId, ShardId, Timestamp};
use smallvec::SmallVec;
use std::sync::Arc;
use storage::LogError;

/// What became of a dead letter.
#[derive(Default)]
pub(crate) struct Forwarded {
    /// Where its record lies, if it has one; the record then takes the place of the removal.
    pub(crate) record: Option<LogPosition>,
    pub(crate) published: Vec<(ShardId, Published)>,
}

/// Forwards a dead letter whose message is there.
///
/// # Errors
/// [`LogError`], when the log has failed.
pub(crate) fn forward(dead: &Dead, shared: &Shared, now: Timestamp) -> Result<Forwarded, LogError> {
    let Some(message) = &dead.message else { return Ok(Forwarded::default()) };
    if dead.source.dead_letter.is_none() {
        return Ok(Forwarded::default());
    }
    let letter = dead_letter::dead_letter(message, dead.reason, &dead.source, now);
    let catalog = shared.catalog.load();
    let targets = targets(&catalog, dead, &letter, now);
    if targets.is_empty() {
        return Ok(Forwarded::default());
    }
    let mut replaces = SmallVec::new();
    if let Place::Log { position, .. } = dead.place {
        replaces.push((dead.source.queue, position));
    }
    let is_replacing = !replaces.is_empty();
    let forwarded = put(letter, &targets, replaces, dead.redelivered, shared, now)?;
    Ok(Forwarded { record: forwarded.record.filter(|_| is_replacing), ..forwarded })
}

/// Sends a message of the broker's own to where its address leads.
///
/// # Errors
/// As [`forward`].
pub(crate) fn send(
    message: &Arc<Message>,
    vhost: &str,
    shared: &Shared,
    now: Timestamp,
) -> Result<Vec<(ShardId, Published)>, LogError> {
    let catalog = shared.catalog.load();
    let Some(vhost) = catalog.vhost(vhost) else { return Ok(Vec::new()) };
    let mut route = Route::default();
    let keys = [message.routing_key()];
    let (exchange, properties) = (message.exchange(), message.properties());
    let routed = catalog.route(vhost, exchange, &keys, properties, now.0, &mut route);
    if routed.is_err() || route.queues.is_empty() {
        return Ok(Vec::new());
    }
    let message = Message::clone(message);
    put(message, &route.queues, SmallVec::new(), false, shared, now).map(|it| it.published)
}

/// Writes the message for the queues that keep it, and gives each shard its part.
fn put(
    letter: Message,
    targets: &[RoutedQueue],
    replaces: SmallVec<[(QueueId, LogPosition); 1]>,
    redelivered: bool,
    shared: &Shared,
    now: Timestamp,
) -> Result<Forwarded, LogError> {
    let keeping = || targets.iter().filter(|it| it.keeps(letter.persistent));
    let mut record = None;
    let mut place = Place::Memory;
    if keeping().next().is_some() {
        let targets = keeping().map(|it| Target { queue: it.queue, ..Target::default() }).collect();
        let front = MessageRecord { arrived: now, targets, replaces };
        let (position, end) = shared.append_message(&front, &letter)?;
        place = Place::Log { position, end };
        record = Some(position);
    }
    let mut spilled = Place::Memory;
    let room = shared.budget.has_room();
    if !room && targets.iter().any(|it| !it.keeps(letter.persistent)) {
        spilled = shared.spill_message(&letter)?;
    }
    let letter = Arc::new(letter);
    let mut shards: Vec<(ShardId, Vec<QueueId>)> = Vec::new();
    for target in targets {
        match shards.iter_mut().find(|(shard, _)| *shard == target.shard) {
            Some((_, queues)) => queues.push(target.queue),
            None => shards.push((target.shard, vec![target.queue])),
        }
    }
    let published = shards.into_iter().map(|(shard, queues)| {
        let queues = Queues::of(&queues);
        let message = Arc::clone(&letter);
        let it = Published { message, place, spilled, room, redelivered, queues, confirm: None };
        (shard, it)
    });
    Ok(Forwarded { record, published: published.collect() })
}

/// The queues that the dead letter goes to. A cycle of automatic deaths ends here.
fn targets(
    catalog: &Catalog,
    dead: &Dead,
    letter: &Message,
    now: Timestamp,
) -> SmallVec<[RoutedQueue; 2]> {
    let Some(vhost) = catalog.vhost(&dead.source.vhost) else { return SmallVec::new() };
    let keys = dead_letter::routing_keys(letter);
    let keys: SmallVec<[&str; 4]> = keys.iter().map(|it| it.as_ref()).collect();
    let mut route = Route::default();
    let routed =
        catalog.route(vhost, letter.exchange(), &keys, letter.properties(), now.0, &mut route);
    if routed.is_err() {
        // A missing exchange drops the message silently, as RabbitMQ does.
        return SmallVec::new();
    }
    let found = route.queues.iter().filter(|it| {
        let name = catalog.queue(it.queue).map(|it| &it.name);
        name.is_some_and(|name| !dead_letter::is_cycle(letter, name))
    });
    found.copied().collect()
}
