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
