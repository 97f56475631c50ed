//! From a request to a session: who asks, in which virtual host, and whether there is room for it.

use crate::{
    address::DEFAULT_VHOST,
    body::{self, Budget, Received},
    credentials,
    destination::Rules,
    door::{Door, JobSession},
    prefer::Prefer,
    problem::{Problem, ProblemType},
    query::Query,
    refusal,
};
use axum::body::Body;
use http::request::Parts;
use model::{
    Timestamp,
    job::{JobAnswer, JobAsk},
    limits,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// What is answered at once has to be answered within this.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Octets of small bodies in JSON.
const JSON_BYTES_MAX: u64 = 64 * 1_024;

/// The address that a request comes from. Whoever accepts connections puts it into the extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What the door is told by the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Octets of the payload of a job.
    pub payload_bytes_max: u64,
    /// Octets of bodies that are being received, of all requests together.
    pub received_bytes_max: u64,
    /// Requests at a time that are being answered.
    pub requests_max: usize,
    /// Requests at a time that wait.
    pub waits_max: usize,
    /// Where callbacks may go.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            payload_bytes_max: limits::MESSAGE_BYTES_DEFAULT,
            received_bytes_max: 64 * 1_024 * 1_024,
            requests_max: 512,
            waits_max: 10_000,
            rules: Rules::default(),
        }
    }
}

/// The HTTP door.
pub struct Api {
    pub(crate) door: Arc<dyn Door>,
    pub(crate) settings: Settings,
    budget: Budget,
    requests: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

impl Api {
    pub fn new(door: Arc<dyn Door>, settings: Settings) -> Self {
        Self {
            budget: Budget::new(settings.received_bytes_max),
            requests: Arc::new(Semaphore::new(settings.requests_max)),
            waits: Arc::new(Semaphore::new(settings.waits_max)),
            door,
            settings,
        }
    }

    /// Lets a request in that may wait as its `Prefer` says; `known` are the names that its query
    /// may have besides `vhost`.
    pub(crate) async fn visit(
        self: &Arc<Self>,
        parts: &Parts,
        known: &[&'static str],
    ) -> Result<Visit, Problem> {
        credentials::check_origin(&parts.headers)?;
        let names = [&["vhost"][..], known].concat();
        let query = Query::parse(parts.uri.query(), &names)?;
        let fields = parts.headers.get_all("prefer").iter().filter_map(|it| it.to_str().ok());
        let prefer = Prefer::parse(fields);
        let room = if prefer.wait().is_some() { &self.waits } else { &self.requests };
        let permit = Arc::clone(room).try_acquire_owned().map_err(|_| {
            Problem::new(ProblemType::Overloaded).detail("too many requests at the same time")
        })?;
        let Some(Peer(from)) = parts.extensions.get().copied() else {
            return Err(Problem::new(ProblemType::Internal).detail("nobody knows where it is from"));
        };
        let credentials = credentials::basic(&parts.headers)?;
        let user = credentials.user.clone();
        self.door.log_in(credentials, from.ip()).await.map_err(refusal::of_login)?;
        let vhost = query.get("vhost").unwrap_or(DEFAULT_VHOST).to_owned();
        let session = self.door.enter(&user, &vhost, from);
        let session = session.map_err(|it| refusal::of_session(&it))?;
        Ok(Visit { api: Arc::clone(self), session, vhost, query, prefer, from, _permit: permit })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.door.now()
    }
}

/// A request that was let in.
pub(crate) struct Visit {
    pub(crate) api: Arc<Api>,
    session: Box<dyn JobSession>,
    pub(crate) vhost: String,
    pub(crate) query: Query,
    pub(crate) prefer: Prefer,
    pub(crate) from: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Visit {
    /// Asks at once; the future is the answer.
    pub(crate) fn ask(
        &self,
        ask: JobAsk,
    ) -> impl Future<Output = Result<JobAnswer, Problem>> + Send + use<> {
        let (answer, vhost) = (self.session.ask(ask), self.vhost.clone());
        async move {
            match answer.await {
                Ok(JobAnswer::Refused(it)) => Err(refusal::of_job(&it, &vhost)),
                Ok(it) => Ok(it),
                Err(it) => Err(refusal::of_session(&it)),
            }
        }
    }

    /// Asks what is answered without waiting for anything to happen.
    pub(crate) async fn answer(&self, ask: JobAsk) -> Result<JobAnswer, Problem> {
        let late = || Problem::new(ProblemType::Overloaded).detail("the broker does not answer");
        timeout(ANSWER_MAX, self.ask(ask)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Asks, and takes no answer in time for none.
    pub(crate) async fn wait(
        &self,
        ask: JobAsk,
        longest: Duration,
    ) -> Result<Option<JobAnswer>, Problem> {
        timeout(longest, self.ask(ask)).await.ok().transpose()
    }

    pub(crate) async fn receive(&self, body: Body) -> Result<Received, Problem> {
        body::receive(body, self.api.settings.payload_bytes_max, &self.api.budget).await
    }

    /// A small object in JSON.
    pub(crate) async fn receive_json<T: serde::de::DeserializeOwned>(
        &self,
        parts: &Parts,
        body: Body,
        media_types: &[&str],
        shape: &str,
    ) -> Result<Option<T>, Problem> {
        let received = body::receive(body, JSON_BYTES_MAX, &self.api.budget).await?;
        if received.octets.is_empty() {
            return Ok(None);
        }
        let content_type = parts.headers.get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|it| it.to_str().ok()).unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if !media_types.iter().any(|it| it.eq_ignore_ascii_case(essence)) {
            let detail = format!("Content-Type: {}", media_types.join(" or "));
            return Err(Problem::new(ProblemType::UnsupportedMediaType).detail(detail));
        }
        let read: Result<T, _> = serde_json::from_slice(&received.octets);
        read.map(Some).map_err(|it| Problem::malformed("body", format_args!("{shape} ({it})")))
    }
}

/// The broker has answered what nobody asked.
pub(crate) fn unexpected(answer: &JobAnswer) -> Problem {
    debug_assert!(false, "unexpected {answer:?}");
    Problem::new(ProblemType::Internal).detail("an answer that was not expected")
}
