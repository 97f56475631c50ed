//! `POST /v1/queues/{queue}/jobs`: one job, or many.

use crate::{
    address::JobAddress,
    answer,
    cloud_event::{self, BodyKind, Event},
    jobs::{self, Target},
    problem::{Problem, ProblemType},
    request_headers, submission,
    visit::{Api, Visit, unexpected},
};
use axum::{body::Body, response::Response};
use http::{StatusCode, header, request::Parts};
use model::{
    Facts, Message, Name,
    job::{Admission, JobAnswer, JobAsk, JobView},
};
use serde_json::json;
use std::{collections::VecDeque, sync::Arc};

/// Jobs of one request that are asked for without waiting for the answers of those before.
const WINDOW: usize = 256;

pub(crate) async fn submit(
    api: Arc<Api>,
    parts: Parts,
    body: Body,
    queue: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &[]).await?;
    let queue = submission::name(&queue).map_err(|it| Problem::malformed("queue", it))?;
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    match BodyKind::of(content_type) {
        BodyKind::Payload => one(&visit, &parts, body, queue).await,
        kind => many(&visit, &parts, body, queue, kind).await,
    }
}

/// Asks for one job.
fn ask(visit: &Visit, queue: &Name, event: &Event) -> Result<JobAsk, Problem> {
    let (submission, payload) = event;
    let properties = submission.properties(visit.api.now()).encoded();
    if let Err(error) = Facts::parse(&properties) {
        return Err(Problem::malformed("headers", error));
    }
    let message = Arc::new(Message::new("", queue, &properties, payload));
    Ok(JobAsk::Submit { queue: queue.clone(), message })
}

fn conflict(view: &JobView, address: JobAddress<'_>) -> Problem {
    Problem::new(ProblemType::IdempotencyKeyReused)
        .detail("a job of this id has another payload")
        .instance(address.of(""))
        .member("id", &*view.id)
}

async fn one(visit: &Visit, parts: &Parts, body: Body, queue: Name) -> Result<Response, Problem> {
    let submission = request_headers::submission(&parts.headers, &visit.api.settings.rules)?;
    let received = visit.receive(body).await?;
    let ask = ask(visit, &queue, &(submission, received.octets.clone()))?;
    drop(received);
    let (admission, view) = match visit.answer(ask).await? {
        JobAnswer::Submitted { admission, view } => (admission, view),
        other => return Err(unexpected(&other)),
    };
    let address = JobAddress { vhost: &visit.vhost, queue: None, id: &view.id };
    match admission {
        Admission::Conflict => Err(conflict(&view, address)),
        Admission::UniqueHolder => {
            let mut response = jobs::job(StatusCode::OK, &view, address);
            answer::put(&mut response, header::CONTENT_LOCATION, &address.of(""));
            Ok(response)
        }
        Admission::New | Admission::Duplicate => accepted(visit, queue, &view).await,
    }
}

/// The result, if the client waits and it comes in time; otherwise where to look for it.
async fn accepted(visit: &Visit, queue: Name, view: &JobView) -> Result<Response, Problem> {
    let target = Target { queue: Some(queue), id: view.id.clone() };
    let address = JobAddress { vhost: &visit.vhost, queue: None, id: &view.id };
    if let Some(longest) = visit.prefer.wait()
        && jobs::wait_settled(visit, &target, longest).await?.is_some()
    {
        let mut response = jobs::fetch(visit, &target).await?;
        answer::put(&mut response, header::CONTENT_LOCATION, &address.of("/result"));
        return Ok(jobs::applied(response, visit));
    }
    let mut response = jobs::job(StatusCode::ACCEPTED, view, address);
    answer::put(&mut response, header::LOCATION, &address.of(""));
    if visit.prefer.respond_async && visit.prefer.wait().is_none() {
        let name = header::HeaderName::from_static("preference-applied");
        answer::put(&mut response, name, "respond-async");
    }
    Ok(response)
}

async fn many(
    visit: &Visit,
    parts: &Parts,
    body: Body,
    queue: Name,
    kind: BodyKind,
) -> Result<Response, Problem> {
    let says = |it: &&http::HeaderName| {
        let name = it.as_str();
        name.starts_with("job-") || name.starts_with("ce-") || name == "idempotency-key"
    };
    if let Some(name) = parts.headers.keys().find(says) {
        let cure = "says nothing about many jobs; each event says it itself";
        return Err(Problem::malformed(name.as_str(), cure));
    }
    let received = visit.receive(body).await?;
    let events = cloud_event::events(kind, &received.octets, &visit.api.settings.rules)?;
    let mut lines = String::new();
    let mut asked = VecDeque::with_capacity(WINDOW);
    for event in events {
        if asked.len() == WINDOW
            && let Some(first) = asked.pop_front()
        {
            line(visit, first, &mut lines).await;
        }
        asked.push_back(event.and_then(|it| Ok(visit.ask(ask(visit, &queue, &it)?))));
    }
    for it in asked {
        line(visit, it, &mut lines).await;
    }
    Ok(answer::lines(lines))
}

/// Writes what became of one of many.
async fn line(
    visit: &Visit,
    asked: Result<impl Future<Output = Result<JobAnswer, Problem>>, Problem>,
    lines: &mut String,
) {
    let answer = match asked {
        Ok(answer) => answer.await,
        Err(problem) => Err(problem),
    };
    let id = answer.and_then(|it| match it {
        JobAnswer::Submitted { admission: Admission::Conflict, view } => {
            let address = JobAddress { vhost: &visit.vhost, queue: None, id: &view.id };
            Err(conflict(&view, address))
        }
        JobAnswer::Submitted { view, .. } => Ok(view.id),
        other => Err(unexpected(&other)),
    });
    let json = id.map_or_else(|problem| problem.json(), |id| json!({ "id": &*id }));
    lines.push_str(&json.to_string());
    lines.push('\n');
}
