//! The benchmark against a broker that misbehaves: nothing that it does wrong may go unseen.

mod fake_broker;

use bench::{EndKind, Ended};
use fake_broker::{FakeBroker, Fault};
use serde_json::Value;
use std::time::Duration;

/// What `bench LINE -o json` says of this broker, and how it ends.
fn measured(broker: &FakeBroker, line: &str) -> (Value, Option<(EndKind, String)>) {
    let uri = format!("amqp://127.0.0.1:{}", broker.address.port());
    let words = ["bench", "--quiet", "-o", "json", "--uri", &uri].into_iter();
    let matches = bench::command().try_get_matches_from(words.chain(line.split(' '))).unwrap();
    let Ended { said, error } = bench::run(&matches);
    let said = if said.is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() };
    (said, error.map(|it| (it.kind(), it.to_string())))
}

#[track_caller]
fn check_verdict(fault: Fault, line: &str, expected: &str) -> Value {
    let broker = FakeBroker::start(fault);
    let (said, error) = measured(&broker, line);
    assert_eq!(error, Some((EndKind::No, expected.to_owned())));
    assert_eq!(broker.queues(), [""; 0], "its queue is deleted");
    assert_eq!(broker.deleted().len(), 1);
    said
}

#[test]
fn stall_of_the_broker_is_in_the_percentiles() {
    let stall = Duration::from_millis(800);
    let broker = FakeBroker::start(Fault { stall_at: 300, stall, ..Fault::default() });
    // One message at a time: whoever counted from sending would see one late message in 1,000.
    let line = "latency --rate 1000 --count 1000 --confirm 1 --ack each";
    let (said, error) = measured(&broker, line);
    assert_eq!(error, None);
    for key in ["confirm_latency_us", "delivery_latency_us"] {
        let at = |point: &str| said[key][point].as_f64().unwrap();
        assert!(300_000.0 < at("p90"), "{said}");
        assert!(790_000.0 < at("max"), "{said}");
        assert_eq!(said[key]["count"], 1_000);
    }
    assert_eq!(said["broker"]["product"], "Fake");
}

#[test]
fn messages_of_the_warm_up_are_not_in_the_percentiles() {
    let stall = Duration::from_millis(100);
    let broker = FakeBroker::start(Fault { stall_at: 1, stall, ..Fault::default() });
    let (said, error) =
        measured(&broker, "latency --rate 100 --count 60 --warmup 0.3 --confirm 10");
    assert_eq!((error, &said["published"]), (None, &Value::from(60)));
    let count = said["delivery_latency_us"]["count"].as_u64().unwrap();
    assert!((29..=31).contains(&count), "{said}");
    assert_eq!(said["confirm_latency_us"]["count"], count);
}

#[test]
fn lost_message_is_counted_and_fails_the_run() {
    let fault = Fault { lose_at: 17, ..Fault::default() };
    for line in [
        "throughput --count 50 --patience 0.2 --confirm 10",
        "throughput --count 50 --patience 0.2 --size 4",
        "drain --count 50 --patience 0.2 --confirm 10",
    ] {
        let said = check_verdict(fault.clone(), line, "messages lost: 1");
        let part = if line.starts_with("drain") { &said["drain"] } else { &said };
        assert_eq!((&part["lost"], &part["consumed"]), (&Value::from(1), &Value::from(49)));
    }
    check_verdict(fault, "publish --count 50 --confirm 10", "messages missing in the queue: 1");
}

#[test]
fn doubled_message_is_counted_and_fails_the_run() {
    let fault = Fault { double_at: 50, ..Fault::default() };
    let said = check_verdict(fault, "throughput --count 50", "messages that came twice: 1");
    assert_eq!((&said["duplicates"], &said["lost"]), (&Value::from(1), &Value::from(0)));
}

#[test]
fn refused_message_fails_the_run_and_is_not_lost_too() {
    let fault = Fault { refuse_at: 17, ..Fault::default() };
    let line = "throughput --count 50 --confirm 10";
    let said = check_verdict(fault, line, "messages refused by the broker: 1");
    assert_eq!((&said["rejected"], &said["confirmed"]), (&Value::from(1), &Value::from(49)));
    assert_eq!(said["lost"], 0);
}

#[test]
fn broker_that_hangs_up_is_quoted_and_the_queue_is_deleted_all_the_same() {
    let broker = FakeBroker::start(Fault { hang_up_at: 5, ..Fault::default() });
    let (said, error) = measured(&broker, "throughput --count 50 --confirm 1");
    let reason = "the broker closed the connection: 320 CONNECTION_FORCED - test";
    assert_eq!((said, error), (Value::Null, Some((EndKind::Unavailable, reason.to_owned()))));
    assert_eq!((broker.queues().len(), broker.deleted().len()), (0, 1));
}

#[test]
fn refused_request_is_told_with_its_code() {
    for (name, code, kind, expected) in [
        ("connection.start-ok", 403, EndKind::Permission, "refuses the login of user `guest`"),
        ("connection.open", 530, EndKind::Permission, "refuses the virtual host `/`"),
        ("queue.declare", 403, EndKind::Permission, "closed the channel: 403 REFUSED - by"),
        ("confirm.select", 540, EndKind::Unavailable, "closed the channel: 540 REFUSED - by"),
    ] {
        let broker = FakeBroker::start(Fault { refused: Some((name, code)), ..Fault::default() });
        let (_, error) = measured(&broker, "publish --count 5 --confirm 1");
        let (found, text) = error.unwrap();
        assert!(found == kind && text.contains(expected), "{found:?} {text}");
        assert_eq!(broker.queues(), [""; 0]);
    }
}

#[test]
fn queue_that_was_there_before_is_not_used_and_not_deleted() {
    let broker = FakeBroker::start(Fault { existing: Some("orders"), ..Fault::default() });
    let (_, error) = measured(&broker, "throughput --queue orders --count 5");
    let (kind, text) = error.unwrap();
    assert_eq!(kind, EndKind::Data);
    assert!(text.contains("the queue `orders` exists already"), "{text}");
    assert_eq!((broker.queues(), broker.deleted().len()), (vec!["orders".to_owned()], 0));
    let (_, error) = measured(&broker, "throughput --queue mine --count 5");
    assert_eq!((error, broker.deleted()), (None, vec!["mine".to_owned()]));
}

#[test]
fn server_of_another_protocol_is_told_from_a_broker() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("amqp://{}", listener.local_addr().unwrap());
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let matches = bench::command().try_get_matches_from(["bench", "churn", "--uri", &uri]).unwrap();
    let error = bench::run(&matches).error.unwrap();
    assert_eq!(error.kind(), EndKind::Unavailable);
    assert!(error.to_string().contains("is this an AMQP 0-9-1 broker?"), "{error}");
    web.join().unwrap();
    let error = bench::run(&matches).error.unwrap();
    assert!(error.to_string().starts_with("cannot connect to 127.0.0.1:"), "{error}");
}
