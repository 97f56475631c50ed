//! Inputs of the fuzz target `checkpoint`: what holds of a folder whose checkpoint was spoiled as
//! the input says, or says what nobody would write. The target judges by the same function.

#[path = "../../../../fuzz/source.rs"]
mod source;

#[path = "../../../../fuzz/corpus.rs"]
mod inputs;

use self::source::Source;
use crate::host::{CHANNEL, Host, declare, publish};
use broker::Checkpointer;
use model::Request;
use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};
use storage::{LogOptions, MemoryDisk, Recovery};

const NAME: &str = "checkpoint.1";
const HEADER: usize = 32;
const PART: u8 = 9;
const END: u8 = 10;

/// A folder with a checkpoint, and what it and its log amount to.
struct Folder {
    disk: MemoryDisk,
    told: Vec<String>,
    checkpoint: Vec<u8>,
    /// Where each record of the checkpoint ends.
    ends: Vec<usize>,
}

static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
    let host = Host::new();
    let mut client = host.connect();
    for queue in ["a", "b"] {
        client.ask(&host, declare(queue));
    }
    let mut number = 0;
    let mut fill = |rounds: usize| {
        for round in 0..rounds {
            let queue = if round % 3 == 0 { "a" } else { "b" };
            number += 1;
            client.ask(&host, publish("", queue, &"x".repeat(400 + round % 7), number));
            if round % 4 == 0 {
                let queue = queue.into();
                client.ask(&host, Request::Fetch { channel: CHANNEL, queue, automatic: true });
            }
        }
    };
    fill(500);
    let written = Checkpointer::new(Arc::clone(&host.log)).write(&|| false);
    assert_eq!(written, Ok(true));
    fill(20);
    let disk = host.disk.copy();
    let (_, recovery, told) = opened(&disk.copy(), false);
    assert!(recovery.checkpoint.is_some() && !recovery.has_damage());
    assert_eq!(told, opened(&disk.copy(), true).2);
    let checkpoint = disk.content(NAME).expect("it was written");
    let mut ends = Vec::new();
    let mut at = 0;
    while at < checkpoint.len() {
        let length = checkpoint[at + 8..at + 12].try_into().expect("four octets");
        at += HEADER + (u32::from_le_bytes(length) as usize).next_multiple_of(8);
        ends.push(at);
    }
    assert!(3 < ends.len() && 30 < told.len());
    Folder { disk, told, checkpoint, ends }
});

fn opened(disk: &MemoryDisk, thorough: bool) -> (Arc<storage::Log>, Recovery, Vec<String>) {
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let (log, recovery, mut restorer) =
        broker::recover(Arc::new(disk.clone()), options, thorough, &|_| ()).expect("opens");
    let exists: BTreeSet<u32> = log.segments().iter().map(|it| it.id.0).collect();
    (Arc::new(log), recovery, restorer.describe(exists))
}

/// Takes the input for what happened to a checkpoint.
pub(crate) fn spoiled(octets: &[u8]) {
    match octets.split_first() {
        Some((first, rest)) if first & 1 == 0 => damaged(rest),
        Some((_, rest)) => forged(rest),
        None => {}
    }
}

fn below(source: &mut Source<'_>, limit: usize) -> Option<usize> {
    let word = usize::from(source.octet()?) << 8 | usize::from(source.octet()?);
    Some(word % limit.max(1))
}

fn spoil(content: &mut Vec<u8>, source: &mut Source<'_>) -> Option<()> {
    let how = source.octet()?;
    let at = below(source, content.len() + 1)?;
    match how % 4 {
        0 if at < content.len() => content[at] ^= source.octet()?.max(1),
        1 => content.truncate(at),
        2 => {
            let end = (at + usize::from(source.octet()?) * 8).min(content.len());
            content[at..end].fill(0);
        }
        _ => {
            let octets = source.counted()?;
            let end = (at + octets.len()).min(content.len());
            content[at..end].copy_from_slice(&octets[..end - at]);
        }
    }
    Some(())
}

/// Whatever happened to its octets, a start shows what the log says, and tells of it.
fn damaged(octets: &[u8]) {
    let disk = FOLDER.disk.copy();
    let (mut content, mut source) = (FOLDER.checkpoint.clone(), Source(octets));
    while spoil(&mut content, &mut source).is_some() {}
    let is_same = content == FOLDER.checkpoint;
    disk.set_content(NAME, content);
    let (log, recovery, told) = opened(&disk, false);
    assert_eq!(told, FOLDER.told);
    assert_eq!(recovery.checkpoint.is_some(), is_same);
    assert_eq!(recovery.checkpoint_faults.is_empty(), is_same);
    assert!(!recovery.is_log_damaged());
    assert!(Checkpointer::new(log).write(&|| false).is_ok());
}

/// Parts with good checksums that say what nobody would write: refused or taken, never a panic.
fn forged(octets: &[u8]) {
    let disk = FOLDER.disk.copy();
    let mut source = Source(octets);
    let mut content = FOLDER.checkpoint[..FOLDER.ends[0]].to_vec();
    let mut parts = 0_u64;
    while let Some(payload) = forged_part(&mut source) {
        append(&mut content, PART, &payload);
        parts += 1;
    }
    append(&mut content, END, &parts.to_le_bytes());
    disk.set_content(NAME, content);
    let (log, _, _) = opened(&disk, false);
    // The next one is built on it, or without it.
    let _ = Checkpointer::new(log).write(&|| false);
    opened(&disk, false);
}

/// A part as it was but for some octets, or any octets.
fn forged_part(source: &mut Source<'_>) -> Option<Vec<u8>> {
    let how = source.octet()?;
    if how & 1 == 0 {
        return Some([&[how >> 1 & 3][..], source.counted()?].concat());
    }
    let number = usize::from(how >> 1) % (FOLDER.ends.len() - 2);
    let from = FOLDER.ends[number];
    let length = FOLDER.checkpoint[from + 8..from + 12].try_into().expect("four octets");
    let payload = &FOLDER.checkpoint[from + HEADER..];
    let mut payload = payload[..u32::from_le_bytes(length) as usize].to_vec();
    for _ in 0..source.octet()? % 4 {
        let at = below(source, payload.len())?;
        payload[at] = source.octet()?;
    }
    Some(payload)
}

/// One record as `docs/disk-format.md` draws it.
fn append(content: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let mut record = b"FmqR".to_vec();
    record.extend_from_slice(&[1, kind, 0, 0]);
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    record.extend_from_slice(&FOLDER.checkpoint[12..16]);
    record.extend_from_slice(&(content.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c(&record);
    let mut body = payload.to_vec();
    body.resize(payload.len().next_multiple_of(8), 0);
    record.extend_from_slice(&crc.to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c_append(crc, &body).to_le_bytes());
    record.extend_from_slice(&body);
    content.extend_from_slice(&record);
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("checkpoint", spoiled);
}

#[test]
fn parts_that_are_forged_as_they_were_are_taken() {
    let disk = FOLDER.disk.copy();
    let mut content = FOLDER.checkpoint[..FOLDER.ends[0]].to_vec();
    let count = FOLDER.ends.len() - 2;
    for number in 0..count {
        let octets = [(number as u8) << 1 | 1, 0];
        append(&mut content, PART, &forged_part(&mut Source(&octets)).expect("a part"));
    }
    append(&mut content, END, &(count as u64).to_le_bytes());
    disk.set_content(NAME, content);
    let (_, recovery, told) = opened(&disk, false);
    assert!(recovery.checkpoint.is_some() && told == FOLDER.told, "{recovery:?}");
}

/// `SPOIL_COUNT` sets another number.
#[test]
fn checkpoint_that_is_spoiled_at_random_changes_nothing() {
    let count = std::env::var("SPOIL_COUNT").ok().and_then(|it| it.parse().ok()).unwrap_or(300);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..count {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as u8
        };
        let length = 4 + usize::from(next() % 40);
        let mut octets: Vec<u8> = (0..length).map(|_| next()).collect();
        octets[0] = u8::from(round % 3 != 0);
        let outcome = std::panic::catch_unwind(|| spoiled(&octets));
        assert!(outcome.is_ok(), "round {round}: {octets:?}");
    }
}
