//! Who is let in, and what the door says to what it does not know.

use crate::double::{Scripted, anonymous, answer, request, scene, scene_with, view};
use api::{openapi, visit::Settings};
use model::job::{JobAnswer, JobRefusal, State};

const GET: &str = "GET /v1/jobs/order-17";

/// Every route, with a method that it knows.
const ROUTES: [&str; 11] = [
    "POST /v1/queues/q/jobs",
    "POST /v1/queues/q/leases",
    "GET /v1/jobs",
    "GET /v1/jobs/i",
    "PATCH /v1/jobs/i",
    "DELETE /v1/jobs/i",
    "GET /v1/jobs/i/result",
    "POST /v1/jobs/i/retry",
    "DELETE /v1/leases/t",
    "PUT /v1/leases/t/result",
    "POST /v1/leases/t/extend",
];

#[tokio::test]
async fn nobody_gets_past_any_route_without_a_login() {
    let scene = scene(Vec::new());
    let wrong = [("authorization", "Basic Z3Vlc3Q6d3Jvbmc=")];
    for route in ROUTES {
        for headers in [&[][..], &wrong] {
            let found = scene.send(anonymous(route, headers, "{}")).await;
            assert_eq!((found.status, found.problem().as_str()), (401, "unauthorized"), "{route}");
            assert!(found.header("www-authenticate").unwrap().starts_with("Basic "));
        }
    }
    assert!(scene.log.entered.lock().unwrap().is_empty());
}

/// The description names exactly the routes that there are.
#[tokio::test]
async fn the_description_names_every_route() {
    let mut described: Vec<String> = openapi::operations()
        .map(|(method, path)| {
            let path = path.replace("{queue}", "q").replace("{id}", "i").replace("{token}", "t");
            format!("{method} {path}")
        })
        .collect();
    let mut known = ROUTES.map(ToOwned::to_owned).to_vec();
    known.push("GET /v1/openapi.json".to_owned());
    described.sort();
    known.sort();
    assert_eq!(described, known);
    let found = scene(Vec::new()).send(anonymous("GET /v1/openapi.json", &[], "")).await;
    assert_eq!((found.status, found.json()["openapi"].as_str()), (200, Some("3.1.0")));
}

#[tokio::test]
async fn a_shown_job_has_the_members_of_the_description() {
    let scene = scene(vec![answer(JobAnswer::Job(view(State::Ready)))]);
    let job = scene.send(request(GET, &[], "")).await.json();
    let schema = openapi::document()["components"]["schemas"]["Job"]["required"].clone();
    let members: Vec<&String> = job.as_object().unwrap().keys().collect();
    assert_eq!(serde_json::json!(members), schema);
}

#[tokio::test]
async fn who_guesses_too_often_has_to_wait() {
    let busy = [("authorization", "Basic YnVzeTp4")];
    let found = scene(Vec::new()).send(anonymous(GET, &busy, "")).await;
    assert_eq!((found.status, found.problem().as_str()), (429, "rate-limited"));
    assert_eq!(found.header("retry-after"), Some("60"));
}

#[tokio::test]
async fn a_virtual_host_is_named_in_the_query() {
    let job = || answer(JobAnswer::Job(view(State::Ready)));
    let scene = scene(vec![job(), job()]);
    scene.send(request(GET, &[], "")).await;
    scene.send(request("GET /v1/jobs/order-17?vhost=a%2Fb", &[], "")).await;
    let entered = scene.log.entered.lock().unwrap().clone();
    let vhosts: Vec<&str> = entered.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(vhosts, ["/", "a/b"]);
    let found = scene.send(request("GET /v1/jobs/order-17?vhost=nowhere", &[], "")).await;
    assert_eq!((found.status, found.problem().as_str()), (404, "vhost-not-found"));
}

#[tokio::test]
async fn a_page_of_others_is_refused_before_its_login_is_looked_at() {
    let headers = [("origin", "https://evil.example"), ("host", "mq:15672")];
    let scene = scene(Vec::new());
    for route in ROUTES {
        let found = scene.send(request(route, &headers, "{}")).await;
        assert_eq!((found.status, found.problem().as_str()), (403, "forbidden"), "{route}");
    }
}

#[tokio::test]
async fn addresses_and_methods_that_are_not_there_are_problems_too() {
    let scene = scene(Vec::new());
    for line in ["GET /v1", "GET /v1/", "GET /v1/queues/q", "GET /v2/jobs", "GET /v1/jobs/a/b/c"] {
        let found = scene.send(request(line, &[], "")).await;
        assert_eq!((found.status, found.problem().as_str()), (404, "no-such-resource"), "{line}");
    }
    for (line, allowed) in [
        ("PUT /v1/jobs/a", "GET,HEAD,PATCH,DELETE"),
        ("GET /v1/queues/q/jobs", "POST"),
        ("POST /v1/leases/t", "DELETE"),
        ("BREW /v1/jobs", "GET,HEAD"),
    ] {
        let found = scene.send(request(line, &[], "")).await;
        assert_eq!((found.status, found.problem().as_str()), (405, "method-not-allowed"), "{line}");
        let methods = |it: &str| {
            let mut methods: Vec<String> = it.split(',').map(ToOwned::to_owned).collect();
            methods.sort();
            methods
        };
        assert_eq!(found.header("allow").map(methods), Some(methods(allowed)), "{line}");
    }
    let found = scene.send(request("GET /v1/jobs/%ff", &[], "")).await;
    assert_eq!((found.status, found.problem().as_str()), (400, "malformed-request"));
}

#[tokio::test]
async fn names_that_cannot_be_are_refused_at_the_door() {
    let scene = scene(Vec::new());
    let long = "x".repeat(256);
    for line in [format!("GET /v1/jobs/{long}"), format!("POST /v1/queues/{long}/jobs")] {
        let found = scene.send(request(&line, &[], "")).await;
        assert_eq!(found.status, 400);
    }
    let found = scene.send(request(&format!("DELETE /v1/leases/{long}"), &[], "")).await;
    assert_eq!((found.status, found.problem().as_str()), (410, "lease-lost"));
}

#[tokio::test]
async fn there_is_room_for_so_many_requests_and_so_many_waits() {
    let settings = Settings { requests_max: 0, waits_max: 1, ..Settings::default() };
    let script = vec![Scripted::Silence, answer(JobAnswer::Refused(JobRefusal::UnknownJob))];
    let scene = scene_with(settings, script);
    let found = scene.send(request(GET, &[], "")).await;
    assert_eq!((found.status, found.problem().as_str()), (503, "overloaded"));
    assert_eq!(found.header("retry-after"), Some("1"));
    let waits = || request(GET, &[("prefer", "wait=100")], "");
    let mut first = Box::pin(scene.endpoint.answer(waits()));
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(first.as_mut().poll(context).is_pending())
    });
    assert!(polled.await, "the first one waits");
    assert_eq!(scene.send(waits()).await.status, 503);
    drop(first);
    assert_eq!(scene.send(waits()).await.status, 404, "there is room again");
}
