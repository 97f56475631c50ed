//! Looking at jobs, waiting for them, changing them, listing them.

use crate::double::{NOW, Scripted, answer, request, scene, view};
use model::{
    Refusal, Timestamp,
    job::{JobAnswer, JobAsk, JobProblem, JobRefusal, JobResult, ProblemKind, State, Until},
};

fn job(state: State) -> Scripted {
    answer(JobAnswer::Job(view(state)))
}

fn refused(it: JobRefusal) -> Scripted {
    answer(JobAnswer::Refused(it))
}

#[tokio::test]
async fn a_job_is_shown_with_its_tag_and_only_when_it_differs() {
    let scene = scene(vec![job(State::Ready), job(State::Ready), job(State::Ready)]);
    let found = scene.send(request("GET /v1/jobs/order-17", &[], "")).await;
    assert_eq!((found.status, found.header("etag")), (200, Some("\"a1\"")));
    assert_eq!(found.json()["links"]["self"], "/v1/jobs/order-17");
    let known = [("if-none-match", "\"a1\"")];
    let found = scene.send(request("GET /v1/jobs/order-17", &known, "")).await;
    assert_eq!((found.status, found.header("etag")), (304, Some("\"a1\"")));
    let other = [("if-none-match", "\"b2\"")];
    let found = scene.send(request("GET /v1/jobs/order-17", &other, "")).await;
    assert_eq!(found.status, 200);
}

#[tokio::test]
async fn an_id_is_a_segment_of_the_path() {
    let scene = scene(vec![job(State::Ready)]);
    let path = "GET /v1/jobs/nightly%4002%3A00%2Fa?queue=a%20b&vhost=other";
    let found = scene.send(request(path, &[], "")).await;
    assert_eq!(found.status, 200);
    let [JobAsk::Look { queue: Some(queue), id }] = &scene.asked()[..] else { panic!("one look") };
    assert_eq!((&**queue, &**id), ("a b", "nightly@02:00/a"));
    let link = "/v1/jobs/nightly%4002%3A00%2Fa?vhost=other&queue=a%20b";
    assert_eq!(found.json()["links"]["self"], link);
    assert_eq!(scene.log.entered.lock().unwrap()[0], ("guest".to_owned(), "other".to_owned()));
}

#[tokio::test]
async fn a_wait_ends_when_the_job_is_settled() {
    let scene = scene(vec![job(State::Running), job(State::Succeeded)]);
    let found = scene.send(request("GET /v1/jobs/order-17", &[("prefer", "wait=30")], "")).await;
    assert_eq!((found.status, found.json()["state"].as_str()), (200, Some("succeeded")));
    assert_eq!(found.header("preference-applied"), Some("wait=30"));
    let asked = scene.asked();
    assert!(matches!(asked[1], JobAsk::Wait { until: Until::Settled, .. }), "{asked:?}");
}

#[tokio::test]
async fn nobody_waits_for_what_has_happened() {
    let scene = scene(vec![job(State::Failed), job(State::Ready)]);
    let found = scene.send(request("GET /v1/jobs/order-17", &[("prefer", "wait=30")], "")).await;
    assert_eq!((found.status, scene.asked().len()), (200, 1));
    let headers = [("prefer", "wait=30"), ("if-none-match", "\"other\"")];
    let found = scene.send(request("GET /v1/jobs/order-17", &headers, "")).await;
    assert_eq!((found.status, scene.asked().len()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_shows_the_job_as_it_is_by_then() {
    let scene = scene(vec![job(State::Ready), Scripted::Silence, job(State::Running)]);
    let found = scene.send(request("GET /v1/jobs/order-17", &[("prefer", "wait=30")], "")).await;
    assert_eq!((found.status, found.json()["state"].as_str()), (200, Some("running")));
    assert_eq!(*scene.log.forgotten.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_with_a_tag_ends_with_another_one_or_with_nothing() {
    let mut changed = view(State::Running);
    changed.tag = 0xb2;
    let scene = scene(vec![
        job(State::Ready),
        answer(JobAnswer::Job(changed)),
        job(State::Ready),
        Scripted::Silence,
    ]);
    let headers = [("prefer", "wait=30"), ("if-none-match", "\"a1\"")];
    let found = scene.send(request("GET /v1/jobs/order-17", &headers, "")).await;
    assert_eq!((found.status, found.header("etag")), (200, Some("\"b2\"")));
    let asked = scene.asked();
    assert!(matches!(asked[1], JobAsk::Wait { until: Until::TagDiffers(0xa1), .. }), "{asked:?}");
    let found = scene.send(request("GET /v1/jobs/order-17", &headers, "")).await;
    assert_eq!(found.status, 304);
}

#[tokio::test]
async fn never_seen_and_seen_but_gone_are_two_answers() {
    let queues = vec!["p".into(), "q".into()];
    let scene = scene(vec![
        refused(JobRefusal::UnknownJob),
        refused(JobRefusal::Forgotten),
        refused(JobRefusal::Ambiguous(queues)),
        Scripted::Refusal(Refusal::Forced("shutdown".to_owned())),
    ]);
    for (status, kind) in
        [(404, "unknown-job"), (410, "forgotten"), (409, "ambiguous-id"), (503, "overloaded")]
    {
        let found = scene.send(request("GET /v1/jobs/order-17", &[], "")).await;
        assert_eq!((found.status, found.problem().as_str()), (status, kind));
    }
}

#[tokio::test]
async fn a_result_is_the_workers_octets_or_says_why_there_is_none() {
    let result = |view, result| answer(JobAnswer::Result { view, result });
    let octets = JobResult { body: "done".into(), ..JobResult::default() };
    let rejected = |kind| {
        let mut view = view(State::Failed);
        view.problem = Some(JobProblem { kind, detail: None });
        result(view, None)
    };
    let scene = scene(vec![
        result(view(State::Succeeded), Some(octets)),
        result(view(State::Succeeded), None),
        result(view(State::Running), None),
        rejected(ProblemKind::AttemptsExhausted),
        rejected(ProblemKind::LeaseLost),
        rejected(ProblemKind::Cancelled),
    ]);
    let get = || scene.send(request("GET /v1/jobs/order-17/result", &[], ""));
    let found = get().await;
    assert_eq!((found.status, found.body.as_str()), (200, "done"));
    assert_eq!(found.header("content-type"), Some("application/octet-stream"));
    let found = get().await;
    assert_eq!((found.status, found.body.as_str()), (200, ""));
    let found = get().await;
    assert_eq!((found.status, found.header("retry-after")), (202, Some("1")));
    for (status, kind) in [(502, "attempts-exhausted"), (504, "lease-lost"), (409, "cancelled")] {
        let found = get().await;
        assert_eq!((found.status, found.problem().as_str()), (status, kind));
        assert_eq!(found.json()["instance"], "/v1/jobs/order-17");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_can_be_waited_for() {
    let pending = JobAnswer::Result { view: view(State::Running), result: None };
    let scene = scene(vec![Scripted::Silence, answer(pending)]);
    let line = "GET /v1/jobs/order-17/result";
    let found = scene.send(request(line, &[("prefer", "wait=5")], "")).await;
    assert_eq!((found.status, found.header("retry-after")), (202, Some("1")));
}

#[tokio::test]
async fn a_cancelled_job_stays_cancelled_and_a_settled_one_what_it_is() {
    let settled = |state| refused(JobRefusal::Settled(view(state)));
    let scene = scene(vec![
        job(State::Cancelled),
        job(State::Running),
        settled(State::Cancelled),
        settled(State::Succeeded),
    ]);
    let delete = || scene.send(request("DELETE /v1/jobs/order-17", &[], ""));
    assert_eq!(delete().await.status, 204);
    assert_eq!(delete().await.status, 202);
    assert_eq!(delete().await.status, 204);
    let found = delete().await;
    assert_eq!((found.status, found.problem().as_str()), (409, "already-settled"));
    assert_eq!(found.json()["state"], "succeeded");
}

#[tokio::test]
async fn a_settled_job_begins_anew_and_a_pending_one_does_not() {
    let scene = scene(vec![job(State::Ready), refused(JobRefusal::Pending(view(State::Running)))]);
    let found = scene.send(request("POST /v1/jobs/order-17/retry", &[], "")).await;
    assert_eq!((found.status, found.header("location")), (202, Some("/v1/jobs/order-17")));
    let found = scene.send(request("POST /v1/jobs/order-17/retry", &[], "")).await;
    assert_eq!((found.status, found.problem().as_str()), (409, "wrong-state"));
}

#[tokio::test]
async fn priority_and_time_of_a_pending_job_can_be_changed() {
    let scene = scene(vec![job(State::Scheduled)]);
    let json = [("content-type", "application/json")];
    let line = "PATCH /v1/jobs/order-17";
    let found = scene.send(request(line, &json, r#"{"priority":9,"at":"+1m"}"#)).await;
    assert_eq!(found.status, 200);
    let [JobAsk::Patch { priority: Some(9), at: Some(at), .. }] = &scene.asked()[..] else {
        panic!("one change")
    };
    assert_eq!(*at, Timestamp(NOW.0 + 60_000));
    for body in ["", "{}", "[]", r#"{"priority":256}"#, r#"{"at":"x"}"#, r#"{"key":"x"}"#] {
        let found = scene.send(request(line, &json, body)).await;
        assert_eq!((found.status, found.problem().as_str()), (400, "malformed-request"), "{body}");
    }
    let found = scene.send(request(line, &[("content-type", "text/plain")], "{}")).await;
    assert_eq!((found.status, found.problem().as_str()), (415, "unsupported-media-type"));
    let found = scene.send(request(line, &json, &" ".repeat(100_000))).await;
    assert_eq!((found.status, found.problem().as_str()), (413, "payload-too-large"));
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let page = vec![*view(State::Failed), *view(State::Failed)];
    let scene = scene(vec![
        answer(JobAnswer::Listed { jobs: page, next: Some(42) }),
        answer(JobAnswer::Listed { jobs: Vec::new(), next: None }),
    ]);
    let line = "GET /v1/jobs?queue=emails&state=failed&type=send&key=k&limit=2";
    let found = scene.send(request(line, &[], "")).await;
    assert_eq!(found.status, 200);
    assert_eq!(found.json()["jobs"].as_array().map(Vec::len), Some(2));
    assert_eq!(found.json()["jobs"][0]["links"]["self"], "/v1/jobs/order-17?queue=emails");
    let [JobAsk::List { queue, filter, cursor: None, limit: 2 }] = &scene.asked()[..] else {
        panic!("one list")
    };
    assert_eq!((&**queue, filter.state), ("emails", Some(State::Failed)));
    assert_eq!((filter.kind.as_deref(), filter.key.as_deref()), (Some("send"), Some("k")));
    let next = found.json()["next"].as_str().unwrap().to_owned();
    let line = format!("GET /v1/jobs?queue=emails&after={next}");
    let found = scene.send(request(&line, &[], "")).await;
    assert_eq!(found.json()["next"], serde_json::Value::Null);
    assert!(matches!(scene.asked()[..], [JobAsk::List { cursor: Some(42), limit: 100, .. }]));
    for query in
        ["", "?queue=q&state=dead", "?queue=q&limit=501", "?queue=q&limit=0", "?queue=q&x=1"]
    {
        let found = scene.send(request(&format!("GET /v1/jobs{query}"), &[], "")).await;
        assert_eq!((found.status, found.problem().as_str()), (400, "malformed-request"), "{query}");
    }
}
