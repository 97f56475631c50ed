//! Queues, exchanges and bindings: the request that a method becomes, and the answer that a notice
//! becomes.

use crate::harness::{Peer, consume, declare, declared, refused};
use amqp091::method::Method;
use model::{ChannelId, Name, Notice, Table, Value};

const ONE: ChannelId = ChannelId(1);

fn name(text: &str) -> Name {
    Name::new(text)
}

/// A method, the beginning of the request, the notice, and what the client hears.
type Exchange = (Method, &'static str, Notice, &'static str);

fn arguments() -> Table {
    Table(vec![(name("x-foo"), Value::I32(1))])
}

fn done() -> Notice {
    Notice::Done { channel: ONE }
}

fn about_exchanges(no_wait: bool) -> Vec<Exchange> {
    let declare_exchange = Method::ExchangeDeclare {
        exchange: name("e"),
        kind: name("topic"),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: true,
        no_wait,
        arguments: arguments(),
    };
    let delete = Method::ExchangeDelete { exchange: name("e"), if_unused: true, no_wait };
    let (destination, source, routing_key) = (name("d"), name("s"), name("k"));
    let bind = Method::ExchangeBind {
        destination: destination.clone(),
        source: source.clone(),
        routing_key: routing_key.clone(),
        no_wait,
        arguments: arguments(),
    };
    let unbind = Method::ExchangeUnbind {
        destination,
        source,
        routing_key,
        no_wait,
        arguments: arguments(),
    };
    vec![
        (
            declare_exchange,
            "DeclareExchange(DeclareExchange { channel: ChannelId(1), \
         exchange: \"e\", kind: \"topic\", passive: false, durable: true, auto_delete: false, \
         internal: true, arguments: Table([(\"x-foo\", I32(1))]) })",
            done(),
            "exchange.declare-ok",
        ),
        (
            delete,
            "DeleteExchange { channel: ChannelId(1), exchange: \"e\", if_unused: true }",
            done(),
            "exchange.delete-ok",
        ),
        (
            bind,
            "Bind(Binding { channel: ChannelId(1), source: \"s\", destination: \"d\", \
         to_exchange: true, routing_key: \"k\"",
            done(),
            "exchange.bind-ok",
        ),
        (
            unbind,
            "Unbind(Binding { channel: ChannelId(1), source: \"s\", destination: \"d\", \
         to_exchange: true, routing_key: \"k\"",
            done(),
            "exchange.unbind-ok",
        ),
    ]
}

fn about_queues(no_wait: bool) -> Vec<Exchange> {
    let queue_bind = Method::QueueBind {
        queue: name("q"),
        exchange: name("e"),
        routing_key: name("k"),
        no_wait,
        arguments: arguments(),
    };
    let mut declare_queue = declare("q", false);
    if let Method::QueueDeclare { no_wait: silent, .. } = &mut declare_queue {
        *silent = no_wait;
    }
    let delete_queue =
        Method::QueueDelete { queue: name("q"), if_unused: true, if_empty: false, no_wait };
    vec![
        (
            queue_bind,
            "Bind(Binding { channel: ChannelId(1), source: \"e\", destination: \"q\", \
         to_exchange: false, routing_key: \"k\"",
            done(),
            "queue.bind-ok",
        ),
        (
            declare_queue,
            "DeclareQueue(DeclareQueue { channel: ChannelId(1), queue: \"q\", \
         unique: \"\", passive: false, durable: false, exclusive: false, auto_delete: false",
            declared(1, "q"),
            "queue.declare-ok { queue: \"q\", message_count: 3, consumer_count: 2 }",
        ),
        (
            Method::QueuePurge { queue: name("q"), no_wait },
            "PurgeQueue { channel: ChannelId(1), queue: \"q\" }",
            Notice::Purged { channel: ONE, messages: 7 },
            "queue.purge-ok { message_count: 7 }",
        ),
        (
            delete_queue,
            "DeleteQueue { channel: ChannelId(1), queue: \"q\", if_unused: true, \
         if_empty: false }",
            Notice::Deleted { channel: ONE, messages: 8 },
            "queue.delete-ok { message_count: 8 }",
        ),
    ]
}

fn exchanges_with(no_wait: bool) -> Vec<Exchange> {
    [about_exchanges(no_wait), about_queues(no_wait)].into_iter().flatten().collect()
}

#[test]
fn methods_become_requests_and_notices_their_answers() {
    for no_wait in [false, true] {
        let mut peer = Peer::channel();
        for (method, request, notice, answer) in exchanges_with(no_wait) {
            peer.send(1, method);
            let asked = peer.asked().join("; ");
            assert!(asked.starts_with(request), "{asked}");
            assert_eq!(peer.heard(), [""; 0]);
            peer.tell([notice]);
            let expected = if no_wait { String::new() } else { format!("1 {answer}") };
            assert_eq!(peer.heard().join("; "), expected);
        }
    }
}

#[test]
fn a_refusal_names_the_method_also_when_no_answer_was_wanted() {
    for no_wait in [false, true] {
        for (method, _, _, _) in exchanges_with(no_wait) {
            let mut peer = Peer::channel();
            let (class_id, method_id) = method.ids();
            peer.send(1, method);
            peer.tell([refused(1, "no", false)]);
            let expected =
                format!("1 channel.close 406 PRECONDITION_FAILED - no ({class_id},{method_id})");
            assert_eq!(peer.heard(), [expected]);
        }
    }
}

#[test]
fn unbinding_a_queue_has_no_silent_form() {
    let mut peer = Peer::channel();
    let (queue, exchange, routing_key) = (name("q"), name("e"), name("k"));
    let arguments = Table::default();
    peer.send(1, Method::QueueUnbind { queue, exchange, routing_key, arguments });
    assert!(peer.asked()[0].starts_with("Unbind(Binding { channel: ChannelId(1), source: \"e\""));
    peer.tell([Notice::Done { channel: ONE }]);
    assert_eq!(peer.heard(), ["1 queue.unbind-ok"]);
}

#[test]
fn the_empty_name_is_the_queue_declared_last() {
    let mut peer = Peer::channel();
    peer.send(1, declare("", false));
    let asked = peer.asked().join("");
    let unique = asked.split("unique: \"").nth(1).and_then(|it| it.split('"').next());
    assert_eq!(unique.map(str::len), Some(22), "{asked}");
    peer.tell([declared(1, "amq.gen-x")]);
    let bind = |key: &str| Method::QueueBind {
        queue: name(""),
        exchange: name("e"),
        routing_key: name(key),
        no_wait: true,
        arguments: Table::default(),
    };
    for (method, expected) in [
        (bind(""), "destination: \"amq.gen-x\", to_exchange: false, routing_key: \"amq.gen-x\""),
        (bind("k"), "destination: \"amq.gen-x\", to_exchange: false, routing_key: \"k\""),
    ] {
        peer.send(1, method);
        assert!(peer.asked()[0].contains(expected));
        peer.tell([Notice::Done { channel: ONE }]);
    }
    peer.send(1, consume("", "t", true));
    assert!(peer.asked()[0].starts_with("1 subscribe 1 amq.gen-x as t prefetch 0 shared 0"));
}

#[test]
fn a_named_queue_keeps_its_empty_key() {
    let mut peer = Peer::channel();
    peer.send(
        1,
        Method::QueueBind {
            queue: name("q"),
            exchange: name("e"),
            routing_key: name(""),
            no_wait: true,
            arguments: Table::default(),
        },
    );
    assert!(peer.asked()[0].contains("routing_key: \"\""));
}
