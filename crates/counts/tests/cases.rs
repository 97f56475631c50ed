//! What is counted is what is meant: the cases assert themselves that every message went its way.

use counts::{
    cases::{CASES, named},
    whole::{FANOUT, LAGGING, PERSISTENT, TRANSIENT, Whole},
};

/// A multiple of what the recovery of a log takes.
const MESSAGES: u64 = 2_000;

#[test]
fn every_message_comes_and_is_confirmed_where_that_is_asked() {
    for load in [&TRANSIENT, &LAGGING, &PERSISTENT, &FANOUT] {
        let mut whole = Whole::new(load);
        let batch = whole.batch();
        whole.run(2 * batch + 1);
        whole.run(batch);
    }
}

#[test]
fn every_case_can_be_found_and_runs() {
    for case in CASES {
        let found = named(case.name).expect("it is in the list");
        assert!(found.messages.is_multiple_of(1_000), "{}: a round number", case.name);
        (found.run)(MESSAGES);
    }
}
