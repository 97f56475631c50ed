//! A worker over HTTP: it takes a job, says how far it is, and ends its attempt.

use crate::{
    address, answer,
    moment::Written,
    problem::{self, Problem, ProblemType},
    submission::{self, FIELDS, Field},
    visit::{Api, unexpected},
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use model::{
    Message, Name, Timestamp, Value,
    job::{JobAnswer, JobAsk, JobResult, JobVerdict, JobView, Progress},
    properties::Properties,
};
use serde::Deserialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Even who does not wait is given the time that a ready job takes to come.
const GRACE: Duration = Duration::from_millis(100);
/// The longest extension: a day.
const EXTEND_S_MAX: u64 = 86_400;
/// Octets of a worker's note.
const NOTE_BYTES_MAX: usize = 1_000;

/// `POST /v1/queues/{queue}/leases`
pub(crate) async fn acquire(
    api: Arc<Api>,
    parts: Parts,
    queue: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &[]).await?;
    let queue = submission::name(&queue).map_err(|it| Problem::malformed("queue", it))?;
    let worker = Name::from(visit.from.to_string());
    let longest = visit.prefer.wait().unwrap_or(GRACE).max(GRACE);
    let response = match visit.wait(JobAsk::Lease { queue, worker }, longest).await? {
        None => answer::empty(StatusCode::NO_CONTENT),
        Some(JobAnswer::Leased { token, view, message, until }) => {
            leased(&token, &view, &message, until)
        }
        Some(other) => return Err(unexpected(&other)),
    };
    Ok(crate::jobs::applied(response, &visit))
}

/// The job as its worker sees it: the payload as it came, and everything else in headers.
fn leased(token: &str, view: &JobView, message: &Message, until: Timestamp) -> Response {
    let properties = Properties::decode(message.properties()).unwrap_or_default();
    let content_type = properties.content_type.as_deref();
    let encoding = properties.content_encoding.as_deref();
    let mut response = answer::payload(body_of(message), content_type, encoding);
    answer::put(&mut response, header::LOCATION, &address::lease(token));
    let mut say = |name: &str, text: &str| {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            answer::put(&mut response, name, text);
        }
    };
    say("Job-Lease-Until", &Written(until).to_string());
    say("Job-Attempt", &view.attempt.to_string());
    for (field, name, _) in FIELDS {
        if let Some(text) = told(*field, view, &properties) {
            say(name, &text);
        }
    }
    for name in ["traceparent", "tracestate"] {
        let headers = properties.headers.as_ref();
        if let Some(text) = headers.and_then(|it| it.get(name)?.as_text()) {
            say(name, text);
        }
    }
    response
}

/// The whole body in one piece: shared with the broker where it is one already.
fn body_of(message: &Message) -> Bytes {
    let mut parts = message.shared_body_parts();
    match (parts.next(), parts.next()) {
        (Some(only), None) => only,
        (None, _) => Bytes::new(),
        _ => Bytes::from(message.body()),
    }
}

/// What a worker is told of a field.
fn told(field: Field, view: &JobView, properties: &Properties) -> Option<String> {
    let header = |name: &str| properties.headers.as_ref()?.get(name);
    let text = |name: &str| header(name)?.as_text().map(ToOwned::to_owned);
    let time = |it: Timestamp| Written(it).to_string();
    match field {
        Field::Id => Some(view.id.to_string()),
        Field::Type => view.kind.as_ref().map(ToString::to_string),
        Field::Priority => Some(view.priority.to_string()),
        Field::Expires => view.expires.map(time),
        Field::Key => view.key.as_ref().map(ToString::to_string),
        Field::Cost => match header("x-cost")? {
            Value::F64(it) => Some(it.to_string()),
            other => other.as_integer().map(|it| it.to_string()),
        },
        Field::Deadline => match header("x-deadline")? {
            Value::Timestamp(it) => Some(time(Timestamp(it.saturating_mul(1_000)))),
            _ => None,
        },
        Field::Unique => text("x-unique"),
        Field::After => {
            let ids: Vec<&str> = view.parents.iter().map(|it| &**it).collect();
            (!ids.is_empty()).then(|| ids.join(","))
        }
        Field::Attempts => Some(view.attempts_max.to_string()),
        // What was to happen before it started, and what happens behind its end.
        Field::At | Field::AfterOn | Field::Callback => None,
    }
}

fn token(text: &str) -> Result<Name, Problem> {
    submission::name(text).map_err(|_| Problem::stale_lease())
}

/// `PUT /v1/leases/{token}/result`
pub(crate) async fn complete(
    api: Arc<Api>,
    parts: Parts,
    body: Body,
    lease: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &[]).await?;
    let token = token(&lease)?;
    let property = |name: HeaderName| {
        let value = parts.headers.get(&name).and_then(|it| it.to_str().ok());
        let checked = value.map(submission::name).transpose();
        checked.map_err(|it| Problem::malformed(name.as_str(), it))
    };
    let content_type = property(header::CONTENT_TYPE)?;
    let content_encoding = property(header::CONTENT_ENCODING)?;
    let received = visit.receive(body).await?;
    let body = received.octets.clone();
    let verdict = verdict(&parts.headers, content_type.as_deref(), &body, visit.api.now())?;
    let result = JobResult { content_type, content_encoding, body };
    match visit.answer(JobAsk::Complete { token, verdict, result }).await? {
        JobAnswer::Ended(_) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        other => Err(unexpected(&other)),
    }
}

/// How the attempt ends: a problem document rejects, everything else fulfils.
fn verdict(
    headers: &HeaderMap,
    content_type: Option<&str>,
    body: &[u8],
    now: Timestamp,
) -> Result<JobVerdict, Problem> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        retryable: bool,
    }
    let essence = content_type.and_then(|it| it.split(';').next()).unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case(problem::CONTENT_TYPE) {
        return Ok(JobVerdict::Fulfilled);
    }
    let retry_after_ms = match headers.get(header::RETRY_AFTER) {
        None => None,
        Some(it) => {
            Some(it.to_str().ok().and_then(|it| retry_after_ms(it, now)).ok_or_else(|| {
                Problem::malformed("Retry-After", "seconds, or a date as HTTP writes it")
            })?)
        }
    };
    let said: Option<Said> = serde_json::from_slice(body).ok();
    let retryable = retry_after_ms.is_some() || said.is_some_and(|it| it.retryable);
    Ok(JobVerdict::Rejected { retryable, retry_after_ms })
}

/// `Retry-After`: seconds, or a date.
fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u64::MAX).saturating_mul(1_000));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let date = u64::try_from(date.as_millisecond()).unwrap_or(0);
    Some(date.saturating_sub(now.0))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    seconds: Option<u64>,
    progress: Option<u8>,
    note: Option<String>,
}

/// `POST /v1/leases/{token}/extend`
pub(crate) async fn extend(
    api: Arc<Api>,
    parts: Parts,
    body: Body,
    lease: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &[]).await?;
    let token = token(&lease)?;
    let shape = r#"{"seconds": 60, "progress": 40, "note": "page 4"}"#;
    let said = visit.receive_json(&parts, body, &["application/json"], shape).await?;
    let said: Extension = said.unwrap_or_default();
    if said.seconds.is_some_and(|it| !(1..=EXTEND_S_MAX).contains(&it)) {
        return Err(Problem::malformed("seconds", format_args!("1 to {EXTEND_S_MAX}")));
    }
    if said.progress.is_some_and(|it| 100 < it) {
        return Err(Problem::malformed("progress", "percent, 0 to 100"));
    }
    if said.note.as_ref().is_some_and(|it| NOTE_BYTES_MAX < it.len()) {
        return Err(Problem::malformed("note", format_args!("at most {NOTE_BYTES_MAX} octets")));
    }
    let by_ms = said.seconds.map(|it| it * 1_000);
    let progress = (said.progress.is_some() || said.note.is_some())
        .then(|| Progress { percent: said.progress, note: said.note.map(Into::into) });
    match visit.answer(JobAsk::Extend { token, by_ms, progress }).await? {
        JobAnswer::Extended { cancel_requested: true, .. } => {
            let detail = "the job is no longer wanted; end or release it";
            Err(Problem::new(ProblemType::Cancelled).detail(detail))
        }
        JobAnswer::Extended { until, .. } => {
            let until = until.map(|it| Written(it).to_string());
            Ok(answer::json(StatusCode::OK, &json!({ "until": until })))
        }
        other => Err(unexpected(&other)),
    }
}

/// `DELETE /v1/leases/{token}`
pub(crate) async fn release(
    api: Arc<Api>,
    parts: Parts,
    lease: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &[]).await?;
    let token = token(&lease)?;
    match visit.answer(JobAsk::Release { token }).await? {
        JobAnswer::Ended(_) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        other => Err(unexpected(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(784_111_777_000);

    #[track_caller]
    fn check(content_type: &str, after: Option<&str>, body: &str, expected: JobVerdict) {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, after.parse().expect("a value"));
        }
        let found = verdict(&headers, Some(content_type), body.as_bytes(), NOW);
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn a_problem_document_rejects_and_anything_else_fulfils() {
        let rejected =
            |retryable, retry_after_ms| JobVerdict::Rejected { retryable, retry_after_ms };
        let problem = "application/problem+json";
        check("application/json", Some("5"), r#"{"retryable":true}"#, JobVerdict::Fulfilled);
        check(problem, None, r#"{"title":"no"}"#, rejected(false, None));
        check("Application/Problem+JSON; a=b", None, "", rejected(false, None));
        check(problem, None, r#"{"retryable":true}"#, rejected(true, None));
        check(problem, None, r#"{"retryable":"true"}"#, rejected(false, None));
        check(problem, Some("5"), "", rejected(true, Some(5_000)));
        check(problem, Some("Sun, 06 Nov 1994 08:49:47 GMT"), "", rejected(true, Some(10_000)));
        check(problem, Some("Sun, 06 Nov 1994 08:49:00 GMT"), "", rejected(true, Some(0)));
    }

    #[test]
    fn a_retry_after_that_means_nothing_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "soon".parse().expect("a value"));
        let found = verdict(&headers, Some("application/problem+json"), b"", NOW);
        assert_eq!(found.expect_err("refused").status(), 400);
    }
}
