//! What the machine does without a broker: how long its disk takes to sync a little, and a round
//! trip on loopback. Measured in the same run, so that a broker's figures can be held against them.

use crate::{
    clock::{Clock, Nanos},
    error::BenchError,
    histogram::Latency,
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
};

const FILE_NAME: &str = "baseline";
/// Written before it is measured, so that no sync has to make the file longer.
const FILE_LEN: usize = 16 << 20;
const RECORD_LEN: usize = 1024;

/// How long a write of 1 KiB and its fdatasync take in this folder, one after the other.
pub(crate) fn sync_latency(
    folder: &Path,
    clock: Clock,
    duration: Nanos,
) -> Result<Latency, BenchError> {
    let path = folder.join(FILE_NAME);
    let measured = File::create_new(&path).and_then(|file| {
        let measured = measure_syncs(file, clock, duration);
        fs::remove_file(&path)?;
        measured
    });
    measured.map_err(|source| BenchError::Disk { path, source })
}

fn measure_syncs(mut file: File, clock: Clock, duration: Nanos) -> io::Result<Latency> {
    file.write_all(&vec![0; FILE_LEN])?;
    file.sync_all()?;
    let record = [b'x'; RECORD_LEN];
    let mut latency = Latency::default();
    let end = clock.now() + duration;
    for at in (0..FILE_LEN).step_by(RECORD_LEN).cycle() {
        let before = clock.now();
        if end <= before {
            break;
        }
        file.write_all_at(&record, at as u64)?;
        rustix::fs::fdatasync(&file)?;
        latency.record(clock.now() - before);
    }
    Ok(latency)
}

/// How long an octet takes to another thread and back through a socket.
pub(crate) fn loopback_latency(clock: Clock, duration: Nanos) -> Result<Latency, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut octet = [0];
        while far.read_exact(&mut octet).is_ok() && far.write_all(&octet).is_ok() {}
    });
    let mut latency = Latency::default();
    let (end, mut octet) = (clock.now() + duration, [0]);
    loop {
        let before = clock.now();
        if end <= before {
            break;
        }
        near.write_all(&octet)?;
        near.read_exact(&mut octet)?;
        latency.record(clock.now() - before);
    }
    drop(near);
    echo.join().expect("the echo does not panic");
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    #[test]
    fn machine_is_measured_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let syncs = sync_latency(folder.path(), clock, 20 * MILLISECOND).unwrap();
        assert!(0.0 < syncs.percentiles().unwrap().p50);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let trips = loopback_latency(clock, 20 * MILLISECOND).unwrap();
        assert!(0.0 < trips.percentiles().unwrap().p50);
    }

    #[test]
    fn file_of_somebody_else_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), "mine").unwrap();
        let error = sync_latency(folder.path(), Clock::start(), 1).err().unwrap();
        assert!(matches!(error, BenchError::Disk { .. }), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), "mine");
    }
}
