//! R5: damaged, cut, moved and deleted bytes in the files of a stopped log. Every start works,
//! reports what it found, and loses at most the record that was damaged.

use std::sync::Arc;

use storage::{Damage, Kind, Log, LogOptions, MemoryDisk, OpenError, Position, Recovery};
use storage::{LogError, ReadError, SegmentId};

const KIND: Kind = Kind(40);
const SEGMENT: usize = 16 << 10;

fn options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT as u32, ..LogOptions::default() }
}

type Seen = Vec<(Position, Position, Vec<u8>)>;

fn open(disk: &MemoryDisk) -> (Log, Recovery, Seen) {
    let mut seen = Vec::new();
    let (log, report) = Log::open(Arc::new(disk.clone()), options(), &mut |record| {
        seen.push((record.position, record.end, record.payload.to_vec()));
    })
    .unwrap();
    (log, report, seen)
}

/// A folder that was stopped: several sealed segments, one active, every size of record.
fn stopped(orderly: bool) -> (MemoryDisk, Seen) {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    for number in 0..60_usize {
        let payload = vec![number as u8 | 0x80; 40 + number * 17 % 1500];
        let mut batch = log.begin().unwrap();
        batch.record(KIND, &[&payload]).unwrap();
        drop(batch);
        if number % 2 == 0 {
            log.flush(true).unwrap();
        }
        log.prepare().unwrap();
    }
    log.flush(true).unwrap();
    if orderly {
        log.close_in_order().unwrap();
    }
    drop(log);
    let (_, report, seen) = open(&disk.copy());
    assert_eq!((report.orderly, report.has_damage(), seen.len()), (orderly, false, 60));
    assert!(seen.last().unwrap().0.segment() >= SegmentId(3));
    (disk.copy(), seen)
}

fn file(position: Position) -> String {
    format!("{}.seg", position.segment())
}

/// Starts on the damaged disk twice, with an append between; `lost` tells what may be gone.
fn check(disk: &MemoryDisk, before: &Seen, lost: impl Fn(Position, Position) -> bool) -> Recovery {
    let names = disk.names();
    let (log, report, seen) = open(disk);
    for name in names {
        assert!(disk.names().contains(&name), "{name} is gone");
    }
    let mut rest = seen.iter();
    for record in before {
        if !lost(record.0, record.1) {
            assert!(rest.any(|other| other == record), "lost {}: {report:?}", record.0);
        }
    }
    assert!(seen.iter().all(|record| before.contains(record)), "phantom");
    assert!(report.quarantined.iter().all(|range| range.copied), "{report:?}");
    for range in &report.quarantined {
        let name = format!("quarantine/{}-{}-{}.rec", range.segment, range.offset, range.bytes);
        assert!(disk.content(&name).is_some(), "{name}");
    }
    let (start, end) = log.begin().unwrap().record(KIND, &[b"after"]).unwrap();
    log.flush(true).unwrap();
    drop(log);
    let (_, _, mut again) = open(disk);
    let mut expected = seen;
    expected.push((start, end, b"after".to_vec()));
    again.sort();
    assert_eq!(again, expected, "second start");
    report
}

/// L8, L9, L16, L18: one flipped bit costs at most its record and is always reported.
#[test]
fn every_flipped_bit_of_a_record_is_reported_and_costs_that_record() {
    let (disk, before) = stopped(true);
    // One record in a sealed segment, the last of a segment, and the last of all.
    let victims = [3, 17, 59];
    for victim in victims {
        let (start, end, _) = before[victim];
        let mut trials = 0;
        for bit in start.offset() * 8..end.offset() * 8 {
            // All bits of the header, some of the body.
            if bit > (start.offset() + 40) * 8 && bit % 61 != 0 {
                continue;
            }
            trials += 1;
            let disk = disk.copy();
            let mut content = disk.content(&file(start)).unwrap();
            content[bit as usize / 8] ^= 1 << (bit % 8);
            disk.set_content(&file(start), content);
            let report = check(&disk, &before, |position, _| position == start);
            assert!(report.has_damage() && report.orderly);
            let range = &report.quarantined[0];
            assert_eq!((range.segment, range.offset), (start.segment(), start.offset()));
            assert_eq!(range.bytes, end.offset() - start.offset());
            assert_eq!(range.kind.is_some(), range.reason == Damage::Body);
        }
        assert!(trials > 256);
    }
}

/// L18, L19: zeros anywhere in a segment are reported and cost only the records they touch.
#[test]
fn zeros_cost_only_the_records_they_touch() {
    for orderly in [true, false] {
        let (disk, before) = stopped(orderly);
        let segments: Vec<String> =
            disk.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
        for name in &segments {
            let content = disk.content(name).unwrap();
            for (size, step) in [(512, 512), (4096, 4096)] {
                for from in (0..content.len()).step_by(step) {
                    let to = (from + size).min(content.len());
                    if content[from..to].iter().all(|byte| *byte == 0) {
                        continue;
                    }
                    let disk = disk.copy();
                    let mut bad = content.clone();
                    bad[from..to].fill(0);
                    disk.set_content(name, bad);
                    let touched = |start: Position, end: Position| {
                        file(start) == *name
                            && (start.offset() as usize) < to
                            && end.offset() as usize > from
                    };
                    // Without an orderly stop, what nothing proves durable is a torn tail.
                    let tail = before.len() - 4;
                    let unproven = |start: Position, end: Position| {
                        touched(start, end) || !orderly && start >= before[tail].0
                    };
                    let ready = name > &file(before[59].0);
                    let report = check(&disk, &before, unproven);
                    assert!(
                        report.has_damage() || report.torn_tail_bytes > 0 || ready,
                        "{name} {from} {size} {report:?}"
                    );
                }
            }
        }
    }
}

/// L13, L18: the end of the log is found by its records, wherever the file was cut.
#[test]
fn truncation_at_every_byte_of_the_last_three_records_keeps_the_others() {
    for orderly in [true, false] {
        let (disk, before) = stopped(orderly);
        let (first, last) = (before[57].0, before[59].1);
        assert_eq!(first.segment(), last.segment());
        let content = disk.content(&file(first)).unwrap();
        for length in first.offset()..last.offset() {
            if length % 3 != 0 && length % 512 != 0 {
                continue;
            }
            let disk = disk.copy();
            disk.set_content(&file(first), content[..length as usize].to_vec());
            check(&disk, &before, |start, end| {
                start.segment() == first.segment() && end.offset() > length
            });
        }
    }
}

/// L19, L20: a cut sealed segment is known to be cut.
#[test]
fn a_cut_sealed_segment_is_reported_missing_from_the_cut_on() {
    let (disk, before) = stopped(true);
    for manifest in [true, false] {
        let victim = &before[10];
        let content = disk.content(&file(victim.0)).unwrap();
        for length in [0, 30, 64, 100, victim.0.offset() as usize, victim.1.offset() as usize - 9] {
            let disk = disk.copy();
            if !manifest {
                disk.remove_content("manifest.0");
                disk.remove_content("manifest.1");
            }
            disk.set_content(&file(victim.0), content[..length].to_vec());
            let report = check(&disk, &before, |start, end| {
                start.segment() == victim.0.segment() && end.offset() as usize > length
            });
            assert!(report.has_damage());
            assert_eq!(report.manifest_rebuilt, !manifest);
            assert!(!report.missing.is_empty() || !manifest, "{length}: {report:?}");
        }
    }
}

/// L16, L20: deleted segments are seen, deleted manifests are rebuilt; the rest is served.
#[test]
fn deleted_files_are_seen() {
    let (disk, before) = stopped(true);
    let last = before[59].0.segment();
    for number in 1..=last.0 {
        for manifests in [true, false] {
            let id = SegmentId(number);
            if !manifests && id == last {
                // Without manifests nothing knows of the newest segment.
                continue;
            }
            let disk = disk.copy();
            disk.remove_content(&format!("{id}.seg"));
            if !manifests {
                disk.remove_content("manifest.0");
                disk.remove_content("manifest.1");
            }
            let report = check(&disk, &before, |start, _| start.segment() == id);
            assert_eq!(report.missing.len(), 1, "{report:?}");
            assert_eq!(report.missing[0].from.segment(), id);
            assert_eq!(report.manifest_rebuilt, !manifests);
        }
    }
    for name in ["manifest.0", "manifest.1"] {
        let changed = disk.copy();
        changed.remove_content(name);
        assert!(check(&changed, &before, |_, _| false).manifest_rebuilt);
        // In its header, its sequence, the active segment, and the first listed one.
        for at in [20, 33, 40, 60] {
            let changed = disk.copy();
            let mut content = changed.content(name).unwrap();
            content[at] ^= 1;
            changed.set_content(name, content);
            let report = check(&changed, &before, |_, _| false);
            assert!(report.manifest_rebuilt && report.missing.is_empty(), "{at}: {report:?}");
        }
    }
}

/// L8: blocks that were swapped, doubled or misplaced are invalid where they lie.
#[test]
fn swapped_and_doubled_blocks_are_damage() {
    let (disk, before) = stopped(true);
    let name = file(before[0].0);
    let content = disk.content(&name).unwrap();
    for (from, to) in [(0, 4096), (4096, 8192), (512, 4096), (4096, 1024)] {
        for swap in [true, false] {
            let disk = disk.copy();
            let mut bad = content.clone();
            let size = if from % 4096 == 0 && to % 4096 == 0 { 4096 } else { 512 };
            bad[to..to + size].copy_from_slice(&content[from..from + size]);
            if swap {
                bad[from..from + size].copy_from_slice(&content[to..to + size]);
            }
            disk.set_content(&name, bad);
            let touched = |start: Position, end: Position, at: usize| {
                (start.offset() as usize) < at + size && end.offset() as usize > at
            };
            let report = check(&disk, &before, |start, end| {
                file(start) == name
                    && (touched(start, end, to) || swap && touched(start, end, from))
            });
            assert!(report.has_damage());
        }
    }
    // A whole segment under the name of another.
    let disk = disk.copy();
    let other = disk.content(&file(before[40].0)).unwrap();
    disk.set_content(&name, other);
    let report = check(&disk, &before, |start, _| file(start) == name);
    assert!(report.has_damage());
}

/// L16, L26: files of others are left alone and named.
#[test]
fn a_foreign_file_is_left_alone_and_named() {
    let (disk, before) = stopped(true);
    disk.set_content("notes.txt", b"mine".to_vec());
    disk.set_content("1.seg", b"not ours".to_vec());
    let report = check(&disk, &before, |_, _| false);
    assert_eq!(report.foreign, ["1.seg", "notes.txt"]);
    assert_eq!(disk.content("notes.txt").unwrap(), b"mine");
}

/// L16: a segment that cannot be read costs itself; it is kept, and the log goes on.
#[test]
fn an_unreadable_segment_is_reported_and_kept() {
    let (disk, before) = stopped(true);
    let id = before[0].0.segment();
    disk.make_unreadable(&file(before[0].0));
    let (log, report, seen) = open(&disk);
    let others = before.iter().filter(|record| record.0.segment() != id).count();
    assert_eq!(seen.len(), others);
    assert!(report.has_damage() && report.quarantined.iter().any(|range| !range.copied));
    assert!(matches!(log.retire(id), Err(LogError::Kept(..))));
    assert!(disk.content(&file(before[0].0)).is_some());
}

/// L10: what a newer version wrote is refused and not touched.
#[test]
fn a_newer_format_is_refused_untouched() {
    let (disk, before) = stopped(true);
    let image = |disk: &MemoryDisk| -> Vec<_> {
        disk.names().iter().map(|name| (name.clone(), disk.content(name))).collect()
    };
    let refused = |disk: &MemoryDisk| {
        let content = image(disk);
        let result = Log::open(Arc::new(disk.clone()), options(), &mut |_| {});
        assert!(matches!(result, Err(OpenError::NewerFormat { .. })));
        assert_eq!(image(disk), content);
    };
    // The version of a segment.
    let changed = disk.copy();
    let mut content = changed.content(&file(before[0].0)).unwrap();
    content[8] = 2;
    let crc = crc32c(&content[..60]);
    content[60..64].copy_from_slice(&crc);
    changed.set_content(&file(before[0].0), content);
    refused(&changed);
    // The version of one record.
    let at = before[30].0;
    let mut content = disk.content(&file(at)).unwrap();
    let header = at.offset() as usize;
    content[header + 4] = 2;
    let crc = crc32c(&content[header..header + 24]);
    content[header + 24..header + 28].copy_from_slice(&crc);
    disk.set_content(&file(at), content);
    refused(&disk);
}

fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

/// L9, L25: damage met while serving is an error, is copied aside, and keeps the segment until
/// it is.
#[test]
fn damage_met_by_a_read_is_set_aside_and_keeps_the_segment() {
    let (disk, before) = stopped(true);
    let (log, _, _) = open(&disk);
    let (start, end, _) = before[2];
    let mut content = disk.content(&file(start)).unwrap();
    content[start.offset() as usize + 33] ^= 4;
    disk.set_content(&file(start), content);
    let mut out = Vec::new();
    log.read_many(&[before[1].0, start, before[3].0], &mut out);
    assert!(out[0].is_ok() && out[2].is_ok());
    assert!(matches!(out[1], Err(ReadError::Damaged { reason: Damage::Body, .. })));
    assert!(matches!(log.retire(start.segment()), Err(LogError::Kept(..))));
    assert!(log.wants_prepare());
    log.prepare().unwrap();
    let bytes = end.offset() - start.offset();
    let name = format!("quarantine/{}-{}-{bytes}.rec", start.segment(), start.offset());
    assert_eq!(disk.content(&name).unwrap().len(), bytes as usize);
    // A scan finds the same damage; once it is copied, the segment may go.
    let mut shown = 0;
    log.scan(start.segment(), &mut |_| shown += 1).unwrap();
    let inside = before.iter().filter(|record| record.0.segment() == start.segment()).count();
    assert_eq!(shown, inside - 1);
    assert!(matches!(log.retire(start.segment()), Err(LogError::Kept(..))));
    log.prepare().unwrap();
    log.retire(start.segment()).unwrap();
}

/// L17: of a record that is written twice, one damaged block of 4 KiB leaves a copy.
#[test]
fn a_record_written_twice_survives_any_damaged_block() {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    for number in 0..5_u8 {
        let payload = vec![number + 1; usize::from(number) * 333];
        log.begin().unwrap().record_twice(KIND, &[&payload]).unwrap();
    }
    log.close_in_order().unwrap();
    drop(log);
    let payloads = |seen: Seen| seen.into_iter().map(|record| record.2).collect::<Vec<_>>();
    let (_, _, seen) = open(&disk.copy());
    let before = payloads(seen);
    assert_eq!(before.len(), 5);
    for name in disk.names().into_iter().filter(|name| name.ends_with(".seg")) {
        let content = disk.content(&name).unwrap();
        for from in (0..content.len()).step_by(4096) {
            if content[from..from + 4096].iter().all(|byte| *byte == 0) {
                continue;
            }
            let disk = disk.copy();
            let mut bad = content.clone();
            bad[from..from + 4096].fill(0xA5);
            disk.set_content(&name, bad);
            let (_, report, seen) = open(&disk);
            assert!(report.has_damage() || report.torn_tail_bytes > 0, "{name} {from} {report:?}");
            assert_eq!(payloads(seen), before, "{name} {from}");
        }
    }
}
