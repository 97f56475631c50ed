//! The seam to the operating system: a folder of files. Everything the log does to a disk goes
//! through these two traits, so crash tests and the simulator replace the smallest thing possible.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use stdx::seeded::{Seeded, is_sown};

mod memory;
mod real;

pub use memory::{Fault, FaultKind, MemoryDisk};
pub use real::RealDisk;

/// Holds the folder for one process; another one is refused until this is dropped.
pub type DiskLock = Box<dyn Send + Sync>;

/// One folder. Names are relative, with at most one sub-folder: `0000000001.seg`,
/// `quarantine/0000000001-64-40.rec`. The folder `""` is the folder itself.
pub trait Disk: Send + Sync {
    /// Takes the folder's lock. [`io::ErrorKind::WouldBlock`] when another holder lives.
    fn lock(&self) -> io::Result<DiskLock>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file that must not exist. The name is durable after [`Disk::sync_dir`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a sub-folder; one that exists is fine.
    fn create_dir(&self, folder: &str) -> io::Result<()>;
    /// Names of the files of `folder`, sorted, without its sub-folders. Empty when absent.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals in `folder` durable.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;
    /// Renames a file, over `to` if that exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Size of the whole disk in bytes.
    fn total_bytes(&self) -> io::Result<u64>;
    /// A number nobody can guess, for salts.
    fn random(&self) -> io::Result<u64>;
}

/// One open file. The `_once` calls may be interrupted or do less than asked; the log uses the
/// provided methods, which go on.
pub trait DiskFile: Send + Sync {
    /// One `pread`.
    fn read_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// One `pwrite`.
    fn write_once(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// One `fdatasync`.
    fn sync_once(&self) -> io::Result<()>;
    /// Reserves blocks for the first `bytes` bytes.
    fn allocate_once(&self, bytes: u64) -> io::Result<()>;
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Forgets cached pages that are clean, so the next read asks the device: those of the first
    /// `bytes` bytes, or all.
    fn drop_cache(&self, bytes: Option<NonZeroU64>) -> io::Result<()>;

    /// Reads until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_once(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads up to `bytes` bytes, fewer where the file ends, into a buffer that nobody has filled
    /// with zeros before, where that is possible.
    fn read_new(&self, bytes: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let count = self.read_at(&mut buffer, offset)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_once(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the content durable. Any error but an interruption means that it is not, and that
    /// asking again proves nothing.
    fn sync_data(&self) -> io::Result<()> {
        let first = uninterrupted(|| self.sync_once());
        if is_sown(Seeded::SyncRetried) { first.or_else(|_| self.sync_once()) } else { first }
    }

    /// Reserves blocks for the first `bytes` bytes.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        uninterrupted(|| self.allocate_once(bytes))
    }
}

/// Repeats `call` while it is interrupted by a signal.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Is the disk, the quota or the file-size limit exhausted?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
