//! The contract of a queue, case by case.

use crate::case::{CHANNEL, Case, SESSION};
use engine::{Command, Depth, EntryState, Place, Queue, Restored, record::MessageFacts};
use model::{
    ConsumerNumber, EntryId, LogPosition, Name, Outcome, QueueId, QueuePolicy, SessionId,
    Timestamp, limits,
    policy::{DeadLetterTarget, DelayedRetry, Order, Overflow, Priorities},
    properties::Properties,
    request::SharedCredit,
};

const NACK: Outcome = Outcome::Requeue { failed: false };
const FAIL: Outcome = Outcome::Requeue { failed: true };
const REJECT: Outcome = Outcome::Reject { flagged: true };

fn dead_lettering(policy: &mut QueuePolicy) {
    policy.dead_letter = Some(DeadLetterTarget { exchange: Name::new("dlx"), routing_key: None });
}

fn quorum(policy: &mut QueuePolicy) {
    policy.durable = true;
    policy.keeps_all = true;
    policy.counts_deliveries = true;
    policy.priorities = Priorities::Quorum;
}

#[test]
fn messages_leave_in_the_order_they_came() {
    let mut case = Case::new(|_| {});
    case.publish_all("a b c");
    assert_eq!(case.fetch(), "fetched a, 2 left");
    assert_eq!(case.subscribe(1, |_| {}), "1 subscribed; 1 gets b; 1 gets c");
    assert_eq!(case.publish("d"), "1 gets d");
    assert_eq!(case.fetch(), "fetched nothing");
    assert_eq!(case.queue.depth().unsettled, 4);
    assert_eq!(case.settle(&[1, 2, 3, 4], Outcome::Accept), "");
    assert_eq!(case.queue.depth(), Depth { consumers: 1, ..Depth::default() });
}

#[test]
fn returned_messages_stand_where_they_stood_and_are_marked() {
    let mut case = Case::new(|_| {});
    case.publish_all("a b c d");
    (0..3).for_each(|_| drop(case.fetch()));
    assert_eq!(case.settle(&[2], NACK), "");
    assert_eq!(case.settle(&[3, 1], FAIL), "");
    assert_eq!(case.fetch(), "fetched a again, 3 left");
    assert_eq!(case.fetch(), "fetched b again, 2 left");
    assert_eq!(case.fetch(), "fetched c again, 1 left");
    assert_eq!(case.fetch(), "fetched d, 0 left");
}

#[test]
fn lifo_hands_out_the_newest_and_drops_the_oldest() {
    let mut case = Case::new(|it| {
        it.order = Order::Lifo;
        it.length_max = Some(3);
    });
    case.publish_all("a b c d");
    assert_eq!(case.fetch(), "fetched d, 2 left");
    assert_eq!(case.fetch(), "fetched c, 1 left");
    assert_eq!(case.settle(&[3], NACK), "");
    case.publish_all("e");
    assert_eq!(case.fetch(), "fetched e, 2 left");
    assert_eq!(case.fetch(), "fetched c again, 1 left");
    assert_eq!(case.fetch(), "fetched b, 0 left");
}

#[test]
fn settling_what_another_session_holds_or_twice_does_nothing() {
    let mut case = Case::new(dead_lettering);
    case.publish_all("a");
    case.fetch();
    let foreign = Command::Settle {
        session: SessionId(2),
        consumer: None,
        entries: [EntryId(1)].into_iter().collect(),
        outcome: REJECT,
    };
    assert_eq!(case.apply(foreign), "");
    assert_eq!(case.queue.depth().unsettled, 1);
    assert_eq!(case.settle(&[1], Outcome::Accept), "");
    assert_eq!(case.settle(&[1, 77], REJECT), "");
}

#[test]
fn what_has_a_place_is_reported_as_removed_once() {
    let mut case = Case::new(|_| {});
    case.publish_kept("a", true);
    case.publish_kept("b", true);
    case.publish_kept("c", true);
    case.publish_kept("d", true);
    assert_eq!(case.fetch(), "fetched a, 3 left");
    assert_eq!(case.settle(&[1], Outcome::Accept), "removed log 10");
    assert_eq!(case.fetch(), "fetched b, 2 left");
    assert_eq!(case.settle(&[2], REJECT), "removed log 20");
    let automatic = Command::Fetch { session: SESSION, channel: CHANNEL, automatic: true };
    assert_eq!(case.apply(automatic), "fetched c, 1 left; removed log 30");
    let purge = Command::Purge { session: SESSION, channel: CHANNEL };
    assert_eq!(case.apply(purge), "removed log 40; purged 1");
    assert_eq!(case.queue.depth(), Depth::default());
}

#[test]
fn levels_follow_the_rule_of_the_queue() {
    let order = |priorities| {
        let mut case = Case::new(|it| it.priorities = priorities);
        case.publish_all("none");
        for (body, priority) in [("p3", 3), ("p5", 5), ("p200", 200)] {
            assert_eq!(case.publish_priority(body, priority), "");
        }
        case.subscribe(1, |_| {})
    };
    assert_eq!(
        order(Priorities::UpTo(10)),
        "1 subscribed; 1 gets p200; 1 gets p5; 1 gets p3; 1 gets none"
    );
    assert_eq!(
        order(Priorities::UpTo(4)),
        "1 subscribed; 1 gets p5; 1 gets p200; 1 gets p3; 1 gets none"
    );
    assert_eq!(
        order(Priorities::Quorum),
        "1 subscribed; 1 gets p200; 1 gets p5; 1 gets none; 1 gets p3"
    );
    assert_eq!(
        order(Priorities::None),
        "1 subscribed; 1 gets none; 1 gets p3; 1 gets p5; 1 gets p200"
    );
}

#[test]
fn returned_message_keeps_its_level() {
    let mut case = Case::new(|it| it.priorities = Priorities::UpTo(9));
    case.publish_priority("low", 1);
    case.publish_priority("high", 9);
    assert_eq!(case.fetch(), "fetched high, 1 left");
    assert_eq!(case.fetch(), "fetched low, 0 left");
    case.settle(&[1, 2], NACK);
    assert_eq!(case.fetch(), "fetched high again, 1 left");
}

#[test]
fn prefetch_bounds_what_a_consumer_holds() {
    let mut case = Case::new(|_| {});
    case.publish_all("a b c d e");
    assert_eq!(case.subscribe(1, |it| it.prefetch = 2), "1 subscribed; 1 gets a; 1 gets b");
    assert_eq!(case.settle(&[1], Outcome::Accept), "1 gets c");
    let prefetch =
        |prefetch| Command::Prefetch { session: SESSION, consumer: ConsumerNumber(1), prefetch };
    assert_eq!(case.apply(prefetch(3)), "1 gets d");
    assert_eq!(case.apply(prefetch(1)), "");
    assert_eq!(case.settle(&[2, 3], Outcome::Accept), "");
    assert_eq!(case.settle(&[4], Outcome::Accept), "1 gets e");
}

#[test]
fn shared_credit_bounds_all_consumers_of_a_channel_but_automatic_ones() {
    let mut case = Case::new(|_| {});
    let shared = SharedCredit::new(2);
    case.publish_all("a b c d e");
    let share = |it: &mut engine::Subscriber| it.shared = Some(shared.clone());
    assert_eq!(case.subscribe(1, share), "1 subscribed; 1 gets a; 1 gets b");
    assert_eq!(case.subscribe(2, share), "2 subscribed");
    assert_eq!(case.settle(&[1], Outcome::Accept), "", "the session gives the credit back");
    shared.add(1);
    let resume = Command::Resume { session: SESSION, consumer: ConsumerNumber(2) };
    assert_eq!(case.apply(resume), "2 gets c");
    let automatic = |it: &mut engine::Subscriber| {
        it.shared = Some(shared.clone());
        it.automatic = true;
        it.prefetch = 1;
    };
    assert_eq!(case.subscribe(3, automatic), "3 subscribed; 3 gets d; 3 gets e");
    assert_eq!(shared.left(), 0);
}

#[test]
fn flow_credit_stops_a_consumer_at_most_one_message_late() {
    let mut case = Case::new(|_| {});
    let body = "x".repeat(300 * 1024);
    (0..6).for_each(|_| drop(case.publish(&body)));
    let text = case.subscribe(1, |it| it.automatic = true);
    assert_eq!(text.matches("gets").count(), 4, "a mebibyte and what passes it");
    let credit = |bytes| Command::Credit { session: SESSION, consumer: ConsumerNumber(1), bytes };
    assert_eq!(case.apply(credit(100 * 1024)), "");
    assert_eq!(case.apply(credit(100 * 1024)).matches("gets").count(), 1);
    assert_eq!(case.apply(credit(limits::OUTGOING_BYTES_MAX)).matches("gets").count(), 1);
}

#[test]
fn exclusive_consumer_is_alone() {
    let refused = "refused: queue 'q' in vhost '/' in exclusive use";
    let exclusive = |it: &mut engine::Subscriber| it.exclusive = true;
    let mut case = Case::new(|_| {});
    assert_eq!(case.subscribe(1, exclusive), "1 subscribed");
    assert_eq!(case.subscribe(2, |_| {}), refused);
    assert_eq!(case.unsubscribe(1), "1 unsubscribed");
    assert_eq!(case.subscribe(2, |_| {}), "2 subscribed");
    assert_eq!(case.subscribe(3, exclusive), refused);
    let mut single = Case::new(|it| it.single_active_consumer = true);
    assert_eq!(single.subscribe(1, exclusive), refused);
    let mut heedless = Case::new(quorum);
    assert_eq!(heedless.subscribe(1, exclusive), "1 subscribed");
    assert_eq!(heedless.subscribe(2, exclusive), "2 subscribed");
}

#[test]
fn single_active_consumer_hands_over_when_it_goes() {
    let mut case = Case::new(|it| it.single_active_consumer = true);
    case.publish_all("a");
    assert_eq!(case.subscribe(1, |_| {}), "1 subscribed; 1 gets a");
    assert_eq!(case.subscribe(2, |it| it.priority = 9), "2 subscribed");
    assert_eq!(case.publish("b"), "1 gets b");
    assert_eq!(case.unsubscribe(1), "1 unsubscribed");
    assert_eq!(case.publish("c"), "2 gets c");
    assert_eq!(case.settle(&[1], NACK), "2 gets a again", "it stayed with the session");
    assert_eq!(case.fetch(), "fetched nothing");
}

#[test]
fn fetch_is_refused_where_one_consumer_is_active_and_everything_is_kept() {
    let mut case = Case::new(|it| {
        quorum(it);
        it.single_active_consumer = true;
    });
    assert!(case.fetch().starts_with("refused: cannot obtain access to locked queue 'q'"));
}

#[test]
fn auto_delete_acts_when_the_last_consumer_goes_and_not_before_there_was_one() {
    let mut case = Case::new(|it| it.auto_delete = true);
    assert_eq!(case.tick(), "");
    assert_eq!(case.unsubscribe(5), "5 unsubscribed");
    case.subscribe(1, |_| {});
    case.subscribe(2, |_| {});
    assert_eq!(case.unsubscribe(1), "1 unsubscribed");
    assert_eq!(case.apply(Command::EndSession { session: SESSION, is_orderly: false }), "unused");
}

#[test]
fn end_of_a_session_brings_everything_back_as_failed() {
    let mut case = Case::new(|it| {
        quorum(it);
        it.delivery_limit = Some(1);
        dead_lettering(it);
    });
    for body in ["a", "b", "c"] {
        case.publish_kept(body, true);
    }
    assert_eq!(case.fetch(), "fetched a, 2 left after 19");
    assert_eq!(case.subscribe(1, |it| it.prefetch = 1), "1 subscribed; 1 gets b after 29");
    let end = || Command::EndSession { session: SESSION, is_orderly: false };
    assert_eq!(case.apply(end()), "counted 10: 1 1; counted 20: 1 1");
    assert_eq!(case.fetch(), "fetched a again (1, 1), 2 left after 19");
    assert_eq!(case.apply(end()), "a dies in log 10: delivery_limit redelivered");
    assert_eq!(case.queue.depth(), Depth { ready: 2, ready_bytes: 2, ..Depth::default() });
}

#[test]
fn counters_are_shown_kept_and_limited() {
    let mut case = Case::new(|it| {
        quorum(it);
        it.delivery_limit = Some(2);
        dead_lettering(it);
    });
    case.publish_kept("q1", true);
    assert_eq!(case.fetch(), "fetched q1, 0 left after 19");
    assert_eq!(case.settle(&[1], NACK), "counted 10: 1 0");
    assert_eq!(case.fetch(), "fetched q1 again (1, 0), 0 left after 19");
    assert_eq!(case.settle(&[1], FAIL), "counted 10: 2 1");
    assert_eq!(case.fetch(), "fetched q1 again (2, 1), 0 left after 19");
    assert_eq!(case.settle(&[1], FAIL), "counted 10: 3 2");
    assert_eq!(case.fetch(), "fetched q1 again (3, 2), 0 left after 19");
    assert_eq!(case.settle(&[1], FAIL), "q1 dies in log 10: delivery_limit redelivered");
}

#[test]
fn rejected_message_dies_flagged_as_asked() {
    let mut case = Case::new(dead_lettering);
    case.publish_all("a b");
    case.fetch();
    case.fetch();
    assert_eq!(case.settle(&[1], REJECT), "a dies in memory: rejected redelivered");
    let nack = Outcome::Reject { flagged: false };
    assert_eq!(case.settle(&[2], nack), "b dies in memory: rejected");
}

#[test]
fn messages_expire_at_the_head_only_and_keep_their_deadline() {
    let mut case = Case::new(dead_lettering);
    assert_eq!(case.publish_ttl("long", 100), "wake at 1100");
    assert_eq!(case.publish_ttl("short", 50), "");
    assert_eq!(case.at(60).tick(), "wake at 1100", "it stands behind a longer-lived one");
    assert_eq!(case.fetch(), "fetched long, 1 left; short dies in memory: expired");
    assert_eq!(case.at(99).settle(&[1], NACK), "", "the tick of 1100 is on its way");
    assert_eq!(case.at(100).tick(), "long dies in memory: expired");
}

#[test]
fn smaller_time_to_live_counts_and_a_new_one_acts_at_once() {
    let mut case = Case::new(|it| {
        it.ttl_ms = Some(80);
        dead_lettering(it);
    });
    assert_eq!(case.publish_ttl("a", 100), "wake at 1080");
    case.at(10).publish_ttl("b", 20);
    case.publish("c");
    assert_eq!(
        case.at(80).tick(),
        "a dies in memory: expired; b dies in memory: expired; wake at 1090"
    );
    assert_eq!(case.configure(|it| it.ttl_ms = Some(70)), "c dies in memory: expired");
}

#[test]
fn message_without_time_to_live_goes_unless_it_can_be_delivered_at_once() {
    let mut case = Case::new(dead_lettering);
    assert_eq!(case.publish_ttl("a", 0), "a dies in memory: expired");
    case.subscribe(1, |it| it.prefetch = 1);
    assert_eq!(case.publish_ttl("b", 0), "1 gets b");
    assert_eq!(case.publish_ttl("c", 0), "c dies in memory: expired");
    assert_eq!(case.settle(&[2], NACK), "b dies in memory: expired");
}

#[test]
fn lifo_queue_expires_at_both_ends() {
    let mut case = Case::new(|it| {
        it.order = Order::Lifo;
        dead_lettering(it);
    });
    case.publish_ttl("old", 50);
    case.publish("middle");
    case.publish_ttl("new", 60);
    assert_eq!(case.at(50).tick(), "old dies in memory: expired; wake at 1060");
    assert_eq!(case.at(60).fetch(), "new dies in memory: expired; fetched middle, 0 left");
}

#[test]
fn lease_is_renewed_by_use_and_held_by_consumers() {
    let mut case = Case::new(|it| it.expires_ms = Some(100));
    assert_eq!(case.publish("a"), "wake at 1100");
    assert_eq!(case.at(90).apply(Command::Touch), "");
    assert_eq!(case.at(100).tick(), "wake at 1190");
    assert_eq!(case.at(150).fetch(), "fetched a, 0 left");
    assert_eq!(case.at(190).tick(), "wake at 1250");
    case.at(200).subscribe(1, |_| {});
    assert_eq!(case.at(250).tick(), "");
    assert_eq!(case.at(400).tick(), "");
    assert_eq!(case.at(410).unsubscribe(1), "1 unsubscribed; wake at 1510");
    case.at(500).publish("b");
    assert_eq!(case.at(510).tick(), "expired");
    assert_eq!(case.at(511).tick(), "", "it is said once");
}

#[test]
fn drop_head_drops_the_oldest_of_the_lowest_level() {
    let mut case = Case::new(|it| {
        it.length_max = Some(2);
        it.priorities = Priorities::UpTo(5);
        dead_lettering(it);
    });
    case.publish_priority("high", 5);
    case.publish("a");
    assert_eq!(case.publish("b"), "a dies in memory: maxlen");
    assert_eq!(case.publish_priority("more", 5), "b dies in memory: maxlen");
    assert_eq!(case.publish("c"), "c dies in memory: maxlen");
    assert_eq!(case.configure(|it| it.length_bytes_max = Some(4)), "high dies in memory: maxlen");
}

#[test]
fn delivered_message_does_not_count_for_the_length() {
    for overflow in [Overflow::DropHead, Overflow::RejectPublish] {
        let mut case = Case::new(|it| {
            it.length_max = Some(0);
            it.overflow = overflow;
        });
        case.subscribe(1, |it| it.prefetch = 1);
        assert_eq!(case.publish("a"), "1 gets a");
        let expected = if overflow == Overflow::DropHead { "" } else { "rejected" };
        assert_eq!(case.publish("b"), expected);
        assert_eq!(case.queue.depth().ready, 0);
    }
}

#[test]
fn full_queue_refuses_and_dead_letters_if_told_so() {
    let mut case = Case::new(|it| {
        it.length_bytes_max = Some(3);
        it.overflow = Overflow::RejectPublish;
        dead_lettering(it);
    });
    case.publish_all("aa b");
    assert_eq!(case.publish_kept("c", true), "rejected; removed log 10");
    case.configure(|it| it.overflow = Overflow::RejectPublishDeadLetter);
    assert_eq!(case.publish_kept("d", true), "rejected; d dies in log 20: maxlen");
    assert_eq!(case.queue.depth().ready, 2);
}

#[test]
fn bodies_without_room_are_read_when_they_are_wanted() {
    let mut case = Case::new(|_| {});
    case.publish_kept("a", false);
    case.publish_kept("b", false);
    case.publish_kept("c", true);
    assert!(case.queue.resident_bytes() < 10 + engine::MESSAGE_OVERHEAD_BYTES);
    assert_eq!(case.fetch(), "load 1 2");
    assert_eq!(case.fetch(), "", "one load at a time");
    assert_eq!(case.subscribe(1, |_| {}), "1 subscribed");
    assert_eq!(
        case.load(&[(1, Some("a")), (2, None)]),
        "removed log 20; fetched a, 1 left; fetched c, 0 left"
    );
    assert_eq!(case.settle(&[1], NACK), "load 1", "its body was let go with the delivery");
    assert_eq!(case.load(&[(1, Some("a"))]), "1 gets a again");
    assert_eq!(case.publish_kept("d", false), "1 gets d", "at once, so it is never read");
    let place = Place::Memory;
    assert_eq!(case.arrive("e", &Properties::default(), place, false), "1 gets e");
}

#[test]
fn message_without_place_stays_in_memory_whatever_the_budget() {
    let mut case = Case::new(|_| {});
    case.arrive("a", &Properties::default(), Place::Memory, false);
    assert_eq!(case.fetch(), "fetched a, 0 left");
    assert_eq!(case.settle(&[1], NACK), "");
    assert_eq!(case.fetch(), "fetched a again, 0 left");
}

#[test]
fn purged_queue_answers_the_fetch_that_waited_for_the_disk() {
    let mut case = Case::new(|_| {});
    case.publish_kept("a", false);
    assert_eq!(case.fetch(), "load 1");
    let purge = Command::Purge { session: SESSION, channel: CHANNEL };
    assert_eq!(case.apply(purge), "removed log 10; purged 1; fetched nothing");
    assert_eq!(case.load(&[(1, Some("a"))]), "");
    assert_eq!(case.queue.resident_bytes(), 0);
}

#[test]
fn next_bodies_are_read_before_the_last_ones_are_gone() {
    let mut case = Case::new(|_| {});
    (0..2_000).for_each(|_| drop(case.publish_kept("x", false)));
    let load = case.subscribe(1, |it| it.prefetch = 10);
    assert_eq!(load.split(' ').count() - 3, 512);
    let bodies = |from: u64| (from..from + 512).map(|it| (it, Some("x"))).collect::<Vec<_>>();
    assert_eq!(case.load(&bodies(1)).matches("gets").count(), 10);
    let (settled, next) = (1..=600)
        .find_map(|id| {
            let text = case.settle(&[id], Outcome::Accept);
            text.find("load").map(|at| (id, text[at..].to_owned()))
        })
        .expect("the next bodies are asked for");
    assert_eq!(settled + 10, 257, "fewer than half are left");
    assert!(next.starts_with("load 513 514 "), "{next}");
    assert!(!case.load(&bodies(513)).contains("load"));
    assert!(case.queue.resident_bytes() < 800 * (20 + engine::MESSAGE_OVERHEAD_BYTES));
}

#[test]
fn moved_message_is_read_and_removed_at_its_new_place() {
    let mut case = Case::new(|_| {});
    case.publish_kept("a", false);
    case.publish_kept("b", true);
    assert_eq!(case.fetch(), "load 1");
    let to = Place::Log { position: LogPosition(5 << 32), end: LogPosition(5 << 32 | 9) };
    let moved =
        |entry, from, to| Command::Moved { entry: EntryId(entry), from: LogPosition(from), to };
    assert_eq!(case.apply(moved(1, 10, to)), "");
    assert_eq!(case.apply(moved(2, 77, to)), "", "it lies somewhere else by now");
    let mut found = Vec::new();
    case.queue.entries_in(5, &mut found);
    assert_eq!(found, [(EntryId(1), to)]);
    assert_eq!(case.load(&[(1, None)]), "load 1", "the old place is gone, the message is not");
    assert_eq!(case.load(&[(1, Some("a"))]), "fetched a, 1 left");
    assert_eq!(case.settle(&[1], Outcome::Accept), format!("removed log {}", 5_u64 << 32));
}

#[test]
fn consumer_that_settles_too_late_is_ended_and_its_messages_come_back() {
    let mut case = Case::new(|it| it.consumer_timeout_ms = Some(100));
    case.publish_all("a b");
    case.subscribe(1, |it| {
        it.prefetch = 2;
        it.timeout_ms = Some(50);
    });
    assert_eq!(case.at(40).settle(&[1], Outcome::Accept), "");
    assert_eq!(case.subscribe(2, |_| {}), "2 subscribed");
    assert_eq!(case.at(50).tick(), "1 cancelled; 2 gets b again; wake at 1150");
    assert_eq!(case.at(140).settle(&[2], Outcome::Accept), "");
    assert_eq!(case.at(150).tick(), "");
    assert_eq!(case.unsubscribe(1), "1 unsubscribed", "a request is always answered");
}

#[test]
fn message_that_came_back_rests_before_it_is_ready() {
    let mut case = Case::new(|it| {
        quorum(it);
        it.delayed_retry = DelayedRetry::Failed;
        it.delayed_retry_ms_min = 100;
        it.delayed_retry_ms_max = 150;
    });
    case.publish_kept("a", true);
    case.fetch();
    assert_eq!(case.settle(&[1], NACK), "counted 10: 1 0");
    assert_eq!(case.fetch(), "fetched a again (1, 0), 0 left after 19");
    assert_eq!(case.settle(&[1], FAIL), "counted 10: 2 1; wake at 1100");
    assert_eq!(case.queue.depth(), Depth { delayed: 1, ..Depth::default() });
    assert_eq!(case.at(99).fetch(), "fetched nothing");
    assert_eq!(case.queue.redelivered_positions(), [LogPosition(10)]);
    assert_eq!(case.at(100).fetch(), "fetched a again (2, 1), 0 left after 19");
    assert_eq!(case.settle(&[1], FAIL), "counted 10: 3 2");
    assert_eq!(case.at(249).tick(), "wake at 1250", "twice the rest, but no more than the most");
    assert_eq!(case.at(250).fetch(), "fetched a again (3, 2), 0 left after 19");
}

#[test]
fn closing_tells_everybody_who_waits_and_settles_nothing() {
    let mut case = Case::new(|_| {});
    case.publish_kept("a", false);
    case.subscribe(2, |_| {});
    case.fetch();
    case.subscribe(1, |_| {});
    assert_eq!(case.apply(Command::Close), "2 cancelled; 1 cancelled; fetched nothing");
}

#[test]
fn restored_queue_goes_on_where_it_was() {
    let mut policy = QueuePolicy::plain(QueueId(7), "q");
    quorum(&mut policy);
    let now = Timestamp(5_000);
    let mut queue = Queue::new(policy, now);
    let mut restoring = queue.restoring();
    for (number, priority) in [(1, None), (2, Some(9)), (3, None)] {
        let position = LogPosition(number * 100);
        let ttl_ms = (number == 3).then_some(10_000);
        let restored = Restored {
            place: Place::Log { position, end: LogPosition(number * 100 + 50) },
            origin: position,
            size: 1_000,
            facts: MessageFacts { persistent: true, priority, ttl_ms },
            arrived: Timestamp(1_000 * number),
            redelivered: number == 1,
            acquired: u32::from(number == 1) * 3,
            failed: u32::from(number == 1),
        };
        restoring.put(restored);
    }
    restoring.finish();
    let depth = Depth { ready: 3, ready_bytes: 3_000, ..Depth::default() };
    assert_eq!((queue.depth(), queue.resident_bytes()), (depth, 0));
    assert_eq!(queue.redelivered_positions(), [LogPosition(100)]);
    let expected = EntryState {
        place: Place::Log { position: LogPosition(100), end: LogPosition(150) },
        arrived: Timestamp(1_000),
        redelivered: true,
        acquired: 3,
        failed: 1,
    };
    assert_eq!(queue.entry_state(EntryId(1)), Some(expected));
    let mut case = Case::new(|_| {});
    (case.queue, case.now) = (queue, now);
    assert_eq!(case.fetch(), "load 2 1 3");
    assert_eq!(
        case.load(&[(2, Some("b")), (1, Some("a")), (3, Some("c"))]),
        "fetched b, 2 left after 250"
    );
    assert_eq!(case.fetch(), "fetched a again (3, 1), 1 left after 150; wake at 13000");
    case.now = Timestamp(13_000);
    assert_eq!(case.tick(), "removed log 300", "its own time to live was not forgotten");
}

#[test]
fn messages_of_one_segment_are_found_among_many() {
    let mut queue = Queue::new(QueuePolicy::plain(QueueId(7), "q"), Timestamp(0));
    let mut restoring = queue.restoring();
    for number in 0..100_000_u64 {
        let position = LogPosition(((number / 1_000) << 32) | (number % 1_000));
        let place = Place::Log { position, end: position };
        let facts = MessageFacts::default();
        let (arrived, size) = (Timestamp(0), 1_000);
        let (redelivered, acquired, failed) = (false, 0, 0);
        let origin = position;
        let restored =
            Restored { place, origin, size, facts, arrived, redelivered, acquired, failed };
        restoring.put(restored);
    }
    restoring.finish();
    assert_eq!(queue.depth().ready, 100_000);
    let mut found = Vec::new();
    queue.entries_in(42, &mut found);
    let ids: Vec<_> = found.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, (42_001..=43_000).collect::<Vec<_>>());
}
