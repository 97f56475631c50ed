//! One job: to look at it, to wait for it, to fetch its result, to change it, to list many.

use crate::{
    address::JobAddress,
    answer, job_json,
    moment::Moment,
    problem::{Problem, ProblemType},
    visit::{Api, Visit, unexpected},
};
use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header, request::Parts};
use model::{
    Name,
    job::{JobAnswer, JobAsk, JobFilter, JobResult, JobView, Promise, State, Until},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Who polls for a result comes again after this, where nobody can tell him better.
const POLL_AGAIN_S: u32 = 1;
/// Jobs of one page of a list.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 500;

/// Which job a request is about.
pub(crate) struct Target {
    pub(crate) queue: Option<Name>,
    pub(crate) id: Name,
}

impl Target {
    /// # Errors
    /// No job can be called so.
    pub(crate) fn of(visit: &Visit, id: &str) -> Result<Self, Problem> {
        let name = |it: &str| crate::submission::name(it);
        let id = name(id).map_err(|it| Problem::malformed("id", it))?;
        let queue = visit.query.get("queue").map(name).transpose();
        let queue = queue.map_err(|it| Problem::malformed("?queue", it))?;
        Ok(Self { queue, id })
    }

    pub(crate) fn address<'a>(&'a self, visit: &'a Visit) -> JobAddress<'a> {
        JobAddress { vhost: &visit.vhost, queue: self.queue.as_deref(), id: &self.id }
    }

    fn look(&self) -> JobAsk {
        JobAsk::Look { queue: self.queue.clone(), id: self.id.clone() }
    }

    fn until(&self, until: Until) -> JobAsk {
        JobAsk::Wait { queue: self.queue.clone(), id: self.id.clone(), until }
    }
}

pub(crate) fn view_of(answer: JobAnswer) -> Result<JobView, Problem> {
    match answer {
        JobAnswer::Job(view) | JobAnswer::Ended(view) => Ok(*view),
        other => Err(unexpected(&other)),
    }
}

/// The job in JSON, with its tag.
pub(crate) fn job(status: StatusCode, view: &JobView, address: JobAddress<'_>) -> Response {
    let mut response = answer::json(status, &job_json::job(view, address));
    answer::put(&mut response, header::ETAG, &job_json::tag(view));
    response
}

/// Says that the client was waited for.
pub(crate) fn applied(mut response: Response, visit: &Visit) -> Response {
    if let Some(it) = visit.prefer.wait_applied() {
        answer::put(&mut response, header::HeaderName::from_static("preference-applied"), &it);
    }
    response
}

/// `GET /v1/jobs/{id}`
pub(crate) async fn get(api: Arc<Api>, parts: Parts, id: String) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &["queue"]).await?;
    let target = Target::of(&visit, &id)?;
    let field = parts.headers.get(header::IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let known = field.map(job_json::known_tags);
    let is_known = |view: &JobView| match &known {
        None => false,
        Some(None) => true,
        Some(Some(tags)) => tags.contains(&view.tag),
    };
    let mut view = view_of(visit.answer(target.look()).await?)?;
    if let Some(longest) = visit.prefer.wait() {
        let until = match known {
            None => Some(Until::Settled).filter(|_| !view.state.is_settled()),
            Some(_) => Some(Until::TagDiffers(view.tag)).filter(|_| is_known(&view)),
        };
        if let Some(until) = until {
            view = wait(&visit, &target, until, longest).await?.unwrap_or(view);
        }
    }
    let response = if is_known(&view) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        answer::put(&mut response, header::ETAG, &job_json::tag(&view));
        response
    } else {
        job(StatusCode::OK, &view, target.address(&visit))
    };
    Ok(applied(response, &visit))
}

/// The job as it is when what is waited for has happened; when it has not, as it is by then.
async fn wait(
    visit: &Visit,
    target: &Target,
    until: Until,
    longest: Duration,
) -> Result<Option<JobView>, Problem> {
    match visit.wait(target.until(until), longest).await? {
        Some(answer) => view_of(answer).map(Some),
        None if until == Until::Settled => view_of(visit.answer(target.look()).await?).map(Some),
        None => Ok(None),
    }
}

/// Waits until the job is settled; `None`: not in time.
pub(crate) async fn wait_settled(
    visit: &Visit,
    target: &Target,
    longest: Duration,
) -> Result<Option<JobView>, Problem> {
    let answer = visit.wait(target.until(Until::Settled), longest).await?;
    answer.map(view_of).transpose()
}

/// `GET /v1/jobs/{id}/result`
pub(crate) async fn result(api: Arc<Api>, parts: Parts, id: String) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &["queue"]).await?;
    let target = Target::of(&visit, &id)?;
    if let Some(longest) = visit.prefer.wait() {
        wait_settled(&visit, &target, longest).await?;
    }
    fetch(&visit, &target).await.map(|it| applied(it, &visit))
}

/// The result as it is now.
pub(crate) async fn fetch(visit: &Visit, target: &Target) -> Result<Response, Problem> {
    let ask = JobAsk::Result { queue: target.queue.clone(), id: target.id.clone() };
    let (view, result) = match visit.answer(ask).await? {
        JobAnswer::Result { view, result } => (*view, result),
        other => return Err(unexpected(&other)),
    };
    let address = target.address(visit);
    match view.promise() {
        Promise::Fulfilled => Ok(answer::result(result.unwrap_or_else(JobResult::default))),
        Promise::Pending => {
            let mut response = job(StatusCode::ACCEPTED, &view, address);
            response.headers_mut().insert(header::RETRY_AFTER, POLL_AGAIN_S.into());
            Ok(response)
        }
        Promise::Rejected => Err(job_json::rejection(&view, address)
            .unwrap_or_else(|| Problem::new(ProblemType::Refused))),
    }
}

/// `DELETE /v1/jobs/{id}`
pub(crate) async fn cancel(api: Arc<Api>, parts: Parts, id: String) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &["queue"]).await?;
    let target = Target::of(&visit, &id)?;
    let ask = JobAsk::Cancel { queue: target.queue.clone(), id: target.id.clone() };
    let answered = visit.answer(ask).await;
    // Who asks for what is so already has what he wants.
    let is_cancelled = |it: &Problem| {
        let state = it.members.iter().find(|it| it.0 == "state").map(|it| &it.1);
        it.kind == ProblemType::AlreadySettled && state == Some(&json!(State::Cancelled.name()))
    };
    let view = match answered {
        Err(problem) if is_cancelled(&problem) => {
            return Ok(answer::empty(StatusCode::NO_CONTENT));
        }
        other => view_of(other?)?,
    };
    Ok(match view.state {
        State::Running => job(StatusCode::ACCEPTED, &view, target.address(&visit)),
        _ => answer::empty(StatusCode::NO_CONTENT),
    })
}

/// `POST /v1/jobs/{id}/retry`
pub(crate) async fn retry(api: Arc<Api>, parts: Parts, id: String) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &["queue"]).await?;
    let target = Target::of(&visit, &id)?;
    let ask = JobAsk::Retry { queue: target.queue.clone(), id: target.id.clone() };
    let view = view_of(visit.answer(ask).await?)?;
    let address = target.address(&visit);
    let mut response = job(StatusCode::ACCEPTED, &view, address);
    answer::put(&mut response, header::LOCATION, &address.of(""));
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    priority: Option<u8>,
    at: Option<String>,
}

/// `PATCH /v1/jobs/{id}`
pub(crate) async fn patch(
    api: Arc<Api>,
    parts: Parts,
    body: Body,
    id: String,
) -> Result<Response, Problem> {
    let visit = api.visit(&parts, &["queue"]).await?;
    let target = Target::of(&visit, &id)?;
    let shape = r#"{"priority": 0 to 255, "at": a time}"#;
    let media_types = ["application/merge-patch+json", "application/json"];
    let change: Option<Change> = visit.receive_json(&parts, body, &media_types, shape).await?;
    let change = change.filter(|it| it.priority.is_some() || it.at.is_some());
    let change = change.ok_or_else(|| Problem::malformed("body", shape))?;
    let at = change.at.as_deref().map(Moment::parse).transpose();
    let at = at.map_err(|it| Problem::malformed("at", it))?.map(|it| it.from(visit.api.now()));
    let (queue, id) = (target.queue.clone(), target.id.clone());
    let ask = JobAsk::Patch { queue, id, priority: change.priority, at };
    let view = view_of(visit.answer(ask).await?)?;
    Ok(job(StatusCode::OK, &view, target.address(&visit)))
}

/// `GET /v1/jobs`
pub(crate) async fn list(api: Arc<Api>, parts: Parts) -> Result<Response, Problem> {
    let known = ["queue", "state", "type", "key", "after", "limit"];
    let visit = api.visit(&parts, &known).await?;
    let query = &visit.query;
    let queue = query.get("queue").unwrap_or("");
    let queue = crate::submission::name(queue)
        .map_err(|_| Problem::malformed("?queue", "the name of the queue whose jobs are listed"))?;
    let state = query.get("state").map(|wanted| {
        State::ALL.into_iter().find(|it| it.name() == wanted).ok_or_else(|| {
            let names: Vec<&str> = State::ALL.iter().map(|it| it.name()).collect();
            Problem::malformed("?state", format_args!("one of {}", names.join(", ")))
        })
    });
    let cursor = query.get("after").map(|it| {
        it.parse().map_err(|_| Problem::malformed("?after", "what `next` of another page has said"))
    });
    let limit = query.get("limit").map(|it| {
        let number = it.parse().ok().filter(|it| (1..=PAGE_MAX).contains(it));
        number.ok_or_else(|| Problem::malformed("?limit", format_args!("1 to {PAGE_MAX}")))
    });
    let name = |it: &str| query.get(it).map(Name::new);
    let filter = JobFilter { state: state.transpose()?, kind: name("type"), key: name("key") };
    let limit = limit.transpose()?.unwrap_or(PAGE_DEFAULT);
    let ask = JobAsk::List { queue, filter, cursor: cursor.transpose()?, limit };
    let (jobs, next) = match visit.answer(ask).await? {
        JobAnswer::Listed { jobs, next } => (jobs, next),
        other => return Err(unexpected(&other)),
    };
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|it| {
            let queue = Some(&*it.queue);
            job_json::job(it, JobAddress { vhost: &visit.vhost, queue, id: &it.id })
        })
        .collect();
    let next = next.map(|it| it.to_string());
    let mut response = answer::json(StatusCode::OK, &json!({ "jobs": jobs, "next": next }));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Authorization"));
    Ok(response)
}
