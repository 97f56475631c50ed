//! A node without sockets: what was confirmed is there again after a stop, and after a crash.

use broker::PasswordHash;
use model::{
    Table,
    job::{JobAnswer, JobAsk, JobRefusal},
};
use node::{LocalError, NewUser, Node, NodeOptions, local::wait};
use std::path::Path;

fn open(folder: &Path) -> Node {
    let mut options = NodeOptions::new(folder);
    options.segment_bytes = Some(1 << 20);
    options.administrator = Some(NewUser {
        name: "app".into(),
        password: PasswordHash::None.into(),
        vhost: "/".into(),
    });
    Node::open(options).expect("opens")
}

fn publish(node: &Node, range: std::ops::Range<usize>) {
    let session = node.connect("/", "app").expect("connects");
    wait(session.declare_queue("orders", true, Table::default())).expect("declared");
    let confirms: Vec<_> =
        range.map(|it| session.publish("", "orders", it.to_string().as_bytes())).collect();
    for confirm in confirms {
        wait(confirm).expect("confirmed");
    }
}

fn take(node: &Node, count: usize) -> Vec<(String, bool)> {
    let session = node.connect("/", "app").expect("connects");
    let mut orders = wait(session.consume("orders", 50)).expect("subscribed");
    let mut taken = Vec::new();
    for _ in 0..count {
        let order = wait(orders.next()).expect("an order");
        let body = String::from_utf8(order.body()).expect("text");
        taken.push((body, order.redelivered()));
        order.accept();
    }
    taken
}

#[test]
fn confirmed_messages_come_back_in_order_after_a_stop_and_unflagged() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    publish(&node, 0..500);
    assert_eq!(take(&node, 100).len(), 100);
    node.close().expect("closes");
    drop(node);
    let node = open(folder.path());
    assert_eq!(node.restoration().messages, 400);
    // The consumer before had up to 50 more in its hands: they come back flagged, the rest does
    // not.
    let taken = take(&node, 400);
    let expected: Vec<String> = (100..500).map(|it| it.to_string()).collect();
    assert_eq!(taken.iter().map(|it| it.0.clone()).collect::<Vec<_>>(), expected);
    assert!(taken.iter().skip(50).all(|it| !it.1));
    node.close().expect("closes");
}

#[test]
fn confirmed_messages_come_back_flagged_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    publish(&node, 0..200);
    // No orderly stop: the threads end, nothing more is written.
    drop(node);
    let node = open(folder.path());
    let taken = take(&node, 200);
    let expected: Vec<(String, bool)> = (0..200).map(|it| (it.to_string(), true)).collect();
    assert_eq!(taken, expected);
}

#[test]
fn start_after_a_stop_reads_no_complete_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    let session = node.connect("/", "app").expect("connects");
    wait(session.declare_queue("orders", true, Table::default())).expect("declared");
    let body = vec![7; 16 * 1024];
    let confirms: Vec<_> = (0..300).map(|_| session.publish("", "orders", &body)).collect();
    for confirm in confirms {
        wait(confirm).expect("confirmed");
    }
    drop(session);
    node.close().expect("closes");
    drop(node);
    for is_first in [true, false] {
        let node = open(folder.path());
        assert_eq!(node.restoration().messages, 300);
        let recovery = node.recovery();
        assert_eq!(recovery.checkpoint, Some(recovery.end.segment()), "{recovery:?}");
        assert_eq!(recovery.orderly, is_first);
        // What a crash leaves behind.
        drop(node);
    }
}

#[test]
fn segments_go_when_their_messages_have_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    let session = node.connect("/", "app").expect("connects");
    wait(session.declare_queue("orders", true, Table::default())).expect("declared");
    wait(session.declare_queue("slow", true, Table::default())).expect("declared");
    let body = vec![7; 16 * 1024];
    wait(session.publish("", "slow", b"kept")).expect("confirmed");
    let mut orders = wait(session.consume("orders", 0)).expect("subscribed");
    for _ in 0..8 {
        let confirms: Vec<_> = (0..64).map(|_| session.publish("", "orders", &body)).collect();
        for confirm in confirms {
            wait(confirm).expect("confirmed");
            wait(orders.next()).expect("an order").accept();
        }
    }
    let segments = || {
        let names = std::fs::read_dir(folder.path()).expect("readable");
        names
            .filter_map(Result::ok)
            .filter(|it| it.metadata().is_ok_and(|it| 500_000 < it.len()))
            .count()
    };
    // The node's own threads give segments back; wait until they have, under one deadline.
    let deadline = node.now().plus_ms(60_000);
    while 6 < segments() && node.now() < deadline {
        std::thread::yield_now();
    }
    drop((orders, session));
    assert!(segments() <= 6, "{} segments of 1 MiB are left", segments());
    node.close().expect("closes");
    drop(node);
    let node = open(folder.path());
    let session = node.connect("/", "app").expect("connects");
    let mut slow = wait(session.consume("slow", 1)).expect("subscribed");
    assert_eq!(wait(slow.next()).expect("kept").body(), b"kept");
}

#[test]
fn refusals_are_those_of_the_wire() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    let session = node.connect("/", "app").expect("connects");
    let refused = wait(session.consume("nope", 1)).err().expect("refused");
    assert_eq!(refused.to_string(), "no queue 'nope' in vhost '/'");
    let error = node.connect("nope", "app").err().expect("refused");
    assert_eq!(error.to_string(), "vhost nope not found");
    assert!(matches!(error, LocalError::Refused(_)));
}

#[test]
fn questions_about_jobs_are_answered_each_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = open(folder.path());
    let session = node.connect_for("/", "app", "192.0.2.1:5".to_owned()).expect("connects");
    wait(session.declare_queue("plain", true, Table::default())).expect("declared");
    let lease = |queue: &str| {
        let ask = JobAsk::Lease { queue: queue.into(), worker: "w".into() };
        session.ask_about_jobs(ask)
    };
    let (first, second, third) = (lease("plain"), lease("absent"), lease("plain"));
    drop(first);
    let refusal = |answer| match answer {
        Ok(JobAnswer::Refused(it)) => it,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(wait(third)), JobRefusal::NotJobQueue("plain".into()));
    assert_eq!(refusal(wait(second)), JobRefusal::UnknownQueue("absent".into()));
    node.close().expect("closes");
}
