//! Heartbeats, time limits, and the ways in which a connection ends.

use crate::harness::{CLOSE_OK, Client, Peer, delivered, method_frame, publish};
use amqp091::{Event, Session, config::SessionConfig, frame::PROTOCOL_HEADER, output::Output};
use bytes::BytesMut;
use model::{Name, Notice, Refusal, Timestamp};
use std::sync::Arc;

fn forced() -> Refusal {
    Refusal::Forced("Closed via management plugin".to_owned())
}

const FORCED: &str =
    "0 connection.close 320 CONNECTION_FORCED - Closed via management plugin (0,0)";

#[test]
fn the_server_ends_a_connection_and_waits_for_the_answer() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.session.close(forced(), &mut peer.output);
    assert_eq!(peer.heard(), [FORCED]);
    assert!(!peer.session.is_open());
    peer.octets(&publish(1, "q", b"x"));
    peer.tell([delivered(1, 1), Notice::Closed { refusal: forced().into() }]);
    peer.session.flushed(&mut peer.requests);
    assert_eq!((peer.heard().len(), peer.asked().len()), (0, 0));
    assert_eq!(peer.event, None);
    peer.octets(&method_frame(0, &CLOSE_OK));
    assert_eq!(peer.event, Some(Event::Finished));
}

#[test]
fn the_broker_ends_a_connection() {
    let mut peer = Peer::channel();
    peer.tell([Notice::Closed { refusal: forced().into() }]);
    assert_eq!(peer.heard(), [FORCED]);
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let mut peer = Peer::channel();
    peer.session.close(forced(), &mut peer.output);
    let begin = Timestamp(50_000);
    assert_eq!(peer.session.tick(begin, &mut peer.output), None);
    assert_eq!(peer.session.next_tick(begin), Some(begin.plus_ms(10_000)));
    assert_eq!(peer.session.tick(begin.plus_ms(9_999), &mut peer.output), None);
    let event = peer.session.tick(begin.plus_ms(10_000), &mut peer.output);
    assert_eq!(event, Some(Event::Finished));
    assert!(!peer.session.is_silent());
    assert_eq!(peer.session.next_tick(begin), None);
}

#[test]
fn a_handshake_that_takes_too_long_ends() {
    let mut session = Session::new(Arc::new(SessionConfig::default()), 1);
    let mut output = Output::new();
    assert_eq!(session.tick(Timestamp(5), &mut output), None);
    let mut input = BytesMut::from(&PROTOCOL_HEADER[..]);
    assert_eq!(session.receive(&mut input, Timestamp(6), &mut Vec::new(), &mut output), None);
    assert_eq!(session.tick(Timestamp(10_004), &mut output), None);
    assert_eq!(session.tick(Timestamp(10_005), &mut output), Some(Event::Finished));
}

#[test]
fn another_protocol_is_finished_with_at_once() {
    let mut session = Session::new(Arc::new(SessionConfig::default()), 1);
    let (mut output, mut input) = (Output::new(), BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]));
    let event = session.receive(&mut input, Timestamp(6), &mut Vec::new(), &mut output);
    assert_eq!(event, Some(Event::Finished));
    assert_eq!(output.len(), PROTOCOL_HEADER.len());
    assert!(session.disconnect().is_some());
}

#[test]
fn heartbeats_leave_when_nothing_else_does_and_silence_ends_the_connection() {
    let mut peer = Peer::channel_with_heartbeat(1);
    let at = Timestamp;
    peer.now = at(2_000);
    peer.octets(&[]);
    assert_eq!(peer.session.next_tick(at(1_000)), Some(at(1_500)));
    assert_eq!(peer.session.tick(at(1_499), &mut peer.output), None);
    assert_eq!(peer.heard(), [""; 0]);
    assert_eq!(peer.session.tick(at(1_500), &mut peer.output), None);
    assert_eq!(peer.heard(), ["0 heartbeat"]);
    peer.octets(&crate::harness::frame(8, 0, b""));
    peer.session.sent(at(3_900));
    assert_eq!(peer.session.tick(at(3_999), &mut peer.output), None);
    assert_eq!(peer.session.tick(at(4_000), &mut peer.output), Some(Event::Finished));
    assert!(peer.session.is_silent());
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn who_is_held_back_is_not_silent() {
    let mut peer = Peer::channel_with_heartbeat(1);
    peer.tell([Notice::Blocked { reason: "low on memory" }]);
    peer.publish(1, "q", b"x");
    assert!(peer.session.holds_back());
    for second in 2..20 {
        let now = Timestamp(second * 1_000);
        assert_eq!(peer.session.tick(now, &mut peer.output), None);
    }
    peer.tell([Notice::Unblocked]);
    assert_eq!(peer.session.tick(Timestamp(20_999), &mut peer.output), None);
    assert_eq!(peer.session.tick(Timestamp(21_000), &mut peer.output), Some(Event::Finished));
}

#[test]
fn what_was_agreed_on_is_known() {
    let peer = Peer::open(Client { heartbeat_s: 7, frame_max: 9_000, ..Client::default() });
    let negotiated = peer.session.negotiated().expect("open");
    assert_eq!((negotiated.heartbeat_s, negotiated.frame_max), (7, 9_000));
    assert_eq!((peer.session.user(), peer.session.vhost()), (&Name::new("guest"), &Name::new("/")));
}

#[test]
fn a_virtual_host_that_is_refused_ends_the_connection_with_its_reason() {
    let mut peer = Peer::asking_to_open();
    let refusal = Refusal::NoVhost(Name::new("nope"));
    assert_eq!(peer.session.opened(Err(refusal), &mut peer.output), None);
    let close = "0 connection.close 530 NOT_ALLOWED - vhost nope not found (10,40)";
    assert_eq!(peer.heard().last().map(String::as_str), Some(close));
    peer.octets(&method_frame(0, &CLOSE_OK));
    assert_eq!(peer.event, Some(Event::Finished));
}

#[test]
fn a_session_may_move_between_threads() {
    fn check<T: Send>(it: T) -> T {
        it
    }
    assert!(!check(Session::new(Arc::new(SessionConfig::default()), 1)).is_open());
}
