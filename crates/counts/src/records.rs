//! Cases of the log alone: records in, and back at the next start.

use std::{path::Path, sync::Arc};
use storage::{Kind, Log, RealDisk};

use crate::host::{log_options, prepare};

const KIND: Kind = Kind(16);
const PAYLOAD_BYTES: usize = 1_024;
/// Records of one batch, and batches of one flush.
const BATCH: u64 = 32;
const BATCHES: u64 = 4;
/// Records in the folder that is recovered.
const RECOVERED: u64 = 2_000;

/// Records appended in batches, four batches to a sync.
pub fn append(records: u64) {
    let folder = tempfile::tempdir().expect("the system has a place for temporary folders");
    appended(&open(folder.path()).0, records);
}

/// Records read at a start after a crash.
pub fn recover(records: u64) {
    assert!(records.is_multiple_of(RECOVERED), "a folder is recovered as a whole");
    let folder = tempfile::tempdir().expect("the system has a place for temporary folders");
    appended(&open(folder.path()).0, RECOVERED);
    for _ in 0..records / RECOVERED {
        assert_eq!(open(folder.path()).1, RECOVERED);
    }
}

fn open(folder: &Path) -> (Arc<Log>, u64) {
    let disk = Arc::new(RealDisk::open(folder.join("data")).expect("the folder can be made"));
    let mut records = 0;
    let visit = &mut |it: storage::Record<'_>| {
        assert_eq!(it.payload.len(), PAYLOAD_BYTES);
        records += 1;
    };
    let (log, recovery) = Log::open(disk, log_options(), visit).expect("it opens");
    assert!(!recovery.has_damage());
    (Arc::new(log), records)
}

fn appended(log: &Log, records: u64) {
    prepare(log);
    let payload = [b'x'; PAYLOAD_BYTES];
    let (mut written, mut batches) = (0, 0_u64);
    while written < records {
        let mut batch = log.begin().expect("it is open");
        for _ in 0..BATCH.min(records - written) {
            batch.record(KIND, &[&payload]).expect("there is room");
            written += 1;
        }
        drop(batch);
        batches += 1;
        if batches.is_multiple_of(BATCHES) || written == records {
            log.flush(true).expect("the disk works");
            prepare(log);
        }
    }
}
