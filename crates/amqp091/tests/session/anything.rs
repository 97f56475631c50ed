//! Any octets, and any frames in any order with a broker that answers: nothing panics, and what is
//! written is always whole frames.

use crate::harness::{Client, Peer, delivery, frame, method_frame};
use amqp091::{
    method::{METHODS, Method},
    session_fuzzing::{self, answer},
};
use model::{Delivery, EntryId, Name, Notice, Refusal, Request, Table, properties::Properties};
use proptest::prelude::*;

/// Something that happens to a session.
#[derive(Clone, Debug)]
enum Step {
    Frames(Vec<u8>),
    /// The broker answers everything it was asked.
    Answer,
    /// It refuses what it was asked last.
    Refuse(bool),
    Deliver {
        consumer: u32,
        count: u8,
    },
    Cancel(u32),
    Block(bool),
    Flush,
    Tick,
}

fn names() -> impl Strategy<Value = Name> {
    prop_oneof![Just("q"), Just(""), Just("amq.rabbitmq.reply-to"), Just("t")].prop_map(Name::new)
}

fn methods() -> impl Strategy<Value = Method> {
    let table = Table::default;
    let tag = 0..6_u64;
    prop_oneof![
        4 => Just(Method::ChannelOpen {}),
        1 => Just(Method::ChannelCloseOk {}),
        1 => names().prop_map(|reply_text| Method::ChannelClose {
            reply_code: 0, reply_text, class_id: 0, method_id: 0
        }),
        4 => (names(), any::<bool>()).prop_map(move |(queue, no_wait)| Method::QueueDeclare {
            queue, no_wait, passive: false, durable: false, exclusive: false, auto_delete: false,
            arguments: table()
        }),
        4 => (names(), names(), any::<(bool, bool)>()).prop_map(
            move |(queue, consumer_tag, (no_ack, no_wait))| Method::BasicConsume {
                queue, consumer_tag, no_local: false, no_ack, exclusive: false, no_wait,
                arguments: table()
            }
        ),
        2 => (names(), any::<bool>()).prop_map(|(consumer_tag, no_wait)| {
            Method::BasicCancel { consumer_tag, no_wait }
        }),
        2 => (names(), any::<bool>()).prop_map(|(queue, no_ack)| {
            Method::BasicGet { queue, no_ack }
        }),
        4 => (tag.clone(), any::<bool>()).prop_map(|(delivery_tag, multiple)| {
            Method::BasicAck { delivery_tag, multiple }
        }),
        2 => (tag, any::<(bool, bool)>()).prop_map(|(delivery_tag, (multiple, requeue))| {
            Method::BasicNack { delivery_tag, multiple, requeue }
        }),
        2 => (0..4_u16, any::<bool>()).prop_map(|(prefetch_count, global)| Method::BasicQos {
            prefetch_size: 0, prefetch_count, global
        }),
        1 => Just(Method::BasicRecover { requeue: true }),
        1 => Just(Method::ConfirmSelect { no_wait: false }),
        1 => Just(Method::TxSelect {}),
        1 => Just(Method::TxCommit {}),
        1 => Just(Method::TxRollback {}),
        1 => Just(Method::QueuePurge { queue: Name::new("q"), no_wait: true }),
    ]
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let channel = 1..4_u16;
    let method = (channel.clone(), methods()).prop_map(|(it, method)| method_frame(it, &method));
    let publish = (channel.clone(), names(), any::<bool>(), 0..9_usize);
    let publish = publish.prop_map(|(channel, name, wants_reply, size)| {
        let reply_to = wants_reply.then(|| Name::new("amq.rabbitmq.reply-to"));
        let properties = Properties { reply_to, ..Properties::default() };
        let method = Method::BasicPublish {
            exchange: Name::default(),
            routing_key: name,
            mandatory: true,
            immediate: false,
        };
        let header = crate::harness::header_frame(channel, size as u64, &properties);
        let body = frame(3, channel, &vec![b'x'; size]);
        [method_frame(channel, &method), header, body].concat()
    });
    let known = (0..METHODS.len(), any::<Vec<u8>>()).prop_map(|(at, rest)| {
        let ((class_id, method_id), _) = METHODS[at];
        let ids = [class_id.to_be_bytes(), method_id.to_be_bytes()].concat();
        frame(1, 1, &[ids, rest].concat())
    });
    let odd = (prop_oneof![Just(1_u8), Just(2), Just(3), Just(8)], channel, any::<Vec<u8>>());
    let odd = odd.prop_map(|(kind, channel, payload)| frame(kind, channel, &payload));
    prop_oneof![40 => method, 30 => publish, 1 => known, 1 => odd]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => prop::collection::vec(frames(), 1..6).prop_map(|it| Step::Frames(it.concat())),
        6 => Just(Step::Answer),
        1 => any::<bool>().prop_map(Step::Refuse),
        4 => (1..6_u32, 0..5_u8).prop_map(|(consumer, count)| Step::Deliver { consumer, count }),
        1 => (1..6_u32).prop_map(Step::Cancel),
        1 => any::<bool>().prop_map(Step::Block),
        2 => Just(Step::Flush),
        1 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 0..60)
}

fn refusal(request: &Request, publish: bool) -> Option<Notice> {
    let refusal = Refusal::Invalid("no".to_owned());
    let channel = match answer(request)? {
        Notice::Confirmed { channel, .. }
        | Notice::Declared { channel, .. }
        | Notice::Done { channel }
        | Notice::Purged { channel, .. }
        | Notice::Subscribed { channel, .. }
        | Notice::Fetched { channel, .. }
        | Notice::Committed { channel } => channel,
        _ => return None,
    };
    Some(Notice::Refused { channel, refusal: refusal.into(), publish })
}

fn take(peer: &mut Peer, step: Step, entry: &mut u64) {
    match step {
        Step::Frames(octets) => peer.octets(&octets),
        Step::Answer => {
            let requests = std::mem::take(&mut peer.requests);
            peer.tell(requests.iter().filter_map(answer));
        }
        Step::Refuse(publish) => {
            let mut requests = std::mem::take(&mut peer.requests);
            let last = requests.pop();
            let notices: Vec<_> = requests.iter().filter_map(answer).collect();
            peer.tell(notices.into_iter().chain(last.and_then(|it| refusal(&it, publish))));
        }
        Step::Deliver { consumer, count } => {
            let first = *entry;
            *entry += u64::from(count);
            let some =
                (first..*entry).map(|it| Delivery { entry: EntryId(it), ..delivery(consumer, it) });
            peer.tell(some.map(Notice::Delivery));
        }
        Step::Cancel(consumer) => {
            peer.tell([Notice::Cancelled { consumer: model::ConsumerNumber(consumer) }]);
        }
        Step::Block(true) => peer.tell([Notice::Blocked { reason: "low on disk" }]),
        Step::Block(false) => peer.tell([Notice::Unblocked]),
        Step::Flush => peer.session.flushed(&mut peer.requests),
        Step::Tick => {
            peer.now = peer.now.plus_ms(500);
            peer.session.tick(peer.now, &mut peer.output);
        }
    }
}

proptest! {
    #[test]
    fn any_course_of_events_ends_in_whole_frames(steps in steps()) {
        let mut peer = Peer::open(Client::default());
        let mut entry = 1;
        for step in steps {
            take(&mut peer, step, &mut entry);
            peer.heard();
        }
        // Whatever happened, a session that is open and answered keeps nothing back.
        peer.tell([Notice::Unblocked]);
        for _ in 0..50 {
            let requests = std::mem::take(&mut peer.requests);
            peer.tell(requests.iter().filter_map(answer));
            peer.octets(&[]);
        }
        prop_assert!(!peer.session.holds_back());
        prop_assert!(peer.input.is_empty() || !peer.session.is_open());
        peer.heard();
    }

    #[test]
    fn any_octets_are_taken_by_the_fuzz_target(frames in prop::collection::vec(frames(), 0..20)) {
        session_fuzzing::session(&frames.concat());
    }

    #[test]
    fn any_octets_are_taken(octets: Vec<u8>, part in 1..64_usize) {
        let mut peer = Peer::channel();
        for part in octets.chunks(part) {
            peer.octets(part);
        }
        peer.heard();
    }
}
