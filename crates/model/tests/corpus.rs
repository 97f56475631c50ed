//! Inputs of the fuzz target `table`: what holds of any octets that stand where a table or a list
//! of properties should be. The target judges by the same functions.

#[path = "../../../fuzz/corpus.rs"]
mod inputs;

use bytes::Bytes;
use model::{
    Facts, Name, Table, Value,
    properties::{Properties, PropertiesError},
    value::check_table,
};

/// Takes the octets for a table: the look and the reading agree, and what was read is written and
/// read again to the same.
pub(crate) fn table(octets: &[u8]) {
    let checked = check_table(octets);
    let (table, rest) = match (Table::decode(octets), checked) {
        (Err(read), Err(looked)) => return assert_eq!(read, looked),
        (Ok(read), Ok(looked)) => {
            assert_eq!(read.1, looked.rest);
            read
        }
        (read, looked) => panic!("one takes what the other does not: {read:?} {looked:?}"),
    };
    let is_aliased = checked.is_ok_and(|it| it.is_aliased);
    let mut once = Vec::new();
    table.encode(&mut once);
    let length = octets.len() - rest.len();
    assert_eq!(once.len(), length);
    // A truth value may be any octet but zero; everything else has one spelling.
    if !is_aliased && !table.0.iter().any(|(_, it)| has_truth(it)) {
        assert_eq!(once, octets[..length]);
    }
    let looked = check_table(&once).expect("what was written is read");
    assert!(looked.rest.is_empty() && !looked.is_aliased);
    let mut twice = Vec::new();
    Table::decode(&once).expect("what was written is read").0.encode(&mut twice);
    // Compared as octets: a NaN does not equal itself.
    assert_eq!(once, twice);
    keys(table);
}

fn has_truth(value: &Value) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Array(items) => items.iter().any(has_truth),
        Value::Table(table) => table.0.iter().any(|(_, it)| has_truth(it)),
        _ => false,
    }
}

/// A key counts where it stands first; set, it is that value; removed, it is gone everywhere.
fn keys(mut table: Table) {
    let Some(key) = table.0.last().map(|it| it.0.to_string()) else { return };
    assert!(table.get(&key).is_some());
    table.set(&key, Value::Void);
    assert_eq!(table.get(&key), Some(&Value::Void));
    assert_eq!(table.remove(&key), Some(Value::Void));
    assert_eq!(table.get(&key), None);
}

/// Takes the octets for properties: facts and properties agree, and what was read is written and
/// read again to the same.
pub(crate) fn properties(octets: &[u8]) {
    let (facts, properties) = match (Facts::parse(octets), Properties::decode(octets)) {
        (Err(facts), Err(all)) => return assert_eq!(facts, all),
        (Ok(facts), Ok(all)) => (facts, all),
        (facts, all) => panic!("one takes what the other does not: {facts:?} {all:?}"),
    };
    fn text(it: &Option<Name>) -> Option<&str> {
        it.as_deref()
    }
    assert_eq!(facts.persistent, properties.delivery_mode == Some(2));
    assert_eq!(facts.priority, properties.priority);
    assert_eq!(facts.reply_to, text(&properties.reply_to));
    assert_eq!(facts.expiration, text(&properties.expiration));
    assert_eq!(facts.user_id, text(&properties.user_id));
    assert_eq!(facts.headers.is_some(), properties.headers.is_some());
    let once = properties.encoded();
    assert_eq!(once.len(), octets.len());
    let again = Facts::parse(&once).expect("what was written is read");
    assert!(!again.is_aliased);
    assert_eq!(again.header_table().0.len(), facts.header_table().0.len());
    let twice = Properties::decode(&once).map(|it| it.encoded());
    assert_eq!(twice, Ok::<_, PropertiesError>(once));
    let message = model::Message::new("x", "key", octets, b"body");
    assert_eq!((message.persistent, message.priority), (facts.persistent, facts.priority));
    assert_eq!(Bytes::from(message.body()), &b"body"[..]);
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("table", |octets| {
        table(octets);
        properties(octets);
    });
}
