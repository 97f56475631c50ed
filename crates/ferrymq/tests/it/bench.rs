//! `ferrymq bench` against the program itself: every mode with a few messages.

use crate::{Running, ferrymq, finished};
use std::{io::Read as _, process::Stdio};
use tempfile::TempDir;

/// Status, standard output and complaint of `bench LINE`.
fn bench(folder: &TempDir, server: &Running, line: &str) -> (i32, String, String) {
    let uri = format!("amqp://guest:guest@{}/", server.address());
    let mut command = ferrymq(folder);
    finished(command.args(["bench", "--uri", &uri]).args(line.split(' ')))
}

/// The number behind a key of a flat piece of JSON.
#[track_caller]
fn number(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).expect(key);
    rest.split([',', '}']).next().unwrap().parse().expect(key)
}

#[test]
fn every_mode_measures_what_it_says_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
    let durable = "--persistent --durable-queue --size 256 --confirm 10";
    for (line, key, expected) in [
        ("throughput --count 300 --size 16", "consumed", 300.0),
        ("throughput --count 30 --size 0", "consumed", 30.0),
        ("throughput --count 300 --publishers 3 --consumers 2 --ack each", "consumed", 300.0),
        (&format!("throughput --count 300 {durable} --ack each --prefetch 7"), "confirmed", 300.0),
        ("throughput --count 5 --size 300000 --confirm 2", "consumed", 5.0),
        (&format!("latency --rate 500 --count 100 {durable} --ack each"), "consumed", 100.0),
        (&format!("publish --count 300 {durable}"), "confirmed", 300.0),
        (&format!("publish --count 30 {durable} --queue-type quorum"), "confirmed", 30.0),
        (&format!("drain --count 300 {durable} --ack multiple:8"), "consumed", 300.0),
        ("fanout --queues 3 --count 100", "consumed", 300.0),
        ("fanout --queues 3 --consumers 1 --count 100 --confirm 9", "consumed", 300.0),
        ("churn --clients 2 --count 20", "connections", 20.0),
        ("idle --connections 5 --queues 600 --durable-queue --seconds 0.1", "queues", 600.0),
    ] {
        let (code, json, complaint) = bench(&folder, &server, &format!("{line} -o json"));
        assert_eq!((code, complaint.as_str()), (0, ""), "{line}: {json}");
        assert_eq!(number(&json, key), expected, "{line}: {json}");
        assert!(json.contains(r#""product":"FerryMQ""#), "{json}");
        if json.contains("\"lost\"") {
            let wrong = ["lost", "duplicates", "redelivered"].map(|it| number(&json, it));
            assert_eq!(wrong, [0.0; 3], "{line}: {json}");
        }
    }
    let (_, table, _) = bench(&folder, &server, "throughput --count 2000");
    assert!(table.lines().any(|it| it.starts_with("consumed") && it.ends_with("2,000")), "{table}");
    assert!(table.contains("1,024 B, transient, no confirms"), "{table}");
    assert!(table.contains("server memory"), "its process is found: {table}");
    assert_eq!(server.end("TERM").0, Some(0));
    let (code, said, _) = finished(ferrymq(&folder).args(["check", "data"]));
    assert!(code == 0 && said.starts_with("0 queues, 0 messages"), "{said}");
}

#[test]
fn what_cannot_be_measured_ends_with_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
    let address = server.address();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (uri, status, reason) in [
        (format!("amqp://guest:wrong@{address}/"), 77, "refuses the login of user `guest`: 403"),
        (format!("amqp://{address}/nowhere"), 77, "refuses the virtual host `nowhere`: 530"),
        (format!("amqp://{free}/"), 69, "cannot connect to"),
        (format!("amqps://{address}/"), 64, "asks for TLS"),
    ] {
        let mut command = ferrymq(&folder);
        // Also by the variable.
        let (code, _, complaint) =
            finished(command.env("FERRYMQ_URI", &uri).args(["bench", "publish", "--count", "1"]));
        assert_eq!(code, status, "{complaint}");
        assert!(complaint.contains(reason), "{complaint}");
    }
    assert_eq!(bench(&folder, &server, "publish --prefetch 3").0, 64);
    assert_eq!(bench(&folder, &server, "throughput --queue amq.x --count 1").0, 77);
}

#[test]
fn interrupted_run_deletes_its_queue() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Running::start(ferrymq(&folder).args(["serve", "--listen", "127.0.0.1:0"]));
    let uri = format!("amqp://guest:guest@{}/", server.address());
    let line = "latency --rate 10 --seconds 60 --durable-queue --queue mine";
    let mut command = ferrymq(&folder);
    command.args(["bench", "--uri", &uri]).args(line.split(' ')).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It has looked who is there, and declared its queue.
    (0..2).for_each(|_| server.wait_for_line("closed in order"));
    let (code, _, complaint) = bench(&folder, &server, "publish --queue mine --count 1");
    assert!(code == 65 && complaint.contains("`mine` exists already"), "{complaint}");
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(complaint, "ferrymq: interrupted\n");
    assert_eq!(bench(&folder, &server, "publish --queue mine --count 1").0, 0);
}

#[test]
fn quick_needs_no_broker_and_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (code, json, complaint) =
        finished(ferrymq(&folder).args(["bench", "--quick", "--within", "5", "-o", "json"]));
    assert_eq!((code, complaint.as_str()), (0, ""), "{json}");
    assert!(number(&json, "quick_s") < 10.0, "{json}");
    for key in ["confirm_latency_us", "sync_latency_us", "loopback_latency_us"] {
        let (_, latency) = json.split_once(&format!("\"{key}\":")).unwrap();
        assert!(0.0 < number(latency, "p50"), "{json}");
    }
    assert!(json.contains("with every sync on"), "{json}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is deleted");
}
