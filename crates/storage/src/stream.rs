//! Reading a good segment from its file through a small window, so that its size is not a matter of
//! memory. What is not good is left to the scan of a whole image.

use crate::disk::DiskFile;
use crate::frame::{self, HEADER, Header};
use crate::position::{Kind, Position, SegmentId};
use crate::scan::{Ended, Scanner};
use crate::segment::{FIRST, List};

/// What is read at a time, unless one record is larger; little enough for a processor's cache.
const WINDOW_BYTES: usize = 256 << 10;

/// Where the good records of a segment stop.
pub(crate) enum Streamed {
    /// At its footer: all of it is good.
    Whole(Ended),
    /// Here; what follows needs a closer look.
    Until(u32),
}

/// The part of a file that is in memory.
struct Window<'f> {
    file: &'f dyn DiskFile,
    file_bytes: u64,
    bytes: Vec<u8>,
    /// So many of `bytes` have been read.
    filled: usize,
    /// Offset of its first byte in the file.
    offset: usize,
}

impl Window<'_> {
    /// The bytes from `at` on, `length` of them; `None` where the file ends or cannot be read.
    fn get(&mut self, at: usize, length: usize) -> Option<&[u8]> {
        if self.offset + self.filled < at + length {
            let passed = (at - self.offset).min(self.filled);
            self.bytes.copy_within(passed..self.filled, 0);
            self.filled -= passed;
            self.offset = at;
            if self.bytes.len() < length.max(WINDOW_BYTES) {
                self.bytes.resize(length.max(WINDOW_BYTES), 0);
            }
            let end = (at + self.filled) as u64;
            self.filled += self.file.read_at(&mut self.bytes[self.filled..], end).unwrap_or(0);
        }
        let from = at - self.offset;
        self.bytes[..self.filled].get(from..from + length)
    }

    /// The good record at `at`: its header; its payload is in the window then.
    fn record(&mut self, id: SegmentId, salt: u32, at: usize) -> Option<Header> {
        let header = frame::decode(self.get(at, HEADER)?)?;
        let is_here = header.position == Position::new(id, at as u32) && header.salt == salt;
        if !is_here || header.version > frame::VERSION {
            return None;
        }
        let size = usize::try_from(header.size()).ok()?;
        // A length that the file cannot have is no reason to ask for so much memory.
        if self.file_bytes < (at + size) as u64 {
            return None;
        }
        header.fits(&self.get(at, size)?[HEADER..]).then_some(header)
    }
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The offset from which on the file holds nothing but zeros, or a little more. `None` where it
/// cannot be read.
pub(crate) fn blank_from(file: &dyn DiskFile, file_bytes: u64) -> Option<u64> {
    let mut bytes = vec![0; ZEROS.len()];
    let mut end = file_bytes;
    while 0 < end {
        let from = (end - 1) / ZEROS.len() as u64 * ZEROS.len() as u64;
        let chunk = &mut bytes[..(end - from) as usize];
        if file.read_at(chunk, from).ok()? < chunk.len() {
            return None;
        }
        if *chunk != ZEROS[..chunk.len()] {
            break;
        }
        end = from;
    }
    Some(end)
}

/// Is there nothing but zeros from `from` to the offset that [`blank_from`] told?
pub(crate) fn is_blank(file: &dyn DiskFile, from: u64, to: u64) -> bool {
    let length = to.saturating_sub(from) as usize;
    // Right before that offset there is something else.
    if ZEROS.len() < length {
        return false;
    }
    let mut bytes = vec![0; length];
    let is_read = file.read_at(&mut bytes, from).is_ok_and(|count| count == length);
    is_read && *bytes == ZEROS[..length]
}

/// Shows the scanner the good records of a segment, as far as there is nothing else.
pub(crate) fn stream(
    file: &dyn DiskFile,
    id: SegmentId,
    salt: u32,
    scanner: &mut Scanner<'_>,
) -> Streamed {
    let file_bytes = file.bytes().unwrap_or(0);
    let mut window = Window { file, file_bytes, bytes: Vec::new(), filled: 0, offset: 0 };
    let mut at = FIRST as usize;
    while let Some(header) = window.record(id, salt, at) {
        let Some(payload) = window.get(at + HEADER, header.length as usize) else { break };
        if header.kind == Kind::FOOTER {
            scanner.footer = List::decode(payload);
            let (end, torn_end) = (at as u32, at as u32);
            return Streamed::Whole(Ended { end, torn_end, footer: true });
        }
        let end = at + header.size() as usize;
        scanner.on_good(&header, Position::new(id, end as u32), payload);
        at = end;
    }
    Streamed::Until(at as u32)
}
