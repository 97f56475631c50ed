//! The description of `/v1` for programs (OpenAPI 3.1), made from one table of its operations, from
//! the table of a job's fields and from the types of problems.

use crate::{
    problem::{self, ProblemType},
    submission::{FIELDS, Field},
};
use serde_json::{Map, Value, json};

/// What a request carries or an answer brings.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Job,
    JobList,
    /// Octets of the client or the worker, of any type.
    Payload,
    Change,
    Extension,
    LeaseEnd,
    Description,
}

/// One request and its good answers.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    headers: &'static [&'static str],
    request: Content,
    answers: &'static [(&'static str, &'static str, Content)],
}

const WAIT: &[&str] = &["Prefer"];
const NONE: &[&str] = &[];
const QUEUE: &[&str] = &["queue"];

/// Stands for all headers that say something about a job.
const JOB_HEADERS: &str = "Job-*";

const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/queues/{queue}/jobs",
        id: "submitJob",
        summary: "Submit one job, or, as a batch or lines of CloudEvents, many.",
        query: NONE,
        headers: &["Prefer", "Idempotency-Key", JOB_HEADERS],
        request: Content::Payload,
        answers: &[
            ("200", "The result that was waited for, or one line per job.", Content::Payload),
            ("202", "Accepted; Location says where to look.", Content::Job),
        ],
    },
    Operation {
        method: "get",
        path: "/v1/jobs",
        id: "listJobs",
        summary: "The jobs of a queue, page by page.",
        query: &["queue", "state", "type", "key", "after", "limit"],
        headers: NONE,
        request: Content::Nothing,
        answers: &[("200", "One page.", Content::JobList)],
    },
    Operation {
        method: "get",
        path: "/v1/jobs/{id}",
        id: "getJob",
        summary: "A job as it is, or as soon as it is settled or differs from a known tag.",
        query: QUEUE,
        headers: &["Prefer", "If-None-Match"],
        request: Content::Nothing,
        answers: &[
            ("200", "The job; ETag is its tag.", Content::Job),
            ("304", "Nothing has changed.", Content::Nothing),
        ],
    },
    Operation {
        method: "patch",
        path: "/v1/jobs/{id}",
        id: "changeJob",
        summary: "Change priority or time of a job that does not run yet.",
        query: QUEUE,
        headers: NONE,
        request: Content::Change,
        answers: &[("200", "The changed job.", Content::Job)],
    },
    Operation {
        method: "delete",
        path: "/v1/jobs/{id}",
        id: "cancelJob",
        summary: "Cancel a job; of a running one, ask for it.",
        query: QUEUE,
        headers: NONE,
        request: Content::Nothing,
        answers: &[
            ("202", "It runs; its worker will be told.", Content::Job),
            ("204", "Cancelled.", Content::Nothing),
        ],
    },
    Operation {
        method: "get",
        path: "/v1/jobs/{id}/result",
        id: "getResult",
        summary: "What the worker has answered; a problem, when the job was rejected.",
        query: QUEUE,
        headers: WAIT,
        request: Content::Nothing,
        answers: &[
            ("200", "The worker's octets and media type.", Content::Payload),
            ("202", "Not settled yet.", Content::Job),
        ],
    },
    Operation {
        method: "post",
        path: "/v1/jobs/{id}/retry",
        id: "retryJob",
        summary: "Begin a settled job anew.",
        query: QUEUE,
        headers: NONE,
        request: Content::Nothing,
        answers: &[("202", "The job in its new generation.", Content::Job)],
    },
    Operation {
        method: "post",
        path: "/v1/queues/{queue}/leases",
        id: "leaseJob",
        summary: "Take the next job, or wait for one.",
        query: NONE,
        headers: WAIT,
        request: Content::Nothing,
        answers: &[
            ("200", "The payload; Job-* headers; Location is the lease.", Content::Payload),
            ("204", "None came in time.", Content::Nothing),
        ],
    },
    Operation {
        method: "put",
        path: "/v1/leases/{token}/result",
        id: "completeLease",
        summary: "End the attempt: a problem document rejects, anything else fulfils.",
        query: NONE,
        headers: &["Retry-After"],
        request: Content::Payload,
        answers: &[("204", "Kept.", Content::Nothing)],
    },
    Operation {
        method: "post",
        path: "/v1/leases/{token}/extend",
        id: "extendLease",
        summary: "Work longer, and say how far it is.",
        query: NONE,
        headers: NONE,
        request: Content::Extension,
        answers: &[("200", "The new end.", Content::LeaseEnd)],
    },
    Operation {
        method: "delete",
        path: "/v1/leases/{token}",
        id: "releaseLease",
        summary: "Give the job back; the attempt does not count.",
        query: NONE,
        headers: NONE,
        request: Content::Nothing,
        answers: &[("204", "Given back.", Content::Nothing)],
    },
    Operation {
        method: "get",
        path: DESCRIPTION_PATH,
        id: "describe",
        summary: "This description.",
        query: NONE,
        headers: NONE,
        request: Content::Nothing,
        answers: &[("200", "OpenAPI 3.1.", Content::Description)],
    },
];

/// Where the description is.
pub const DESCRIPTION_PATH: &str = "/v1/openapi.json";

/// Methods and paths, for who checks that they are what the router knows.
pub fn operations() -> impl Iterator<Item = (String, &'static str)> {
    OPERATIONS.iter().map(|it| (it.method.to_ascii_uppercase(), it.path))
}

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "FerryMQ jobs",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "security": [{ "basic": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "basic": { "type": "http", "scheme": "basic" } },
            "schemas": { "Job": job_schema(), "Problem": problem_schema() },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut answers: Map<String, Value> = operation
        .answers
        .iter()
        .map(|(status, text, content)| {
            let mut answer = json!({ "description": text });
            if let Some(it) = schema(*content) {
                answer["content"] = it;
            }
            ((*status).to_owned(), answer)
        })
        .collect();
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    let content = json!({ problem::CONTENT_TYPE: { "schema": problem } });
    answers
        .insert("default".to_owned(), json!({ "description": "A problem.", "content": content }));
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": answers,
    });
    if let Some(it) = schema(operation.request) {
        described["requestBody"] = json!({ "content": it });
    }
    if matches!(operation.answers[0].2, Content::Description) {
        described["security"] = json!([]);
    }
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let text = json!({ "type": "string" });
    let parameter = |place: &str, name: &str, required: bool| {
        let mut parameter = json!({ "name": name, "in": place, "schema": text });
        parameter["required"] = required.into();
        parameter
    };
    let in_path = operation
        .path
        .split('/')
        .filter_map(|it| it.strip_prefix('{').and_then(|it| it.strip_suffix('}')));
    let mut found: Vec<Value> = in_path.map(|it| parameter("path", it, true)).collect();
    if operation.path != DESCRIPTION_PATH {
        found.push(parameter("query", "vhost", false));
    }
    let is_list = operation.path == "/v1/jobs";
    let in_query = operation.query.iter();
    found.extend(in_query.map(|it| parameter("query", it, is_list && *it == "queue")));
    for name in operation.headers {
        match *name {
            JOB_HEADERS => found.extend(FIELDS.iter().map(|(field, name, _)| {
                json!({ "name": name, "in": "header", "required": false, "schema": text,
                        "description": meaning(*field) })
            })),
            name => found.push(parameter("header", name, false)),
        }
    }
    found
}

/// What a client says with a field.
fn meaning(field: Field) -> &'static str {
    match field {
        Field::Id => "The id of the job; the same again is the same job.",
        Field::Type => "What kind of work it is.",
        Field::Priority => "0 to 255; higher ones come first.",
        Field::Expires => "Not to be started after this time.",
        Field::At => "Not to be started before this time.",
        Field::Key => "Whose job it is, for fairness and limits.",
        Field::Cost => "Expected seconds of work.",
        Field::Deadline => "When it should be done.",
        Field::Unique => "At most one pending job of the queue has this.",
        Field::After => "Ids of jobs that it comes after, with commas between them.",
        Field::AfterOn => "succeeded or done: how those have to end.",
        Field::Callback => "Where its end is told.",
        Field::Attempts => "How often it may be tried, the first time included.",
    }
}

fn schema(content: Content) -> Option<Value> {
    let job = || json!({ "$ref": "#/components/schemas/Job" });
    let object = |properties: Value| {
        let mut object = json!({ "type": "object", "additionalProperties": false });
        object["properties"] = properties;
        object
    };
    let (media_type, schema) = match content {
        Content::Nothing => return None,
        Content::Job => ("application/json", job()),
        Content::JobList => {
            let next = json!({ "type": ["string", "null"] });
            let jobs = json!({ "type": "array", "items": job() });
            ("application/json", object(json!({ "jobs": jobs, "next": next })))
        }
        Content::Payload => ("*/*", json!({})),
        Content::Change => {
            let priority = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
            let at = json!({ "type": "string" });
            ("application/json", object(json!({ "priority": priority, "at": at })))
        }
        Content::Extension => {
            let seconds = json!({ "type": "integer", "minimum": 1, "maximum": 86_400 });
            let progress = json!({ "type": "integer", "minimum": 0, "maximum": 100 });
            let note = json!({ "type": "string", "maxLength": 1_000 });
            let properties = json!({ "seconds": seconds, "progress": progress, "note": note });
            ("application/json", object(properties))
        }
        Content::LeaseEnd => {
            let until = json!({ "type": ["string", "null"], "format": "date-time" });
            ("application/json", object(json!({ "until": until })))
        }
        Content::Description => ("application/json", json!({ "type": "object" })),
    };
    Some(json!({ media_type: { "schema": schema } }))
}

fn job_schema() -> Value {
    let text = json!({ "type": "string" });
    let text_or_null = json!({ "type": ["string", "null"] });
    let number = json!({ "type": "integer", "minimum": 0 });
    let time = json!({ "type": ["string", "null"], "format": "date-time" });
    let object = json!({ "type": "object" });
    let object_or_null = json!({ "type": ["object", "null"] });
    let states: Vec<&str> = model::job::State::ALL.iter().map(|it| it.name()).collect();
    let properties = json!({
        "id": text, "vhost": text, "queue": text, "type": text_or_null, "key": text_or_null,
        "state": { "enum": states },
        "promise": { "enum": ["pending", "fulfilled", "rejected"] },
        "attempt": number, "max_attempts": number, "generation": number, "priority": number,
        "created_at": time, "at": time, "started_at": time, "finished_at": time,
        "expires_at": time, "times_ms": object, "lease": object_or_null,
        "progress": object_or_null, "cancel_requested": { "type": "boolean" },
        "result": object_or_null,
        "problem": { "anyOf": [{ "$ref": "#/components/schemas/Problem" }, { "type": "null" }] },
        "after": { "type": "array", "items": text },
        "traceparent": text_or_null, "links": object,
    });
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn problem_schema() -> Value {
    let text = json!({ "type": "string" });
    let addresses: Vec<String> = ProblemType::ALL.iter().map(|it| it.address()).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": { "enum": addresses }, "title": text, "status": { "type": "integer" },
            "detail": text, "hint": text, "instance": text,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_operation_has_an_id_of_its_own_and_says_what_may_go_wrong() {
        let document = document();
        let mut ids = HashSet::new();
        for (method, path) in operations() {
            let operation = &document["paths"][path][method.to_ascii_lowercase()];
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()));
            assert!(operation["responses"]["default"].is_object());
            for name in path.split('/').filter_map(|it| it.strip_prefix('{')) {
                let name = name.trim_end_matches('}');
                let mut all = operation["parameters"].as_array().expect("a list").iter();
                assert!(all.any(|it| it["name"] == name && it["required"] == true), "{path}");
            }
        }
        assert_eq!(ids.len(), OPERATIONS.len());
    }

    #[test]
    fn every_field_of_a_job_is_a_header_of_its_submission() {
        let submit = &document()["paths"]["/v1/queues/{queue}/jobs"]["post"]["parameters"];
        let names: Vec<&str> = submit
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|it| it["name"].as_str())
            .collect();
        for (_, name, _) in FIELDS {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().expect("an end");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
