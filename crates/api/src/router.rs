//! Which handler a request goes to.

use crate::{
    answer, jobs, leases,
    openapi::{self, DESCRIPTION_PATH},
    problem::{Problem, ProblemType},
    submit,
    visit::Api,
};
use axum::{
    BoxError, Router,
    body::HttpBody,
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse as _, Response},
    routing,
};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;
use tower_service::Service as _;

type Shared = State<Arc<Api>>;
type Segment = Result<Path<String>, PathRejection>;
type Answered = Result<Response, Problem>;

/// Everything under `/v1`: requests in, answers out.
#[derive(Clone)]
pub struct Endpoint(Router);

impl Endpoint {
    pub fn new(api: Api) -> Self {
        Self(router(Arc::new(api)))
    }

    /// Answers one request. The address of the client stands in its extensions, as a `Peer`.
    pub async fn answer<B>(&self, request: http::Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Ok(response) = self.0.clone().call(request).await;
        response
    }
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/queues/{queue}/jobs", routing::post(submit))
        .route("/v1/queues/{queue}/leases", routing::post(acquire))
        .route(DESCRIPTION_PATH, routing::get(describe))
        .route("/v1/jobs", routing::get(list))
        .route("/v1/jobs/{id}", routing::get(get).patch(patch).delete(cancel))
        .route("/v1/jobs/{id}/result", routing::get(result))
        .route("/v1/jobs/{id}/retry", routing::post(retry))
        .route("/v1/leases/{token}", routing::delete(release))
        .route("/v1/leases/{token}/result", routing::put(complete))
        .route("/v1/leases/{token}/extend", routing::post(extend))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .with_state(api)
}

/// It is the same for everybody, so nobody need log in for it.
async fn describe() -> Response {
    answer::json(StatusCode::OK, &openapi::document())
}

async fn nothing() -> Response {
    Problem::new(ProblemType::NoSuchResource).into_response()
}

async fn other_method() -> Response {
    Problem::new(ProblemType::MethodNotAllowed).into_response()
}

fn segment(segment: Segment) -> Result<String, Problem> {
    let cure = "percent-encoded UTF-8";
    segment.map(|it| it.0).map_err(|_| Problem::malformed("path", cure))
}

async fn submit(State(api): Shared, queue: Segment, request: Request) -> Answered {
    let (parts, body) = request.into_parts();
    submit::submit(api, parts, body, segment(queue)?).await
}

async fn acquire(State(api): Shared, queue: Segment, request: Request) -> Answered {
    leases::acquire(api, request.into_parts().0, segment(queue)?).await
}

async fn list(State(api): Shared, request: Request) -> Answered {
    jobs::list(api, request.into_parts().0).await
}

async fn get(State(api): Shared, id: Segment, request: Request) -> Answered {
    jobs::get(api, request.into_parts().0, segment(id)?).await
}

async fn patch(State(api): Shared, id: Segment, request: Request) -> Answered {
    let (parts, body) = request.into_parts();
    jobs::patch(api, parts, body, segment(id)?).await
}

async fn cancel(State(api): Shared, id: Segment, request: Request) -> Answered {
    jobs::cancel(api, request.into_parts().0, segment(id)?).await
}

async fn result(State(api): Shared, id: Segment, request: Request) -> Answered {
    jobs::result(api, request.into_parts().0, segment(id)?).await
}

async fn retry(State(api): Shared, id: Segment, request: Request) -> Answered {
    jobs::retry(api, request.into_parts().0, segment(id)?).await
}

async fn release(State(api): Shared, token: Segment, request: Request) -> Answered {
    leases::release(api, request.into_parts().0, segment(token)?).await
}

async fn complete(State(api): Shared, token: Segment, request: Request) -> Answered {
    let (parts, body) = request.into_parts();
    leases::complete(api, parts, body, segment(token)?).await
}

async fn extend(State(api): Shared, token: Segment, request: Request) -> Answered {
    let (parts, body) = request.into_parts();
    leases::extend(api, parts, body, segment(token)?).await
}
