//! Jobs as JSON, their tags, and the events of their transitions.

use crate::{
    address::{self, JobAddress},
    moment::Written,
    problem::{Problem, ProblemType},
};
use model::{
    Timestamp,
    job::{JobView, ProblemKind, Promise},
};
use serde_json::{Value, json};

fn time(it: Option<Timestamp>) -> Value {
    it.map_or(Value::Null, |it| Written(it).to_string().into())
}

fn promise(it: Promise) -> &'static str {
    match it {
        Promise::Pending => "pending",
        Promise::Fulfilled => "fulfilled",
        Promise::Rejected => "rejected",
    }
}

/// The job at `address`, which is its own.
pub fn job(view: &JobView, address: JobAddress<'_>) -> Value {
    let result_address = address.of("/result");
    let lease =
        view.lease.as_ref().map(|it| json!({ "worker": &*it.worker, "until": time(it.until) }));
    let progress = view
        .progress
        .as_ref()
        .map(|it| json!({ "percent": it.percent, "note": it.note.as_deref() }));
    let parents: Vec<&str> = view.parents.iter().map(|it| &**it).collect();
    json!({
        "id": &*view.id,
        "vhost": &*view.vhost,
        "queue": &*view.queue,
        "type": view.kind.as_deref(),
        "key": view.key.as_deref(),
        "state": view.state.name(),
        "promise": promise(view.promise()),
        "attempt": view.attempt,
        "max_attempts": view.attempts_max,
        "generation": view.generation,
        "priority": view.priority,
        "created_at": time(Some(view.created)),
        "at": time(view.at),
        "started_at": time(view.started),
        "finished_at": time(view.finished),
        "expires_at": time(view.expires),
        "times_ms": times_ms(view),
        "lease": lease,
        "progress": progress,
        "cancel_requested": view.cancel_requested,
        "result": view.has_result.then(|| json!({ "url": result_address })),
        "problem": rejection(view, address).map(|it| it.json()),
        "after": parents,
        "traceparent": view.traceparent.as_deref(),
        "links": { "self": address.of(""), "result": result_address },
    })
}

fn times_ms(view: &JobView) -> Value {
    json!({ "wait": view.waited_ms, "service": view.served_ms, "total": view.total_ms })
}

/// Why the promise of a job was rejected; `None`: it was not.
pub fn rejection(view: &JobView, address: JobAddress<'_>) -> Option<Problem> {
    if view.promise() != Promise::Rejected {
        return None;
    }
    let kind = view.problem.as_ref().map_or(ProblemKind::Refused, |it| it.kind);
    let mut problem = Problem::new(match kind {
        ProblemKind::WorkerRejected => ProblemType::WorkerRejected,
        ProblemKind::AttemptsExhausted => ProblemType::AttemptsExhausted,
        ProblemKind::LeaseLost => ProblemType::LeaseLost,
        ProblemKind::Expired => ProblemType::Expired,
        ProblemKind::Cancelled => ProblemType::Cancelled,
        ProblemKind::ParentFailed => ProblemType::ParentFailed,
        ProblemKind::Refused => ProblemType::Refused,
    });
    if matches!(kind, ProblemKind::AttemptsExhausted) {
        let plural = if view.attempt == 1 { "" } else { "s" };
        problem.title = Some(format!("Gave up after {} attempt{plural}", view.attempt).into());
    }
    problem.detail = view.problem.as_ref().and_then(|it| it.detail.as_deref()).map(Into::into);
    let problem = problem.instance(address.of("")).member("attempt", view.attempt);
    Some(problem.member("retryable", false))
}

/// The strong tag of a view.
pub fn tag(view: &JobView) -> String {
    format!("\"{:x}\"", view.tag)
}

/// The tags that a client knows, from the value of `If-None-Match`; those of others are left out.
/// `None`: any.
pub fn known_tags(field: &str) -> Option<Vec<u64>> {
    if field.trim() == "*" {
        return None;
    }
    let tags = field.split(',').filter_map(|it| {
        let it = it.trim();
        let quoted = it.strip_prefix("W/").unwrap_or(it);
        let digits = quoted.strip_prefix('"')?.strip_suffix('"')?;
        u64::from_str_radix(digits, 16).ok().filter(|tag| format!("{tag:x}") == digits)
    });
    Some(tags.collect())
}

/// The event that a job has entered the state it is in, for the `count`th time, as a CloudEvent.
pub fn event(view: &JobView, count: u64, at: Timestamp, address: JobAddress<'_>) -> Value {
    let state = view.state.name();
    let mut event = json!({
        "specversion": "1.0",
        "id": format!("{}/{state}/{count}", view.id),
        "source": address::source(&view.vhost, &view.queue),
        "type": format!("dev.ferrymq.job.{state}"),
        "subject": &*view.id,
        "time": Written(at).to_string(),
        "datacontenttype": "application/json",
        "data": { "state": state, "times_ms": times_ms(view) },
    });
    if let Some(it) = view.traceparent.as_deref() {
        event["traceparent"] = it.into();
    }
    if view.has_result {
        event["data"]["result_url"] = address.of("/result").into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        Name,
        job::{JobProblem, LeaseView, Progress, State},
    };

    fn view(state: State) -> JobView {
        JobView {
            vhost: "/".into(),
            queue: "emails".into(),
            id: "0192f0c1-7a00-7000-8000-000000000001".into(),
            kind: Some("send".into()),
            key: Some("tenant-42".into()),
            state,
            attempt: 0,
            attempts_max: 5,
            generation: 1,
            priority: 5,
            created: Timestamp(1_795_165_200_000),
            at: None,
            started: None,
            finished: None,
            expires: None,
            waited_ms: 412,
            served_ms: None,
            total_ms: None,
            lease: None,
            progress: None,
            cancel_requested: false,
            has_result: false,
            problem: None,
            parents: Vec::new(),
            traceparent: None,
            tag: 0xa1,
        }
    }

    fn address(view: &JobView) -> JobAddress<'_> {
        JobAddress { vhost: &view.vhost, queue: None, id: &view.id }
    }

    /// The public model's example, without the estimate.
    #[test]
    fn a_job_is_written_as_the_public_model_shows_it() {
        let view = view(State::Ready);
        let expected = r#"{"id":"0192f0c1-7a00-7000-8000-000000000001","vhost":"/","queue":"emails","type":"send","key":"tenant-42","state":"ready","promise":"pending","attempt":0,"max_attempts":5,"generation":1,"priority":5,"created_at":"2026-11-20T09:00:00.000Z","at":null,"started_at":null,"finished_at":null,"expires_at":null,"times_ms":{"wait":412,"service":null,"total":null},"lease":null,"progress":null,"cancel_requested":false,"result":null,"problem":null,"after":[],"traceparent":null,"links":{"self":"/v1/jobs/0192f0c1-7a00-7000-8000-000000000001","result":"/v1/jobs/0192f0c1-7a00-7000-8000-000000000001/result"}}"#;
        assert_eq!(job(&view, address(&view)).to_string(), expected);
    }

    #[test]
    fn who_works_on_it_and_how_far_he_is_is_shown() {
        let lease = LeaseView { worker: "10.0.0.7:51234".into(), until: Some(Timestamp(5)) };
        let progress = Progress { percent: Some(40), note: Some("page 4".into()) };
        let running = JobView {
            lease: Some(lease),
            progress: Some(progress),
            parents: vec![Name::new("a")],
            ..view(State::Running)
        };
        let json = job(&running, address(&running));
        assert_eq!(json["lease"]["worker"], "10.0.0.7:51234");
        assert_eq!(json["lease"]["until"], "1970-01-01T00:00:00.005Z");
        assert_eq!(json["progress"], json!({ "percent": 40, "note": "page 4" }));
        assert_eq!(json["after"], json!(["a"]));
    }

    #[test]
    fn every_reason_of_a_rejection_has_its_problem() {
        let expected = [
            ("worker-rejected", 502),
            ("attempts-exhausted", 502),
            ("lease-lost", 504),
            ("expired", 504),
            ("cancelled", 409),
            ("parent-failed", 409),
            ("refused", 409),
        ];
        for (kind, (slug, status)) in ProblemKind::ALL.into_iter().zip(expected) {
            assert_eq!(kind.name(), slug);
            let problem = Some(JobProblem { kind, detail: Some("why".into()) });
            let failed = JobView { problem, attempt: 5, ..view(State::Failed) };
            let found = rejection(&failed, address(&failed)).expect("rejected");
            assert_eq!((found.kind.slug(), found.status()), (slug, status));
            let json = job(&failed, address(&failed));
            assert_eq!(json["problem"]["detail"], "why");
            assert_eq!(json["problem"]["attempt"], 5);
        }
        for state in State::ALL {
            let view = view(state);
            let is_rejected = view.promise() == Promise::Rejected;
            assert_eq!(rejection(&view, address(&view)).is_some(), is_rejected);
        }
    }

    #[test]
    fn giving_up_says_after_how_many_attempts() {
        let problem = Some(JobProblem { kind: ProblemKind::AttemptsExhausted, detail: None });
        for (attempt, title) in [(1, "Gave up after 1 attempt"), (5, "Gave up after 5 attempts")] {
            let failed = JobView { problem: problem.clone(), attempt, ..view(State::Failed) };
            let found = rejection(&failed, address(&failed)).expect("rejected");
            assert_eq!(found.title.as_deref(), Some(title));
        }
    }

    #[test]
    fn tags_are_recognised_again() {
        let view = view(State::Ready);
        assert_eq!(tag(&view), "\"a1\"");
        assert_eq!(known_tags("\"a1\""), Some(vec![0xa1]));
        assert_eq!(known_tags("W/\"a1\", \"b\" ,\"other\",\"0A1\",x"), Some(vec![0xa1, 0xb]));
        assert_eq!(known_tags("*"), None);
        assert_eq!(known_tags(""), Some(Vec::new()));
    }

    #[test]
    fn a_transition_is_an_event() {
        let done = JobView {
            has_result: true,
            served_ms: Some(980),
            total_ms: Some(1392),
            traceparent: Some("00-x".into()),
            ..view(State::Succeeded)
        };
        let event = event(&done, 1, Timestamp(1_795_165_200_000), address(&done));
        assert_eq!(event["id"], "0192f0c1-7a00-7000-8000-000000000001/succeeded/1");
        assert_eq!(event["source"], "/vhosts/%2F/queues/emails");
        assert_eq!(event["type"], "dev.ferrymq.job.succeeded");
        assert_eq!(event["time"], "2026-11-20T09:00:00.000Z");
        assert_eq!(event["traceparent"], "00-x");
        let times = json!({ "wait": 412, "service": 980, "total": 1392 });
        assert_eq!(event["data"]["times_ms"], times);
        let url = "/v1/jobs/0192f0c1-7a00-7000-8000-000000000001/result";
        assert_eq!(event["data"]["result_url"], url);
    }
}
