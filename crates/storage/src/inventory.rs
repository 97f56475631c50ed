//! What files a folder holds, before anything in it is read in full or changed.

use std::io;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::frame;
use crate::position::SegmentId;
use crate::segment::{
    FIRST, FORMAT, FileName, List, MANIFESTS, Segment, SegmentHeader, decode_header, parse_name,
    segment_name,
};

/// The files of a folder.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// In order of their numbers.
    pub(crate) segments: Vec<Found>,
    pub(crate) scratch: Vec<String>,
    pub(crate) foreign: Vec<String>,
    /// The newest manifest that could be read.
    pub(crate) list: Option<List>,
    /// Both manifest files were there and good.
    pub(crate) lists_whole: bool,
    /// Has the folder ever held a manifest that counts?
    pub(crate) lists_present: usize,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: SegmentId,
    pub(crate) file_bytes: u64,
    pub(crate) header: SegmentHeader,
    /// Its first record is there and good.
    pub(crate) begun: bool,
}

pub(crate) fn io_error(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { action, file: file.to_owned(), error }
}

fn newer(file: &str, version: u16) -> OpenError {
    OpenError::NewerFormat { file: file.to_owned(), version, known: FORMAT }
}

/// Looks at every file; refuses what a newer version wrote.
pub(crate) fn inventory(disk: &dyn Disk) -> Result<Inventory, OpenError> {
    let mut found = Inventory::default();
    for name in disk.list("").map_err(io_error("list", ""))? {
        match parse_name(&name) {
            FileName::Segment(id) => found.segments.push(look(disk, &name, id)?),
            FileName::Scratch => found.scratch.push(name),
            FileName::Foreign => found.foreign.push(name),
            FileName::Manifest => found.lists_present += 1,
            FileName::Lock | FileName::Checkpoint => {}
        }
    }
    found.segments.sort_unstable_by_key(|segment| segment.id);
    let mut good = 0;
    for name in MANIFESTS {
        if let Some(list) = read_list(disk, name)? {
            good += 1;
            if found.list.as_ref().is_none_or(|other| other.sequence < list.sequence) {
                found.list = Some(list);
            }
        }
    }
    found.lists_whole = good == MANIFESTS.len();
    Ok(found)
}

fn look(disk: &dyn Disk, name: &str, id: SegmentId) -> Result<Found, OpenError> {
    let file = disk.open(name).map_err(io_error("open", name))?;
    let file_bytes = file.bytes().map_err(io_error("measure", name))?;
    let mut head = [0; FIRST as usize + 64];
    // A segment that cannot be read is damage, not a reason to refuse the folder.
    let read = file.read_at(&mut head, 0).unwrap_or(0);
    let header = match decode_header(&head[..read]) {
        SegmentHeader::Newer(version) => return Err(newer(name, version)),
        SegmentHeader::Good { id: named, .. } if named != id => SegmentHeader::Bad,
        header => header,
    };
    let begun = match header {
        SegmentHeader::Good { salt, .. } => {
            let first = frame::check(&head[..read], id, salt, FIRST as usize);
            matches!(first, frame::Checked::Good { .. })
        }
        _ => false,
    };
    Ok(Found { id, file_bytes, header, begun })
}

fn read_list(disk: &dyn Disk, name: &str) -> Result<Option<List>, OpenError> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", name)(error)),
    };
    let Ok(bytes) = read_whole(&*file) else { return Ok(None) };
    List::decode_manifest(&bytes).map_err(|version| newer(name, u16::from(version)))
}

/// Reads a small file.
pub(crate) fn read_whole(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.bytes()? as usize];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads a segment into `image`, past the page cache if `fresh`. What cannot be read is zeros; the
/// result tells whether all could.
pub(crate) fn read_segment(
    disk: &dyn Disk,
    found: &Found,
    fresh: bool,
    image: &mut Vec<u8>,
) -> io::Result<bool> {
    const STEP: usize = 1 << 20;
    let file = disk.open(&segment_name(found.id))?;
    if fresh {
        file.drop_cache(None)?;
    }
    let length = file.bytes()?.min(u64::from(u32::MAX)) as usize;
    image.resize(length, 0);
    let mut whole = true;
    for (number, chunk) in image.chunks_mut(STEP).enumerate() {
        let offset = (number * STEP) as u64;
        match file.read_at(chunk, offset) {
            Ok(count) => chunk[count..].fill(0),
            Err(_) => whole &= read_by_block(&*file, chunk, offset),
        }
    }
    Ok(whole)
}

/// One bad sector must not cost a megabyte: reads block by block.
fn read_by_block(file: &dyn DiskFile, chunk: &mut [u8], offset: u64) -> bool {
    const BLOCK: usize = 4096;
    let mut whole = true;
    for (number, block) in chunk.chunks_mut(BLOCK).enumerate() {
        match file.read_at(block, offset + (number * BLOCK) as u64) {
            Ok(count) => block[count..].fill(0),
            Err(_) => {
                block.fill(0);
                whole = false;
            }
        }
    }
    whole
}

impl Found {
    /// What is known of the segment; its salt may have to be found in a list or in its records.
    pub(crate) fn segment(&self, list: Option<&List>, image: &[u8]) -> Segment {
        let (salt, recycled) = match self.header {
            SegmentHeader::Good { salt, recycled, .. } => (salt, recycled),
            SegmentHeader::Newer(_) | SegmentHeader::Bad => {
                let listed = list.and_then(|list| list.sealed.iter().find(|e| e.id == self.id));
                let salt = listed
                    .map(|entry| entry.salt)
                    .or_else(|| frame::find_salt(image, self.id, FIRST as usize));
                (salt.unwrap_or(0), true)
            }
        };
        Segment {
            id: self.id,
            salt,
            capacity: self.file_bytes.min(u64::from(u32::MAX)) as u32,
            end: FIRST,
            sealed: false,
            recycled,
            kept: false,
            open_ended: false,
        }
    }
}
