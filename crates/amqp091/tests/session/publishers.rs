//! Publishing, confirms, returns, transactions, reply addresses, and being held back.

use crate::harness::{
    Client, Peer, consume, declare, delivered, header_frame, method_frame, publish, refused,
};
use amqp091::method::Method;
use model::{ChannelId, Message, Name, Notice, limits, properties::Properties};
use std::sync::Arc;

const ONE: ChannelId = ChannelId(1);
const SHARED: &str = "amq.rabbitmq.reply-to";

fn confirming() -> Peer {
    let mut peer = Peer::channel();
    peer.send(1, Method::ConfirmSelect { no_wait: true });
    peer
}

fn confirmed(first: u64, last: u64) -> Notice {
    Notice::Confirmed { channel: ONE, first, last }
}

fn message(body: &[u8]) -> Arc<Message> {
    Arc::new(Message::new("e", "k", &Properties::default().encoded(), body))
}

fn ack(delivery_tag: u64, multiple: bool) -> Method {
    Method::BasicAck { delivery_tag, multiple }
}

#[test]
fn confirms_count_from_one_and_many_become_one() {
    let mut peer = Peer::channel();
    peer.publish(1, "q", b"before");
    peer.send(1, Method::ConfirmSelect { no_wait: false });
    for _ in 0..5 {
        peer.publish(1, "q", b"x");
    }
    let asked = peer.asked();
    assert_eq!((&*asked[0], &*asked[1]), ("1 publish /q before", "1 publish #1 /q x"));
    peer.heard();
    let nacked = Notice::Nacked { channel: ONE, number: 2 };
    peer.tell([confirmed(1, 1), nacked, confirmed(4, 4), confirmed(3, 3)]);
    assert_eq!(
        peer.heard(),
        [
            "1 basic.nack { delivery_tag: 2, multiple: false, requeue: false }",
            "1 basic.ack { delivery_tag: 4, multiple: true }",
        ]
    );
}

#[test]
fn a_return_comes_before_its_ack() {
    let mut peer = confirming();
    peer.publish(1, "q", b"x");
    let returned = Notice::Returned { channel: ONE, message: message(b"body") };
    peer.tell([returned, confirmed(1, 1)]);
    assert_eq!(
        peer.heard(),
        [
            "1 basic.return { reply_code: 312, reply_text: \"NO_ROUTE\", exchange: \"e\", \
         routing_key: \"k\" } | 4 body",
            "1 basic.ack { delivery_tag: 1, multiple: false }",
        ]
    );
}

#[test]
fn confirms_are_written_before_the_channel_ends() {
    let mut peer = confirming();
    for _ in 0..3 {
        peer.publish(1, "q", b"x");
    }
    peer.tell([confirmed(1, 2), refused(1, "bad", true), confirmed(3, 3)]);
    assert_eq!(
        peer.heard(),
        [
            "1 basic.ack { delivery_tag: 2, multiple: true }",
            "1 channel.close 406 PRECONDITION_FAILED - bad (60,40)",
        ]
    );
}

#[test]
fn too_many_open_confirms_stop_the_reading() {
    let mut peer = confirming();
    let some = publish(1, "q", b"").repeat(10_000);
    for _ in 0..10 {
        assert!(!peer.session.holds_back());
        peer.octets(&some);
    }
    assert!(peer.session.holds_back());
    peer.tell([confirmed(2, 3)]);
    assert!(!peer.session.holds_back());
}

#[test]
fn a_message_of_any_size_and_cut_arrives_whole() {
    for (size, frame_len) in [(0, 10), (1, 10), (4_000, 900), (100_000, 4_000)] {
        let body: Vec<u8> = (0..size).map(|it: u32| it as u8).collect();
        let mut octets = publish(1, "key", b"");
        let at = octets.len() - header_frame(1, 0, &Properties::default()).len();
        octets.truncate(at);
        octets.extend(header_frame(1, size.into(), &Properties::default()));
        for part in body.chunks(frame_len) {
            octets.extend(crate::harness::frame(3, 1, part));
        }
        let mut peer = Peer::channel();
        for part in octets.chunks(1_371) {
            peer.octets(part);
        }
        let [model::Request::Publish(it)] = &peer.requests[..] else {
            panic!("one publish");
        };
        assert_eq!((it.message.routing_key(), it.message.body()), ("key", body));
    }
}

#[test]
fn a_transaction_is_held_until_its_commit_and_undone_by_a_rollback() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.tell([delivered(1, 11), delivered(1, 12), delivered(1, 13)]);
    peer.send(1, Method::TxSelect {});
    peer.heard();
    peer.publish(1, "q", b"a");
    peer.send(1, ack(2, false));
    assert_eq!(peer.asked(), [""; 0]);
    peer.send(1, Method::TxRollback {});
    assert_eq!(peer.heard(), ["1 tx.rollback-ok"]);
    peer.send(1, ack(2, true));
    peer.publish(1, "q", b"b");
    peer.send(1, Method::TxCommit {});
    let commit = "1 commit [1 settle 1 [11, 12] Accept, 1 publish /q b]";
    assert_eq!(peer.asked(), [commit]);
    peer.tell([Notice::Committed { channel: ONE }]);
    assert_eq!(peer.heard(), ["1 tx.commit-ok"]);
    peer.send(1, Method::TxCommit {});
    assert_eq!((peer.heard(), peer.asked().len()), (vec!["1 tx.commit-ok".to_owned()], 0));
}

#[test]
fn a_refused_commit_gives_its_deliveries_back() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.tell([delivered(1, 11), delivered(1, 12)]);
    peer.send(1, Method::TxSelect {});
    peer.send(1, ack(1, false));
    peer.publish(1, "q", b"b");
    peer.send(1, Method::TxCommit {});
    peer.requests.clear();
    peer.heard();
    peer.tell([refused(1, "bad", true)]);
    assert_eq!(peer.heard(), ["1 channel.close 406 PRECONDITION_FAILED - bad (60,40)"]);
    let asked = peer.asked();
    assert_eq!(
        asked.last().map(String::as_str),
        Some("1 settle 1 [11, 12] Release { failed: true }")
    );
}

#[test]
fn a_transaction_has_limits() {
    let mut peer = Peer::channel();
    peer.send(1, Method::TxSelect {});
    peer.heard();
    let all = publish(1, "q", b"").repeat(limits::TRANSACTION_REQUESTS_MAX);
    peer.octets(&all);
    assert_eq!(peer.heard(), [""; 0]);
    peer.publish(1, "q", b"");
    assert_eq!(
        peer.heard(),
        ["0 connection.close 506 RESOURCE_ERROR - transaction is too large (60,40)"]
    );
}

fn reply_opened() -> Notice {
    Notice::ReplyOpened { channel: ONE, address: Name::new("gAddress") }
}

#[test]
fn replies_come_to_the_channel_that_asked() {
    let mut peer = Peer::channel();
    peer.send(1, consume(SHARED, "t", true));
    assert_eq!(peer.asked(), ["OpenReply { channel: ChannelId(1) }"]);
    peer.tell([reply_opened()]);
    assert_eq!(peer.heard(), ["1 basic.consume-ok { consumer_tag: \"t\" }"]);
    let properties = Properties { reply_to: Some(Name::new(SHARED)), ..Properties::default() };
    let method = publish(1, "q", b"");
    let method_len = method.len() - header_frame(1, 0, &Properties::default()).len();
    peer.octets(&[&method[..method_len], &header_frame(1, 0, &properties)].concat());
    let [model::Request::Publish(it)] = &peer.requests[..] else { panic!("one publish") };
    assert_eq!(it.message.facts().reply_to, Some("amq.rabbitmq.reply-to.gAddress"));
    let reply = |body: &[u8]| Notice::Reply { channel: ONE, message: message(body) };
    peer.tell([reply(b"one"), reply(b"two")]);
    let heard = peer.heard();
    assert_eq!(
        heard[1],
        "1 basic.deliver { consumer_tag: \"t\", delivery_tag: 2, \
        redelivered: false, exchange: \"e\", routing_key: \"k\" } | 3 two"
    );
    peer.requests.clear();
    let cancel = Method::BasicCancel { consumer_tag: Name::new("t"), no_wait: false };
    peer.send(1, cancel);
    assert_eq!(peer.asked(), ["CloseReply { channel: ChannelId(1) }"]);
    assert_eq!(peer.heard(), ["1 basic.cancel-ok { consumer_tag: \"t\" }"]);
    peer.tell([reply(b"late")]);
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn a_reply_address_is_taken_once_and_not_seen_by_its_own_channel() {
    let opened = || {
        let mut peer = Peer::channel();
        peer.send(1, consume(SHARED, "t", true));
        peer.tell([reply_opened()]);
        peer.heard();
        peer.requests.clear();
        peer
    };
    let mut peer = opened();
    peer.send(1, consume(SHARED, "u", false));
    assert_eq!(
        peer.heard(),
        ["1 channel.close 406 PRECONDITION_FAILED - reply consumer already set (60,20)"]
    );
    assert_eq!(peer.asked(), ["CloseReply { channel: ChannelId(1) }"]);
    let mut peer = opened();
    peer.send(1, consume("q", "t", true));
    assert!(peer.heard()[0].contains("attempt to reuse consumer tag 't' (60,20)"));
    let mut peer = opened();
    peer.send(1, declare("amq.rabbitmq.reply-to.gAddress", true));
    assert_eq!(
        peer.heard(),
        ["1 channel.close 404 NOT_FOUND - no queue 'amq.rabbitmq.reply-to.gAddress' in vhost '/' \
         (50,10)"]
    );
    let mut peer = opened();
    peer.send(1, declare("amq.rabbitmq.reply-to.gOther", true));
    assert!(peer.asked()[0].starts_with("DeclareQueue"));
}

const BLOCKED: Notice = Notice::Blocked { reason: "low on memory" };

#[test]
fn a_publisher_is_held_back_and_told() {
    let mut peer = Peer::channel();
    peer.publish(1, "q", b"one");
    peer.requests.clear();
    peer.tell([BLOCKED]);
    assert_eq!(peer.heard(), ["0 connection.blocked { reason: \"low on memory\" }"]);
    assert!(!peer.session.holds_back(), "what is no publish goes on");
    peer.octets(&[method_frame(1, &ack(0, true)), publish(1, "q", b"two")].concat());
    assert!(peer.session.holds_back());
    peer.publish(1, "q", b"three");
    assert_eq!((peer.asked().len(), peer.heard().len()), (0, 0));
    peer.tell([Notice::Unblocked]);
    assert_eq!(peer.heard(), ["0 connection.unblocked"]);
    peer.receive();
    assert_eq!(peer.asked(), ["1 publish /q two", "1 publish /q three"]);
    assert!(!peer.session.holds_back());
}

#[test]
fn who_does_not_publish_is_not_told_and_not_held_back() {
    let mut peer = Peer::channel();
    peer.tell([BLOCKED]);
    assert_eq!(peer.heard(), [""; 0]);
    peer.publish(1, "q", b"one");
    assert_eq!(peer.heard(), ["0 connection.blocked { reason: \"low on memory\" }"]);
    let mut peer = Peer::with_channel(Client { capabilities: false, ..Client::default() });
    peer.publish(1, "q", b"one");
    peer.tell([BLOCKED]);
    peer.publish(1, "q", b"two");
    assert!(peer.session.holds_back());
    peer.tell([Notice::Unblocked]);
    assert_eq!(peer.heard(), [""; 0]);
    assert_eq!(peer.asked(), ["1 publish /q one", "1 publish /q two"]);
}

#[test]
fn a_publish_that_waits_in_its_channel_is_held_back_too() {
    let mut peer = Peer::channel();
    let purge = Method::QueuePurge { queue: Name::new("q"), no_wait: true };
    peer.octets(
        &[method_frame(1, &purge), publish(1, "q", b"x"), method_frame(1, &ack(0, true))].concat(),
    );
    peer.requests.clear();
    peer.tell([BLOCKED, Notice::Purged { channel: ONE, messages: 0 }]);
    assert!(peer.session.holds_back());
    assert_eq!(peer.asked(), [""; 0]);
    peer.tell([Notice::Unblocked]);
    assert!(!peer.session.holds_back());
    assert_eq!(peer.asked(), ["1 publish /q x"]);
}

#[test]
fn a_publish_that_has_begun_is_not_held_back() {
    let mut peer = Peer::channel();
    let octets = publish(1, "q", b"x");
    let (left, right) = octets.split_at(octets.len() - 9);
    peer.octets(left);
    peer.tell([BLOCKED]);
    peer.octets(right);
    assert_eq!(peer.asked(), ["1 publish /q x"]);
}
