//! Every refusal that the session decides alone, with code, text and ids.

use crate::harness::{Client, Peer, consume, declare, frame, header_frame, method_frame, publish};
use amqp091::{config::SessionConfig, method::Method};
use model::{Name, properties::Properties};

fn ack(delivery_tag: u64, multiple: bool) -> Method {
    Method::BasicAck { delivery_tag, multiple }
}

fn publish_method(immediate: bool) -> Vec<u8> {
    let (exchange, routing_key) = (Name::default(), Name::new("q"));
    method_frame(1, &Method::BasicPublish { exchange, routing_key, mandatory: false, immediate })
}

fn header(size: u64) -> Vec<u8> {
    header_frame(1, size, &Properties::default())
}

fn on1(method: &Method) -> Vec<u8> {
    method_frame(1, method)
}

fn reply_to() -> Properties {
    Properties { reply_to: Some(Name::new("amq.rabbitmq.reply-to")), ..Properties::default() }
}

/// Case and the last line of the answer.
const ANSWERS: &str = include_str!("../data/refusals.txt");

/// Octets on a connection with channel 1.
type Cases = Vec<(&'static str, Vec<u8>)>;

/// Frames and methods where they do not belong, or that are none.
fn framing_cases() -> Cases {
    let secret = Method::ConnectionUpdateSecret {
        new_secret: amqp091::secret::Secret::new(b"s"),
        reason: Name::default(),
    };
    let not_utf8 = frame(1, 1, &[0, 50, 0, 10, 0, 0, 2, 0xff, 0xfe, 0, 0, 0, 0, 0]);
    let unknown_type = frame(1, 1, &[0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 3, 1, b'k', b'z']);
    let mut bad_end = on1(&Method::TxSelect {});
    *bad_end.last_mut().expect("octets") = 0;
    vec![
        ("second channel.open", on1(&Method::ChannelOpen {})),
        ("method before channel.open", method_frame(2, &declare("", false))),
        ("connection method on channel 1", on1(&secret)),
        ("connection method on channel 2", method_frame(2, &secret)),
        ("channel method on channel 0", method_frame(0, &declare("", false))),
        ("method of the broker", on1(&Method::BasicGetEmpty {})),
        ("bad frame end", bad_end),
        ("unknown frame type", frame(9, 1, b"abc")),
        ("frame too large", [&[1, 0, 1][..], &200_000_u32.to_be_bytes()].concat()),
        ("heartbeat on channel 1", frame(8, 1, b"")),
        ("unknown method", frame(1, 1, &[0, 60, 3, 231])),
        ("unknown class", frame(1, 1, &[0, 99, 0, 10])),
        ("truncated method arguments", frame(1, 1, &[0, 50, 0, 10])),
        ("unknown field type", unknown_type),
        ("name that is not UTF-8", not_utf8),
    ]
}

/// Publishes that are not whole, or ask for too much.
fn content_cases() -> Cases {
    let qos = Method::BasicQos { prefetch_size: 1, prefetch_count: 0, global: false };
    let other_class = frame(2, 1, &[0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let bad_header = frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0]);
    let bad_headers =
        [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 0][..], &[0, 0, 0, 3, 1, b'k', b'z']]
            .concat();
    vec![
        ("publish immediate", [publish_method(true), header(1), frame(3, 1, b"x")].concat()),
        ("header without publish", header(1)),
        ("body without header", frame(3, 1, b"x")),
        ("body on channel 0", frame(3, 0, b"x")),
        ("body on a channel that is not open", frame(3, 7, b"x")),
        ("body after publish without header", [publish_method(false), frame(3, 1, b"x")].concat()),
        ("method between publish and header", [publish_method(false), on1(&qos)].concat()),
        ("publish after publish", [publish_method(false), publish_method(false)].concat()),
        ("method between header and body", [publish_method(false), header(1), on1(&qos)].concat()),
        ("header class differs", [publish_method(false), other_class].concat()),
        (
            "body bigger than header",
            [publish_method(false), header(1), frame(3, 1, b"xyz")].concat(),
        ),
        ("cut properties", [publish_method(false), bad_header].concat()),
        ("headers of an unknown type", [publish_method(false), frame(2, 1, &bad_headers)].concat()),
        ("message too large", [publish_method(false), header(16_777_217)].concat()),
        (
            "reply-to without consumer",
            [publish_method(false), header_frame(1, 0, &reply_to())].concat(),
        ),
    ]
}

/// Methods that ask for what cannot be.
fn method_cases() -> Cases {
    let purge = Method::QueuePurge { queue: Name::default(), no_wait: false };
    let get = Method::BasicGet { queue: Name::default(), no_ack: false };
    let qos = Method::BasicQos { prefetch_size: 1, prefetch_count: 0, global: false };
    let nack = Method::BasicNack { delivery_tag: 99, multiple: false, requeue: true };
    let reject = Method::BasicReject { delivery_tag: 99, requeue: false };
    let tx = on1(&Method::TxSelect {});
    let confirm = on1(&Method::ConfirmSelect { no_wait: true });
    vec![
        ("empty queue name, purge", on1(&purge)),
        ("empty queue name, get", on1(&get)),
        ("empty queue name, consume", on1(&consume("", "t", false))),
        ("qos prefetch_size", on1(&qos)),
        ("recover requeue=false", on1(&Method::BasicRecover { requeue: false })),
        ("recover-async requeue=false", on1(&Method::BasicRecoverAsync { requeue: false })),
        ("flow false", on1(&Method::ChannelFlow { active: false })),
        ("tx commit no tx", on1(&Method::TxCommit {})),
        ("tx rollback no tx", on1(&Method::TxRollback {})),
        ("confirm after tx", [tx.clone(), confirm.clone()].concat()),
        ("tx after confirm", [confirm, tx].concat()),
        ("ack unknown tag", on1(&ack(99, false))),
        ("ack multiple unknown tag", on1(&ack(99, true))),
        ("ack tag 0", on1(&ack(0, false))),
        ("nack unknown tag", on1(&nack)),
        ("reject unknown tag", on1(&reject)),
        (
            "direct reply-to with acknowledgements",
            on1(&consume("amq.rabbitmq.reply-to", "t", false)),
        ),
    ]
}

#[test]
fn what_the_session_refuses_has_its_code_text_and_ids() {
    let cases = [framing_cases(), content_cases(), method_cases()].concat();
    assert_eq!(cases.len(), ANSWERS.lines().count());
    for (line, (name, octets)) in ANSWERS.lines().zip(cases) {
        let (case, expected) = line.split_once(" -> ").expect("a case and its answer");
        assert_eq!(case, name);
        let mut peer = Peer::channel();
        peer.octets(&octets);
        let heard = peer.heard();
        assert_eq!(heard.last().map(String::as_str), Some(expected), "{name}: {heard:?}");
        assert_eq!(peer.asked(), [""; 0], "{name}");
        assert_eq!(peer.session.is_open(), expected.starts_with('1'), "{name}");
    }
}

#[test]
fn after_a_soft_error_only_close_ok_counts_and_the_number_can_be_used_again() {
    let mut peer = Peer::channel();
    peer.send(1, ack(9, false));
    assert_eq!(peer.heard().len(), 1);
    for ignored in [ack(9, false), declare("q", false), Method::ChannelOpen {}] {
        peer.send(1, ignored);
    }
    peer.octets(&publish(1, "q", b"x"));
    peer.octets(&frame(3, 1, b"x"));
    assert_eq!((peer.heard().len(), peer.asked().len()), (0, 0));
    peer.send(
        1,
        Method::ChannelClose {
            reply_code: 200,
            reply_text: Name::default(),
            class_id: 0,
            method_id: 0,
        },
    );
    assert_eq!(peer.heard(), ["1 channel.close-ok"]);
    peer.send(1, Method::ChannelCloseOk {});
    peer.send(1, Method::ChannelOpen {});
    assert_eq!(peer.heard(), ["1 channel.open-ok"]);
}

#[test]
fn channels_are_counted_not_numbered() {
    let mut peer = Peer::open(Client { channel_max: 1, ..Client::default() });
    peer.send(9, Method::ChannelOpen {});
    assert_eq!(peer.heard(), ["9 channel.open-ok"]);
    peer.send(1, Method::ChannelOpen {});
    assert_eq!(
        peer.heard(),
        ["0 connection.close 530 NOT_ALLOWED - number of channels opened (1) has reached the \
         negotiated channel_max (1) (0,0)"]
    );
    let mut peer = Peer::channel();
    peer.session.limit_channels(Some(1));
    peer.send(2, Method::ChannelOpen {});
    assert_eq!(
        peer.heard(),
        ["0 connection.close 530 NOT_ALLOWED - number of channels opened for user 'guest' has \
         reached the maximum allowed user limit of 1 (0,0)"]
    );
}

#[test]
fn consumers_are_counted_and_tags_are_used_once() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.send(1, consume("q", "t", false));
    assert_eq!(
        peer.heard(),
        ["0 connection.close 530 NOT_ALLOWED - attempt to reuse consumer tag 't' (60,20)"]
    );
    let config = SessionConfig { consumers_per_channel_max: 1, ..SessionConfig::default() };
    let mut peer = Peer::with_channel(Client { config, ..Client::default() });
    peer.consume(1, "t", false, 1);
    peer.send(1, consume("q", "u", false));
    assert_eq!(
        peer.heard(),
        ["0 connection.close 530 NOT_ALLOWED - reached maximum (1) of consumers per \
             channel (60,20)"]
    );
}

#[test]
fn what_needs_no_broker_is_answered_at_once() {
    let mut peer = Peer::channel();
    let secret = Method::ConnectionUpdateSecret {
        new_secret: amqp091::secret::Secret::new(b"s"),
        reason: Name::default(),
    };
    let declare_base = declare("amq.rabbitmq.reply-to", true);
    let declared = "1 queue.declare-ok { queue: \"amq.rabbitmq.reply-to\", message_count: 0, \
                    consumer_count: 1 }";
    let access = Method::AccessRequest {
        realm: Name::new("/data"),
        exclusive: false,
        passive: false,
        active: false,
        write: false,
        read: false,
    };
    let cancel = Method::BasicCancel { consumer_tag: Name::new("zz"), no_wait: false };
    let qos = |global| Method::BasicQos { prefetch_size: 0, prefetch_count: 5, global };
    for (method, channel, expected) in [
        (access, 1, "1 access.request-ok { ticket: 1 }"),
        (Method::ChannelFlow { active: true }, 1, "1 channel.flow-ok { active: true }"),
        (secret, 0, "0 connection.update-secret-ok"),
        (qos(false), 1, "1 basic.qos-ok"),
        (qos(true), 1, "1 basic.qos-ok"),
        (Method::BasicRecover { requeue: true }, 1, "1 basic.recover-ok"),
        (Method::BasicRecoverAsync { requeue: true }, 1, ""),
        (ack(0, true), 1, ""),
        (cancel, 1, "1 basic.cancel-ok { consumer_tag: \"zz\" }"),
        (declare_base, 1, declared),
        (Method::ConfirmSelect { no_wait: false }, 1, "1 confirm.select-ok"),
        (Method::ConfirmSelect { no_wait: false }, 1, "1 confirm.select-ok"),
    ] {
        peer.send(channel, method);
        assert_eq!(peer.heard().join(""), expected);
        assert_eq!(peer.asked(), [""; 0]);
    }
    peer.octets(&frame(8, 0, b""));
    assert_eq!(peer.heard(), [""; 0]);
}
