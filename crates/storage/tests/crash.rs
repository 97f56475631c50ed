//! R4: power cuts after every operation of random traces. Nothing below the durable position is
//! lost, nothing appears that was not appended, the order holds, units are whole; after the second
//! start as well, with appends between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::{Disk, Kind, Log, LogOptions, MemoryDisk, Position, Recovery, SegmentId, Space};

const KIND: Kind = Kind(30);

/// States per test; there are four of them. `CRASH_STATES` sets another number.
fn states() -> usize {
    std::env::var("CRASH_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000)
}

/// The first seed of a test; `CRASH_SEED` leads to others.
fn seed(of_test: u64) -> u64 {
    let chosen = std::env::var("CRASH_SEED").ok().and_then(|text| text.parse().ok());
    chosen.unwrap_or(0_u64).wrapping_shl(24).wrapping_add(of_test << 20)
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, prepare_bytes: 16 << 10, ..LogOptions::default() }
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 33) % below
    }
}

#[derive(Clone)]
struct Appended {
    end: Position,
    payload: Vec<u8>,
    unit: Option<u64>,
}

/// What was appended, and what must still be there.
#[derive(Clone, Default)]
struct Model {
    records: BTreeMap<Position, Appended>,
    retired: BTreeSet<SegmentId>,
    durable: Position,
}

type Seen = Vec<(Position, Vec<u8>)>;

fn open(disk: &MemoryDisk) -> (Log, Recovery, Seen) {
    let mut seen = Vec::new();
    let (log, report) = Log::open(Arc::new(disk.clone()), options(), &mut |record| {
        assert_eq!(record.kind, KIND);
        seen.push((record.position, record.payload.to_vec()));
    })
    .unwrap();
    (log, report, seen)
}

impl Model {
    fn check(&self, seen: &Seen, report: &Recovery) {
        assert!(!report.has_damage(), "a crash is no damage: {report:?}");
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "order");
        let shown: BTreeSet<Position> = seen.iter().map(|(position, _)| *position).collect();
        for (position, payload) in seen {
            let known = self.records.get(position);
            assert!(known.is_some_and(|known| known.payload == *payload), "phantom {position}");
        }
        let last = shown.last().copied().unwrap_or_default();
        let mut units: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
        for (position, record) in &self.records {
            if self.retired.contains(&position.segment()) {
                continue;
            }
            let is_shown = shown.contains(position);
            if record.end <= self.durable {
                assert!(is_shown, "lost {position}, durable {}: {report:?}", self.durable);
            }
            if let Some(unit) = record.unit {
                let (some, all) = units.entry(unit).or_insert((false, true));
                *some |= is_shown;
                *all &= is_shown;
            } else if *position < last {
                assert!(is_shown, "gap at {position} before {last}");
            }
        }
        assert!(units.values().all(|(some, all)| some == all), "half a unit");
    }
}

/// Opens a disk after a crash, appends, loses power again, and opens it again.
fn check_twice(model: &Model, disk: &MemoryDisk, seed: u64) {
    let (log, report, seen) = open(disk);
    model.check(&seen, &report);
    let mut second = Model { durable: log.durable(), ..Model::default() };
    for (position, payload) in &seen {
        let record = log.read(*position).unwrap();
        assert!(record.end <= log.durable());
        let unit = None;
        second
            .records
            .insert(*position, Appended { end: record.end, payload: payload.clone(), unit });
    }
    second.retired.clone_from(&model.retired);
    for number in 0..3_u8 {
        let payload = vec![number; 300 * usize::from(number)];
        let (start, end) = log.begin().unwrap().record(KIND, &[&payload]).unwrap();
        second.records.insert(start, Appended { end, payload, unit: None });
        if number == 1 {
            second.durable = log.flush(true).unwrap();
        }
    }
    log.flush(false).unwrap();
    let after = disk.crash(seed);
    drop(log);
    let (_log, report, seen) = open(&after);
    second.check(&seen, &report);
}

fn step(log: &Log, model: &mut Model, random: &mut Random, number: u64) {
    match random.next(10) {
        0..=4 => {
            let unit = (random.next(3) == 0).then_some(number);
            let mut batch = log.begin().unwrap();
            if unit.is_some() {
                batch.atomic();
            }
            for place in 0..=random.next(3) {
                let length = if random.next(12) == 0 { 5_000 } else { random.next(700) };
                let mut payload = vec![number as u8; length as usize];
                payload.extend_from_slice(&[number as u8, place as u8]);
                let parts: [&[u8]; 2] = payload.split_at(payload.len() / 2).into();
                let twice = random.next(6) == 0;
                let (start, end) = if twice {
                    batch.record_twice(KIND, &parts).unwrap()
                } else {
                    batch.record(KIND, &parts).unwrap()
                };
                model.records.insert(start, Appended { end, payload, unit });
            }
        }
        5 | 6 => {
            log.flush(true).unwrap();
        }
        7 => {
            log.flush(false).unwrap();
        }
        8 => {
            assert_eq!(log.prepare().unwrap(), Space::Plenty);
        }
        _ => {
            let sealed = log.segments().into_iter().find(|segment| segment.sealed);
            if let Some(segment) = sealed.filter(|_| log.segments().len() > 3)
                && log.retire(segment.id).is_ok()
            {
                model.retired.insert(segment.id);
            }
        }
    }
}

fn run(first_seed: u64, states: usize) {
    let mut count = 0;
    let mut seed = first_seed;
    while count < states {
        seed += 1;
        let mut random = Random(seed);
        let disk = MemoryDisk::new();
        let mut model = Model::default();
        disk.record_crashes(seed);
        let (log, _, _) = open(&disk);
        for number in 0..40 {
            step(&log, &mut model, &mut random, number);
            for crashed in disk.take_crashes() {
                count += 1;
                let inner = crashed.copy();
                check_twice(&model, &crashed, random.0);
                if random.next(16) == 0 {
                    // Power fails again, while the log is being recovered.
                    inner.record_crashes(random.0);
                    drop(open(&inner));
                    for crashed in inner.take_crashes() {
                        count += 1;
                        check_twice(&model, &crashed, random.0);
                    }
                }
            }
            model.durable = log.durable();
        }
    }
}

/// L1, L4, L5, L13, L23, L24, L28.
#[test]
fn power_cuts_lose_nothing_durable_and_invent_nothing_a() {
    run(seed(0), states());
}

/// L1, L4, L5, L13, L23, L24, L28.
#[test]
fn power_cuts_lose_nothing_durable_and_invent_nothing_b() {
    run(seed(1), states());
}

/// L1, L4, L5, L13, L23, L24, L28.
#[test]
fn power_cuts_lose_nothing_durable_and_invent_nothing_c() {
    run(seed(2), states());
}

/// L1, L4, L5, L13, L23, L24, L28.
#[test]
fn power_cuts_lose_nothing_durable_and_invent_nothing_d() {
    run(seed(3), states());
}

/// L14: after a failed sync the pages look written and are not. What a start then shows survives
/// the next power cut.
#[test]
fn what_a_start_shows_after_a_failed_sync_is_durable() {
    for seed in 0..300 {
        let disk = MemoryDisk::new();
        let (log, _, _) = open(&disk);
        let mut appended = Vec::new();
        for number in 0..6_u8 {
            let payload = vec![number; 900];
            appended.push(log.begin().unwrap().record(KIND, &[&payload]).unwrap().1);
            if number < 4 {
                log.flush(true).unwrap();
            }
        }
        let at = disk.operations() + 1;
        disk.fail(storage::Fault { at, kind: storage::FaultKind::Eio, forever: false });
        let before = log.durable();
        log.flush(true).unwrap_err();
        assert_eq!(log.durable(), before);
        log.flush(true).unwrap_err();
        log.begin().unwrap_err();
        drop(log);
        disk.heal();
        let (log, report, seen) = open(&disk);
        assert!(!report.orderly);
        assert!(seen.len() >= appended.iter().filter(|end| **end <= before).count());
        drop(log);
        let (_log, _, again) = open(&disk.crash(seed));
        assert_eq!(again, seen, "seed {seed}");
    }
}

/// One log per folder: a second instance is refused.
#[test]
fn a_held_folder_is_refused() {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    let second = Log::open(Arc::new(disk.clone()), options(), &mut |_| {});
    assert!(matches!(second, Err(storage::OpenError::Locked)));
    drop(log);
    open(&disk);
    assert!(disk.lock().is_ok());
}

/// L14: what lies behind the gap of a torn write never joins the log, even where new records end
/// exactly at its start.
#[test]
fn a_record_behind_a_torn_one_never_comes_back() {
    let disk = MemoryDisk::new();
    let (log, _, _) = open(&disk);
    log.begin().unwrap().record(KIND, &[b"kept"]).unwrap();
    let from = log.flush(true).unwrap();
    log.begin().unwrap().record(KIND, &[&[1; 400]]).unwrap();
    let (behind, _) = log.begin().unwrap().record(KIND, &[b"behind"]).unwrap();
    log.flush(false).unwrap();
    drop(log);
    let disk = disk.copy();
    let name = format!("{}.seg", behind.segment());
    let mut content = disk.content(&name).unwrap();
    content[from.offset() as usize..behind.offset() as usize].fill(0);
    disk.set_content(&name, content);
    let (log, report, seen) = open(&disk);
    assert!(report.rewritten && report.torn_tail_bytes > 0);
    assert_eq!(seen.len(), 1);
    // In place, the marks of the start (72 bytes) and this batch would just fill the gap.
    log.begin().unwrap().record(KIND, &[&[2; 400 - 72]]).unwrap();
    log.flush(true).unwrap();
    let (_log, _, seen) = open(&disk.crash(1));
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|(_, payload)| payload != b"behind"));
}
