//! A worker over HTTP.

use crate::double::{NOW, Scripted, answer, request, scene, view};
use model::{
    Message, Name, Table, Timestamp, Value,
    job::{JobAnswer, JobAsk, JobRefusal, JobVerdict, State},
    properties::Properties,
};
use std::sync::Arc;

const ACQUIRE: &str = "POST /v1/queues/emails/leases";

fn leased() -> Scripted {
    let headers = Table(vec![
        (Name::new("x-cost"), Value::F64(2.5)),
        (Name::new("x-deadline"), Value::Timestamp(NOW.0 / 1_000)),
        (Name::new("x-callback"), Value::text("https://example.org/secret")),
        (Name::new("traceparent"), Value::text("00-x")),
    ]);
    let properties = Properties {
        content_type: Some("text/plain".into()),
        headers: Some(headers),
        ..Properties::default()
    };
    let message = Arc::new(Message::new("", "emails", &properties.encoded(), b"payload"));
    let until = Timestamp(NOW.0 + 300_000);
    let view = view(State::Running);
    answer(JobAnswer::Leased { token: "t0ken".into(), view, message, until })
}

#[tokio::test]
async fn a_worker_gets_the_payload_and_everything_else_in_headers() {
    let scene = scene(vec![leased()]);
    let found = scene.send(request(ACQUIRE, &[("prefer", "wait=20")], "")).await;
    assert_eq!((found.status, found.body.as_str()), (200, "payload"));
    for (name, value) in [
        ("content-type", Some("text/plain")),
        ("location", Some("/v1/leases/t0ken")),
        ("job-lease-until", Some("2026-11-20T09:05:00.000Z")),
        ("job-id", Some("order-17")),
        ("job-type", Some("send")),
        ("job-key", Some("tenant-42")),
        ("job-priority", Some("5")),
        ("job-attempt", Some("1")),
        ("job-attempts", Some("5")),
        ("job-cost", Some("2.5")),
        ("job-deadline", Some("2026-11-20T09:00:00.000Z")),
        ("traceparent", Some("00-x")),
        ("preference-applied", Some("wait=20")),
        ("job-callback", None),
    ] {
        assert_eq!(found.header(name), value, "{name}");
    }
    let [JobAsk::Lease { queue, worker }] = &scene.asked()[..] else { panic!("one lease") };
    assert_eq!((&**queue, &**worker), ("emails", "127.0.0.1:51234"));
}

#[tokio::test(start_paused = true)]
async fn when_nothing_comes_the_question_is_taken_back() {
    let scene = scene(vec![Scripted::Silence, Scripted::Silence]);
    let found = scene.send(request(ACQUIRE, &[("prefer", "wait=20")], "")).await;
    assert_eq!((found.status, found.body.as_str()), (204, ""));
    let found = scene.send(request(ACQUIRE, &[], "")).await;
    assert_eq!(found.status, 204);
    assert_eq!(*scene.log.forgotten.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_worker_that_goes_away_leaves_no_question_behind() {
    let scene = scene(vec![Scripted::Silence]);
    let request = request(ACQUIRE, &[("prefer", "wait=20")], "");
    let mut answering = Box::pin(scene.endpoint.answer(request));
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(answering.as_mut().poll(context).is_pending())
    });
    assert!(polled.await, "the request waits");
    drop(answering);
    assert_eq!((*scene.log.forgotten.lock().unwrap(), scene.asked().len()), (1, 1));
}

#[tokio::test]
async fn any_body_fulfils_and_a_problem_rejects() {
    let ended = || answer(JobAnswer::Ended(view(State::Succeeded)));
    let scene = scene((0..4).map(|_| ended()).collect());
    let problem = ("content-type", "application/problem+json");
    let rejected = |retryable, retry_after_ms| JobVerdict::Rejected { retryable, retry_after_ms };
    for (headers, body, expected) in [
        (vec![("content-type", "application/json")], r#"{"sent":true}"#, JobVerdict::Fulfilled),
        (vec![problem], r#"{"title":"no"}"#, rejected(false, None)),
        (vec![problem], r#"{"retryable":true}"#, rejected(true, None)),
        (vec![problem, ("retry-after", "30")], "{}", rejected(true, Some(30_000))),
    ] {
        let found = scene.send(request("PUT /v1/leases/t0ken/result", &headers, body)).await;
        assert_eq!((found.status, found.body.as_str()), (204, ""));
        let [JobAsk::Complete { token, verdict, result }] = &scene.asked()[..] else {
            panic!("one end")
        };
        assert_eq!((&**token, *verdict), ("t0ken", expected));
        assert_eq!(&result.body[..], body.as_bytes());
        assert_eq!(result.content_type.as_deref(), Some(headers[0].1));
    }
}

#[tokio::test]
async fn a_lease_is_extended_with_progress_until_the_job_is_unwanted() {
    let until = Some(Timestamp(NOW.0 + 60_000));
    let extended = |cancel_requested| answer(JobAnswer::Extended { until, cancel_requested });
    let scene = scene(vec![extended(false), extended(false), extended(true)]);
    let json = [("content-type", "application/json")];
    let line = "POST /v1/leases/t0ken/extend";
    let body = r#"{"seconds":60,"progress":40,"note":"page 4"}"#;
    let found = scene.send(request(line, &json, body)).await;
    assert_eq!(
        (found.status, found.body.as_str()),
        (200, r#"{"until":"2026-11-20T09:01:00.000Z"}"#)
    );
    let [JobAsk::Extend { by_ms: Some(60_000), progress: Some(progress), .. }] = &scene.asked()[..]
    else {
        panic!("one extension")
    };
    assert_eq!((progress.percent, progress.note.as_deref()), (Some(40), Some("page 4")));
    assert_eq!(scene.send(request(line, &[], "")).await.status, 200);
    assert!(matches!(scene.asked()[..], [JobAsk::Extend { by_ms: None, progress: None, .. }]));
    let found = scene.send(request(line, &json, "{}")).await;
    assert_eq!((found.status, found.problem().as_str()), (409, "cancelled"));
    scene.asked();
    let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(1_001));
    for body in [r#"{"seconds":0}"#, r#"{"progress":101}"#, r#"{"seconds":-1}"#, "[]", &long] {
        let found = scene.send(request(line, &json, body)).await;
        assert_eq!((found.status, found.problem().as_str()), (400, "malformed-request"), "{body}");
    }
    assert!(scene.asked().is_empty());
}

#[tokio::test]
async fn a_stale_token_changes_nothing() {
    let stale = || answer(JobAnswer::Refused(JobRefusal::StaleToken));
    let scene =
        scene(vec![stale(), stale(), stale(), answer(JobAnswer::Ended(view(State::Ready)))]);
    for line in ["PUT /v1/leases/old/result", "POST /v1/leases/old/extend", "DELETE /v1/leases/old"]
    {
        let found = scene.send(request(line, &[], "")).await;
        assert_eq!((found.status, found.problem().as_str()), (410, "lease-lost"), "{line}");
    }
    assert_eq!(scene.send(request("DELETE /v1/leases/t0ken", &[], "")).await.status, 204);
    assert!(matches!(scene.asked()[3], JobAsk::Release { .. }));
}
