//! The queues and exchanges of a run: declared under names that nothing else has, deleted at its
//! end, however it ends. What was there before is never touched.

use crate::{
    connection::{Connection, QueueKind},
    error::BenchError,
    uri::Uri,
};
use std::{
    hash::{BuildHasher as _, RandomState},
    io::{self, Write as _},
};

/// What a run needs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Instead of a name that is unique.
    pub(crate) name: Option<String>,
    pub(crate) kind: QueueKind,
    pub(crate) queues: usize,
    /// Also an exchange that copies to all of them.
    pub(crate) has_fanout: bool,
}

/// What was made, to be deleted when this is dropped.
pub(crate) struct Objects<'a> {
    uri: &'a Uri,
    pub(crate) queues: Vec<String>,
    pub(crate) exchange: Option<String>,
}

impl<'a> Objects<'a> {
    /// Declares everything, after a look that none of it exists.
    pub(crate) fn declare(uri: &'a Uri, wanted: &Wanted) -> Result<Self, BenchError> {
        let base = wanted.name.clone().unwrap_or_else(unique_name);
        let names: Vec<String> = match wanted.queues {
            1 => vec![base.clone()],
            count => (0..count).map(|it| format!("{base}.{it}")).collect(),
        };
        let mut connection = Connection::open(uri)?;
        // A unique name needs no look for each of thousands of queues.
        let looked_at = if wanted.name.is_some() { names.len() } else { 1 };
        for name in names.iter().take(looked_at) {
            if connection.queue_len(name)?.is_some() {
                return Err(BenchError::Exists { what: "queue", name: name.clone() });
            }
        }
        if wanted.has_fanout && connection.exchange_exists(&base)? {
            return Err(BenchError::Exists { what: "exchange", name: base });
        }
        // From here on, whatever fails, what was made is deleted.
        let mut objects = Self { uri, queues: Vec::new(), exchange: None };
        connection.declare_queues(&names, &wanted.kind, |it| objects.queues.push(it.clone()))?;
        if wanted.has_fanout {
            connection.declare_fanout(&base, wanted.kind.is_durable)?;
            objects.exchange = Some(base.clone());
            for queue in &objects.queues {
                connection.bind(queue, &base)?;
            }
        }
        connection.close()?;
        Ok(objects)
    }

    /// Deletes everything; returns how many messages were left in the queues.
    pub(crate) fn delete(mut self) -> Result<u64, BenchError> {
        self.delete_all()
    }

    fn delete_all(&mut self) -> Result<u64, BenchError> {
        if self.queues.is_empty() {
            return Ok(0);
        }
        let mut connection = Connection::open(self.uri)?;
        if let Some(exchange) = self.exchange.take() {
            connection.delete_exchange(&exchange)?;
        }
        let messages = connection.delete_queues(&self.queues)?;
        self.queues.clear();
        connection.close()?;
        Ok(messages)
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.delete_all() {
            let first = self.queues.first().map_or("", |it| it);
            let count = self.queues.len();
            // Nobody may be listening any more, which changes nothing.
            writeln!(
                io::stderr(),
                "ferrymq: could not delete {count} queues, `{first}` the first: {error}"
            )
            .ok();
        }
    }
}

/// Chance and not a counter: another run may be at work on the same broker.
fn unique_name() -> String {
    format!("bench.{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_from_run_to_run() {
        assert_ne!(unique_name(), unique_name());
        assert_eq!(unique_name().len(), "bench.".len() + 16);
    }
}
