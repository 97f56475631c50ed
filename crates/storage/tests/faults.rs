//! R6 and R7: every single operation fails once, and the disk is full. After the first failure
//! nothing becomes durable; a full disk meets a preparation and never a record.

use std::sync::Arc;

use storage::{Disk, DiskFile, Fault, FaultKind, Kind, Log, LogError, LogOptions, MemoryDisk};
use storage::{OpenError, Position, SegmentId, Space, open_spill};

const KIND: Kind = Kind(50);
const SEGMENT: u32 = 8 << 10;

fn options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT, prepare_bytes: 8 << 10, ..LogOptions::default() }
}

type Seen = Vec<(Position, Position)>;

fn open(disk: &MemoryDisk) -> Result<(Log, Seen), OpenError> {
    let mut seen = Vec::new();
    let visit = &mut |record: storage::Record<'_>| seen.push((record.position, record.end));
    let (log, _) = Log::open(Arc::new(disk.clone()), options(), visit)?;
    Ok((log, seen))
}

/// What a trace reached before the first error.
#[derive(Default)]
struct Outcome {
    durable: Position,
    appended: Seen,
    retired: Vec<SegmentId>,
    error: Option<LogError>,
}

/// A trace with rolls, preparations and retirements.
fn run(disk: &MemoryDisk) -> Outcome {
    let mut outcome = Outcome::default();
    let log = match open(disk) {
        Ok((log, _)) => log,
        Err(OpenError::Log(error)) => {
            if let LogError::Poisoned(failure) = &error {
                outcome.durable = failure.durable;
            }
            outcome.error = Some(error);
            return outcome;
        }
        Err(OpenError::Io { error, .. }) => {
            assert!(matches!(error.raw_os_error(), Some(5 | 28)), "{error}");
            return outcome;
        }
        Err(error) => panic!("{error}"),
    };
    for number in 0..24_u8 {
        let mut step = || -> Result<(), LogError> {
            let mut batch = log.begin()?;
            outcome.appended.push(batch.record(KIND, &[&vec![number; 1_500]])?);
            drop(batch);
            log.flush(number % 3 != 0)?;
            log.prepare()?;
            if number % 8 == 7 {
                let oldest = log.segments()[0].id;
                outcome.retired.push(oldest);
                log.retire(oldest)?;
            }
            Ok(())
        };
        let result = step();
        if let Err(error) = result {
            outcome.durable = log.durable();
            // L14, P5: asking again proves nothing.
            if matches!(error, LogError::Poisoned(_)) {
                for _ in 0..2 {
                    log.flush(true).unwrap_err();
                    log.prepare().unwrap_err();
                    assert!(log.begin().is_err() && log.close_in_order().is_err());
                }
                assert_eq!(log.durable(), outcome.durable);
            }
            outcome.error = Some(error);
            return outcome;
        }
    }
    outcome.durable = log.durable();
    outcome
}

fn check_recovery(disk: &MemoryDisk, outcome: &Outcome, seed: u64) {
    for disk in [disk.crash(seed), disk.copy()] {
        let (_log, seen) = open(&disk).unwrap();
        for record in &outcome.appended {
            if record.1 <= outcome.durable && !outcome.retired.contains(&record.0.segment()) {
                assert!(seen.contains(record), "lost {} of {}", record.0, outcome.durable);
            }
        }
    }
}

fn every_operation(kind: FaultKind, forever: bool) -> usize {
    let disk = MemoryDisk::new();
    assert!(run(&disk).error.is_none());
    let operations = disk.operations();
    assert!(operations > 100);
    let mut poisoned = 0;
    for at in 0..operations {
        let disk = MemoryDisk::new();
        disk.fail(Fault { at, kind, forever });
        let outcome = run(&disk);
        match &outcome.error {
            Some(LogError::Poisoned(failure)) => {
                poisoned += 1;
                assert!(
                    failure.error.raw_os_error().is_some() && !failure.file.is_empty() || at > 0
                );
                assert_eq!(failure.durable, outcome.durable);
            }
            Some(LogError::NoSpace { .. }) => assert_eq!(kind, FaultKind::Enospc),
            Some(error) => panic!("{error}"),
            None => {}
        }
        disk.heal();
        check_recovery(&disk, &outcome, at);
    }
    poisoned
}

/// L14, P5: the first failed write or sync poisons the log.
#[test]
fn nothing_becomes_durable_after_the_first_eio() {
    assert!(every_operation(FaultKind::Eio, false) > 60);
    assert!(every_operation(FaultKind::Eio, true) > 60);
}

/// L15: no space from a sync is a failed sync; from a preparation it is a full disk.
#[test]
fn enospc_poisons_only_where_a_sync_or_a_record_meets_it() {
    let poisoned = every_operation(FaultKind::Enospc, false);
    assert!(poisoned > 20);
    every_operation(FaultKind::Enospc, true);
}

/// L15: interrupted and short operations are continued.
#[test]
fn interruptions_and_short_writes_are_continued() {
    assert_eq!(every_operation(FaultKind::Eintr, false), 0);
    assert_eq!(every_operation(FaultKind::Short, false), 0);
}

/// L22: a failure names file, offset, error and durable position, and the cure.
#[test]
fn a_failure_is_one_line_with_file_offset_error_and_cure() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    log.begin().unwrap().record(KIND, &[b"x"]).unwrap();
    disk.fail(Fault { at: disk.operations() + 1, kind: FaultKind::Eio, forever: false });
    let line = log.flush(true).unwrap_err().to_string();
    assert!(line.starts_with("cannot sync 0000000001.seg at byte "), "{line}");
    assert!(line.contains("os error 5") && line.contains("restart"), "{line}");
    assert!(!line.contains('\n'));
    assert_eq!(log.failure().unwrap().durable, log.durable());
}

fn fill(log: &Log) -> Vec<Position> {
    let mut appended = Vec::new();
    while log.prepare().unwrap() == Space::Plenty {
        appended.push(log.begin().unwrap().record(KIND, &[&[1; 3_000]]).unwrap().0);
        log.flush(true).unwrap();
    }
    appended
}

/// L12, P6: a full disk stops publishing; acks go on from the reserve, the log stops, starts after
/// a stop and after a crash, and room made by retiring segments ends it.
#[test]
fn a_full_disk_meets_a_preparation_and_never_a_record() {
    for crash in [false, true] {
        let disk = MemoryDisk::new();
        disk.limit(Some(140 << 10));
        let (log, _) = open(&disk).unwrap();
        let mut appended = fill(&log);
        assert_eq!(log.space(), Space::Low);
        // The reserve: two segments, less headers and footers.
        let reserve = 2 * (SEGMENT - 600);
        let mut acks = 0;
        while acks * 96 < reserve / 2 {
            appended.push(log.begin().unwrap().record(KIND, &[&[2; 64]]).unwrap().0);
            acks += 1;
            log.flush(true).unwrap();
            assert_eq!(log.prepare().unwrap(), Space::Low);
        }
        let disk = if crash {
            log.flush(true).unwrap();
            drop(log);
            disk.crash(7)
        } else {
            log.close_in_order().unwrap();
            drop(log);
            disk
        };
        // The full disk starts, also repeatedly.
        for _ in 0..3 {
            let (log, seen) = open(&disk).unwrap();
            assert_eq!(seen.len(), appended.len());
            drop(log);
        }
        let (log, _) = open(&disk).unwrap();
        for segment in log.segments().iter().take(4) {
            log.retire(segment.id).unwrap();
        }
        log.flush(true).unwrap();
        for _ in 0..20 {
            log.prepare().unwrap();
        }
        assert_eq!(log.space(), Space::Plenty);
        assert!(fill(&log).len() > 2);
    }
}

/// P6: not even the reserve has room: the append is refused, and the log goes on.
#[test]
fn a_used_up_reserve_refuses_the_record_and_nothing_else() {
    let disk = MemoryDisk::new();
    disk.limit(Some(140 << 10));
    let (log, _) = open(&disk).unwrap();
    let mut appended = fill(&log);
    let refused = loop {
        match log.begin().unwrap().record(KIND, &[&[3; 500]]) {
            Ok((start, _)) => appended.push(start),
            Err(error) => break error,
        }
        log.flush(true).unwrap();
    };
    assert!(matches!(refused, LogError::NoSpace { .. }));
    assert!(log.failure().is_none());
    log.flush(true).unwrap();
    disk.limit(None);
    appended.push(log.begin().unwrap().record(KIND, &[&[4; 500]]).unwrap().0);
    log.flush(true).unwrap();
    drop(log);
    assert_eq!(open(&disk).unwrap().1.len(), appended.len());
}

/// P6: a unit of which one record finds no room never happened, whatever comes after it.
#[test]
fn a_unit_that_finds_no_room_is_not_shown_in_part() {
    let disk = MemoryDisk::new();
    disk.limit(Some(140 << 10));
    let (log, _) = open(&disk).unwrap();
    let mut appended = fill(&log);
    let last = loop {
        let mut unit = log.begin().unwrap();
        unit.atomic();
        let records = [30, 3_000].map(|bytes| unit.record(KIND, &[&vec![3; bytes]]));
        drop(unit);
        log.flush(true).unwrap();
        match records {
            [Ok(first), Ok(second)] => appended.extend([first.0, second.0]),
            [first, _] => break first,
        }
    };
    assert!(last.is_ok(), "the first record of the last unit was appended");
    disk.limit(None);
    let mut unit = log.begin().unwrap();
    unit.atomic();
    appended.push(unit.record(KIND, &[&[4; 500]]).unwrap().0);
    drop(unit);
    log.flush(true).unwrap();
    drop(log);
    let shown: Vec<Position> = open(&disk).unwrap().1.iter().map(|it| it.0).collect();
    assert_eq!(shown, appended);
}

/// P2: a unit lies in two segments. The later one, dead or not, stays as long as the earlier one:
/// without it the records in the earlier one would be half a unit, which recovery does not show.
#[test]
fn a_segment_that_ends_a_unit_stays_as_long_as_its_beginning() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    let first = loop {
        let mut unit = log.begin().unwrap();
        unit.atomic();
        let (first, _) = unit.record(KIND, &[&[3; 1_000]]).unwrap();
        let (second, _) = unit.record(KIND, &[&[4; 1_000]]).unwrap();
        drop(unit);
        log.flush(true).unwrap();
        if first.segment() < second.segment() {
            break first;
        }
    };
    for _ in 0..20 {
        log.begin().unwrap().record(KIND, &[&[5; 1_000]]).unwrap();
    }
    log.flush(true).unwrap();
    let (earlier, later) = (first.segment(), SegmentId(first.segment().0 + 1));
    let shown = |seen: &Seen| seen.iter().any(|(position, _)| *position == first);
    let check = |log: &Log| {
        let joined: Vec<SegmentId> =
            log.segments().iter().filter(|it| it.joined).map(|it| it.id).collect();
        assert_eq!(joined, [later]);
        assert!(matches!(log.retire(later), Err(LogError::Kept(..))));
    };
    check(&log);
    drop(log);
    let (log, seen) = open(&disk).unwrap();
    assert!(shown(&seen));
    check(&log);
    log.retire(earlier).unwrap();
    log.flush(true).unwrap();
    log.prepare().unwrap();
    log.retire(later).unwrap();
}

/// L25: the file of a retired segment goes only when its retirement is durable.
#[test]
fn a_retired_file_goes_after_its_retirement_is_durable() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for _ in 0..20 {
        log.begin().unwrap().record(KIND, &[&[1; 1_500]]).unwrap();
    }
    log.flush(true).unwrap();
    let oldest = log.segments()[0].id;
    let active = log.segments().last().unwrap().id;
    assert!(matches!(log.retire(active), Err(LogError::Kept(..))));
    log.retire(oldest).unwrap();
    assert!(log.retire(oldest).is_err());
    log.prepare().unwrap();
    let name = format!("{oldest}.seg");
    assert!(disk.content(&name).is_some());
    // A crash before: the records are back. A crash after: they may be, and the file goes then.
    let (again, seen) = open(&disk.crash(1)).unwrap();
    assert_eq!(seen.len(), 20);
    assert!(!again.wants_prepare() || again.segments()[0].id == oldest);
    log.flush(true).unwrap();
    log.prepare().unwrap();
    assert!(disk.content(&name).is_none());
    assert!(log.segments().iter().all(|segment| segment.id != oldest));
    let at = Position::new(oldest, 104);
    assert!(matches!(log.read(at), Err(storage::ReadError::Absent(_))));
}

/// L25: a crash between the durable retirement and the removal only delays the removal.
#[test]
fn a_retirement_is_finished_after_a_crash() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    for _ in 0..20 {
        log.begin().unwrap().record(KIND, &[&[1; 1_500]]).unwrap();
    }
    let oldest = log.segments()[0].id;
    log.retire(oldest).unwrap();
    log.flush(true).unwrap();
    let after = disk.crash(3);
    let (log, _) = open(&after).unwrap();
    log.prepare().unwrap();
    assert!(after.content(&format!("{oldest}.seg")).is_none());
    let report = Log::open(Arc::new(after.crash(4)), options(), &mut |_| {}).unwrap().1;
    assert!(!report.has_damage(), "{report:?}");
}

/// L8, L12: a recycled file keeps the bytes of its old segment, and none of them comes back.
#[test]
fn records_of_a_recycled_file_never_come_back() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    let mut kept = Vec::new();
    for round in 0..40_u8 {
        for _ in 0..4 {
            let (start, _) = log.begin().unwrap().record(KIND, &[&[round; 1_300]]).unwrap();
            kept.push(start);
        }
        log.flush(true).unwrap();
        let segments = log.segments();
        if segments.len() > 2 {
            log.retire(segments[0].id).unwrap();
            kept.retain(|position| position.segment() != segments[0].id);
            log.flush(true).unwrap();
        }
        log.prepare().unwrap();
        let (_log, seen) = open(&disk.crash(u64::from(round))).unwrap();
        assert_eq!(seen.iter().map(|record| record.0).collect::<Vec<_>>(), kept);
    }
    assert!(disk.names().len() < 12, "files are used again: {:?}", disk.names());
}

/// A record larger than a segment gets a segment of its own size.
#[test]
fn a_record_larger_than_a_segment_is_kept() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    log.prepare().unwrap();
    let large = vec![9; 5 * SEGMENT as usize];
    let mut starts = Vec::new();
    for payload in [&b"before"[..], &large, b"after"] {
        starts.push(log.begin().unwrap().record(KIND, &[payload]).unwrap().0);
    }
    assert_eq!(log.read(starts[1]).unwrap().payload, large);
    log.flush(true).unwrap();
    assert_eq!(log.read(starts[1]).unwrap().payload, large);
    let (log, seen) = open(&disk.crash(5)).unwrap();
    assert_eq!(seen.iter().map(|record| record.0).collect::<Vec<_>>(), starts);
    let mut scanned = Vec::new();
    log.scan(starts[1].segment(), &mut |record| scanned.push(record.position)).unwrap();
    assert!(scanned.contains(&starts[1]));
}

/// L2, L12: spill logs are never synced and start empty.
#[test]
fn a_spill_log_starts_empty_and_never_syncs() {
    let disk = MemoryDisk::new();
    disk.set_content("notes.txt", b"mine".to_vec());
    for _ in 0..2 {
        let log = open_spill(Arc::new(disk.clone()), options()).unwrap();
        assert_eq!(
            log.segments().iter().map(|segment| segment.bytes).max().unwrap_or(0) / 1_000,
            0
        );
        let mut starts = Vec::new();
        for number in 0..20_u8 {
            starts.push(log.begin().unwrap().record(KIND, &[&vec![number; 2_000]]).unwrap().0);
            log.flush(false).unwrap();
            log.prepare().unwrap();
        }
        assert!(!log.has_pending());
        for (number, start) in starts.iter().enumerate() {
            assert_eq!(log.read(*start).unwrap().payload[0], number as u8);
        }
        let oldest = log.segments()[0].id;
        log.retire(oldest).unwrap();
        log.prepare().unwrap();
        assert!(log.segments()[0].id > oldest);
    }
    assert!(disk.content("notes.txt").is_some());
    // Nothing of it was ever asked to be durable.
    assert!(disk.names().iter().all(|name| !name.starts_with("manifest")));
}

/// L11, L26: files are numbers, and readable by their owner alone.
#[test]
fn real_files_are_private_and_named_by_number() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let disk = Arc::new(storage::RealDisk::open(&path).unwrap());
    let (log, _) = Log::open(disk.clone(), options(), &mut |_| {}).unwrap();
    log.begin().unwrap().record(KIND, &[b"../../etc/passwd"]).unwrap();
    log.flush(true).unwrap();
    assert!(matches!(Log::open(disk.clone(), options(), &mut |_| {}), Err(OpenError::Locked)));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for name in disk.list("").unwrap() {
        let mode = path.join(&name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(disk.list("").unwrap(), ["0000000001.seg", "lock", "manifest.0", "manifest.1"]);
    let file: Arc<dyn DiskFile> = disk.open("0000000001.seg").unwrap();
    // L12: the whole segment is there before a record is, filled with zeros.
    assert_eq!(file.bytes().unwrap(), u64::from(SEGMENT));
}

/// L15: a sync that reports a full disk is a failed sync, also that of a segment being prepared.
#[test]
fn enospc_from_the_sync_of_a_preparation_is_a_failed_sync() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk).unwrap();
    // Create, reserve, fill, write the header, then the sync of both.
    let at = disk.operations() + 4;
    disk.fail(Fault { at, kind: FaultKind::Enospc, forever: false });
    let error = log.prepare().unwrap_err();
    assert!(error.to_string().starts_with("cannot sync "), "{error}");
    assert!(log.begin().is_err());
}
