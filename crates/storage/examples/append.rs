//! Measures the log alone on a real folder: records of 1 KiB appended per second, without and with
//! a sync per flush, reads, and recovery. Usage: `append <folder> [records]`; the folder must not
//! exist.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use storage::{Kind, Log, LogOptions, Position, RealDisk};

const KIND: Kind = Kind(16);
/// Records per batch: what one turn of a shard appends.
const BATCH: usize = 32;

fn open(folder: &Path) -> (Arc<Log>, u64, Duration) {
    let disk = RealDisk::open(folder).expect("the folder can be made");
    let begin = Instant::now();
    let mut bytes = 0;
    let visit = &mut |record: storage::Record<'_>| bytes += record.payload.len() as u64;
    let (log, _) = Log::open(Arc::new(disk), LogOptions::default(), visit).expect("it opens");
    (Arc::new(log), bytes, begin.elapsed())
}

fn prepare(log: &Log) {
    while log.wants_prepare() {
        log.prepare().expect("there is room");
    }
}

/// Appends on this thread while a log thread flushes.
fn append(log: &Arc<Log>, records: usize, sync: bool) -> (Duration, u64, Vec<Position>) {
    let stop = Arc::new(AtomicBool::new(false));
    let flusher = std::thread::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        move || {
            let mut flushes = 0;
            while !stop.load(Ordering::Acquire) || log.has_pending() {
                if log.written() < log.end() || sync && log.has_pending() {
                    log.flush(sync || stop.load(Ordering::Acquire)).expect("it flushes");
                    flushes += 1;
                } else if stop.load(Ordering::Acquire) {
                    log.flush(true).expect("it flushes");
                } else {
                    std::thread::yield_now();
                }
            }
            flushes
        }
    });
    let preparer = std::thread::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Acquire) {
                if log.wants_prepare() {
                    log.prepare().expect("there is room");
                } else {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
            }
        }
    });
    let payload = [7; 1024];
    let mut starts = Vec::with_capacity(records);
    let begin = Instant::now();
    for _ in 0..records / BATCH {
        let mut batch = log.begin().expect("it is open");
        for _ in 0..BATCH {
            starts.push(batch.record(KIND, &[&payload]).expect("there is room").0);
        }
    }
    let end = log.end();
    if sync {
        while log.durable() < end {
            std::thread::yield_now();
        }
    }
    let elapsed = begin.elapsed();
    stop.store(true, Ordering::Release);
    let flushes = flusher.join().expect("the log thread ends");
    preparer.join().expect("the preparer ends");
    (elapsed, flushes, starts)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder");
    let records = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number"));
    let folder = Path::new(&folder);
    let mut out = std::io::stdout();
    let mut say = |line: String| writeln!(out, "{line}").expect("stdout is open");
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();

    let (log, _, opened) = open(folder);
    say(format!("first open: {opened:?}"));
    prepare(&log);
    for sync in [false, true] {
        let (time, flushes, starts) = append(&log, records, sync);
        say(format!(
            "append, sync {sync}: {:.0} records/s, {flushes} flushes, {time:?}",
            rate(records, time)
        ));
        let begin = Instant::now();
        let mut out = Vec::new();
        for chunk in starts.chunks(4096) {
            out.clear();
            log.read_many(chunk, &mut out);
            assert!(out.iter().all(Result::is_ok));
        }
        say(format!("read_many: {:.0} records/s", rate(starts.len(), begin.elapsed())));
    }
    let begin = Instant::now();
    let rounds = 1000;
    for _ in 0..rounds {
        log.begin().expect("open").record(KIND, &[&[1; 1024]]).expect("room");
        log.flush(true).expect("it flushes");
    }
    say(format!("one record, one sync: {:?} each", begin.elapsed() / rounds));
    drop(log);
    for how in ["after a crash", "after a crash, again"] {
        let (log, bytes, time) = open(folder);
        let mib = bytes as f64 / 1048576.0;
        say(format!(
            "recovery {how}: {mib:.0} MiB, {time:?}, {:.0} MiB/s",
            mib / time.as_secs_f64()
        ));
        drop(log);
    }
    let (log, _, _) = open(folder);
    log.close_in_order().expect("it closes");
    drop(log);
    let (_, bytes, time) = open(folder);
    let mib = bytes as f64 / 1048576.0;
    say(format!(
        "recovery in order: {mib:.0} MiB, {time:?}, {:.0} MiB/s",
        mib / time.as_secs_f64()
    ));
}
