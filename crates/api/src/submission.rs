//! What a client says about a job beside its payload, whichever dress it comes in, and the
//! properties and headers of the message that it becomes.

use crate::{
    destination::{self, Rules},
    moment::Moment,
    problem::Problem,
};
use model::{Name, Table, Timestamp, Value, limits, properties::Properties};
use std::fmt;

/// Jobs that one may come after.
const PARENTS_MAX: usize = 1_000;
/// Seconds of work that may be expected: ten years.
const COST_S_MAX: f64 = 315_360_000.0;
/// Attempts that a job may ask for.
const ATTEMPTS_MAX: u32 = 1_000_000;
/// Octets of a `tracestate` that has to be passed on (W3C Trace Context).
const TRACE_STATE_BYTES_MAX: usize = 512;
const PERSISTENT: u8 = 2;

/// What can be said about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    Id,
    Type,
    Priority,
    Expires,
    At,
    Key,
    Cost,
    Deadline,
    Unique,
    After,
    AfterOn,
    Callback,
    Attempts,
}

/// Each field with its header and the attribute of its CloudEvent.
pub const FIELDS: &[(Field, &str, &str)] = &[
    (Field::Id, "Job-Id", "id"),
    (Field::Type, "Job-Type", "type"),
    (Field::Priority, "Job-Priority", "jobpriority"),
    (Field::Expires, "Job-Expires", "expirytime"),
    (Field::At, "Job-At", "jobat"),
    (Field::Key, "Job-Key", "partitionkey"),
    (Field::Cost, "Job-Cost", "jobcost"),
    (Field::Deadline, "Job-Deadline", "jobdeadline"),
    (Field::Unique, "Job-Unique", "jobunique"),
    (Field::After, "Job-After", "jobafter"),
    (Field::AfterOn, "Job-After-On", "jobafteron"),
    (Field::Callback, "Job-Callback", "jobcallback"),
    (Field::Attempts, "Job-Attempts", "jobattempts"),
];

/// When a job that comes after others may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterOn {
    Succeeded,
    Done,
}

/// Why a value means nothing; the text says what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cure(pub String);

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn cure(text: impl fmt::Display) -> Cure {
    Cure(text.to_string())
}

/// A job to be submitted, without its payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Submission {
    pub id: Option<Name>,
    pub kind: Option<Name>,
    pub content_type: Option<Name>,
    pub content_encoding: Option<Name>,
    pub correlation_id: Option<Name>,
    pub priority: Option<u8>,
    pub expires: Option<Moment>,
    pub at: Option<Moment>,
    pub key: Option<Name>,
    /// Expected seconds of work.
    pub cost_s: Option<f64>,
    pub deadline: Option<Moment>,
    pub unique: Option<Name>,
    pub after: Vec<Name>,
    pub after_on: Option<AfterOn>,
    pub callback: Option<String>,
    pub attempts: Option<u32>,
    pub traceparent: Option<Name>,
    pub tracestate: Option<String>,
    /// Further headers, such as attributes of an event that mean nothing to a job.
    pub others: Vec<(Name, Value)>,
}

/// What has been said so far, and under which name, so that nothing is said twice.
#[derive(Debug)]
pub struct SubmissionBuilder<'a> {
    rules: &'a Rules,
    said: Vec<(Field, String, String)>,
    submission: Submission,
}

impl<'a> SubmissionBuilder<'a> {
    /// `rules` say where a callback may go.
    pub fn new(rules: &'a Rules) -> Self {
        Self { rules, said: Vec::new(), submission: Submission::default() }
    }

    /// The parts that are no [`Field`].
    pub fn rest(&mut self) -> &mut Submission {
        &mut self.submission
    }

    /// Says one thing; `name` is what the client calls it.
    ///
    /// # Errors
    /// A problem that names the field and what would do.
    pub fn say(&mut self, field: Field, name: &str, value: &str) -> Result<(), Problem> {
        if let Some((_, before, other)) = self.said.iter().find(|it| it.0 == field) {
            if other == value {
                return Ok(());
            }
            let cure = format!("{before} says something else; leave one of them out");
            return Err(Problem::malformed(name, cure));
        }
        let said = self.submission.set(field, value, self.rules);
        said.map_err(|cure| Problem::malformed(name, cure))?;
        self.said.push((field, name.to_owned(), value.to_owned()));
        Ok(())
    }

    pub fn finish(self) -> Result<Submission, Problem> {
        if self.submission.after_on.is_some() && self.submission.after.is_empty() {
            let name = self.said.iter().find(|it| it.0 == Field::AfterOn).map(|it| it.1.as_str());
            let cure = "the ids of the jobs that it comes after are missing";
            return Err(Problem::malformed(name.unwrap_or("Job-After-On"), cure));
        }
        Ok(self.submission)
    }
}

impl Submission {
    fn set(&mut self, field: Field, value: &str, rules: &Rules) -> Result<(), Cure> {
        match field {
            Field::Id => self.id = Some(name(value)?),
            Field::Type => self.kind = Some(name(value)?),
            Field::Priority => self.priority = Some(priority(value)?),
            Field::Expires => self.expires = Some(Moment::parse(value).map_err(cure)?),
            Field::At => self.at = Some(Moment::parse(value).map_err(cure)?),
            Field::Key => self.key = Some(name(value)?),
            Field::Cost => self.cost_s = Some(cost_s(value)?),
            Field::Deadline => self.deadline = Some(Moment::parse(value).map_err(cure)?),
            Field::Unique => self.unique = Some(name(value)?),
            Field::After => self.after = ids(value)?,
            Field::AfterOn => {
                self.after_on = Some(match value {
                    "succeeded" => AfterOn::Succeeded,
                    "done" => AfterOn::Done,
                    _ => return Err(cure("succeeded or done")),
                });
            }
            Field::Callback => self.callback = Some(callback(value, rules)?),
            Field::Attempts => self.attempts = Some(attempts(value)?),
        }
        Ok(())
    }

    /// The properties of its message. `now` is when the request came.
    pub fn properties(&self, now: Timestamp) -> Properties {
        let headers = self.headers(now);
        Properties {
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            headers: (!headers.is_empty()).then_some(headers),
            delivery_mode: Some(PERSISTENT),
            priority: self.priority,
            correlation_id: self.correlation_id.clone(),
            expiration: self.expires.map(|it| Name::from(it.ms_from(now).to_string())),
            message_id: self.id.clone(),
            kind: self.kind.clone(),
            ..Properties::default()
        }
    }

    fn headers(&self, now: Timestamp) -> Table {
        let mut headers = Table::default();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                headers.0.push((Name::new(name), value));
            }
        };
        match self.at {
            Some(Moment::After(ms)) => put("x-delay", Some(Value::I64(ms.cast_signed()))),
            Some(Moment::At(time)) => put("x-at", Some(seconds(time))),
            None => {}
        }
        let text = |it: &Name| Value::text(it);
        put("x-key", self.key.as_ref().map(text));
        put("x-cost", self.cost_s.map(Value::F64));
        put("x-deadline", self.deadline.map(|it| seconds(it.from(now))));
        put("x-unique", self.unique.as_ref().map(text));
        if !self.after.is_empty() {
            put("x-after", Some(Value::Array(self.after.iter().map(text).collect())));
        }
        put(
            "x-after-on",
            self.after_on.map(|it| match it {
                AfterOn::Succeeded => Value::text("succeeded"),
                AfterOn::Done => Value::text("done"),
            }),
        );
        put("x-callback", self.callback.as_deref().map(Value::text));
        put("x-attempts", self.attempts.map(|it| Value::I64(it.into())));
        put("traceparent", self.traceparent.as_ref().map(text));
        put("tracestate", self.tracestate.as_deref().map(Value::text));
        headers.0.extend(self.others.iter().cloned());
        headers
    }

    /// Takes a trace along. One that is not well formed is dropped, as W3C Trace Context demands.
    pub fn trace(&mut self, parent: &str, state: Option<&str>) {
        if is_traceparent(parent) {
            self.traceparent = Some(Name::new(parent));
            let state = state.filter(|it| it.len() <= TRACE_STATE_BYTES_MAX);
            self.tracestate = state.map(ToOwned::to_owned);
        }
    }
}

/// `00-` 32 digits `-` 16 digits `-` 2 digits, hexadecimal and small; no id is all zeros. Later
/// versions may say more behind.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|it| {
            it.len() == length && it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) =
        (hex(2), hex(32), hex(16), hex(2))
    else {
        return false;
    };
    let is_zero = |it: &str| it.bytes().all(|it| it == b'0');
    let fits = if version == "00" { parts.next().is_none() } else { version != "ff" };
    fits && !is_zero(trace) && !is_zero(parent) && text.len() <= limits::NAME_BYTES_MAX
}

/// A time in whole seconds, as messages carry it: rounded up, so that nothing starts too early.
fn seconds(time: Timestamp) -> Value {
    Value::Timestamp(time.0.div_ceil(1_000))
}

/// A text that fits a property: 1 to 255 octets without control characters.
pub fn name(text: &str) -> Result<Name, Cure> {
    let fits = (1..=limits::NAME_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        return Ok(Name::new(text));
    }
    Err(cure(format_args!("a text of 1 to {} octets", limits::NAME_BYTES_MAX)))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit())
}

fn priority(text: &str) -> Result<u8, Cure> {
    let number = is_digits(text).then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| cure("a whole number from 0 to 255; higher ones come first"))
}

fn attempts(text: &str) -> Result<u32, Cure> {
    let number: Option<u32> = is_digits(text).then(|| text.parse().ok()).flatten();
    let fits = number.filter(|it| (1..=ATTEMPTS_MAX).contains(it));
    fits.ok_or_else(|| cure("a whole number from 1, the first attempt included"))
}

fn cost_s(text: &str) -> Result<f64, Cure> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number: Option<f64> =
        (is_digits(whole) && is_digits(fraction)).then(|| text.parse().ok()).flatten();
    let fits = number.filter(|it| *it <= COST_S_MAX);
    fits.ok_or_else(|| cure("expected seconds of work such as 2 or 0.25"))
}

fn ids(text: &str) -> Result<Vec<Name>, Cure> {
    let ids: Result<Vec<Name>, Cure> = text.split(',').map(|it| name(it.trim())).collect();
    let ids = ids.map_err(|_| cure("ids of jobs, with commas between them"))?;
    if PARENTS_MAX < ids.len() {
        return Err(cure(format_args!("at most {PARENTS_MAX} ids")));
    }
    Ok(ids)
}

fn callback(text: &str, rules: &Rules) -> Result<String, Cure> {
    let checked: Result<_, destination::BadUrl> = rules.check_url(text);
    checked.map(|_| text.to_owned()).map_err(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_165_200_000);

    fn submission(said: &[(Field, &str)]) -> Result<Submission, Problem> {
        let rules = Rules::default();
        let mut builder = SubmissionBuilder::new(&rules);
        for (field, value) in said {
            let name = FIELDS.iter().find(|it| it.0 == *field).expect("listed").1;
            builder.say(*field, name, value)?;
        }
        builder.finish()
    }

    fn header(said: &[(Field, &str)], name: &str) -> Option<Value> {
        let properties = submission(said).expect("good").properties(NOW);
        properties.headers.unwrap_or_default().get(name).cloned()
    }

    #[test]
    fn fields_become_the_properties_of_the_public_model() {
        let said = [
            (Field::Id, "order-17"),
            (Field::Type, "send"),
            (Field::Priority, "9"),
            (Field::Expires, "+90s"),
        ];
        let properties = submission(&said).expect("good").properties(NOW);
        assert_eq!(properties.message_id.as_deref(), Some("order-17"));
        assert_eq!(properties.kind.as_deref(), Some("send"));
        assert_eq!(properties.priority, Some(9));
        assert_eq!(properties.expiration.as_deref(), Some("90000"));
        assert_eq!((properties.delivery_mode, properties.headers), (Some(2), None));
    }

    #[test]
    fn fields_become_the_headers_of_the_public_model() {
        let text = |it: &str| Some(Value::text(it));
        let one = |field, value, name| header(&[(field, value)], name);
        assert_eq!(one(Field::At, "+250ms", "x-delay"), Some(Value::I64(250)));
        let at = one(Field::At, "2026-11-20T09:00:00.001Z", "x-at");
        assert_eq!(at, Some(Value::Timestamp(1_795_165_201)));
        assert_eq!(one(Field::Key, "tenant-42", "x-key"), text("tenant-42"));
        assert_eq!(one(Field::Cost, "0.25", "x-cost"), Some(Value::F64(0.25)));
        let deadline = one(Field::Deadline, "+1h", "x-deadline");
        assert_eq!(deadline, Some(Value::Timestamp(1_795_168_800)));
        assert_eq!(one(Field::Unique, "u", "x-unique"), text("u"));
        assert_eq!(one(Field::Attempts, "3", "x-attempts"), Some(Value::I64(3)));
        let url = "https://example.org/done";
        assert_eq!(one(Field::Callback, url, "x-callback"), text(url));
        let after = [(Field::After, "a, b,c"), (Field::AfterOn, "done")];
        let ids = ["a", "b", "c"].map(Value::text).to_vec();
        assert_eq!(header(&after, "x-after"), Some(Value::Array(ids)));
        assert_eq!(header(&after, "x-after-on"), text("done"));
    }

    #[test]
    fn what_expired_before_it_came_has_no_time_left() {
        let said = [(Field::Expires, "2020-01-01T00:00:00Z")];
        let properties = submission(&said).expect("good").properties(NOW);
        assert_eq!(properties.expiration.as_deref(), Some("0"));
    }

    #[test]
    fn other_values_are_refused_with_the_field_and_the_cure() {
        let long = "x".repeat(256);
        let many = vec!["a"; PARENTS_MAX + 1].join(",");
        for (field, value, cure) in [
            (Field::Id, "", "a text of 1 to 255 octets"),
            (Field::Id, long.as_str(), "a text of 1 to 255 octets"),
            (Field::Type, "a\u{7}", "a text of 1 to 255 octets"),
            (Field::Priority, "256", "a whole number from 0 to 255"),
            (Field::Priority, "-1", "a whole number from 0 to 255"),
            (Field::Priority, "+1", "a whole number from 0 to 255"),
            (Field::Priority, "high", "a whole number from 0 to 255"),
            (Field::Expires, "30s", "a time is written as"),
            (Field::At, "tomorrow", "a time is written as"),
            (Field::Cost, "-1", "expected seconds"),
            (Field::Cost, "inf", "expected seconds"),
            (Field::Cost, "1e3", "expected seconds"),
            (Field::Cost, ".5", "expected seconds"),
            (Field::Cost, "999999999999", "expected seconds"),
            (Field::Deadline, "+1y", "a duration is a whole number"),
            (Field::After, "a,,b", "ids of jobs"),
            (Field::After, many.as_str(), "at most 1000 ids"),
            (Field::AfterOn, "failed", "succeeded or done"),
            (Field::Callback, "http://example.org/", "https"),
            (Field::Callback, "https://127.0.0.1/", "is this machine"),
            (Field::Attempts, "0", "a whole number from 1"),
            (Field::Attempts, "4294967296", "a whole number from 1"),
        ] {
            let problem = submission(&[(field, value)]).expect_err(value);
            let name = FIELDS.iter().find(|it| it.0 == field).expect("listed").1;
            let detail = problem.detail.expect("said");
            assert!(detail.starts_with(&format!("{name}: ")), "{detail}");
            assert!(detail.contains(cure), "{value}: {detail}");
        }
    }

    #[test]
    fn one_thing_is_said_once() {
        let rules = Rules::default();
        let mut builder = SubmissionBuilder::new(&rules);
        builder.say(Field::Id, "Job-Id", "a").expect("the first");
        builder.say(Field::Id, "Idempotency-Key", "a").expect("the same again");
        let problem = builder.say(Field::Id, "ce-id", "b").expect_err("another");
        let detail = problem.detail.expect("said");
        assert_eq!(&*detail, "ce-id: Job-Id says something else; leave one of them out");
    }

    #[test]
    fn a_condition_without_jobs_is_refused() {
        let problem = submission(&[(Field::AfterOn, "done")]).expect_err("no ids");
        assert!(problem.detail.expect("said").starts_with("Job-After-On: "));
    }

    #[test]
    fn a_trace_that_is_not_well_formed_is_dropped() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let kept = |parent: &str| {
            let mut submission = Submission::default();
            submission.trace(parent, Some("a=b"));
            (submission.traceparent.is_some(), submission.tracestate.is_some())
        };
        assert_eq!(kept(GOOD), (true, true));
        assert_eq!(kept(&GOOD.replacen("00", "cc", 1)), (true, true));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(kept(bad), (false, false), "{bad}");
        }
        let mut submission = Submission::default();
        submission.trace(GOOD, Some(&"x".repeat(513)));
        assert!(submission.traceparent.is_some() && submission.tracestate.is_none());
    }

    #[test]
    fn what_is_encoded_is_properties_that_the_broker_takes() {
        let all = [
            (Field::Id, "i"),
            (Field::Expires, "+1s"),
            (Field::At, "+1s"),
            (Field::Key, "k"),
            (Field::Cost, "1.5"),
            (Field::After, "a,b"),
        ];
        let encoded = submission(&all).expect("good").properties(NOW).encoded();
        let facts = model::Facts::parse(&encoded).expect("checked");
        assert!(facts.persistent && !facts.is_aliased);
        assert_eq!(facts.header_table().0.len(), 4);
    }
}
