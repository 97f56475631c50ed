//! Submitting: one job, one that is waited for, many.

use crate::double::{NOW, Scripted, answer, request, scene, scene_with, view};
use api::visit::Settings;
use model::{
    Value,
    job::{
        Admission, JobAnswer, JobAsk, JobProblem, JobRefusal, JobResult, ProblemKind, State, Until,
    },
    properties::Properties,
};

const SUBMIT: &str = "POST /v1/queues/emails/jobs";

fn submitted(admission: Admission, state: State) -> Scripted {
    answer(JobAnswer::Submitted { admission, view: view(state) })
}

fn refused(it: JobRefusal) -> Scripted {
    answer(JobAnswer::Refused(it))
}

#[tokio::test]
async fn a_job_is_accepted_and_told_where_to_look() {
    let scene = scene(vec![submitted(Admission::New, State::Ready)]);
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "\"order-17\""),
        ("job-type", "send"),
        ("job-priority", "5"),
        ("job-key", "tenant-42"),
        ("job-expires", "+1h"),
    ];
    let found = scene.send(request(SUBMIT, &headers, r#"{"order":17}"#)).await;
    assert_eq!((found.status, found.header("location")), (202, Some("/v1/jobs/order-17")));
    assert_eq!(found.header("etag"), Some("\"a1\""));
    assert_eq!(found.json()["state"], "ready");
    let [JobAsk::Submit { queue, message }] = &scene.asked()[..] else { panic!("one question") };
    assert_eq!(&**queue, "emails");
    assert_eq!((message.exchange(), message.routing_key()), ("", "emails"));
    assert_eq!(message.body(), br#"{"order":17}"#);
    let properties = Properties::decode(message.properties()).unwrap();
    assert_eq!(properties.message_id.as_deref(), Some("order-17"));
    assert_eq!(properties.kind.as_deref(), Some("send"));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!((properties.priority, properties.delivery_mode), (Some(5), Some(2)));
    assert_eq!(properties.expiration.as_deref(), Some("3600000"));
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("x-key").and_then(Value::as_text), Some("tenant-42"));
}

#[tokio::test]
async fn who_waits_gets_the_result_itself() {
    let result = JobResult {
        content_type: Some("text/csv".into()),
        content_encoding: Some("gzip".into()),
        body: "a,b".into(),
    };
    let scene = scene(vec![
        submitted(Admission::New, State::Ready),
        answer(JobAnswer::Job(view(State::Succeeded))),
        answer(JobAnswer::Result { view: view(State::Succeeded), result: Some(result) }),
    ]);
    let found = scene.send(request(SUBMIT, &[("prefer", "wait=10")], "x")).await;
    assert_eq!((found.status, found.body.as_str()), (200, "a,b"));
    assert_eq!(found.header("content-type"), Some("text/csv"));
    assert_eq!(found.header("content-encoding"), Some("gzip"));
    assert_eq!(found.header("preference-applied"), Some("wait=10"));
    assert_eq!(found.header("content-location"), Some("/v1/jobs/order-17/result"));
    assert_eq!(found.header("x-content-type-options"), Some("nosniff"));
    assert!(found.header("content-security-policy").unwrap().contains("sandbox"));
    let asked = scene.asked();
    let JobAsk::Wait { queue: Some(queue), until: Until::Settled, .. } = &asked[1] else {
        panic!("{asked:?}")
    };
    assert_eq!(&**queue, "emails");
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_in_vain_is_told_where_to_look() {
    let scene = scene(vec![submitted(Admission::New, State::Ready), Scripted::Silence]);
    let found = scene.send(request(SUBMIT, &[("prefer", "wait=10")], "x")).await;
    assert_eq!((found.status, found.header("location")), (202, Some("/v1/jobs/order-17")));
    assert_eq!(found.header("preference-applied"), None);
    assert_eq!(*scene.log.forgotten.lock().unwrap(), 1, "the question was taken back");
}

#[tokio::test]
async fn who_waits_for_a_job_that_fails_gets_its_problem() {
    let mut failed = view(State::Failed);
    let kind = ProblemKind::WorkerRejected;
    failed.problem = Some(JobProblem { kind, detail: Some("no such address".into()) });
    let scene = scene(vec![
        submitted(Admission::New, State::Ready),
        answer(JobAnswer::Job(failed.clone())),
        answer(JobAnswer::Result { view: failed, result: None }),
    ]);
    let found = scene.send(request(SUBMIT, &[("prefer", "wait=10")], "x")).await;
    assert_eq!((found.status, found.problem().as_str()), (502, "worker-rejected"));
    assert_eq!(found.json()["detail"], "no such address");
}

#[tokio::test]
async fn who_prefers_no_answer_gets_none() {
    let scene = scene(vec![submitted(Admission::New, State::Ready)]);
    let found = scene.send(request(SUBMIT, &[("prefer", "respond-async")], "x")).await;
    assert_eq!(found.status, 202);
    assert_eq!(found.header("preference-applied"), Some("respond-async"));
}

#[tokio::test]
async fn the_same_again_gets_the_first_answer_and_another_payload_none() {
    let scene = scene(vec![
        submitted(Admission::Duplicate, State::Running),
        submitted(Admission::Conflict, State::Running),
    ]);
    let headers = [("idempotency-key", "\"order-17\"")];
    let found = scene.send(request(SUBMIT, &headers, "x")).await;
    assert_eq!((found.status, found.header("location")), (202, Some("/v1/jobs/order-17")));
    let found = scene.send(request(SUBMIT, &headers, "y")).await;
    assert_eq!((found.status, found.problem().as_str()), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn a_unique_job_that_is_there_is_shown() {
    let scene = scene(vec![submitted(Admission::UniqueHolder, State::Ready)]);
    let found = scene.send(request(SUBMIT, &[("job-unique", "u")], "x")).await;
    assert_eq!((found.status, found.json()["id"].as_str()), (200, Some("order-17")));
    assert_eq!(found.header("content-location"), Some("/v1/jobs/order-17"));
}

#[tokio::test]
async fn every_line_of_many_has_its_line_in_the_answer() {
    let event = |id: &str| {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","data":{{"n":1}}}}"#)
    };
    for (content_type, body) in [
        ("application/x-ndjson", format!("{}\n{{}}\n{}\n", event("a"), event("b"))),
        ("application/cloudevents-batch+json", format!("[{},{{}},{}]", event("a"), event("b"))),
    ] {
        let script = vec![
            submitted(Admission::New, State::Ready),
            submitted(Admission::Conflict, State::Ready),
        ];
        let scene = scene(script);
        let found = scene.send(request(SUBMIT, &[("content-type", content_type)], &body)).await;
        assert_eq!(found.status, 200);
        assert_eq!(found.header("content-type"), Some("application/x-ndjson"));
        let lines: Vec<serde_json::Value> =
            found.body.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        assert_eq!(lines[0], serde_json::json!({ "id": "order-17" }));
        assert_eq!(lines[1]["status"], 400);
        assert_eq!(lines[2]["status"], 422);
        let [JobAsk::Submit { message, .. }, _] = &scene.asked()[..] else { panic!("two") };
        assert_eq!(message.body(), br#"{"n":1}"#);
    }
}

#[tokio::test]
async fn headers_of_one_job_are_refused_for_many() {
    let headers = [("content-type", "application/x-ndjson"), ("job-type", "t")];
    let found = scene(Vec::new()).send(request(SUBMIT, &headers, "{}")).await;
    assert_eq!((found.status, found.json()["field"].as_str()), (400, Some("job-type")));
}

#[tokio::test]
async fn more_jobs_than_fit_the_window_are_all_asked_for() {
    let event = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t"}"#;
    let body = vec![event; 600].join("\n");
    let scene = scene((0..600).map(|_| submitted(Admission::New, State::Ready)).collect());
    let headers = [("content-type", "application/x-ndjson")];
    let found = scene.send(request(SUBMIT, &headers, &body)).await;
    assert_eq!((found.body.lines().count(), scene.asked().len()), (600, 600));
}

#[tokio::test]
async fn a_queue_that_is_not_there_or_holds_no_jobs_is_told_apart() {
    let queue = || "emails".into();
    let scene = scene(vec![
        refused(JobRefusal::UnknownQueue(queue())),
        refused(JobRefusal::NotJobQueue(queue())),
        refused(JobRefusal::Access("no".to_owned())),
        refused(JobRefusal::Resource("disk full".to_owned())),
    ]);
    for (status, kind) in [
        (404, "queue-not-found"),
        (409, "not-a-job-queue"),
        (403, "forbidden"),
        (503, "overloaded"),
    ] {
        let found = scene.send(request(SUBMIT, &[], "x")).await;
        assert_eq!((found.status, found.problem().as_str()), (status, kind));
        assert_eq!(found.header("retry-after").is_some(), status == 503);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_submission_is_named() {
    let scene = scene(Vec::new());
    for (name, value) in [
        ("job-priority", "300"),
        ("job-at", "tomorrow"),
        ("job-colour", "red"),
        ("idempotency-key", "bare"),
        ("job-callback", "https://10.0.0.1/"),
        ("ce-id", "only"),
    ] {
        let found = scene.send(request(SUBMIT, &[(name, value)], "x")).await;
        assert_eq!((found.status, found.problem().as_str()), (400, "malformed-request"), "{name}");
        assert!(found.json()["detail"].as_str().is_some_and(|it| it.contains(':')));
    }
    assert!(scene.asked().is_empty(), "nothing of it reaches the broker");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() {
    let settings = || Settings { payload_bytes_max: 10, ..Settings::default() };
    let script = vec![submitted(Admission::New, State::Ready)];
    let found = scene_with(settings(), script).send(request(SUBMIT, &[], "0123456789")).await;
    assert_eq!(found.status, 202);
    let found = scene_with(settings(), Vec::new()).send(request(SUBMIT, &[], "0123456789x")).await;
    assert_eq!((found.status, found.problem().as_str()), (413, "payload-too-large"));
}

#[tokio::test]
async fn times_count_from_the_request() {
    let scene = scene(vec![submitted(Admission::New, State::Scheduled)]);
    scene.send(request(SUBMIT, &[("job-deadline", "+10s"), ("job-at", "+5s")], "x")).await;
    let [JobAsk::Submit { message, .. }] = &scene.asked()[..] else { panic!("one question") };
    let headers = Properties::decode(message.properties()).unwrap().headers.unwrap();
    let deadline = Value::Timestamp(NOW.0 / 1_000 + 10);
    assert_eq!(headers.get("x-deadline"), Some(&deadline));
    assert_eq!(headers.get("x-delay"), Some(&Value::I64(5_000)));
}
