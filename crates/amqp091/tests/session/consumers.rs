//! Consumers, fetches, settles, prefetch, and what becomes of deliveries when a channel ends.

use crate::harness::{Client, Peer, consume, delivered, delivery, method_frame, subscribed};
use amqp091::method::Method;
use model::{
    ChannelId, ConsumerNumber, Delivery, EntryId, Name, Notice, QueueId, Request,
    request::SharedCredit,
};

const ONE: ChannelId = ChannelId(1);

fn ack(delivery_tag: u64, multiple: bool) -> Method {
    Method::BasicAck { delivery_tag, multiple }
}

fn qos(prefetch_count: u16, global: bool) -> Method {
    Method::BasicQos { prefetch_size: 0, prefetch_count, global }
}

fn get(no_ack: bool) -> Method {
    Method::BasicGet { queue: Name::new("q"), no_ack }
}

fn close() -> Method {
    let reply_text = Name::default();
    Method::ChannelClose { reply_code: 200, reply_text, class_id: 0, method_id: 0 }
}

fn cancel(tag: &str) -> Method {
    Method::BasicCancel { consumer_tag: Name::new(tag), no_wait: false }
}

fn fetched(entry: Option<u64>) -> Notice {
    Notice::Fetched { channel: ONE, delivery: entry.map(|it| delivery(0, it)), ready: 4 }
}

/// A channel with consumer 1, tag `t`, and this many deliveries.
fn consuming(deliveries: u64) -> Peer {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    peer.tell((1..=deliveries).map(|it| delivered(1, 10 * it)));
    peer.heard();
    peer
}

#[test]
fn a_delivery_has_tag_counters_and_body() {
    let mut peer = Peer::channel();
    peer.consume(1, "t", false, 1);
    let counted = Delivery { counts: Some((2, 1)), redelivered: true, ..delivery(1, 5) };
    peer.tell([delivered(1, 4), Notice::Delivery(counted)]);
    assert_eq!(
        peer.heard(),
        [
            "1 basic.deliver { consumer_tag: \"t\", delivery_tag: 1, redelivered: false, \
         exchange: \"\", routing_key: \"q\" } | 4 body",
            "1 basic.deliver { consumer_tag: \"t\", delivery_tag: 2, redelivered: true, \
         exchange: \"\", routing_key: \"q\" } | [(\"x-acquired-count\", I64(2)), \
         (\"x-delivery-count\", I64(1))] 4 body",
        ]
    );
}

#[test]
fn a_fetch_is_answered_with_what_remains() {
    let mut peer = Peer::channel();
    peer.send(1, get(false));
    assert_eq!(peer.asked(), ["Fetch { channel: ChannelId(1), queue: \"q\", automatic: false }"]);
    peer.tell([fetched(Some(7))]);
    assert_eq!(
        peer.heard(),
        ["1 basic.get-ok { delivery_tag: 1, redelivered: false, exchange: \"\", \
         routing_key: \"q\", message_count: 4 } | 4 body"]
    );
    peer.send(1, get(false));
    peer.tell([fetched(None)]);
    assert_eq!(peer.heard(), ["1 basic.get-empty"]);
    peer.requests.clear();
    peer.send(1, ack(1, false));
    assert_eq!(peer.asked(), ["1 settle - [7] Accept"]);
}

#[test]
fn tags_count_deliveries_and_fetches_together_and_automatic_ones_too() {
    let mut peer = Peer::channel();
    peer.consume(1, "auto", true, 1);
    peer.consume(1, "t", false, 2);
    peer.tell([Notice::Delivery(Delivery { automatic: true, ..delivery(1, 1) }), delivered(2, 2)]);
    peer.send(1, get(false));
    peer.tell([fetched(Some(3))]);
    peer.requests.clear();
    peer.send(1, ack(0, true));
    assert_eq!(peer.asked(), ["1 settle 2 [2] Accept", "1 settle - [3] Accept"]);
    peer.send(1, ack(1, false));
    assert!(peer.heard().last().is_some_and(|it| it.contains("unknown delivery tag 1 (60,80)")));
}

#[test]
fn each_settle_has_its_outcome() {
    let nack = |multiple, requeue| Method::BasicNack { delivery_tag: 2, multiple, requeue };
    let reject = |requeue| Method::BasicReject { delivery_tag: 2, requeue };
    for (method, expected) in [
        (ack(2, false), "[20] Accept"),
        (ack(2, true), "[10, 20] Accept"),
        (ack(0, true), "[10, 20, 30] Accept"),
        (nack(false, true), "[20] Requeue { failed: false }"),
        (nack(true, true), "[10, 20] Requeue { failed: false }"),
        (nack(false, false), "[20] Reject { flagged: false }"),
        (reject(true), "[20] Requeue { failed: true }"),
        (reject(false), "[20] Reject { flagged: true }"),
        (Method::BasicRecover { requeue: true }, "[10, 20, 30] Release { failed: false }"),
        (Method::BasicRecoverAsync { requeue: true }, "[10, 20, 30] Release { failed: false }"),
    ] {
        let mut peer = consuming(3);
        peer.send(1, method);
        assert_eq!(peer.asked(), [format!("1 settle 1 {expected}")]);
    }
}

#[test]
fn settles_that_arrive_together_travel_together() {
    let mut peer = consuming(9);
    let octets: Vec<u8> =
        [3, 1, 2, 9].iter().flat_map(|it| method_frame(1, &ack(*it, false))).collect();
    peer.octets(&octets);
    assert_eq!(peer.asked(), ["1 settle 1 [30, 10, 20, 90] Accept"]);
    peer.send(1, ack(2, true));
    let close = "1 channel.close 406 PRECONDITION_FAILED - unknown delivery tag 2 (60,80)";
    assert_eq!(peer.heard(), [close]);
    assert_eq!(
        peer.asked(),
        [
            "Unsubscribe { channel: ChannelId(1), consumer: ConsumerNumber(1), queue: QueueId(1) }",
            "1 settle 1 [40, 50, 60, 70, 80] Release { failed: true }",
        ]
    );
}

#[test]
fn a_closed_channel_gives_everything_back_before_it_is_answered() {
    let mut peer = consuming(2);
    let elsewhere = Delivery { queue: QueueId(2), entry: EntryId(5), ..delivery(0, 5) };
    peer.send(1, get(false));
    peer.requests.clear();
    peer.tell([Notice::Fetched { channel: ONE, delivery: Some(elsewhere), ready: 0 }]);
    peer.tell([delivered(1, 30)]);
    peer.heard();
    peer.send(1, close());
    assert_eq!(
        peer.asked(),
        [
            "Unsubscribe { channel: ChannelId(1), consumer: ConsumerNumber(1), queue: QueueId(1) }",
            "1 settle 1 [10, 20, 30] Release { failed: true }",
            "1 settle - [5] Release { failed: true }",
            "Barrier { channel: ChannelId(1) }",
        ]
    );
    peer.tell([delivered(1, 40)]);
    assert_eq!(peer.asked(), ["1 settle 1 [40] Release { failed: false }"]);
    let consumer = ConsumerNumber(1);
    peer.tell([Notice::Unsubscribed { channel: ONE, consumer }]);
    assert_eq!(peer.heard(), [""; 0]);
    peer.tell([Notice::Done { channel: ONE }]);
    assert_eq!(peer.heard(), ["1 channel.close-ok"]);
    peer.tell([delivered(1, 50)]);
    assert_eq!(peer.asked(), ["1 settle 1 [50] Release { failed: false }"]);
}

#[test]
fn a_cancelled_consumer_gets_what_is_under_way_and_keeps_what_it_holds() {
    let mut peer = consuming(1);
    peer.send(1, cancel("t"));
    assert_eq!(
        peer.asked(),
        ["Unsubscribe { channel: ChannelId(1), consumer: ConsumerNumber(1), queue: QueueId(1) }"]
    );
    peer.tell([delivered(1, 20)]);
    assert_eq!(peer.heard().len(), 1);
    peer.tell([Notice::Unsubscribed { channel: ONE, consumer: ConsumerNumber(1) }]);
    assert_eq!(peer.heard(), ["1 basic.cancel-ok { consumer_tag: \"t\" }"]);
    peer.send(1, ack(0, true));
    assert_eq!(peer.asked(), ["1 settle 1 [10, 20] Accept"]);
}

#[test]
fn a_client_that_wants_it_hears_of_a_consumer_that_the_broker_ends() {
    for capabilities in [true, false] {
        let mut peer = Peer::with_channel(Client { capabilities, ..Client::default() });
        peer.consume(1, "t", false, 1);
        peer.tell([Notice::Cancelled { consumer: ConsumerNumber(1) }]);
        let expected = match capabilities {
            true => "1 basic.cancel { consumer_tag: \"t\", no_wait: true }",
            false => "",
        };
        assert_eq!(peer.heard().join(""), expected);
        peer.send(1, cancel("t"));
        assert_eq!(peer.heard(), ["1 basic.cancel-ok { consumer_tag: \"t\" }"]);
        assert_eq!(peer.asked(), [""; 0]);
    }
}

#[test]
fn a_cancel_and_the_end_of_its_consumer_may_cross() {
    let mut peer = consuming(0);
    peer.send(1, cancel("t"));
    let consumer = ConsumerNumber(1);
    peer.tell([Notice::Cancelled { consumer }, Notice::Unsubscribed { channel: ONE, consumer }]);
    assert_eq!(peer.heard(), ["1 basic.cancel-ok { consumer_tag: \"t\" }"]);
}

#[test]
fn the_broker_makes_up_tags() {
    let mut peer = Peer::channel();
    peer.send(1, consume("q", "", false));
    peer.tell([subscribed(1, 1)]);
    let heard = peer.heard().join("");
    let tag = heard.split('"').nth(1).and_then(|it| it.strip_prefix("amq.ctag-"));
    assert_eq!(tag.map(str::len), Some(22), "{heard}");
}

#[test]
fn what_has_left_is_given_back_as_credit() {
    let mut peer = consuming(3);
    peer.session.flushed(&mut peer.requests);
    // Two octets of address lengths, the key, two of flags, the body.
    let size = 2 + 1 + 2 + 4 + 64;
    let credit = |octets: u64| {
        format!("Credit {{ consumer: ConsumerNumber(1), queue: QueueId(1), bytes: {octets} }}")
    };
    assert_eq!(peer.asked(), [credit(3 * size)]);
    peer.session.flushed(&mut peer.requests);
    assert_eq!(peer.asked(), [""; 0]);
    peer.tell([delivered(1, 99)]);
    peer.session.flushed(&mut peer.requests);
    assert_eq!(peer.asked(), [credit(size)]);
}

/// The shared credit of the consumer that is asked for last.
fn shared(peer: &Peer) -> SharedCredit {
    let found = peer.requests.iter().rev().find_map(|it| match it {
        Request::Subscribe(it) => it.shared.clone(),
        _ => None,
    });
    found.expect("a consumer with manual settles shares its channel's limit")
}

#[test]
fn a_limit_of_the_channel_acts_at_once_on_all_its_consumers() {
    let mut peer = Peer::channel();
    peer.send(1, qos(2, true));
    peer.send(1, consume("q", "a", false));
    let credit = shared(&peer);
    peer.tell([subscribed(1, 1)]);
    let out = |credit: &SharedCredit| (0..20).take_while(|_| credit.try_take()).count();
    assert_eq!(out(&credit), 2);
    peer.tell([delivered(1, 1), delivered(1, 2)]);
    peer.requests.clear();
    let resume = |it| format!("Resume {{ consumer: ConsumerNumber({it}), queue: QueueId(1) }}");
    peer.send(1, qos(6, true));
    assert_eq!(peer.asked(), [resume(1)]);
    assert_eq!(out(&credit), 4);
    peer.send(1, qos(0, true));
    assert_eq!(peer.asked(), [resume(1)]);
    assert_eq!(out(&credit), 20 - 6 + 6);
    peer.send(1, qos(3, true));
    peer.send(1, consume("q", "b", false));
    assert_eq!(out(&shared(&peer)), 0, "more is out than the limit allows");
}

#[test]
fn a_settle_makes_room_in_the_limit_and_wakes_the_consumers_when_there_was_none() {
    let mut peer = Peer::channel();
    peer.send(1, qos(2, true));
    peer.send(1, consume("q", "a", false));
    let credit = shared(&peer);
    peer.tell([subscribed(1, 1)]);
    while credit.try_take() {}
    peer.tell([delivered(1, 10), delivered(1, 20)]);
    peer.requests.clear();
    peer.send(1, ack(1, false));
    assert_eq!(
        peer.asked(),
        ["1 settle 1 [10] Accept", "Resume { consumer: ConsumerNumber(1), queue: QueueId(1) }",]
    );
    peer.send(1, ack(2, false));
    assert_eq!(peer.asked(), ["1 settle 1 [20] Accept"]);
    assert_eq!(credit.left(), 2);
}

#[test]
fn a_stray_delivery_takes_nothing_of_the_limit() {
    let mut peer = Peer::channel();
    peer.send(1, qos(1, true));
    peer.send(1, consume("q", "a", false));
    let credit = shared(&peer);
    peer.tell([subscribed(1, 1)]);
    peer.send(1, cancel("a"));
    assert!(credit.try_take());
    peer.requests.clear();
    let consumer = ConsumerNumber(1);
    peer.tell([Notice::Unsubscribed { channel: ONE, consumer }, delivered(1, 10)]);
    assert_eq!(peer.asked(), ["1 settle 1 [10] Release { failed: false }"]);
    assert_eq!(credit.left(), 1);
}

#[test]
fn a_limit_per_consumer_acts_on_later_ones_but_for_one_library_on_running_ones_too() {
    for (product, live) in [("golden", false), ("py-amqp", true)] {
        let mut peer = Peer::with_channel(Client { product, ..Client::default() });
        peer.send(1, qos(2, false));
        peer.send(1, consume("q", "a", false));
        assert!(peer.asked()[0].contains("prefetch 2 "));
        peer.tell([subscribed(1, 1)]);
        peer.send(1, qos(6, false));
        let prefetch = match live {
            true => "Prefetch { consumer: ConsumerNumber(1), queue: QueueId(1), prefetch: 6 }",
            false => "",
        };
        assert_eq!(peer.asked().join(""), prefetch);
        peer.send(1, consume("q", "b", false));
        assert!(peer.asked()[0].contains("prefetch 6 "));
        peer.tell([subscribed(1, 2)]);
        peer.send(1, consume("q", "c", true));
        assert!(peer.asked()[0].contains("prefetch 0 shared 0 automatic true"));
    }
}

#[test]
fn properties_that_fit_no_frame_end_the_connection_counters_are_left_out_before() {
    let mut peer = Peer::with_channel(Client { frame_max: 4_096, ..Client::default() });
    peer.consume(1, "t", false, 1);
    let with_header = |octets: usize| {
        let value = model::Value::LongString(vec![0; octets].into());
        let headers = Some(model::Table(vec![(Name::new("h"), value)]));
        let properties = model::properties::Properties { headers, ..Default::default() };
        model::Message::new("", "q", &properties.encoded(), b"")
    };
    let room = 4_096 - 8 - 12 - 2 - 4 - 2 - 5;
    let message = with_header(room).into();
    peer.tell([Notice::Delivery(Delivery { counts: Some((1, 1)), message, ..delivery(1, 1) })]);
    assert!(peer.heard()[0].contains("basic.deliver"));
    let message = with_header(room + 1).into();
    peer.tell([Notice::Delivery(Delivery { message, ..delivery(1, 1) })]);
    assert_eq!(
        peer.heard(),
        ["0 connection.close 506 RESOURCE_ERROR - properties do not fit the negotiated frame \
             size (0,0)"]
    );
}
