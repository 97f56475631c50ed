//! What waits for the broker waits in order, and other channels do not wait.

use crate::harness::{
    Client, Peer, consume, declare, declared, delivered, frame, method_frame, publish, refused,
    subscribed,
};
use amqp091::{Event, method::Method};
use model::{ChannelId, Name, Notice};

fn purge() -> Method {
    Method::QueuePurge { queue: Name::new("q"), no_wait: false }
}

fn close() -> Method {
    let reply_text = Name::default();
    Method::ChannelClose { reply_code: 200, reply_text, class_id: 0, method_id: 0 }
}

fn goodbye() -> Method {
    let reply_text = Name::default();
    Method::ConnectionClose { reply_code: 0, reply_text, class_id: 0, method_id: 0 }
}

#[test]
fn a_channel_that_waits_keeps_its_frames_and_others_go_on() {
    let mut peer = Peer::channel();
    peer.send(2, Method::ChannelOpen {});
    let stream = [
        method_frame(1, &declare("q", false)),
        publish(1, "q", b"one"),
        publish(2, "q", b"other"),
        publish(1, "q", b"two"),
        method_frame(1, &purge()),
        publish(1, "q", b"three"),
    ]
    .concat();
    peer.octets(&stream);
    let asked = peer.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].starts_with("DeclareQueue"));
    assert_eq!(asked[1], "2 publish /q other");
    peer.tell([declared(1, "q")]);
    let purge = "PurgeQueue { channel: ChannelId(1), queue: \"q\" }";
    assert_eq!(peer.asked(), ["1 publish /q one", "1 publish /q two", purge]);
    peer.tell([Notice::Purged { channel: ChannelId(1), messages: 0 }]);
    assert_eq!(peer.asked(), ["1 publish /q three"]);
}

#[test]
fn frames_behind_a_close_open_the_channel_anew() {
    let mut peer = Peer::channel();
    let stream = [
        method_frame(1, &close()),
        method_frame(1, &Method::ChannelOpen {}),
        method_frame(1, &purge()),
        publish(1, "q", b"x"),
    ]
    .concat();
    peer.octets(&stream);
    assert_eq!(peer.asked(), ["Barrier { channel: ChannelId(1) }"]);
    peer.tell([Notice::Done { channel: ChannelId(1) }]);
    assert_eq!(peer.heard(), ["1 channel.close-ok", "1 channel.open-ok"]);
    assert_eq!(peer.asked(), ["PurgeQueue { channel: ChannelId(1), queue: \"q\" }"]);
    peer.tell([Notice::Purged { channel: ChannelId(1), messages: 0 }]);
    assert_eq!(peer.asked(), ["1 publish /q x"]);
}

#[test]
fn too_much_that_waits_stops_the_reading_until_it_goes_on() {
    let mut peer = Peer::channel();
    peer.send(1, declare("q", false));
    peer.requests.clear();
    let body = vec![0; 100_000];
    for _ in 0..10 {
        peer.publish(1, "q", &body);
    }
    assert!(!peer.session.holds_back());
    peer.publish(1, "q", &body);
    assert!(peer.session.holds_back());
    peer.publish(1, "q", b"more");
    peer.tell([declared(1, "q")]);
    assert!(!peer.session.holds_back());
    let asked = peer.asked();
    assert_eq!(asked.len(), 12);
    assert_eq!(asked[11], "1 publish /q more");
}

#[test]
fn a_refused_publish_ends_the_channel_though_it_waits_for_something_else() {
    let mut peer = Peer::channel();
    peer.octets(
        &[publish(1, "q", b"x"), method_frame(1, &purge()), publish(1, "q", b"y")].concat(),
    );
    peer.tell([refused(1, "bad", true)]);
    assert_eq!(peer.heard(), ["1 channel.close 406 PRECONDITION_FAILED - bad (60,40)"]);
    peer.requests.clear();
    // Answers to what was asked before belong to nobody, also after the number is used again.
    peer.tell([Notice::Purged { channel: ChannelId(1), messages: 1 }]);
    peer.send(1, Method::ChannelCloseOk {});
    peer.send(1, Method::ChannelOpen {});
    peer.tell([Notice::Purged { channel: ChannelId(1), messages: 1 }]);
    assert_eq!(peer.heard(), ["1 channel.open-ok"]);
    peer.publish(1, "q", b"z");
    assert_eq!(peer.asked(), ["65535 publish /q z"]);
}

#[test]
fn a_subscription_that_comes_too_late_is_ended() {
    let mut peer = Peer::channel();
    peer.octets(&[publish(1, "q", b"x"), method_frame(1, &consume("q", "t", false))].concat());
    peer.tell([refused(1, "bad", true)]);
    assert_eq!(peer.heard().len(), 1);
    peer.requests.clear();
    peer.tell([subscribed(1, 1), delivered(1, 5)]);
    assert_eq!(peer.heard(), [""; 0]);
    assert_eq!(
        peer.asked(),
        [
            "Unsubscribe { channel: ChannelId(1), consumer: ConsumerNumber(1), queue: QueueId(1) }",
            "1 settle 1 [5] Release { failed: false }",
        ]
    );
}

#[test]
fn a_goodbye_waits_for_what_was_sent_before() {
    let mut peer = Peer::channel();
    let stream =
        [method_frame(1, &declare("q", false)), publish(1, "q", b"x"), method_frame(0, &goodbye())];
    peer.octets(&stream.concat());
    assert_eq!((peer.event.clone(), peer.heard().len()), (None, 0));
    peer.requests.clear();
    peer.tell([declared(1, "q")]);
    assert_eq!(peer.asked(), ["1 publish /q x"]);
    assert_eq!(peer.event, Some(Event::Finished));
    assert_eq!(peer.heard().last().map(String::as_str), Some("0 connection.close-ok"));
}

#[test]
fn nothing_that_broken_octets_follow_is_lost() {
    let mut peer = Peer::channel();
    peer.octets(&[publish(1, "q", b"x"), frame(9, 1, b"")].concat());
    assert_eq!(peer.asked(), ["1 publish /q x"]);
    assert_eq!(peer.heard().len(), 1);
    peer.octets(&[0; 100_000]);
    assert!(peer.input.is_empty(), "what means nothing is not kept");
}

/// Everything that a broker of no memory would answer.
fn answers(peer: &mut Peer) -> (Vec<String>, Vec<Notice>) {
    let requests = std::mem::take(&mut peer.requests);
    let notices = requests.iter().filter_map(amqp091::session_fuzzing::answer).collect();
    let mut lines = Vec::new();
    for request in &requests {
        // How many settles travel together depends on how the octets arrive.
        match request {
            model::Request::Settle(it) => {
                lines.extend(it.entries.iter().map(|entry| format!("settle {entry}")));
            }
            other => lines.push(crate::harness::shown_request(other)),
        }
    }
    (lines, notices)
}

fn run(parts: &[&[u8]]) -> (Vec<String>, Vec<String>) {
    let mut peer = Peer::open(Client::default());
    let (mut asked, mut heard) = (Vec::new(), Vec::new());
    for part in parts {
        peer.octets(part);
        loop {
            heard.extend(peer.heard());
            let (lines, notices) = answers(&mut peer);
            asked.extend(lines);
            if notices.is_empty() {
                break;
            }
            peer.tell(notices);
        }
    }
    (asked, heard)
}

#[test]
fn input_split_at_every_octet_gives_the_same() {
    let big: Vec<u8> = (0..6_000).map(|it| it as u8).collect();
    let publish_in_two = [
        publish(1, "q", &big)[..publish(1, "q", &big).len() - 6_008].to_vec(),
        frame(3, 1, &big[..2_500]),
        frame(3, 1, &big[2_500..]),
    ]
    .concat();
    let stream = [
        method_frame(1, &Method::ChannelOpen {}),
        method_frame(1, &Method::ConfirmSelect { no_wait: false }),
        method_frame(1, &declare("q", false)),
        publish(1, "q", b"one"),
        frame(8, 0, b""),
        publish(1, "q", b""),
        publish_in_two,
        method_frame(1, &consume("q", "t", false)),
        method_frame(1, &Method::BasicGet { queue: Name::new("q"), no_ack: false }),
        method_frame(1, &Method::BasicAck { delivery_tag: 1, multiple: false }),
        method_frame(1, &purge()),
        method_frame(1, &close()),
        method_frame(1, &Method::ChannelOpen {}),
        method_frame(1, &Method::BasicAck { delivery_tag: 9, multiple: false }),
        method_frame(1, &Method::ChannelCloseOk {}),
        method_frame(0, &goodbye()),
    ]
    .concat();
    // Confirms gather as octets do, so they are compared by the numbers they cover.
    let whole = run(&[&stream]);
    let acks = |heard: &[String]| {
        let is_ack = |it: &&String| it.contains("basic.ack");
        let others: Vec<String> =
            heard.iter().filter(|it| !it.contains("basic.ack")).cloned().collect();
        (others, heard.iter().rfind(is_ack).cloned().map(|it| it.replace("true", "false")))
    };
    assert_eq!(whole.1.last().map(String::as_str), Some("0 connection.close-ok"));
    assert_eq!(whole.0.iter().filter(|it| it.contains("publish #")).count(), 3);
    for at in 0..stream.len() {
        let (left, right) = stream.split_at(at);
        let split = run(&[left, right]);
        assert_eq!(split.0, whole.0, "split at {at}");
        assert_eq!(acks(&split.1).0, acks(&whole.1).0, "split at {at}");
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    let split = run(&single);
    assert_eq!(split.0, whole.0);
    assert_eq!(acks(&split.1).0, acks(&whole.1).0);
}

#[test]
fn the_end_of_a_consumer_that_went_with_its_channel_concerns_nobody() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.octets(&[method_frame(1, &close()), method_frame(1, &Method::ChannelOpen {})].concat());
    peer.tell([Notice::Done { channel: ChannelId(1) }]);
    let consumer = model::ConsumerNumber(1);
    peer.tell([Notice::Unsubscribed { channel: ChannelId(1), consumer }]);
    assert_eq!(peer.heard(), ["1 channel.close-ok", "1 channel.open-ok"]);
}
