//! One record as bytes: a header of 32 bytes and a body padded to 8, as `docs/disk-format.md` says.

use stdx::seeded::{Seeded, is_sown};

use crate::position::{Kind, Position, SegmentId};

/// Bytes of a record header.
pub(crate) const HEADER: usize = 32;
/// Version of the record format.
pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"FmqR";
const ALIGN: usize = 8;

/// The record belongs to an atomic unit.
pub(crate) const IN_UNIT: u16 = 1;
/// First of two copies.
pub(crate) const FIRST_COPY: u16 = 2;
/// Second of two copies.
pub(crate) const SECOND_COPY: u16 = 4;

/// A record header whose checksum held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: Kind,
    pub(crate) flags: u16,
    pub(crate) length: u32,
    pub(crate) salt: u32,
    pub(crate) position: Position,
    crc: u32,
    body_crc: u32,
}

/// Bytes on disk of a record with a payload of `length` bytes.
pub(crate) const fn size(length: u64) -> u64 {
    HEADER as u64 + length.next_multiple_of(ALIGN as u64)
}

/// Zeros after a payload of `length` bytes.
pub(crate) fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGN) - length
}

fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn eight(bytes: &[u8], at: usize) -> u64 {
    u64::from(four(bytes, at)) | u64::from(four(bytes, at + 4)) << 32
}

/// The header of a record with the payload `parts`, which are `length` bytes together.
pub(crate) fn encode(
    kind: Kind,
    flags: u16,
    salt: u32,
    position: Position,
    length: u32,
    parts: &[&[u8]],
) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = kind.0;
    header[6..8].copy_from_slice(&flags.to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&salt.to_le_bytes());
    header[16..24].copy_from_slice(&position.0.to_le_bytes());
    let crc = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    let mut body_crc = crc;
    for part in parts {
        body_crc = crc32c::crc32c_append(body_crc, part);
    }
    // The padding is part of the body, so that no bit of a record is unchecked.
    body_crc = crc32c::crc32c_append(body_crc, &[0; ALIGN][..padding(length as usize)]);
    header[28..32].copy_from_slice(&body_crc.to_le_bytes());
    header
}

/// Appends one whole record to `out`.
pub(crate) fn append(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u16,
    salt: u32,
    position: Position,
    parts: &[&[u8]],
) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&encode(kind, flags, salt, position, length as u32, parts));
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0; ALIGN][..padding(length)]);
}

/// Reads a header, wherever it may come from.
pub(crate) fn decode(bytes: &[u8]) -> Option<Header> {
    if bytes.len() < HEADER
        || bytes[..4] != MAGIC
        || four(bytes, 24) != crc32c::crc32c(&bytes[..24]) && !is_sown(Seeded::HeaderUnchecked)
    {
        return None;
    }
    Some(Header {
        version: bytes[4],
        kind: Kind(bytes[5]),
        flags: u16::from_le_bytes([bytes[6], bytes[7]]),
        length: four(bytes, 8),
        salt: four(bytes, 12),
        position: Position(eight(bytes, 16)),
        crc: four(bytes, 24),
        body_crc: four(bytes, 28),
    })
}

impl Header {
    /// Bytes on disk of the whole record.
    pub(crate) fn size(&self) -> u64 {
        size(u64::from(self.length))
    }

    /// Is `body` (payload and padding) what was written under this header?
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        crc32c::crc32c_append(self.crc, body) == self.body_crc
    }
}

/// What lies at an offset of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// A good record; it ends at `end`.
    Good { header: Header, end: usize },
    /// A good header, and a body that is cut off or wrong; it should end at `end`.
    BadBody { header: Header, end: usize },
    /// Something that is no header of this segment at this offset.
    BadHeader,
    /// Zeros, or the end of the file: nothing was written here.
    Nothing,
    /// A good header of a version that is not known.
    Newer(u8),
}

/// Checks what lies at `at` of `image`, the bytes of a segment from its first.
pub(crate) fn check(image: &[u8], segment: SegmentId, salt: u32, at: usize) -> Checked {
    let Some(bytes) = image.get(at..at + HEADER) else {
        let rest = image.get(at..).unwrap_or(&[]);
        let empty = rest.iter().all(|byte| *byte == 0);
        return if empty { Checked::Nothing } else { Checked::BadHeader };
    };
    let Some(header) = decode(bytes) else {
        let empty = bytes.iter().all(|byte| *byte == 0);
        return if empty { Checked::Nothing } else { Checked::BadHeader };
    };
    if header.position != Position::new(segment, at as u32) || header.salt != salt {
        return Checked::BadHeader;
    }
    if header.version > VERSION {
        return Checked::Newer(header.version);
    }
    let end = at + header.size() as usize;
    match image.get(at + HEADER..end) {
        Some(body) if header.fits(body) || is_sown(Seeded::VisibleBeforeComplete) => {
            Checked::Good { header, end }
        }
        _ => Checked::BadBody { header, end },
    }
}

/// The first good record of the segment at or after `from`.
pub(crate) fn next_good(image: &[u8], segment: SegmentId, salt: u32, from: usize) -> Option<usize> {
    let mut at = from.next_multiple_of(ALIGN);
    while at + HEADER <= image.len() {
        if image[at..at + 4] == MAGIC
            && matches!(check(image, segment, salt, at), Checked::Good { .. } | Checked::Newer(_))
        {
            return Some(at);
        }
        at += ALIGN;
    }
    None
}

/// Salt of the first record that claims to lie where it lies, for a segment whose header is gone.
pub(crate) fn find_salt(image: &[u8], segment: SegmentId, from: usize) -> Option<u32> {
    let mut at = from;
    while at + HEADER <= image.len() {
        if let Some(header) = decode(&image[at..at + HEADER])
            && header.position == Position::new(segment, at as u32)
        {
            return Some(header.salt);
        }
        at += ALIGN;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 64];
        let position = Position::new(SegmentId(3), 64);
        append(&mut image, Kind(20), 0, 7, position, &[payload]);
        image
    }

    /// L8, L9: header, body and padding are all under a checksum.
    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let image = one(b"thirteen byte");
        assert!(matches!(check(&image, SegmentId(3), 7, 64), Checked::Good { .. }));
        for bit in 64 * 8..image.len() * 8 {
            let mut bad = image.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = check(&bad, SegmentId(3), 7, 64);
            assert!(matches!(seen, Checked::BadHeader | Checked::BadBody { .. }), "bit {bit}");
        }
    }

    /// L8: a record that was moved or left over is invalid where it lies.
    #[test]
    fn a_record_is_good_only_at_its_own_position_and_salt() {
        let image = one(b"x");
        assert_eq!(check(&image, SegmentId(4), 7, 64), Checked::BadHeader);
        assert_eq!(check(&image, SegmentId(3), 8, 64), Checked::BadHeader);
        let mut moved = vec![0; 8];
        moved.extend_from_slice(&image);
        assert_eq!(next_good(&moved, SegmentId(3), 7, 0), None);
    }
}
