//! What doors are answered about jobs.

use crate::host::{Host, declare, job};
use model::{
    Message, Name, Request,
    job::{JobAsk, JobResult, JobVerdict},
};
use std::sync::Arc;

fn submit(queue: &str, body: &str) -> JobAsk {
    let message = Arc::new(Message::new("", queue, &[0, 0], body.as_bytes()));
    JobAsk::Submit { queue: queue.into(), message }
}

fn look(queue: Option<&str>, id: &str) -> JobAsk {
    JobAsk::Look { queue: queue.map(Name::new), id: id.into() }
}

#[test]
fn queue_that_has_no_jobs_says_so() {
    let host = Host::new();
    let mut door = host.connect();
    door.ask(&host, declare("q"));
    let refused = |text: &str| vec![format!("1 refused: {text}")];
    let ask = |ask| -> Request { job(1, ask) };
    let not_jobs = "queue 'q' is not a queue of jobs";
    assert_eq!(door.ask(&host, ask(submit("q", "a"))), refused(not_jobs));
    assert_eq!(door.ask(&host, ask(look(Some("q"), "x"))), refused(not_jobs));
    assert_eq!(door.ask(&host, ask(submit("nope", "a"))), refused("no queue 'nope'"));
    assert_eq!(door.ask(&host, ask(look(None, "x"))), refused("no such job"));
    let complete = JobAsk::Complete {
        token: "nobody's".into(),
        verdict: JobVerdict::Fulfilled,
        result: JobResult::default(),
    };
    let stale = "the attempt has ended: another one counts, or none";
    assert_eq!(door.ask(&host, ask(complete)), refused(stale));
    assert_eq!(door.ask(&host, ask(JobAsk::Forget { number: 1 })), [""; 0]);
}
