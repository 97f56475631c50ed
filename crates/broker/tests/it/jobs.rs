//! Jobs: what workers do to them, what doors are answered about them, and what a restart leaves.

use crate::host::{CHANNEL, Client, Host, NOW, declare, job, publish, subscribe};
use broker::Checkpointer;
use model::{
    Delivery, Message, Name, Notice, Outcome, Publish, Request, Settle, Table, Timestamp, Value,
    job::{
        Admission, JobAnswer, JobAsk, JobFilter, JobResult, JobVerdict, JobView, ProblemKind,
        Progress, State, Until,
    },
    properties::Properties,
    request::DeclareQueue,
};
use std::sync::Arc;

fn submit(queue: &str, body: &str) -> JobAsk {
    let message = Arc::new(Message::new("", queue, &[0, 0], body.as_bytes()));
    JobAsk::Submit { queue: queue.into(), message }
}

fn look(queue: Option<&str>, id: &str) -> JobAsk {
    JobAsk::Look { queue: queue.map(Name::new), id: id.into() }
}

fn at(ms: u64) -> Timestamp {
    NOW.plus_ms(ms)
}

fn declare_jobs(queue: &str, more: Vec<(&str, Value)>) -> Request {
    let mut arguments = vec![(Name::new("x-jobs"), Value::Bool(true))];
    arguments.extend(more.into_iter().map(|(key, value)| (Name::new(key), value)));
    let Request::DeclareQueue(it) = declare(queue) else { unreachable!() };
    Request::DeclareQueue(DeclareQueue { arguments: Table(arguments), ..it })
}

/// A durable message with an id.
fn properties(id: &str) -> Properties {
    let message_id = Some(id).filter(|it| !it.is_empty()).map(Name::new);
    Properties { delivery_mode: Some(2), message_id, ..Properties::default() }
}

fn publish_with(key: &str, properties: &Properties, body: &str) -> Request {
    Request::Publish(Publish {
        channel: CHANNEL,
        message: Message::new("", key, &properties.encoded(), body.as_bytes()).into(),
        mandatory: true,
        confirm: None,
    })
}

fn settle(it: &Delivery, outcome: Outcome) -> Request {
    Request::Settle(Settle {
        channel: CHANNEL,
        queue: it.queue,
        consumer: Some(it.consumer),
        entries: std::iter::once(it.entry).collect(),
        outcome,
    })
}

fn reply_to(it: &Delivery) -> String {
    it.message.facts().reply_to.expect("a job has an address for answers").to_owned()
}

fn attempt(it: &Delivery) -> i64 {
    let headers = it.message.facts().header_table();
    headers.get("x-attempt").and_then(Value::as_integer).expect("a job says its attempt")
}

/// One broker with a queue of jobs, a door and a worker.
struct Shop {
    host: Host,
    door: Client,
    worker: Client,
    numbers: u64,
    now: Timestamp,
}

impl Shop {
    fn new(more: Vec<(&str, Value)>) -> Self {
        Self::on(Host::new(), more)
    }

    fn on(host: Host, more: Vec<(&str, Value)>) -> Self {
        let (mut door, worker) = (host.connect(), host.connect());
        let declared = door.ask(&host, declare_jobs("q", more));
        assert!(declared[0].starts_with("declared q"), "{declared:?}");
        Self { host, door, worker, numbers: 100, now: NOW }
    }

    fn restart(self, seed: u64) -> Self {
        let now = self.now;
        let host = self.host.crash(seed);
        let (door, worker) = (host.connect(), host.connect());
        let mut shop = Self { host, door, worker, numbers: 100, now };
        shop.pass(now);
        shop
    }

    fn pass(&mut self, now: Timestamp) {
        self.now = now;
        self.host.broker.tick(now);
        while self.host.broker.serve_load(now) {}
        self.host.sync();
    }

    fn ask(&mut self, ask: JobAsk) -> JobAnswer {
        self.asks(ask).expect("an answer")
    }

    /// Asks; `None` when nothing has been answered.
    fn asks(&mut self, ask: JobAsk) -> Option<JobAnswer> {
        self.numbers += 1;
        self.door.0.submit(&mut vec![job(self.numbers, ask)], self.now);
        self.answer(self.numbers)
    }

    fn answer(&mut self, number: u64) -> Option<JobAnswer> {
        while self.host.broker.serve_load(self.now) {}
        self.host.sync();
        self.door.notices().into_iter().find_map(|it| match it {
            Notice::Job(it) if it.number == number => Some(it.answer),
            _ => None,
        })
    }

    fn view(&mut self, id: &str) -> JobView {
        match self.ask(look(Some("q"), id)) {
            JobAnswer::Job(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, id: &str) -> State {
        self.view(id).state
    }

    fn result(&mut self, id: &str) -> Option<JobResult> {
        match self.ask(JobAsk::Result { queue: Some("q".into()), id: id.into() }) {
            JobAnswer::Result { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn publish(&mut self, id: &str, body: &str) {
        self.send(publish_with("q", &properties(id), body));
    }

    fn send(&mut self, request: Request) {
        self.door.0.submit(&mut vec![request], self.now);
        self.host.sync();
    }

    fn work(&mut self, request: Request) {
        self.worker.0.submit(&mut vec![request], self.now);
        while self.host.broker.serve_load(self.now) {}
        self.host.sync();
    }

    fn consume(&mut self) -> Vec<Delivery> {
        self.work(subscribe(1, "q", None));
        self.delivered()
    }

    fn delivered(&mut self) -> Vec<Delivery> {
        let notices = self.worker.notices().into_iter();
        notices
            .filter_map(|it| match it {
                Notice::Delivery(it) => Some(it),
                _ => None,
            })
            .collect()
    }

    fn reply(&mut self, to: &Delivery, properties: &Properties, body: &str) {
        self.work(publish_with(&reply_to(to), properties, body));
    }
}

fn typed(content_type: &str) -> Properties {
    Properties { content_type: Some(content_type.into()), ..Properties::default() }
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

#[test]
fn job_is_done_by_a_reply_and_an_ack_and_its_result_outlives_a_crash() {
    let mut shop = Shop::new(vec![]);
    shop.publish("one", "work");
    assert_eq!(shop.state("one"), State::Ready);
    let got = shop.consume();
    assert_eq!((got.len(), attempt(&got[0]), got[0].message.body()), (1, 1, b"work".to_vec()));
    assert_eq!(shop.state("one"), State::Running);
    shop.reply(&got[0], &typed("text/plain"), "first");
    shop.reply(&got[0], &typed("text/plain"), "second");
    assert_eq!(shop.result("one"), None, "nothing counts before the ack");
    shop.work(settle(&got[0], Outcome::Accept));
    let expected = JobResult {
        content_type: Some("text/plain".into()),
        content_encoding: None,
        body: "second".into(),
    };
    assert_eq!(shop.result("one").as_ref(), Some(&expected));
    let before = shop.view("one");
    assert_eq!((before.state, before.attempt, before.has_result), (State::Succeeded, 1, true));
    let mut shop = shop.restart(1);
    assert_eq!(shop.view("one"), before);
    assert_eq!(shop.result("one"), Some(expected));
    shop.publish("one", "work");
    assert_eq!(shop.consume().len(), 0, "the same again is no new job");
    assert!(shop.host.restoration.unreadable.is_empty(), "{:?}", shop.host.restoration);
}

#[test]
fn ack_alone_is_an_empty_result() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let got = shop.consume();
    shop.work(settle(&got[0], Outcome::Accept));
    assert_eq!((shop.state("a"), shop.result("a")), (State::Succeeded, None));
    shop.reply(&got[0], &typed("text/plain"), "late");
    assert_eq!(shop.result("a"), None);
}

#[test]
fn failed_attempts_rest_and_are_used_up_over_restarts() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let mut now = NOW;
    for round in 1..=5 {
        if round == 3 {
            shop = shop.restart(7);
        }
        now = now.plus_ms(3_600_000);
        shop.pass(now);
        let got = if round == 1 || round == 3 { shop.consume() } else { shop.delivered() };
        assert_eq!(got.len(), 1, "attempt {round}");
        assert_eq!(attempt(&got[0]), round);
        shop.reply(&got[0], &typed("text/plain"), "dropped by the nack");
        shop.work(settle(&got[0], Outcome::Requeue { failed: false }));
        let expected = if round == 5 { State::Failed } else { State::Scheduled };
        let view = shop.view("a");
        assert_eq!(view.state, expected, "attempt {round}");
        assert!(view.at.is_none_or(|it| shop.now < it && it <= shop.now.plus_ms(32_000)));
    }
    let view = shop.view("a");
    let problem = view.problem.as_ref().map(|it| it.kind);
    assert_eq!((problem, view.has_result), (Some(ProblemKind::AttemptsExhausted), false));
    let mut shop = shop.restart(8);
    assert_eq!(shop.view("a"), view);
}

#[test]
fn problem_document_rejects_and_one_that_may_be_retried_does_not() {
    let mut shop = Shop::new(vec![]);
    for id in ["a", "b", "c"] {
        shop.publish(id, id);
    }
    let got = shop.consume();
    let problem = typed("application/problem+json");
    shop.reply(&got[0], &problem, r#"{"title":"no","detail":"never"}"#);
    shop.reply(&got[1], &problem, r#"{"retryable":true,"detail":"busy"}"#);
    let headers = Table(vec![("retry-after".into(), Value::I32(60))]);
    let later = Properties { headers: Some(headers), ..problem.clone() };
    shop.reply(&got[2], &later, "{}");
    for it in &got {
        shop.work(settle(it, Outcome::Accept));
    }
    let view = shop.view("a");
    let said = view.problem.expect("a problem");
    assert_eq!((view.state, said.kind), (State::Failed, ProblemKind::WorkerRejected));
    assert_eq!((said.detail.as_deref(), view.has_result), (Some("never"), true));
    assert_eq!(shop.state("b"), State::Scheduled);
    assert_eq!(shop.view("c").at, Some(at(60_000)));
    assert_eq!(shop.result("a").expect("is kept").body, r#"{"title":"no","detail":"never"}"#);
}

#[test]
fn rejected_job_fails_and_a_copy_dies() {
    let dead = Value::text("");
    let arguments =
        vec![("x-dead-letter-exchange", dead), ("x-dead-letter-routing-key", Value::text("d"))];
    let mut shop = Shop::new(arguments);
    shop.door.ask(&shop.host, declare("d"));
    shop.publish("a", "x");
    let got = shop.consume();
    shop.work(settle(&got[0], Outcome::Reject { flagged: false }));
    assert_eq!(shop.state("a"), State::Failed);
    let mut shop = shop.restart(3);
    assert_eq!(shop.state("a"), State::Failed);
    shop.work(subscribe(2, "d", None));
    let got = shop.delivered();
    let headers = got[0].message.facts().header_table();
    assert_eq!(headers.get("x-first-death-reason"), Some(&Value::text("rejected")));
}

#[test]
fn what_is_given_back_is_no_attempt_and_what_is_lost_is_one() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let got = shop.consume();
    shop.work(settle(&got[0], Outcome::Release { failed: true }));
    let got = shop.delivered();
    assert_eq!((attempt(&got[0]), got[0].redelivered), (1, true));
    std::mem::replace(&mut shop.worker, shop.host.connect()).0.close(shop.now);
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Ready, 0));
    let got = shop.consume();
    assert_eq!(attempt(&got[0]), 1);
    std::mem::replace(&mut shop.worker, shop.host.connect()).0.lose(shop.now);
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Scheduled, 1));
    shop.pass(at(10_000));
    let got = shop.consume();
    assert_eq!(attempt(&got[0]), 2);
    let mut shop = shop.restart(5);
    let got = shop.consume();
    assert_eq!((got.len(), attempt(&got[0]), got[0].redelivered), (1, 2, true));
}

#[test]
fn answer_goes_to_the_submitter_and_one_of_a_lost_attempt_nowhere() {
    let mut shop = Shop::new(vec![]);
    shop.door.ask(&shop.host, declare("answers"));
    let asked = Properties {
        reply_to: Some("answers".into()),
        correlation_id: Some("c-7".into()),
        ..properties("a")
    };
    shop.send(publish_with("q", &asked, "x"));
    let lost = shop.consume();
    std::mem::replace(&mut shop.worker, shop.host.connect()).0.lose(shop.now);
    shop.reply(&lost[0], &properties(""), "stale");
    shop.pass(at(10_000));
    let got = shop.consume();
    shop.reply(&got[0], &properties(""), "answer");
    shop.work(settle(&got[0], Outcome::Accept));
    shop.reply(&got[0], &properties(""), "late");
    shop.work(subscribe(2, "answers", None));
    let copies = shop.delivered();
    let bodies: Vec<_> = copies.iter().map(|it| it.message.body()).collect();
    assert_eq!(bodies, [b"answer".to_vec(), b"late".to_vec()]);
    let read = Properties::decode(copies[0].message.properties()).expect("decodes");
    assert_eq!(read.correlation_id, Some("c-7".into()));
    assert_eq!(shop.result("a").expect("is kept").body, "answer");
    let forged = format!("amq.job.0.1.{:032x}", 5);
    assert_eq!(shop.worker.ask(&shop.host, publish("", &forged, "x", 1)), ["confirmed 1-1"]);
}

#[test]
fn consumer_without_acks_settles_by_its_answer() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    shop.publish("b", "x");
    let Request::Subscribe(it) = subscribe(1, "q", None) else { unreachable!() };
    shop.work(Request::Subscribe(model::Subscribe { automatic: true, ..it }));
    let got = shop.delivered();
    assert_eq!((got.len(), got[0].automatic), (2, true));
    shop.reply(&got[0], &typed("text/plain"), "done");
    assert_eq!((shop.state("a"), shop.state("b")), (State::Succeeded, State::Running));
    std::mem::replace(&mut shop.worker, shop.host.connect()).0.lose(shop.now);
    assert_eq!(shop.state("b"), State::Scheduled);
}

#[test]
fn delayed_and_expiring_jobs_keep_their_times_over_a_restart() {
    let mut shop = Shop::new(vec![]);
    let delay = |ms: i64, properties: Properties| {
        let headers = Some(Table(vec![("x-delay".into(), Value::I64(ms))]));
        Properties { headers, ..properties }
    };
    shop.send(publish_with("q", &delay(5_000, properties("later")), "x"));
    shop.send(publish_with("q", &delay(-1, properties("now")), "x"));
    let expiring = Properties { expiration: Some("3000".into()), ..properties("dies") };
    shop.send(publish_with("q", &delay(9_000, expiring), "x"));
    let seconds = NOW.0 / 1_000 + 20;
    let headers = Some(Table(vec![("x-at".into(), Value::Timestamp(seconds))]));
    shop.send(publish_with("q", &Properties { headers, ..properties("at") }, "x"));
    let mut shop = shop.restart(2);
    assert_eq!(shop.view("later").at, Some(at(5_000)));
    let got = shop.consume();
    assert_eq!(got.len(), 1);
    shop.pass(at(4_999));
    assert_eq!((shop.delivered().len(), shop.state("dies")), (0, State::Expired));
    shop.pass(at(5_000));
    assert_eq!(shop.delivered().len(), 1);
    shop.pass(at(20_000));
    assert_eq!(shop.delivered().len(), 1);
    assert_eq!(shop.state("at"), State::Running);
}

#[test]
fn lease_outlives_a_restart_and_ends_by_itself() {
    let mut shop = Shop::new(vec![]);
    let lease = || JobAsk::Lease { queue: "q".into(), worker: "w1".into() };
    assert!(shop.asks(lease()).is_none(), "there is no job yet");
    let waiting = shop.numbers;
    let durable = Properties { kind: Some("send".into()), ..properties("") };
    let message = Arc::new(Message::new("", "q", &durable.encoded(), b"x"));
    shop.numbers += 1;
    let ask = JobAsk::Submit { queue: "q".into(), message };
    shop.door.0.submit(&mut vec![job(shop.numbers, ask)], shop.now);
    shop.host.sync();
    let mut leased = None;
    let mut id = None;
    for notice in shop.door.notices() {
        let Notice::Job(it) = notice else { continue };
        match it.answer {
            JobAnswer::Leased { token, view, until, .. } => {
                assert_eq!((it.number, until, view.attempt), (waiting, at(300_000), 1));
                leased = Some(token);
            }
            JobAnswer::Submitted { admission, view } => {
                assert_eq!((admission, view.kind.as_deref()), (Admission::New, Some("send")));
                id = Some(view.id.to_string());
            }
            other => panic!("{other:?}"),
        }
    }
    let (token, id) = (leased.expect("a lease"), id.expect("an id"));
    let progress = Progress { percent: Some(40), note: Some("page 4".into()) };
    let extend =
        JobAsk::Extend { token: token.clone(), by_ms: Some(400_000), progress: Some(progress) };
    assert!(matches!(
        shop.ask(extend),
        JobAnswer::Extended { until: Some(it), cancel_requested: false } if it == at(400_000)
    ));
    assert_eq!(shop.view(&id).progress.and_then(|it| it.percent), Some(40));
    let mut shop = shop.restart(4);
    let view = shop.view(&id);
    assert_eq!((view.state, view.lease.map(|it| it.worker)), (State::Running, Some("w1".into())));
    shop.pass(at(399_999));
    assert_eq!(shop.state(&id), State::Running);
    shop.pass(at(400_000));
    assert_eq!(shop.state(&id), State::Scheduled);
    let complete = |token: &Name| JobAsk::Complete {
        token: token.clone(),
        verdict: JobVerdict::Fulfilled,
        result: JobResult { body: "r".into(), ..JobResult::default() },
    };
    assert!(matches!(shop.ask(complete(&token)), JobAnswer::Refused(_)), "it is stale");
    shop.pass(at(500_000));
    let JobAnswer::Leased { token, .. } = shop.ask(lease()) else { panic!("a lease") };
    assert!(
        matches!(shop.ask(complete(&token)), JobAnswer::Ended(it) if it.state == State::Succeeded)
    );
    assert_eq!(shop.result(&id).expect("a result").body, "r");
}

#[test]
fn lease_that_nobody_wants_any_more_comes_back_and_does_not_count() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let lease = || JobAsk::Lease { queue: "q".into(), worker: "w".into() };
    assert!(matches!(shop.ask(lease()), JobAnswer::Leased { .. }));
    let number = shop.numbers;
    assert!(shop.asks(JobAsk::Forget { number }).is_none());
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Ready, 0));
    let mut gone = shop.host.connect();
    gone.0.submit(&mut vec![job(1, lease())], shop.now);
    gone.0.close(shop.now);
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Ready, 0));
    let JobAnswer::Leased { token, .. } = shop.ask(lease()) else { panic!("a lease") };
    assert!(matches!(shop.ask(JobAsk::Release { token }), JobAnswer::Ended(_)));
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Ready, 0));
}

#[test]
fn waits_are_answered_when_it_happens() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let wait = |until| JobAsk::Wait { queue: None, id: "a".into(), until };
    let tag = shop.view("a").tag;
    assert!(shop.asks(wait(Until::Settled)).is_none());
    let settled = shop.numbers;
    assert!(shop.asks(wait(Until::TagDiffers(tag))).is_none());
    let changed = shop.numbers;
    let got = shop.consume();
    assert!(matches!(shop.answer(changed), Some(JobAnswer::Job(it)) if it.state == State::Running));
    shop.work(settle(&got[0], Outcome::Accept));
    assert!(
        matches!(shop.answer(settled), Some(JobAnswer::Job(it)) if it.state == State::Succeeded)
    );
    assert!(shop.asks(wait(Until::Settled)).is_some(), "it has happened already");
}

#[test]
fn settlement_is_told_when_it_is_durable() {
    let mut shop = Shop::new(vec![]);
    shop.publish("a", "x");
    let wait = JobAsk::Wait { queue: None, id: "a".into(), until: Until::Settled };
    assert!(shop.asks(wait).is_none());
    let got = shop.consume();
    shop.worker.0.submit(&mut vec![settle(&got[0], Outcome::Accept)], shop.now);
    assert!(shop.door.notices().is_empty(), "no sync has returned yet");
    shop.host.sync();
    assert_eq!(shop.door.notices().len(), 1);
}

#[test]
fn submissions_say_what_they_are() {
    let mut shop = Shop::new(vec![]);
    let unique = |id: &str, unique: &str, body: &str| {
        let headers = Some(Table(vec![("x-unique".into(), Value::text(unique))]));
        let properties = Properties { headers, ..properties(id) };
        let message = Arc::new(Message::new("", "q", &properties.encoded(), body.as_bytes()));
        JobAsk::Submit { queue: "q".into(), message }
    };
    for (ask, admission, id) in [
        (unique("a", "u", "x"), Admission::New, "a"),
        (unique("a", "u", "x"), Admission::Duplicate, "a"),
        (unique("a", "u", "y"), Admission::Conflict, "a"),
        (unique("b", "u", "x"), Admission::UniqueHolder, "a"),
        (unique("b", "v", "x"), Admission::New, "b"),
    ] {
        match shop.ask(ask) {
            JobAnswer::Submitted { admission: found, view } => {
                assert_eq!((found, view.id.as_str()), (admission, id));
            }
            other => panic!("{other:?}"),
        }
    }
    let headers = Some(Table(vec![("x-after".into(), Value::Array(vec![Value::text("a")]))]));
    let after = Properties { headers, ..properties("c") };
    let message = Arc::new(Message::new("", "q", &after.encoded(), b"x"));
    let refused = shop.ask(JobAsk::Submit { queue: "q".into(), message });
    assert!(format!("{refused:?}").contains("header 'x-after' is not supported yet"));
    shop.send(publish_with("q", &after, "x"));
    let view = shop.view("c");
    let problem = view.problem.expect("a problem");
    assert_eq!((view.state, problem.kind), (State::Cancelled, ProblemKind::Refused));
    let mut shop = shop.restart(6);
    assert_eq!(shop.view("c").problem, Some(problem));
    assert_eq!((shop.state("a"), shop.state("b")), (State::Ready, State::Ready));
}

#[test]
fn jobs_are_cancelled_retried_changed_and_listed() {
    let mut shop = Shop::new(vec![("x-max-priority", Value::I32(9))]);
    for id in ["a", "b", "c"] {
        shop.publish(id, id);
    }
    let queue = || Some(Name::new("q"));
    let cancel = |id: &str| JobAsk::Cancel { queue: queue(), id: id.into() };
    assert!(matches!(shop.ask(cancel("a")), JobAnswer::Job(it) if it.state == State::Cancelled));
    assert!(matches!(shop.ask(cancel("a")), JobAnswer::Refused(_)));
    let retry = |id: &str| JobAsk::Retry { queue: queue(), id: id.into() };
    assert!(matches!(shop.ask(retry("b")), JobAnswer::Refused(_)), "it is pending");
    assert!(matches!(shop.ask(retry("a")), JobAnswer::Job(it) if it.generation == 2));
    let patch =
        |id: &str, priority, at| JobAsk::Patch { queue: queue(), id: id.into(), priority, at };
    assert!(matches!(shop.ask(patch("c", Some(9), None)), JobAnswer::Job(it) if it.priority == 9));
    assert!(matches!(
        shop.ask(patch("b", None, Some(at(60_000)))),
        JobAnswer::Job(it) if it.state == State::Scheduled
    ));
    let mut shop = shop.restart(9);
    assert_eq!(shop.view("a").generation, 2);
    let got = shop.consume();
    let bodies: Vec<_> = got.iter().map(|it| it.message.body()).collect();
    assert_eq!(bodies, [b"c", b"a"]);
    let list = |filter, cursor, limit| JobAsk::List { queue: "q".into(), filter, cursor, limit };
    let listed = |it: JobAnswer| match it {
        JobAnswer::Listed { jobs, next } => {
            (jobs.iter().map(|it| it.id.to_string()).collect::<Vec<_>>(), next)
        }
        other => panic!("{other:?}"),
    };
    let (ids, next) = listed(shop.ask(list(JobFilter::default(), None, 2)));
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(listed(shop.ask(list(JobFilter::default(), next, 2))), (vec!["c".into()], None));
    let running = JobFilter { state: Some(State::Running), ..JobFilter::default() };
    assert_eq!(listed(shop.ask(list(running, None, 9))).0, ["a", "c"]);
    shop.ask(cancel("a"));
    assert!(shop.view("a").cancel_requested);
    shop.work(settle(&got[1], Outcome::Requeue { failed: false }));
    assert_eq!(shop.state("a"), State::Cancelled);
}

#[test]
fn ids_are_found_without_a_queue_unless_several_have_them() {
    let mut shop = Shop::new(vec![]);
    shop.door.ask(&shop.host, declare_jobs("r", vec![]));
    shop.publish("a", "x");
    assert!(matches!(shop.ask(look(None, "a")), JobAnswer::Job(_)));
    shop.send(publish_with("r", &properties("a"), "x"));
    let ambiguous = format!("{:?}", shop.ask(look(None, "a")));
    assert!(ambiguous.contains("Ambiguous([\"q\", \"r\"])"), "{ambiguous}");
    assert!(matches!(shop.ask(look(Some("r"), "a")), JobAnswer::Job(_)));
    shop.pass(at(15 * 86_400_000));
}

#[test]
fn settled_jobs_are_forgotten_in_time_and_leave_the_log_but_for_those_that_stay() {
    let mut shop = Shop::new(vec![]);
    let lasting = |shop: &Shop| shop.host.log.lasting_segments().count();
    for number in 0..40 {
        shop.publish(&format!("j{number}"), &"x".repeat(3_000));
    }
    let got = shop.consume();
    for (number, it) in got.iter().enumerate() {
        let kind = if number == 7 { "application/problem+json" } else { "text/plain" };
        shop.reply(it, &typed(kind), &format!("{number}{}", "r".repeat(3_000)));
        shop.work(settle(it, Outcome::Accept));
    }
    let before = lasting(&shop);
    assert!(3 <= before, "{before} segments");
    let mut shop = shop.restart(12);
    assert_eq!(shop.result("j8").expect("is kept").body.len(), 3_001);
    shop.pass(at(86_400_000));
    let answer = shop.ask(look(Some("q"), "j8"));
    assert!(format!("{answer:?}").contains("Forgotten"), "{answer:?}");
    let failed = shop.view("j7");
    for step in 0..40 {
        shop.host.broker.reclaim(at(86_400_000 + step * 60_000)).expect("reclaims");
        shop.host.sync();
    }
    let after = lasting(&shop);
    assert!(after + 2 < before, "{after} of {before} segments");
    assert_eq!(shop.result("j7").expect("was moved").body.len(), 3_001);
    for seed in 13..15 {
        shop = shop.restart(seed);
        assert_eq!(shop.view("j7"), failed);
        assert_eq!(shop.result("j7").expect("was moved").body.len(), 3_001);
        assert!(matches!(shop.ask(look(Some("q"), "j8")), JobAnswer::Refused(_)));
        Checkpointer::new(Arc::clone(&shop.host.log)).write(&|| false).expect("a checkpoint");
    }
    shop.pass(at(15 * 86_400_000));
    assert!(matches!(shop.ask(look(Some("q"), "j7")), JobAnswer::Refused(_)));
}

#[test]
fn checkpoint_says_of_jobs_what_the_log_says() {
    let mut shop = Shop::new(vec![]);
    for number in 0..60 {
        shop.publish(&format!("j{number}"), &"x".repeat(2_000));
    }
    let got = shop.consume();
    for (it, outcome) in got.iter().zip(
        [Outcome::Accept, Outcome::Requeue { failed: true }, Outcome::Reject { flagged: true }]
            .into_iter()
            .cycle(),
    ) {
        shop.reply(it, &typed("text/plain"), &"r".repeat(2_000));
        shop.work(settle(it, outcome));
    }
    let views: Vec<_> = (0..60).map(|it| shop.view(&format!("j{it}"))).collect();
    let written = Checkpointer::new(Arc::clone(&shop.host.log)).write(&|| false);
    assert_eq!(written, Ok(true));
    for seed in 1..4 {
        shop = shop.restart(seed);
        assert!(0 < shop.host.log.checkpointed().0, "the checkpoint is used");
        for (number, view) in views.iter().enumerate() {
            assert_eq!(shop.view(&format!("j{number}")), *view);
        }
        assert_eq!(shop.result("j3").expect("is kept").body.len(), 2_000);
    }
}

#[test]
fn delivery_that_takes_too_long_is_lost_unless_its_worker_tells_progress() {
    let mut shop = Shop::new(vec![("x-consumer-timeout", Value::I32(60_000))]);
    shop.publish("a", "x");
    let got = shop.consume();
    shop.pass(at(50_000));
    let progress = Properties { kind: Some("progress".into()), ..Properties::default() };
    shop.reply(&got[0], &progress, r#"{"percent":40,"note":"page 4"}"#);
    let view = shop.view("a");
    let said = view.progress.expect("progress");
    assert_eq!((said.percent, said.note.as_deref()), (Some(40), Some("page 4")));
    assert_eq!(view.lease.and_then(|it| it.until), Some(at(110_000)));
    shop.pass(at(109_999));
    assert_eq!(shop.state("a"), State::Running);
    shop.pass(at(110_000));
    assert_eq!((shop.state("a"), shop.view("a").attempt), (State::Scheduled, 1));
    shop.work(settle(&got[0], Outcome::Accept));
    assert_eq!(shop.state("a"), State::Scheduled, "the ack comes too late");
}

#[test]
fn queue_of_jobs_refuses_what_it_cannot_do() {
    let host = Host::new();
    let mut client = host.connect();
    let found = client.ask(&host, declare_jobs("q", vec![("x-max-length", Value::I32(5))]));
    assert!(found[0].contains("not supported with x-jobs"), "{found:?}");
    let Request::DeclareQueue(it) = declare("q") else { unreachable!() };
    let arguments = Table(vec![("x-jobs".into(), Value::text("yes"))]);
    let found = client.ask(&host, Request::DeclareQueue(DeclareQueue { arguments, ..it }));
    assert!(found[0].contains("expected boolean"), "{found:?}");
    assert_eq!(client.ask(&host, declare_jobs("q", vec![])), ["declared q 0 0"]);
    client.ask(&host, publish("", "q", "x", 1));
    let fetch = || Request::Fetch { channel: CHANNEL, queue: "q".into(), automatic: false };
    assert_eq!(client.ask(&host, fetch()), ["fetched x of 1"]);
    assert_eq!(client.ask(&host, fetch()), ["fetched nothing"]);
    let purge = Request::PurgeQueue { channel: CHANNEL, queue: "q".into() };
    assert_eq!(client.ask(&host, publish("", "q", "y", 2)), ["confirmed 2-2"]);
    assert_eq!(client.ask(&host, purge), ["purged 1"]);
    let delete = Request::DeleteQueue {
        channel: CHANNEL,
        queue: "q".into(),
        if_unused: false,
        if_empty: true,
    };
    assert_eq!(client.ask(&host, delete), ["deleted 0"]);
}
