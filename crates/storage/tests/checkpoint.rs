//! Checkpoints save time and nothing else: whatever happens to one, a start shows what the log
//! says, and tells when it had to read more of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::{
    Disk, Fault, FaultKind, Kind, Log, LogOptions, MemoryDisk, Position, Recovery, SegmentId, Step,
};

const KIND: Kind = Kind(50);

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, prepare_bytes: 16 << 10, ..LogOptions::default() }
}

/// What the records of a log amount to here: all of them.
type State = BTreeMap<Position, Vec<u8>>;

fn encode(state: &State) -> Vec<Vec<u8>> {
    let part = |(position, payload): (&Position, &Vec<u8>)| {
        [&position.0.to_le_bytes(), payload.as_slice()].concat()
    };
    state.iter().map(part).collect()
}

fn decode(parts: &[Vec<u8>]) -> State {
    let entry = |part: &Vec<u8>| {
        let position = u64::from_le_bytes(part[..8].try_into().unwrap());
        (Position(position), part[8..].to_vec())
    };
    parts.iter().map(entry).collect()
}

fn open(disk: &MemoryDisk) -> (Log, Recovery, State) {
    let opening = Log::begin_open(Arc::new(disk.clone()), options()).unwrap();
    let mut state = opening.checkpoint().map(|it| decode(&it.parts)).unwrap_or_default();
    let (log, report) =
        opening.finish(&mut |it| drop(state.insert(it.position, it.payload.to_vec()))).unwrap();
    let exists = |it: &Position| log.segments().iter().any(|segment| segment.id == it.segment());
    state.retain(|it, _| exists(it));
    (log, report, state)
}

/// What the log alone says.
fn whole(disk: &MemoryDisk) -> State {
    let mut state = State::new();
    Log::open(Arc::new(disk.copy()), options(), &mut |it| {
        state.insert(it.position, it.payload.to_vec());
    })
    .unwrap();
    state
}

fn append(log: &Log, count: usize) {
    for number in 0..count {
        let mut batch = log.begin().unwrap();
        if number % 7 == 0 {
            batch.atomic();
            batch.record(KIND, &[&vec![7; 900]]).unwrap();
        }
        batch.record(KIND, &[&vec![number as u8 | 0x80; 40 + number * 37 % 700]]).unwrap();
        drop(batch);
        log.flush(true).unwrap();
        log.prepare().unwrap();
    }
}

fn write(log: &Log) -> Result<bool, String> {
    let text = |it: storage::CheckpointError| it.to_string();
    let mut state = State::new();
    if let Some(mut reader) = log.read_checkpoint().map_err(text)? {
        let mut parts = Vec::new();
        while let Some(part) = reader.part().map_err(text)? {
            parts.push(part);
        }
        state = decode(&parts);
    }
    let replay = log.replay(&mut |step| match step {
        Step::Record(it) => {
            state.insert(it.position, it.payload.to_vec());
            false
        }
        Step::Boundary { is_last } => is_last,
    });
    let Some(replay) = replay.map_err(|it| it.to_string())? else { return Ok(false) };
    let Some(mut new) = log.begin_checkpoint(replay).map_err(text)? else { return Ok(false) };
    state.retain(|it, _| new.has_segment(it.segment()));
    for part in encode(&state) {
        new.part(&part).map_err(text)?;
    }
    new.finish().map_err(text)?;
    Ok(true)
}

/// Appends until the log has a place where a checkpoint can end, and writes one.
fn write_surely(log: &Log) {
    for _ in 0..50 {
        append(log, 5);
        if write(log).unwrap() {
            return;
        }
    }
    panic!("no checkpoint in 250 records");
}

/// A folder with two checkpoints, the segments that they do not stand for, and its state.
fn with_checkpoints() -> (MemoryDisk, State) {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    append(&log, 30);
    write_surely(&log);
    append(&log, 30);
    write_surely(&log);
    append(&log, 30);
    drop(log);
    let state = whole(&disk);
    (disk, state)
}

/// Two starts with an append between show what the log says.
fn check(disk: &MemoryDisk, what: &str) -> Recovery {
    let expected = whole(disk);
    let (log, report, state) = open(disk);
    assert!(state == expected, "{what}: {} for {}", state.len(), expected.len());
    append(&log, 3);
    drop(log);
    let expected = whole(disk);
    let (_, _, state) = open(disk);
    assert!(state == expected, "{what}, second start");
    report
}

#[test]
fn start_reads_only_what_no_checkpoint_stands_for() {
    let (disk, state) = with_checkpoints();
    let (log, report, shown) = open(&disk.copy());
    assert_eq!(shown, state);
    assert_eq!(report.records, state.len() as u64, "records of before count");
    let before = report.checkpoint.expect("a checkpoint");
    assert!(log.segments().iter().filter(|it| it.id < before).count() > 2);
    assert!(!report.orderly && !report.has_damage() && report.checkpoint_faults.is_empty());
    // Nothing of the segments before is looked at, so nothing of them can be wrong.
    let first = log.segments()[0].id;
    let name = format!("{first}.seg");
    let mut bytes = disk.content(&name).unwrap();
    bytes[200] ^= 1;
    disk.set_content(&name, bytes);
    let (log, report, shown) = open(&disk);
    assert_eq!((shown, report.has_damage()), (state, false));
    // Whoever looks through it finds it.
    let damaged = log.verify(first).unwrap();
    assert_eq!((damaged.len(), damaged[0].segment), (1, first));
    assert!(log.wants_prepare());
    log.prepare().unwrap();
    assert!(!disk.list("quarantine").unwrap().is_empty());
}

#[test]
fn crash_at_every_operation_of_a_checkpoint_shows_what_the_log_says() {
    let (disk, _) = with_checkpoints();
    for seed in 0..6 {
        let disk = disk.copy();
        let (log, _, _) = open(&disk);
        append(&log, 30);
        disk.record_crashes(seed);
        write_surely(&log);
        let crashes = disk.take_crashes();
        drop(log);
        assert!(crashes.len() > 5);
        for (number, crash) in crashes.into_iter().enumerate() {
            let report = check(&crash, &format!("seed {seed}, operation {number}"));
            assert!(report.checkpoint.is_some() && report.checkpoint_faults.is_empty());
        }
    }
}

#[test]
fn damaged_cut_or_missing_checkpoint_costs_time_and_is_told() {
    let (disk, _) = with_checkpoints();
    let (_, report, _) = open(&disk.copy());
    let newest = report.checkpoint;
    for name in ["checkpoint.0", "checkpoint.1"] {
        let bytes = disk.content(name).unwrap();
        for at in (0..bytes.len()).step_by(131) {
            let disk = disk.copy();
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            if at % 3 == 0 {
                bad.truncate(at);
            }
            disk.set_content(name, bad);
            let report = check(&disk, &format!("{name} at {at}"));
            // The older one is only looked into when the newer one is of no use.
            assert!(report.checkpoint == newest || !report.checkpoint_faults.is_empty());
        }
        let disk = disk.copy();
        disk.remove_content(name);
        check(&disk, name);
    }
    for name in ["checkpoint.0", "checkpoint.1"] {
        let bytes = disk.content(name).unwrap();
        disk.set_content(name, bytes[..bytes.len() / 2].to_vec());
    }
    let report = check(&disk, "both");
    assert_eq!((report.checkpoint, report.checkpoint_faults.len()), (None, 2));
    assert!(report.has_damage(), "an operator is told");
}

#[test]
fn older_checkpoint_still_fits_after_segments_have_gone() {
    let (disk, _) = with_checkpoints();
    let (log, report, _) = open(&disk);
    let before = report.checkpoint.unwrap();
    let old: Vec<SegmentId> =
        log.segments().iter().filter(|it| it.id < before && !it.joined).map(|it| it.id).collect();
    log.retire(old[0]).unwrap();
    append(&log, 30);
    drop(log);
    let report = check(&disk.copy(), "retired, and gone");
    assert_eq!(report.checkpoint, Some(before));
    check(&disk.crash(3), "retired, and a crash");
}

#[test]
fn checkpoint_of_another_or_a_longer_log_is_not_used() {
    let (disk, _) = with_checkpoints();
    let (log, report, _) = open(&disk.copy());
    let before = report.checkpoint.unwrap();
    // The log of before both checkpoints: what they stand for is not there.
    let early = MemoryDisk::new();
    let (short, _, _) = open(&early);
    append(&short, 5);
    drop((log, short));
    for name in ["checkpoint.0", "checkpoint.1"] {
        early.create(name).unwrap();
        early.set_content(name, disk.content(name).unwrap());
    }
    let report = check(&early, "longer");
    assert!(report.checkpoint.is_none() && !report.checkpoint_faults.is_empty());
    let (log, _, _) = open(&early);
    append(&log, 120);
    let numbers: Vec<_> = log.segments().iter().map(|it| it.id).collect();
    assert!(numbers.iter().any(|it| before <= *it), "numbers are not given again: {numbers:?}");
    drop(log);
    // It has grown past the checkpoints, and still is another log.
    let report = check(&early, "another");
    assert!(report.checkpoint.is_none(), "{report:?}");
}

#[test]
fn failing_disk_leaves_the_log_and_the_checkpoint_before_it() {
    let (disk, _) = with_checkpoints();
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::Short, FaultKind::Eintr] {
        for within in 0..12 {
            let disk = disk.copy();
            let (log, _, _) = open(&disk);
            append(&log, 30);
            disk.fail(Fault { at: disk.operations() + within, kind, forever: false });
            let written = write(&log);
            disk.heal();
            let is_folder = written.is_err_and(|it| it.contains("folder"));
            assert_eq!(log.failure().is_some(), is_folder, "{kind:?} {within}");
            if !is_folder {
                append(&log, 3);
            }
            drop(log);
            let report = check(&disk, &format!("{kind:?} {within}"));
            assert!(report.checkpoint.is_some(), "{kind:?} {within}");
        }
    }
}

#[test]
fn no_checkpoint_stands_for_damage() {
    let (disk, _) = with_checkpoints();
    for name in ["checkpoint.0", "checkpoint.1"] {
        disk.remove_content(name);
    }
    let (log, _, _) = open(&disk);
    let second = log.segments()[1].id;
    let name = format!("{second}.seg");
    let mut bytes = disk.content(&name).unwrap();
    bytes[300] ^= 1;
    disk.set_content(&name, bytes);
    assert_eq!(write(&log), Ok(false));
    drop(log);
    let (_, report, _) = open(&disk);
    assert!(report.has_damage() && report.checkpoint.is_none());
}
