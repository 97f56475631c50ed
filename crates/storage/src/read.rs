//! Reading records back: each one is checked before anybody sees it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use stdx::seeded::{Seeded, is_sown};

use crate::disk::DiskFile;
use crate::error::{Damage, ReadError};
use crate::frame::{self, HEADER, Header};
use crate::position::{OwnedRecord, Position};

/// What one read asks for where the length is not known yet.
const FIRST_READ: usize = 4096;
/// Records closer than this are read together.
const GAP_MAX: u32 = 64 << 10;
/// What is read together at most, unless one record is larger.
const SPAN_MAX: u32 = 512 << 10;

fn damaged(position: Position, header: Option<&Header>, reason: Damage) -> ReadError {
    ReadError::Damaged {
        position,
        bytes: header.map_or(0, |header| u32::try_from(header.size()).unwrap_or(u32::MAX)),
        kind: header.map(|header| header.kind),
        reason,
    }
}

fn io_error(position: Position) -> impl FnOnce(io::Error) -> ReadError {
    move |error| ReadError::Io { position, error: Arc::new(error) }
}

/// The header at the start of `bytes`, if it belongs to `at`.
fn header_at(bytes: &[u8], salt: u32, at: Position) -> Result<Header, ReadError> {
    match frame::decode(bytes) {
        Some(header) if header.position == at && header.salt == salt => Ok(header),
        _ => Err(damaged(at, None, Damage::Header)),
    }
}

/// Checks the record at the start of `bytes`. `None` if `bytes` ends before it does.
fn whole(bytes: &[u8], salt: u32, at: Position) -> Result<Option<Header>, ReadError> {
    let header = header_at(bytes, salt, at)?;
    let size = header.size();
    let Some(body) = bytes.get(HEADER..size as usize) else { return Ok(None) };
    if !header.fits(body) && !is_sown(Seeded::ReadUnchecked) {
        return Err(damaged(at, Some(&header), Damage::Body));
    }
    Ok(Some(header))
}

fn owned(header: &Header, payload: Bytes) -> OwnedRecord {
    let end = Position(header.position.0 + header.size());
    OwnedRecord { position: header.position, end, kind: header.kind, payload }
}

/// A record that is still in memory.
pub(crate) fn from_memory(bytes: &[u8], salt: u32, at: Position) -> Result<OwnedRecord, ReadError> {
    let Some(header) = whole(bytes, salt, at)? else {
        return Err(damaged(at, None, Damage::Header));
    };
    let payload = Bytes::copy_from_slice(&bytes[HEADER..HEADER + header.length as usize]);
    Ok(owned(&header, payload))
}

/// One record of a file.
pub(crate) fn from_file(
    file: &dyn DiskFile,
    salt: u32,
    at: Position,
) -> Result<OwnedRecord, ReadError> {
    let mut bytes = file.read_new(FIRST_READ, u64::from(at.offset())).map_err(io_error(at))?;
    let count = bytes.len();
    if whole(&bytes, salt, at)?.is_none() {
        let header = header_at(&bytes, salt, at)?;
        bytes.resize(header.size() as usize, 0);
        let rest = u64::from(at.offset()) + count as u64;
        let more = file.read_at(&mut bytes[count..], rest).map_err(io_error(at))?;
        bytes.truncate(count + more);
    }
    let Some(header) = whole(&bytes, salt, at)? else {
        let header = header_at(&bytes, salt, at)?;
        return Err(damaged(at, Some(&header), Damage::Body));
    };
    // A small record must not hold the whole first read in memory.
    let payload = &bytes[HEADER..HEADER + header.length as usize];
    let payload = if payload.len() * 2 < FIRST_READ {
        Bytes::copy_from_slice(payload)
    } else {
        Bytes::from(bytes).slice(HEADER..HEADER + header.length as usize)
    };
    Ok(owned(&header, payload))
}

/// Many records of one file, `wanted` in order of position, with their places in `out`.
pub(crate) fn many_from_file(
    file: &dyn DiskFile,
    salt: u32,
    wanted: &[(Position, usize)],
    out: &mut [Option<Result<OwnedRecord, ReadError>>],
) {
    let mut rest = wanted;
    while let Some(((first, _), _)) = rest.split_first() {
        let mut count = 1;
        while count < rest.len() {
            let (before, here) = (rest[count - 1].0.offset(), rest[count].0.offset());
            if here - before > GAP_MAX || here - first.offset() > SPAN_MAX {
                break;
            }
            count += 1;
        }
        let (span, later) = rest.split_at(count);
        read_span(file, salt, span, out);
        rest = later;
    }
}

fn read_span(
    file: &dyn DiskFile,
    salt: u32,
    span: &[(Position, usize)],
    out: &mut [Option<Result<OwnedRecord, ReadError>>],
) {
    let (first, last) = (span[0].0.offset(), span[span.len() - 1].0.offset());
    // The end of the last record is not known; neighbours are mostly of one size.
    let mean = (last - first) as usize / span.len();
    let length = (last - first) as usize + FIRST_READ.max(mean * 2);
    let bytes = if span.len() == 1 {
        Bytes::new()
    } else {
        Bytes::from(file.read_new(length, u64::from(first)).unwrap_or_default())
    };
    for (at, place) in span {
        let from = (at.offset() - first) as usize;
        let here = bytes.get(from..).unwrap_or(&[]);
        out[*place] = Some(match whole(here, salt, *at) {
            Ok(Some(header)) => {
                let start = from + HEADER;
                Ok(owned(&header, bytes.slice(start..start + header.length as usize)))
            }
            // Cut off by the read, or damaged: the single read tells which.
            _ => from_file(file, salt, *at),
        });
    }
}
