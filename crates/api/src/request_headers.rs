//! From the headers of a request to what they say about a job.

use crate::{
    cloud_event::{self, Attributes},
    destination::Rules,
    problem::Problem,
    submission::{self, FIELDS, Field, Submission, SubmissionBuilder},
};
use http::{HeaderMap, HeaderValue};
use model::Name;

const JOB_PREFIX: &str = "job-";
const EVENT_PREFIX: &str = "ce-";
/// What the server tells workers; nobody else says it.
const FOR_WORKERS: [&str; 3] = ["job-attempt", "job-lease-until", "job-lease-url"];

/// Reads what headers say about the one job of a request.
///
/// # Errors
/// A problem that names the header and what would do.
pub fn submission(headers: &HeaderMap, rules: &Rules) -> Result<Submission, Problem> {
    let mut builder = SubmissionBuilder::new(rules);
    let mut attributes = None;
    for (header, value) in headers {
        let header = header.as_str();
        if header.starts_with(JOB_PREFIX) {
            let (field, name) = field(header)?;
            builder.say(field, name, text(name, value)?)?;
        } else if header == "idempotency-key" {
            let key = idempotency_key(text("Idempotency-Key", value)?)?;
            builder.say(Field::Id, "Idempotency-Key", &key)?;
        } else if header.starts_with(EVENT_PREFIX) {
            let attributes = attributes.get_or_insert_with(Attributes::default);
            cloud_event::say_header(attributes, &mut builder, header, text(header, value)?)?;
        }
    }
    if let Some(attributes) = attributes {
        attributes.check(EVENT_PREFIX)?;
    }
    builder.rest().content_type = property(headers, "content-type")?;
    builder.rest().content_encoding = property(headers, "content-encoding")?;
    let one = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    if let Some(parent) = one("traceparent") {
        let states: Vec<&str> =
            headers.get_all("tracestate").iter().filter_map(|it| it.to_str().ok()).collect();
        let state = (!states.is_empty()).then(|| states.join(","));
        builder.rest().trace(parent, state.as_deref());
    }
    builder.finish()
}

fn field(header: &str) -> Result<(Field, &'static str), Problem> {
    if let Some((field, name, _)) = FIELDS.iter().find(|it| it.1.eq_ignore_ascii_case(header)) {
        return Ok((*field, name));
    }
    if FOR_WORKERS.contains(&header) {
        return Err(Problem::malformed(header, "the server says this to workers; leave it out"));
    }
    let known: Vec<&str> = FIELDS.iter().map(|it| it.1).collect();
    let cure = format!("not known; there are {}", known.join(", "));
    Err(Problem::malformed(header, cure))
}

fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, Problem> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::malformed(name, "a text in UTF-8"))
}

/// A string of structured headers (RFC 9651): printable ASCII in quotes.
fn idempotency_key(text: &str) -> Result<String, Problem> {
    let cure = || Problem::malformed("Idempotency-Key", "a text in quotes, such as \"order-17\"");
    let inner = text.trim().strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let mut letters = inner.ok_or_else(cure)?.chars();
    let mut key = String::new();
    while let Some(letter) = letters.next() {
        key.push(match letter {
            '\\' => letters.next().filter(|it| matches!(it, '"' | '\\')).ok_or_else(cure)?,
            ' '..='~' if letter != '"' => letter,
            _ => return Err(cure()),
        });
    }
    Ok(key)
}

fn property(headers: &HeaderMap, name: &str) -> Result<Option<Name>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = submission::name(text(name, value)?);
    value.map(Some).map_err(|cure| Problem::malformed(name, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<Submission, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            map.append(*name, value);
        }
        submission(&map, &Rules::default())
    }

    #[track_caller]
    fn check_refused(headers: &[(&'static str, &str)], detail: &str) {
        let found = read(headers).expect_err("refused").detail.expect("said");
        assert!(found.starts_with(detail), "{found}");
    }

    #[test]
    fn headers_say_what_a_job_is() {
        let found = read(&[
            ("job-type", "welcome"),
            ("job-attempts", "5"),
            ("idempotency-key", "\"order-17\""),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("user-agent", "curl"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ])
        .expect("good");
        assert_eq!(found.id.as_deref(), Some("order-17"));
        assert_eq!((found.kind.as_deref(), found.attempts), (Some("welcome"), Some(5)));
        assert_eq!(found.content_type.as_deref(), Some("application/json"));
        assert_eq!(found.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(found.tracestate.as_deref(), Some("a=1,b=2"));
        assert_eq!(read(&[]).expect("nothing said"), Submission::default());
    }

    #[test]
    fn texts_may_be_of_any_language() {
        let found = read(&[("job-key", "Zürich")]).expect("UTF-8");
        assert_eq!(found.key.as_deref(), Some("Zürich"));
    }

    #[test]
    fn unknown_headers_of_jobs_are_refused() {
        check_refused(&[("job-prority", "1")], "job-prority: not known; there are Job-Id, ");
        check_refused(&[("job-attempt", "1")], "job-attempt: the server says this");
        check_refused(&[("job-lease-until", "x")], "job-lease-until: the server says this");
    }

    #[test]
    fn id_and_key_say_the_same_or_one_of_them_nothing() {
        assert!(read(&[("job-id", "a"), ("idempotency-key", "\"a\"")]).is_ok());
        check_refused(&[("job-id", "a"), ("idempotency-key", "\"b\"")], "Idempotency-Key: Job-Id");
        check_refused(&[("job-id", "a"), ("job-id", "b")], "Job-Id: Job-Id says something else");
    }

    #[test]
    fn a_key_is_a_text_in_quotes() {
        let key = |it: &str| read(&[("idempotency-key", it)]).map(|it| it.id);
        assert_eq!(key("\"a b\\\"c\\\\\""), Ok(Some(Name::new("a b\"c\\"))));
        for bad in ["a", "\"a", "a\"", "\"", "\"a\"b\"", "\"\\a\"", "\"\\\"", "\"é\"", "\"\""] {
            check_refused(&[("idempotency-key", bad)], "Idempotency-Key: a text");
        }
    }

    #[test]
    fn an_event_in_headers_is_whole_and_agrees_with_the_rest() {
        let event = [
            ("ce-specversion", "1.0"),
            ("ce-id", "e1"),
            ("ce-source", "/s"),
            ("ce-type", "send"),
            ("ce-jobpriority", "3"),
        ];
        let found = read(&event).expect("whole");
        assert_eq!((found.id.as_deref(), found.priority), (Some("e1"), Some(3)));
        check_refused(&event[..3], "ce-type: every CloudEvent");
        let both = [&event[..], &[("job-id", "other")]].concat();
        let detail = read(&both).expect_err("two ids").detail.expect("said");
        assert!(detail.contains("says something else"), "{detail}");
    }
}
