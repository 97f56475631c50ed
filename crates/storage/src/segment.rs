//! Segment files: their names, their header, and the list of segments that footers and manifests
//! carry.

use stdx::seeded::{Seeded, is_sown};

use crate::frame;
use crate::position::{Kind, Position, SegmentId};

/// Bytes of a segment header; the first record starts here.
pub(crate) const FIRST: u32 = 64;
/// Newest version of the segment format that this program reads.
pub(crate) const FORMAT: u16 = 1;
const MAGIC: [u8; 8] = *b"FMQSEGMT";
const RECYCLED: u16 = 1;
const LIST_HEAD: usize = 24;
const LIST_ENTRY: usize = 16;
const OPEN_ENDED: u32 = 1;

/// What is known about one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) salt: u32,
    /// Bytes of the file.
    pub(crate) capacity: u32,
    /// End of the last record.
    pub(crate) end: u32,
    pub(crate) sealed: bool,
    /// The file held another segment before, so what follows the end is not zeros.
    pub(crate) recycled: bool,
    /// Holds the only copy of damaged bytes; not to be retired.
    pub(crate) kept: bool,
    /// A unit is not complete at its end: what follows it is needed to read it.
    pub(crate) open_ended: bool,
}

/// The header of a segment file, as far as it could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    /// `made`: bytes that the file was made with; 0 where the header does not say.
    Good {
        id: SegmentId,
        salt: u32,
        recycled: bool,
        made: u32,
    },
    Newer(u16),
    Bad,
}

pub(crate) fn encode_header(segment: &Segment) -> [u8; FIRST as usize] {
    let mut bytes = [0; FIRST as usize];
    let flags = if segment.recycled { RECYCLED } else { 0 };
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[10..12].copy_from_slice(&flags.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.id.0.to_le_bytes());
    bytes[16..20].copy_from_slice(&segment.salt.to_le_bytes());
    bytes[20..24].copy_from_slice(&segment.capacity.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn decode_header(bytes: &[u8]) -> SegmentHeader {
    let Some(bytes) = bytes.get(..FIRST as usize) else { return SegmentHeader::Bad };
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[..8] != MAGIC || word(60) != crc32c::crc32c(&bytes[..60]) {
        return SegmentHeader::Bad;
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version > FORMAT {
        return SegmentHeader::Newer(version);
    }
    let recycled = u16::from_le_bytes([bytes[10], bytes[11]]) & RECYCLED != 0;
    SegmentHeader::Good { id: SegmentId(word(12)), salt: word(16), recycled, made: word(20) }
}

/// What a file of the folder is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Segment(SegmentId),
    /// Unfinished; holds nothing that counts.
    Scratch,
    Manifest,
    Checkpoint,
    Lock,
    Foreign,
}

pub(crate) fn segment_name(id: SegmentId) -> String {
    format!("{id}.seg")
}

pub(crate) fn scratch_name(number: u32) -> String {
    format!("{number:010}.tmp")
}

pub(crate) const MANIFESTS: [&str; 2] = ["manifest.0", "manifest.1"];

pub(crate) const CHECKPOINTS: [&str; 2] = ["checkpoint.0", "checkpoint.1"];

/// A checkpoint being written.
pub(crate) const CHECKPOINT_SCRATCH: &str = "checkpoint.tmp";

pub(crate) fn parse_name(name: &str) -> FileName {
    if MANIFESTS.contains(&name) {
        return FileName::Manifest;
    }
    if CHECKPOINTS.contains(&name) {
        return FileName::Checkpoint;
    }
    if name == CHECKPOINT_SCRATCH {
        return FileName::Scratch;
    }
    if name == "lock" {
        return FileName::Lock;
    }
    match name.split_once('.') {
        Some((number, kind)) if number.len() == 10 => match (number.parse::<u32>(), kind) {
            (Ok(number), "seg") => FileName::Segment(SegmentId(number)),
            (Ok(_), "tmp") => FileName::Scratch,
            _ => FileName::Foreign,
        },
        _ => FileName::Foreign,
    }
}

/// The segments that are live: sealed ones with their ends, and the one being appended to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// Grows with every manifest written.
    pub(crate) sequence: u64,
    pub(crate) active: SegmentId,
    pub(crate) sealed: Vec<Listed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: SegmentId,
    pub(crate) salt: u32,
    /// Where the segment ends: after its last record, before its footer.
    pub(crate) end: u32,
    /// See [`Segment::open_ended`].
    pub(crate) open_ended: bool,
}

impl Segment {
    pub(crate) fn listed(&self) -> Listed {
        let Self { id, salt, end, open_ended, .. } = *self;
        Listed { id, salt, end, open_ended }
    }
}

/// Bytes on disk of a record that lists `count` sealed segments.
pub(crate) fn list_size(count: usize) -> u64 {
    frame::size((LIST_HEAD + LIST_ENTRY * count) as u64)
}

impl List {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LIST_HEAD + LIST_ENTRY * self.sealed.len());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.active.0.to_le_bytes());
        bytes.extend_from_slice(&(self.sealed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for entry in &self.sealed {
            bytes.extend_from_slice(&entry.id.0.to_le_bytes());
            bytes.extend_from_slice(&entry.salt.to_le_bytes());
            bytes.extend_from_slice(&entry.end.to_le_bytes());
            bytes.extend_from_slice(&u32::from(entry.open_ended).to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let four = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        };
        let count = word(12)? as usize;
        let mut sealed = Vec::with_capacity(count.min(bytes.len() / LIST_ENTRY));
        for at in (0..count).map(|number| LIST_HEAD + number * LIST_ENTRY) {
            let id = SegmentId(word(at)?);
            let open_ended = word(at + 12)? & OPEN_ENDED != 0;
            sealed.push(Listed { id, salt: word(at + 4)?, end: word(at + 8)?, open_ended });
        }
        let sequence = u64::from(word(0)?) | u64::from(word(4)?) << 32;
        Some(Self { sequence, active: SegmentId(word(8)?), sealed })
    }

    pub(crate) fn encode_manifest(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let position = Position(self.sequence);
        frame::append(&mut bytes, Kind::MANIFEST, 0, 0, position, &[&self.encode()]);
        bytes
    }

    /// Reads a manifest file. `Err` holds the version of a newer one.
    pub(crate) fn decode_manifest(bytes: &[u8]) -> Result<Option<Self>, u8> {
        let Some(header) = frame::decode(bytes) else { return Ok(None) };
        if header.version > frame::VERSION {
            return Err(header.version);
        }
        let Some(body) = bytes.get(frame::HEADER..header.size() as usize) else { return Ok(None) };
        let fits = header.fits(body) || is_sown(Seeded::ManifestUnchecked);
        if header.kind != Kind::MANIFEST || !fits {
            return Ok(None);
        }
        Ok(Self::decode(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_come_back_as_they_were() {
        assert_eq!(parse_name(&segment_name(SegmentId(7))), FileName::Segment(SegmentId(7)));
        assert_eq!(parse_name(&scratch_name(7)), FileName::Scratch);
        assert_eq!(parse_name("queue.seg"), FileName::Foreign);
        let entry = Listed { id: SegmentId(1), salt: 2, end: 3, open_ended: true };
        let list = List { sequence: 1 << 40, active: SegmentId(9), sealed: vec![entry; 3] };
        let bytes = list.encode_manifest();
        assert_eq!(bytes.len() as u64, list_size(3));
        assert_eq!(List::decode_manifest(&bytes), Ok(Some(list)));
    }
}
