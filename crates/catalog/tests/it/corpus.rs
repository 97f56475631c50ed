//! Inputs of the fuzz target `record` that are changes of the catalog. The target judges by the
//! same function.

#[path = "../../../../fuzz/corpus.rs"]
mod inputs;

use catalog::{Catalog, Change, PasswordHash};
use std::sync::LazyLock;

/// The kind that the broker's log gives to a change.
const KIND: u8 = 24;

static START: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::empty();
    for change in catalog::initial("guest", PasswordHash::None) {
        catalog.apply(&change).expect("the first changes fit an empty catalog");
    }
    catalog
});

/// Takes a kind and a payload: a change is written and read again to the same, and a catalog takes
/// or refuses it.
pub(crate) fn change(octets: &[u8]) {
    let Some((&KIND, payload)) = octets.split_first() else { return };
    let Ok(change) = Change::decode(payload) else { return };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    change.encode(&mut once);
    let again = Change::decode(&once).expect("what was written is read");
    again.encode(&mut twice);
    // Compared as octets: a NaN in a table does not equal itself.
    assert_eq!(once, twice);
    let mut catalog = START.clone();
    if catalog.apply(&change).is_ok() {
        rebuilt(&catalog);
    }
}

/// The catalog as its own changes is taken by an empty one.
fn rebuilt(catalog: &Catalog) {
    let mut again = Catalog::empty();
    for change in catalog.changes() {
        let mut octets = Vec::new();
        change.encode(&mut octets);
        let change = Change::decode(&octets).expect("what was written is read");
        again.apply(&change).expect("a catalog takes its own changes");
    }
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("record", change);
}
