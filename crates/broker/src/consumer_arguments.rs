//! The arguments of a consumer: which there are, and what is said of wrong ones.

use catalog::{Queue, QueueKind};
use model::{Refusal, Table};

/// What a consumer asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConsumerArguments {
    pub(crate) priority: i64,
    pub(crate) timeout_ms: Option<u64>,
}

/// Arguments of consumers of streams, which no other queue takes.
const OF_STREAMS: [&str; 3] = ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

/// Checks the arguments of a consumer of this queue. Unknown ones have no meaning and are let
/// through, as RabbitMQ does.
///
/// # Errors
/// [`Refusal::InvalidArgument`].
pub(crate) fn read(queue: &Queue, arguments: &Table) -> Result<ConsumerArguments, Refusal> {
    let invalid = |argument: &str, reason: String| Refusal::InvalidArgument {
        argument: argument.to_owned(),
        name: queue.name.clone(),
        vhost: queue.vhost_name.clone(),
        reason,
    };
    let implementation = match queue.kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
    };
    if let Some(foreign) = OF_STREAMS.iter().find(|it| arguments.get(it).is_some()) {
        return Err(invalid(foreign, format!(" of queue type {implementation}")));
    }
    let integer = |argument: &str| match arguments.get(argument) {
        None => Ok(None),
        Some(value) => match value.as_integer() {
            Some(number) => Ok(Some(number)),
            None => {
                let got = value.type_name();
                Err(invalid(argument, format!(": \"expected integer, got {got}\"")))
            }
        },
    };
    let priority = integer("x-priority")?.unwrap_or(0);
    let timeout_ms = match integer("x-consumer-timeout")? {
        Some(number) if number < 0 => {
            return Err(invalid("x-consumer-timeout", format!(": {{value_negative,{number}}}")));
        }
        Some(number) => Some(number.unsigned_abs()).filter(|it| *it != 0),
        None => None,
    };
    Ok(ConsumerArguments { priority, timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Name, QueueId, QueuePolicy, SessionId, ShardId, Value, VhostId};
    use std::sync::Arc;

    fn queue() -> Queue {
        Queue {
            id: QueueId(1),
            vhost: VhostId(1),
            vhost_name: Name::new("/"),
            name: Name::new("g2"),
            durable: true,
            exclusive_to: None::<SessionId>,
            auto_delete: false,
            kind: QueueKind::Classic,
            arguments: Table::default(),
            shard: ShardId(0),
            policy: Arc::new(QueuePolicy::plain(QueueId(1), "g2")),
        }
    }

    fn answer(argument: &str, value: Value) -> String {
        match read(&queue(), &Table(vec![(Name::new(argument), value)])) {
            Ok(it) => format!("{} {:?}", it.priority, it.timeout_ms),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn priorities_are_integers_and_may_be_negative() {
        assert_eq!(answer("x-priority", Value::I16(-3)), "-3 None");
        assert_eq!(
            answer("x-priority", Value::text("high")),
            "invalid arg 'x-priority' for queue 'g2' in vhost '/': \"expected integer, got longstr\""
        );
    }

    #[test]
    fn arguments_of_streams_are_refused_by_name() {
        assert_eq!(
            answer("x-stream-offset", Value::text("first")),
            "invalid arg 'x-stream-offset' for queue 'g2' in vhost '/' of queue type \
             rabbit_classic_queue"
        );
    }

    #[test]
    fn timeout_of_zero_is_none() {
        assert_eq!(answer("x-consumer-timeout", Value::I32(0)), "0 None");
        assert_eq!(answer("x-consumer-timeout", Value::I32(5000)), "0 Some(5000)");
    }
}
