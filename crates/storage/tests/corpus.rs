//! Inputs of the fuzz target `log`: what holds of a folder whose files were spoiled as the input
//! says. The target judges by the same function.

#[path = "../../../fuzz/source.rs"]
mod source;

#[path = "../../../fuzz/corpus.rs"]
mod inputs;

use self::source::Source;
use std::sync::{Arc, LazyLock};

use storage::{Kind, Log, LogOptions, MemoryDisk, OpenError, Position, Recovery};

const KIND: Kind = Kind(40);

type Seen = Vec<(Position, Position, Vec<u8>)>;

/// A folder that was stopped, and what is in it.
struct Folder {
    disk: MemoryDisk,
    names: Vec<String>,
    records: Seen,
    /// The second copies of what is there twice, shown when the first is damaged.
    copies: Seen,
}

static ORDERLY: LazyLock<Folder> = LazyLock::new(|| Folder::stopped(true));
static KILLED: LazyLock<Folder> = LazyLock::new(|| Folder::stopped(false));

impl Folder {
    /// Several sealed segments and an active one; units, records that are there twice, plain ones.
    fn stopped(orderly: bool) -> Self {
        let disk = MemoryDisk::new();
        let (log, _, _) = open(&disk).expect("a new folder opens");
        let mut copies = Vec::new();
        for number in 0..24_usize {
            let payload = vec![number as u8 | 0x80; 20 + number * 97 % 700];
            let mut batch = log.begin().expect("there is room");
            if number % 5 == 3 {
                batch.atomic();
                batch.record(KIND, &[&payload[..9]]).expect("there is room");
            }
            if number % 7 == 6 {
                let (_, end) = batch.record_twice(KIND, &[&payload]).expect("there is room");
                let size = 32 + payload.len().next_multiple_of(8) as u64;
                copies.push((Position(end.0 - size), end, payload));
            } else {
                batch.record(KIND, &[&payload]).expect("there is room");
            }
            drop(batch);
            log.flush(number % 2 == 0).expect("the disk is good");
            log.prepare().expect("the disk is good");
        }
        log.flush(true).expect("the disk is good");
        if orderly {
            log.close_in_order().expect("the disk is good");
        }
        drop(log);
        let (_, report, records) = open(&disk.copy()).expect("a good folder opens");
        assert!(!report.has_damage() && records.len() > 24);
        let names = disk.names().into_iter().filter(|it| it.contains('.')).collect();
        Self { disk: disk.copy(), names, records, copies }
    }
}

fn open(disk: &MemoryDisk) -> Result<(Log, Recovery, Seen), OpenError> {
    let options = LogOptions { segment_bytes: 4096, ..LogOptions::default() };
    let mut seen = Vec::new();
    let (log, report) = Log::open(Arc::new(disk.clone()), options, &mut |record| {
        seen.push((record.position, record.end, record.payload.to_vec()));
    })?;
    Ok((log, report, seen))
}

/// Takes the input for what happened to a folder.
pub(crate) fn spoiled(octets: &[u8]) {
    match octets.split_first() {
        Some((first, rest)) if first & 1 == 0 => damaged(rest),
        Some((_, rest)) => forged(rest),
        None => {}
    }
}

fn word(source: &mut Source<'_>) -> Option<usize> {
    Some(usize::from(source.octet()?) << 8 | usize::from(source.octet()?))
}

/// Spoils one file; says which, or that the input is used up.
fn spoil(disk: &MemoryDisk, names: &[String], source: &mut Source<'_>) -> Option<String> {
    let how = source.octet()?;
    let name = &names[usize::from(source.octet()?) % names.len()];
    // A file that is gone is an empty one to whatever happens to it next.
    let mut content = disk.content(name).unwrap_or_default();
    let at = word(source)? % (content.len() + 1);
    let reach = |length: usize| at..(at + length).min(content.len());
    match how % 8 {
        0 if at < content.len() => content[at] ^= source.octet()?.max(1),
        1 => {
            let range = reach(usize::from(source.octet()?) * 8);
            content[range].fill(0);
        }
        2 => content.truncate(at),
        3 => {
            let octets = source.counted()?;
            let range = reach(octets.len());
            let length = range.len();
            content[range].copy_from_slice(&octets[..length]);
        }
        4 => {
            let other = disk.content(&names[usize::from(source.octet()?) % names.len()])?;
            let from = word(source)? % (other.len() + 1);
            let octets = &other[from..(from + 512).min(other.len())];
            let range = reach(octets.len());
            let length = range.len();
            content[range].copy_from_slice(&octets[..length]);
        }
        5 => {
            let other = &names[usize::from(source.octet()?) % names.len()];
            content = disk.content(other)?;
        }
        6 => {
            disk.remove_content(name);
            return Some(name.clone());
        }
        _ => content.resize(content.len() + at.min(4096), 0),
    }
    disk.set_content(name, content);
    Some(name.clone())
}

/// Takes the input for a list of damages to a folder: it opens, shows nothing that was not written,
/// keeps what was not touched, reads what it shows, and opens again to the same.
fn damaged(octets: &[u8]) {
    let mut source = Source(octets);
    let folder = if source.octet().is_some_and(|it| it & 1 == 0) { &*ORDERLY } else { &*KILLED };
    let disk = folder.disk.copy();
    let mut spoiled = Vec::new();
    while let Some(name) = spoil(&disk, &folder.names, &mut source) {
        spoiled.push(name);
    }
    let names = disk.names();
    let (log, report, seen) = match open(&disk) {
        Ok(opened) => opened,
        Err(OpenError::NewerFormat { .. }) => return,
        Err(error) => panic!("damage is no reason to refuse a folder: {error}"),
    };
    for name in names {
        assert!(disk.names().contains(&name), "{name} is gone");
    }
    let is_known = |it: &_| folder.records.contains(it) || folder.copies.contains(it);
    assert!(seen.iter().all(is_known), "phantom: {report:?}");
    // A unit whose end is damaged is shown with the next one, so the order may differ.
    let mut seen = seen;
    seen.sort();
    assert!(seen.is_sorted_by(|before, after| before.0 < after.0), "a record was shown twice");
    assert!(report.quarantined.iter().all(|range| range.copied), "{report:?}");
    let active = folder.records.last().map(|it| it.0.segment()).expect("there are records");
    let name_of = |it: Position| format!("{}.seg", it.segment());
    let is_weak =
        |name: &String| name.starts_with("manifest") || *name >= name_of(Position::new(active, 0));
    // With the newest segment or the lists gone, a sealed segment may be taken for the newest one.
    if !spoiled.iter().any(is_weak) {
        for record in folder.records.iter().filter(|it| !spoiled.contains(&name_of(it.0))) {
            assert!(seen.contains(record), "lost {}: {report:?}", record.0);
        }
    }
    let written = folder.records.iter().chain(&folder.copies);
    let written = written.filter(|it| it.0 < report.end).cloned().collect();
    read_back(&log, &written, &seen);
    let (start, end) = log.begin().expect("room").record(KIND, &[b"after"]).expect("room");
    log.flush(true).expect("the disk is good");
    drop(log);
    let (_, second, again) = open(&disk).expect("what was opened opens again");
    let mut expected = seen;
    expected.push((start, end, b"after".to_vec()));
    let beyond = |these: &Seen, those: &Seen| -> Vec<Position> {
        these.iter().filter(|it| !those.contains(it)).map(|it| it.0).collect()
    };
    let (gone, added) = (beyond(&expected, &again), beyond(&again, &expected));
    assert!(
        gone.is_empty() && added.is_empty() && again.len() == expected.len(),
        "the second start shows {added:?} more and {gone:?} less: {report:?} {second:?}"
    );
}

/// What was shown is read back; what was not, and lies before the end of the log, is an error or
/// the record that was written there.
fn read_back(log: &Log, written: &Seen, shown: &Seen) {
    let positions: Vec<_> = written.iter().map(|it| it.0).collect();
    let mut records = Vec::new();
    log.read_many(&positions, &mut records);
    for (before, read) in written.iter().zip(records) {
        match read {
            Ok(record) => assert_eq!((record.end, &record.payload[..]), (before.1, &before.2[..])),
            Err(error) => assert!(!shown.contains(before), "{error}"),
        }
    }
    for segment in log.segments().iter().filter(|it| it.sealed) {
        let mut scanned = Vec::new();
        let _ = log.scan(segment.id, &mut |it| scanned.push((it.position, it.payload.to_vec())));
        for (position, payload) in scanned {
            let is_same = |it: &(_, _, _)| (it.0, &it.2) == (position, &payload);
            assert!(written.iter().any(is_same), "phantom");
        }
    }
}

/// Takes the input for records with good checksums that take the place of a segment's end: whatever
/// they say, the folder opens or is refused, and goes on.
fn forged(octets: &[u8]) {
    let mut source = Source(octets);
    let folder = if source.octet().is_some_and(|it| it & 1 == 0) { &*ORDERLY } else { &*KILLED };
    let disk = folder.disk.copy();
    let place = usize::from(source.octet().unwrap_or_default()) % folder.records.len();
    let (start, _, _) = folder.records[place];
    let name = format!("{}.seg", start.segment());
    let mut content = disk.content(&name).expect("its records were shown");
    let mut at = start.offset() as usize;
    let salt: [u8; 4] = content[at + 12..at + 16].try_into().expect("four octets");
    content[at..].fill(0);
    while let Some(record) = forge(start, at, salt, &mut source) {
        if content.len() < at + record.len() {
            break;
        }
        content[at..at + record.len()].copy_from_slice(&record);
        at += record.len();
    }
    disk.set_content(&name, content);
    let Ok((log, _, _)) = open(&disk) else { return };
    log.begin().expect("room").record(KIND, &[b"after"]).expect("room");
    log.flush(true).expect("the disk is good");
    log.prepare().expect("the disk is good");
    drop(log);
    assert!(open(&disk).is_ok(), "what was opened opens again");
}

/// One record as `docs/disk-format.md` draws it.
fn forge(start: Position, at: usize, salt: [u8; 4], source: &mut Source<'_>) -> Option<Vec<u8>> {
    let (kind, flags) = (source.octet()?, source.octet()?);
    let payload = source.counted()?;
    let mut record = b"FmqR".to_vec();
    record.extend_from_slice(&[1 + (flags >> 7), kind, flags & 7, 0]);
    // With this flag the length is one that no body of the segment has.
    let length = if flags & 64 == 0 { payload.len() as u32 } else { u32::MAX - 7 };
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&salt);
    record.extend_from_slice(&Position::new(start.segment(), at as u32).0.to_le_bytes());
    let crc = crc32c::crc32c(&record);
    let mut body = payload.to_vec();
    body.resize(payload.len().next_multiple_of(8), 0);
    record.extend_from_slice(&crc.to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c_append(crc, &body).to_le_bytes());
    record.extend_from_slice(&body);
    Some(record)
}

#[test]
fn what_a_fuzzer_found_worth_keeping_is_taken() {
    inputs::replay("log", spoiled);
}

/// Folders that are spoiled at random; `SPOIL_COUNT` sets another number, `SPOIL_SEED` others.
#[test]
fn what_is_spoiled_at_random_opens_and_keeps_the_rest() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut state = number("SPOIL_SEED").unwrap_or(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for round in 0..number("SPOIL_COUNT").unwrap_or(1_500) {
        let mut octets = Vec::new();
        let mut next = || {
            // Xorshift: the low octets are as good as any here.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as u8
        };
        // Two thirds damage, one third forgery; one to four deeds of at most twelve octets.
        let first = if next() % 3 == 0 { 1 } else { 0 };
        octets.extend([first, next()]);
        for _ in 0..usize::from(next() % 4 + 1) * 12 {
            octets.push(next());
        }
        let outcome = std::panic::catch_unwind(|| spoiled(&octets));
        assert!(outcome.is_ok(), "round {round}: {octets:?}");
    }
}
