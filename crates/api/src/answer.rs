//! Answers: their bodies, types and the headers that keep browsers from doing more with them than
//! showing them.

use crate::{
    credentials,
    problem::{self, Problem, ProblemType},
};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::job::JobResult;
use serde_json::Value;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Whatever a worker or a client has sent must not act as a page of this server.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// A header's value from text; nothing where the text cannot be one.
pub fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// Adds a header whose value can be one.
pub fn put(response: &mut Response, name: header::HeaderName, text: &str) {
    if let Some(it) = value(text) {
        response.headers_mut().insert(name, it);
    }
}

fn guarded(status: StatusCode, content_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    guard(headers);
    response
}

fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

pub fn json(status: StatusCode, json: &Value) -> Response {
    guarded(status, JSON, json.to_string())
}

/// Lines of JSON.
pub fn lines(lines: String) -> Response {
    guarded(StatusCode::OK, HeaderValue::from_static("application/x-ndjson"), lines)
}

pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    guard(response.headers_mut());
    response
}

/// Octets of a client, as they came.
pub fn payload(body: Bytes, content_type: Option<&str>, encoding: Option<&str>) -> Response {
    let content_type = content_type.and_then(value).unwrap_or(OCTETS);
    let mut response = guarded(StatusCode::OK, content_type, body);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    if let Some(it) = encoding.and_then(value) {
        response.headers_mut().insert(header::CONTENT_ENCODING, it);
    }
    response
}

/// A worker's result.
pub fn result(result: JobResult) -> Response {
    let JobResult { content_type, content_encoding, body } = result;
    payload(body, content_type.as_deref(), content_encoding.as_deref())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).expect("types have statuses of HTTP");
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        let mut response = guarded(status, content_type, self.json().to_string());
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == ProblemType::Unauthorized {
            let challenge = HeaderValue::from_static(credentials::CHALLENGE);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
