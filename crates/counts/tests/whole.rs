//! What is measured is what is meant: every message goes the whole road. [`Whole::run`] asserts it.

use counts::whole::{FANOUT, PERSISTENT, TRANSIENT, Whole};

#[test]
fn every_message_comes_and_is_confirmed_where_that_is_asked() {
    for load in [&TRANSIENT, &PERSISTENT, &FANOUT] {
        let mut whole = Whole::new(load);
        let batch = whole.batch();
        whole.run(2 * batch + 1);
        whole.run(batch);
    }
}
