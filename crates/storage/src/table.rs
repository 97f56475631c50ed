//! The segments of a log and their open files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::position::SegmentId;
use crate::recover::list_of;
use crate::segment::{List, Segment, segment_name};

/// Open files kept at most; a log of any size must not eat the descriptors of the sockets.
const OPEN_FILES_MAX: usize = 48;

/// What callers may know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub id: SegmentId,
    /// Bytes in use, header included.
    pub bytes: u32,
    /// Is it complete? Only sealed segments may be retired.
    pub sealed: bool,
    /// It ends a unit that the one before it begins, so it stays as long as that one.
    pub joined: bool,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<SegmentId, Segment>,
    files: BTreeMap<SegmentId, Arc<dyn DiskFile>>,
}

/// All segments that hold records.
pub(crate) struct Table {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
}

impl Table {
    pub(crate) fn new(disk: Arc<dyn Disk>, segments: &[Segment]) -> Self {
        let segments = segments.iter().map(|segment| (segment.id, *segment)).collect();
        Self { disk, state: Mutex::new(State { segments, files: BTreeMap::new() }) }
    }

    pub(crate) fn add(&self, segment: Segment) {
        self.state.lock().segments.insert(segment.id, segment);
    }

    pub(crate) fn remove(&self, id: SegmentId) {
        let mut state = self.state.lock();
        state.segments.remove(&id);
        state.files.remove(&id);
    }

    pub(crate) fn seal(&self, id: SegmentId, end: u32, open_ended: bool) {
        if let Some(segment) = self.state.lock().segments.get_mut(&id) {
            segment.sealed = true;
            segment.end = end;
            segment.open_ended |= open_ended;
        }
    }

    pub(crate) fn keep(&self, id: SegmentId, kept: bool) {
        if let Some(segment) = self.state.lock().segments.get_mut(&id) {
            segment.kept = kept;
        }
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<Segment> {
        self.state.lock().segments.get(&id).copied()
    }

    /// Is the segment needed to read the one before it?
    pub(crate) fn is_joined(&self, id: SegmentId) -> bool {
        let state = self.state.lock();
        state.segments.range(..id).next_back().is_some_and(|(_, before)| before.open_ended)
    }

    pub(crate) fn sealed_count(&self) -> usize {
        self.state.lock().segments.values().filter(|segment| segment.sealed).count()
    }

    pub(crate) fn list(&self, sequence: u64, active: SegmentId) -> List {
        list_of(sequence, active, self.state.lock().segments.values())
    }

    pub(crate) fn infos(&self) -> Vec<SegmentInfo> {
        let mut joined = false;
        let info = |segment: &Segment| SegmentInfo {
            id: segment.id,
            bytes: segment.end,
            sealed: segment.sealed,
            joined: std::mem::replace(&mut joined, segment.open_ended),
        };
        self.state.lock().segments.values().map(info).collect()
    }

    /// The open file of a segment.
    pub(crate) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if let Some(file) = state.files.get(&id) {
            return Ok(file.clone());
        }
        if !state.segments.contains_key(&id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.disk.open(&segment_name(id))?;
        while state.files.len() >= OPEN_FILES_MAX {
            state.files.pop_first();
        }
        state.files.insert(id, file.clone());
        Ok(file)
    }
}
