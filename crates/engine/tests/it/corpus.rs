//! Inputs of the fuzz target `record`: what holds of any octets that stand where a record should
//! be. The target judges by the same function.

#[path = "../../../../fuzz/corpus.rs"]
mod inputs;

use bytes::Bytes;
use engine::{
    job::JobRecord,
    record::{Record, encode_counted, encode_removed, encode_stopped, kind, message_of},
};

/// Takes a kind and a payload: both readers of a message agree, and what was read is written and
/// read again to the same.
pub(crate) fn record(octets: &[u8]) {
    let Some((kind, payload)) = octets.split_first() else { return };
    let decoded = Record::decode(*kind, payload);
    if *kind == kind::MESSAGE {
        return message(payload, decoded);
    }
    if *kind == kind::JOB {
        return job(payload);
    }
    let Ok(record) = decoded else { return };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    encode(&record, &mut once);
    encode(&Record::decode(*kind, &once).expect("what was written is read"), &mut twice);
    assert_eq!(once, twice);
}

fn job(payload: &[u8]) {
    let Ok(record) = JobRecord::decode(payload) else { return };
    let mut octets = Vec::new();
    record.encode(&mut octets);
    assert_eq!(JobRecord::decode(&octets), Ok(record));
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Message { .. } => unreachable!("a message is judged by itself"),
        Record::Removed { queue, positions } => encode_removed(*queue, positions, out),
        Record::Stopped { queue, redelivered } => encode_stopped(*queue, redelivered, out),
        Record::Counted { queue, position, acquired, failed } => {
            encode_counted(*queue, *position, *acquired, *failed, out);
        }
    }
}

fn message(payload: &[u8], decoded: Result<Record, engine::record::RecordError>) {
    let payload = Bytes::copy_from_slice(payload);
    let (record, message) = match (message_of(&payload), decoded) {
        (Err(whole), Err(front)) => return assert_eq!(whole, front),
        (Ok(whole), Ok(Record::Message { record, size, facts })) => {
            let message = &whole.1;
            assert_eq!((&whole.0, message.body_len()), (&record, size));
            assert_eq!(
                (message.persistent, message.priority, message.ttl_ms),
                (facts.persistent, facts.priority, facts.ttl_ms)
            );
            whole
        }
        (whole, front) => panic!("one reader takes what the other does not: {whole:?} {front:?}"),
    };
    let _ = (message.exchange(), message.routing_key(), message.facts().header_table());
    let copy = message.detached();
    assert_eq!(copy.body(), message.body());
    let mut octets = Vec::new();
    record.encode(&copy, &mut octets);
    for part in [copy.address(), copy.properties(), &copy.body()] {
        octets.extend_from_slice(part);
    }
    let (again, other) = message_of(&Bytes::from(octets)).expect("what was written is read");
    assert_eq!(again, record);
    assert_eq!(
        (other.address(), other.properties(), other.body()),
        (message.address(), message.properties(), message.body())
    );
    assert_eq!(
        (other.persistent, other.deaths_known, other.priority, other.ttl_ms),
        (message.persistent, message.deaths_known, message.priority, message.ttl_ms)
    );
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("record", record);
}
