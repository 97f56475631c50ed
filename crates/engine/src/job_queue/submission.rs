//! What a message says of the job that it asks for.

use crate::job::{Application, Origin, Submission};
use model::{EntryId, Message, Name, Table, Timestamp, Value, properties::Properties};
use std::hash::{DefaultHasher, Hasher};

/// What stays known of a message although its body may be on disk.
#[derive(Clone, Debug)]
pub(super) struct Traits {
    pub(super) kind: Option<Name>,
    pub(super) key: Option<Name>,
    pub(super) traceparent: Option<Name>,
    pub(super) reply_to: Option<Name>,
    pub(super) correlation_id: Option<Name>,
}

/// What a message asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) submission: Submission,
    pub(super) traits: Traits,
    /// Nobody but the server has chosen the id; it is empty yet.
    pub(super) wants_id: bool,
    /// What is asked for cannot be had.
    pub(super) refusal: Option<String>,
}

/// Headers that a job may have in other brokers' words, and that nothing here does yet.
const UNBUILT: [&str; 3] = ["x-after", "x-after-on", "x-callback"];

struct Headers<'a> {
    table: &'a Table,
    refusal: Option<String>,
}

impl Headers<'_> {
    fn refuse(&mut self, header: &str, why: &str) {
        self.refusal.get_or_insert_with(|| format!("header '{header}' {why}"));
    }

    fn text(&mut self, header: &str) -> Option<Name> {
        let value = self.table.get(header)?;
        match value.as_text() {
            Some(text) if text.len() <= model::limits::NAME_BYTES_MAX => Some(Name::new(text)),
            Some(_) => {
                self.refuse(header, "is longer than 255 octets");
                None
            }
            None => {
                self.refuse(header, "is no text");
                None
            }
        }
    }

    fn integer(&mut self, header: &str) -> Option<i64> {
        let found = self.table.get(header)?.as_integer();
        if found.is_none() {
            self.refuse(header, "is no integer");
        }
        found
    }

    fn time(&mut self, header: &str) -> Option<Timestamp> {
        match self.table.get(header)? {
            Value::Timestamp(seconds) => Some(Timestamp(seconds.saturating_mul(1_000))),
            _ => {
                self.refuse(header, "is no timestamp");
                None
            }
        }
    }

    /// Seconds of work, as microseconds.
    fn cost_us(&mut self) -> u64 {
        let seconds = match self.table.get("x-cost") {
            None => return 0,
            Some(Value::F32(it)) => f64::from(*it),
            Some(Value::F64(it)) => *it,
            Some(other) => other.as_integer().map_or(-1.0, |it| it as f64),
        };
        if !(0.0..1e12).contains(&seconds) {
            self.refuse("x-cost", "is no number of seconds");
            return 0;
        }
        (seconds * 1e6) as u64
    }
}

fn digest(message: &Message, properties: &Properties) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in [&properties.content_type, &properties.content_encoding] {
        hasher.write(text.as_deref().unwrap_or("").as_bytes());
        hasher.write_u8(0xff);
    }
    message.body_parts().for_each(|it| hasher.write(it));
    hasher.finish()
}

/// Reads what a message asks for that has come at `arrived` to a queue where messages live for
/// `ttl_ms`. Total: what cannot be understood is a refusal, and the rest is read.
pub(super) fn read(
    entry: EntryId,
    message: &Message,
    arrived: Timestamp,
    ttl_ms: Option<u64>,
) -> Asked {
    let properties = Properties::decode(message.properties()).unwrap_or_default();
    let empty = Table::default();
    let table = properties.headers.as_ref().unwrap_or(&empty);
    let mut headers = Headers { table, refusal: None };
    for header in UNBUILT {
        if table.get(header).is_some() {
            headers.refuse(header, "is not supported yet");
        }
    }
    let delay_ms = headers.integer("x-delay").and_then(|it| u64::try_from(it).ok());
    let at = headers.time("x-at");
    let due = delay_ms.map(|it| arrived.plus_ms(it)).into_iter().chain(at).max();
    let lives_ms = message.ttl_ms.into_iter().chain(ttl_ms).min();
    let attempts = headers.integer("x-attempts");
    if attempts.is_some_and(|it| !(1..=i64::from(u32::MAX)).contains(&it)) {
        headers.refuse("x-attempts", "is no number of attempts");
    }
    let task = table.get("id").and_then(Value::as_text).filter(|it| !it.is_empty());
    let chosen = properties.message_id.as_ref().filter(|it| !it.is_empty());
    let (id, origin) = match (chosen, task) {
        (Some(id), _) => (id.clone(), Origin::Client),
        (None, Some(id)) => (Name::new(&id[..floor(id, 255)]), Origin::Task),
        (None, None) => (Name::default(), Origin::Server),
    };
    let origin = if message.deaths_known { Origin::Returned } else { origin };
    let key = headers.text("x-key");
    let application = Application {
        id,
        origin,
        digest: digest(message, &properties),
        unique: headers.text("x-unique"),
    };
    let wants_id = application.id.is_empty();
    let submission = Submission {
        entry,
        application,
        key: key.clone().unwrap_or_default(),
        priority: message.priority.unwrap_or(0),
        cost_us: headers.cost_us(),
        deadline: headers.time("x-deadline"),
        due: due.filter(|it| arrived < *it),
        start_before: lives_ms.map(|it| arrived.plus_ms(it)),
        attempts: attempts.and_then(|it| u32::try_from(it).ok()),
        parents: 0,
    };
    let traits = Traits {
        kind: properties.kind.clone().or_else(|| headers.table_text("task")),
        key,
        traceparent: headers.table_text("traceparent"),
        reply_to: properties.reply_to.clone().filter(|it| !it.is_empty()),
        correlation_id: properties.correlation_id.clone(),
    };
    Asked { submission, traits, wants_id, refusal: headers.refusal }
}

impl Headers<'_> {
    /// A text that is shown, and means nothing here.
    fn table_text(&self, header: &str) -> Option<Name> {
        let text = self.table.get(header)?.as_text()?;
        Some(Name::new(&text[..floor(text, model::limits::NAME_BYTES_MAX)]))
    }
}

fn floor(text: &str, most: usize) -> usize {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}
