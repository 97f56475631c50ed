//! The log as its users see it: append, flush, read, open again.

use std::sync::Arc;

use storage::{Kind, Log, LogOptions, MemoryDisk, Position, RealDisk, Recovery};

const KIND: Kind = Kind(20);

fn small() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, prepare_bytes: 64 << 10, ..LogOptions::default() }
}

fn open(disk: &MemoryDisk) -> (Log, Recovery, Vec<(Position, Vec<u8>)>) {
    let mut seen = Vec::new();
    let (log, report) = Log::open(Arc::new(disk.clone()), small(), &mut |record| {
        seen.push((record.position, record.payload.to_vec()));
    })
    .unwrap();
    (log, report, seen)
}

fn append(log: &Log, payload: &[u8]) -> Position {
    log.begin().unwrap().record(KIND, &[payload]).unwrap().0
}

#[test]
fn what_was_appended_comes_back_in_order_across_segments_and_starts() {
    let disk = MemoryDisk::new();
    let mut expected = Vec::new();
    for round in 0..3_u8 {
        let (log, report, seen) = open(&disk);
        assert!(report.orderly, "{report:?}");
        assert!(!report.has_damage(), "{report:?}");
        assert_eq!(seen, expected);
        for number in 0..40_u16 {
            let payload = [round, number as u8].repeat(usize::from(number) * 10);
            let position = append(&log, &payload);
            assert_eq!(log.read(position).unwrap().payload, payload);
            expected.push((position, payload));
            if number % 7 == 0 {
                log.flush(true).unwrap();
                log.prepare().unwrap();
            }
        }
        let all: Vec<Position> = expected.iter().map(|(position, _)| *position).collect();
        let mut out = Vec::new();
        log.read_many(&all, &mut out);
        for (record, (position, payload)) in out.into_iter().zip(&expected) {
            let record = record.unwrap();
            assert_eq!((record.position, &record.payload[..]), (*position, &payload[..]));
        }
        assert_eq!(log.close_in_order().unwrap(), log.end());
        assert!(log.segments().len() > 1);
    }
}

#[test]
fn a_real_folder_keeps_what_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for _ in 0..2 {
        let disk = RealDisk::open(folder.path().join("log")).unwrap();
        let mut seen = 0;
        let (log, report) = Log::open(Arc::new(disk), small(), &mut |_| seen += 1).unwrap();
        assert_eq!((seen, report.has_damage()), (count, false));
        for _ in 0..100 {
            append(&log, &[7; 1000]);
            count += 1;
            log.flush(true).unwrap();
            assert!(!log.has_pending());
        }
    }
}

/// L2: many appenders share one log thread; each reads its own records back at any time.
#[test]
fn many_threads_append_while_one_flushes() {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    let running = std::sync::atomic::AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (log, running) = (&log, &running);
            scope.spawn(move || {
                for number in 0..200_usize {
                    let payload = vec![thread; number % 700];
                    let mut batch = log.begin().unwrap();
                    let (start, end) = batch.record(KIND, &[&payload]).unwrap();
                    drop(batch);
                    assert!(log.end() >= end);
                    assert_eq!(log.read(start).unwrap().payload, payload);
                }
                running.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
            });
        }
        scope.spawn(|| {
            while running.load(std::sync::atomic::Ordering::Acquire) > 0 {
                log.flush(true).unwrap();
                log.prepare().unwrap();
            }
        });
    });
    assert_eq!(log.flush(true).unwrap(), log.end());
    assert_eq!(log.pending_bytes(), 0);
    drop(log);
    let (_, report, seen) = open(&disk.crash(9));
    assert_eq!(seen.len(), 800, "{report:?}");
}

#[test]
fn a_full_buffer_makes_appenders_wait_and_a_failure_wakes_them() {
    for fails in [false, true] {
        let disk = MemoryDisk::new();
        let options = LogOptions { pending_bytes_max: 1_000, ..small() };
        let (log, _) = Log::open(Arc::new(disk.clone()), options, &mut |_| {}).unwrap();
        append(&log, &[1; 2_000]);
        if fails {
            let at = disk.operations();
            disk.fail(storage::Fault { at, kind: storage::FaultKind::Eio, forever: true });
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.begin().map(drop));
            assert_eq!(log.flush(true).is_err(), fails);
            assert_eq!(waiting.join().unwrap().is_err(), fails);
        });
    }
}

/// L19: a batch carries the durable position before it, so zeros that took the place of synced
/// records are damage even though the log was not closed in order.
#[test]
fn synced_records_that_turned_to_zeros_are_known_to_be_gone() {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    let mut starts = Vec::new();
    for number in 0..4_u8 {
        starts.push(append(&log, &[number; 200]));
        log.flush(true).unwrap();
    }
    drop(log);
    let disk = disk.copy();
    let name = format!("{}.seg", starts[1].segment());
    let mut content = disk.content(&name).unwrap();
    content[starts[1].offset() as usize..starts[2].offset() as usize].fill(0);
    disk.set_content(&name, content);
    let (_, report, seen) = open(&disk);
    assert!(!report.orderly && report.has_damage() && report.torn_tail_bytes == 0);
    let expected = [starts[0], starts[2], starts[3]];
    assert_eq!(seen.iter().map(|(start, _)| *start).collect::<Vec<_>>(), expected);
}
