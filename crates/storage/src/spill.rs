//! Spill logs: framed like the log, never synced, emptied at every start.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::inventory::io_error;
use crate::log::Log;
use crate::options::LogOptions;
use crate::segment::{FileName, parse_name};

/// Removes what an earlier process left of a spill log: the one thing that a start removes. It was
/// never synced, and nothing in it was ever promised.
///
/// # Errors
/// [`OpenError`]: another process holds the folder, or it cannot be changed.
pub fn empty_spill(disk: &dyn Disk) -> Result<(), OpenError> {
    let _lock = disk.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => io_error("lock", "")(error),
    })?;
    for name in disk.list("").map_err(io_error("list", ""))? {
        if !matches!(parse_name(&name), FileName::Foreign | FileName::Lock) {
            disk.remove(&name).map_err(io_error("remove", &name))?;
        }
    }
    Ok(())
}

/// Opens a spill log in a folder of its own, emptied.
///
/// # Errors
/// As [`Log::open`].
pub fn open_spill(disk: Arc<dyn Disk>, options: LogOptions) -> Result<Log, OpenError> {
    empty_spill(&*disk)?;
    let options = LogOptions { sync: false, ..options };
    Log::open(disk, options, &mut |_| {}).map(|(log, _)| log)
}
