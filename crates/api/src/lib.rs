//! Jobs over HTTP: what a request under `/v1` means, and how an answer is written.

pub mod moment;
pub mod prefer;
pub mod problem;
pub mod destination;
pub mod signature;
pub mod submission;
pub mod cloud_event;
pub mod request_headers;
pub mod address;
pub mod job_json;
pub mod event_stream;
pub mod schedule;
pub mod outgoing;
pub mod door;
pub mod query;
pub mod credentials;
pub mod refusal;
pub mod answer;
pub mod body;
pub mod visit;
mod jobs;
mod submit;
mod leases;
pub mod openapi;
pub mod router;
