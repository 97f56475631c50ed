//! The configured user is there from the first start on; the hash of its password may come later.

use broker::{Administration, PasswordHash};
use node::{NewPassword, NewUser, Node, NodeOptions, PlainPassword};
use parking_lot::Mutex;
use std::{path::Path, sync::mpsc};

const USER: &str = "app";

fn hashed(number: u8) -> PasswordHash {
    PasswordHash::Sha256 { salt: [number; 4], hash: [number; 32] }
}

/// Hashes to its number, when it is let.
struct Plain {
    number: u8,
    may_hash: Mutex<mpsc::Receiver<()>>,
}

impl PlainPassword for Plain {
    fn hash(&self) -> PasswordHash {
        self.may_hash.lock().recv().expect("this start ends before the hash is made");
        hashed(self.number)
    }

    fn fits(&self, record: &PasswordHash) -> bool {
        *record == hashed(self.number)
    }
}

/// A node, and what lets it hash; to drop that is a failure to hash.
fn open(folder: &Path, number: u8) -> (Node, mpsc::Sender<()>) {
    let (let_hash, may_hash) = mpsc::channel();
    let plain = Plain { number, may_hash: Mutex::new(may_hash) };
    let mut options = NodeOptions::new(folder);
    options.segment_bytes = Some(1 << 20);
    let password = NewPassword::plain(plain);
    options.administrator = Some(NewUser { name: USER.into(), password, vhost: "/".into() });
    (Node::open(options).expect("opens"), let_hash)
}

fn record(node: &Node) -> PasswordHash {
    node.broker().user(USER).expect("is there").password.clone()
}

fn wait_for_known(node: &Node) -> PasswordHash {
    let deadline = node.now().plus_ms(60_000);
    while node.now() < deadline {
        if let Some(known) = node.take_known_password() {
            return known;
        }
        std::thread::yield_now();
    }
    panic!("nothing became known within a minute");
}

#[test]
fn the_first_user_is_there_before_its_hash_and_durable_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, let_hash) = open(folder.path(), 1);
    assert!(record(&node).is_awaited());
    assert_eq!(node.take_known_password(), Some(PasswordHash::awaited()));
    assert_eq!(node.take_known_password(), None);
    let_hash.send(()).expect("it waits");
    assert_eq!(wait_for_known(&node), hashed(1));
    assert_eq!(record(&node), hashed(1));
    node.close().expect("closes");
    drop(node);
    let (node, _) = open(folder.path(), 1);
    assert_eq!(record(&node), hashed(1));
    if let Some(comparison) = node.take_comparison() {
        comparison.join().expect("compares");
    }
    assert_eq!(node.take_known_password(), Some(hashed(1)));
    drop(node);
    // Another password than the configured one was set since: it counts, and nothing is known.
    let (node, _) = open(folder.path(), 2);
    assert_eq!(record(&node), hashed(1));
    assert_eq!(node.take_known_password(), None);
}

#[test]
fn a_start_makes_up_for_one_that_ended_before_the_hash() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, let_hash) = open(folder.path(), 1);
    drop(let_hash);
    drop(node);
    let (node, let_hash) = open(folder.path(), 2);
    assert!(record(&node).is_awaited());
    let_hash.send(()).expect("it waits");
    node.close().expect("closes");
    drop(node);
    let (node, _) = open(folder.path(), 2);
    assert_eq!(record(&node), hashed(2));
}

#[test]
fn a_password_that_was_set_meanwhile_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, let_hash) = open(folder.path(), 1);
    let act = |password| Administration::SetUser { user: USER.into(), password, tags: Vec::new() };
    node.broker().administer(act(hashed(9))).expect("is set");
    let_hash.send(()).expect("it waits");
    node.close().expect("closes");
    assert_eq!(record(&node), hashed(9));
    drop(node);
    let (node, _) = open(folder.path(), 1);
    assert_eq!(record(&node), hashed(9));
}
