//! The manifest: two small files written in turn, so that one of them is always whole and a full
//! disk cannot stop either.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, is_full};
use crate::position::SegmentId;
use crate::segment::MANIFESTS;
use crate::table::Table;

/// Room for about 1,000 segments; reserved when the files are made.
const RESERVED_BYTES: usize = 16 << 10;

struct State {
    sequence: u64,
    active: SegmentId,
}

/// Writes the manifests of a folder.
pub(crate) struct Manifests {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
}

impl Manifests {
    pub(crate) fn new(disk: Arc<dyn Disk>, sequence: u64, active: SegmentId) -> Self {
        Self { disk, state: Mutex::new(State { sequence, active }) }
    }

    /// From now on `active` is the segment that records go to.
    pub(crate) fn enter(&self, active: SegmentId) {
        self.state.lock().active = active;
    }

    /// Writes the next manifest and syncs it. `false` where the disk is too full for it.
    pub(crate) fn write(&self, table: &Table) -> Result<bool, (&'static str, io::Error)> {
        let mut state = self.state.lock();
        let sequence = state.sequence + 1;
        let name = MANIFESTS[(sequence % 2) as usize];
        let bytes = table.list(sequence, state.active).encode_manifest();
        match self.put(name, &bytes) {
            Ok(()) => {
                state.sequence = sequence;
                Ok(true)
            }
            Err(Put::Full) => Ok(false),
            Err(Put::Failed(error)) => Err((name, error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Put> {
        let full = |error| if is_full(&error) { Put::Full } else { Put::Failed(error) };
        let (file, is_new) = match self.disk.open(name) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (self.disk.create(name).map_err(full)?, true)
            }
            Err(error) => return Err(Put::Failed(error)),
        };
        if is_new {
            file.write_at(&[0; RESERVED_BYTES], 0).map_err(full)?;
        }
        file.write_at(bytes, 0).map_err(full)?;
        file.sync_data().map_err(Put::Failed)?;
        if is_new {
            self.disk.sync_dir("").map_err(Put::Failed)?;
        }
        Ok(())
    }
}

enum Put {
    Full,
    Failed(io::Error),
}
