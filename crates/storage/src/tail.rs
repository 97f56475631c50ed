//! The end of the log in memory: what is appended and not yet written.

use std::sync::Arc;

use crate::frame;
use crate::position::{Kind, Position, SegmentId};
use crate::segment::Segment;

/// Size of a buffer; also the size of most writes.
const CHUNK_BYTES: usize = 1 << 20;
/// Buffers kept for reuse.
const FREE_CHUNKS_MAX: usize = 32;

/// Bytes that belong together in one segment.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: SegmentId,
    pub(crate) salt: u32,
    pub(crate) offset: u32,
    pub(crate) bytes: Vec<u8>,
    /// Where in `bytes` a batch record lies whose durable position is filled in before writing.
    batch: Option<usize>,
}

impl Chunk {
    pub(crate) fn end(&self) -> Position {
        Position::new(self.segment, self.offset + self.bytes.len() as u32)
    }

    /// The bytes of the record at `at`, from its header to the end of the chunk.
    fn find(&self, at: Position) -> Option<&[u8]> {
        if at.segment() != self.segment {
            return None;
        }
        let from = at.offset().checked_sub(self.offset)?;
        self.bytes.get(from as usize..).filter(|rest| !rest.is_empty())
    }
}

/// What appenders share, under the append lock.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The segment being appended to; its `end` is the end of the log.
    pub(crate) segment: Option<Segment>,
    /// Sealed segments, which the footer must have room to list.
    pub(crate) sealed_count: usize,
    pub(crate) batch_open: bool,
    pub(crate) closed: bool,
    chunks: Vec<Chunk>,
    writing: Option<Arc<Vec<Chunk>>>,
    free: Vec<Vec<u8>>,
    pending: u64,
}

impl Tail {
    pub(crate) fn new(segment: Option<Segment>, sealed_count: usize) -> Self {
        Self { segment, sealed_count, ..Self::default() }
    }

    pub(crate) fn end(&self) -> Option<Position> {
        self.segment.map(|segment| Position::new(segment.id, segment.end))
    }

    /// Bytes appended and not yet in the files.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends one record to the current segment, which must have room.
    pub(crate) fn put(
        &mut self,
        kind: Kind,
        flags: u16,
        length: usize,
        parts: &[&[u8]],
    ) -> (Position, Position) {
        let size = frame::size(length as u64) as usize;
        let segment = self.segment.as_mut().expect("room was made in a segment");
        let start = Position::new(segment.id, segment.end);
        let fits = |chunk: &Chunk| {
            chunk.segment == segment.id && chunk.bytes.len() + size <= chunk.bytes.capacity()
        };
        if !self.chunks.last().is_some_and(fits) {
            let reused = if size <= CHUNK_BYTES { self.free.pop() } else { None };
            let bytes = reused.unwrap_or_else(|| Vec::with_capacity(size.max(CHUNK_BYTES)));
            let (id, salt, offset) = (segment.id, segment.salt, segment.end);
            self.chunks.push(Chunk { segment: id, salt, offset, bytes, batch: None });
        }
        let chunk = self.chunks.last_mut().expect("a chunk was pushed where none had room");
        if kind == Kind::BATCH {
            chunk.batch = Some(chunk.bytes.len());
        }
        frame::append(&mut chunk.bytes, kind, flags, segment.salt, start, parts);
        self.pending += size as u64;
        segment.end += size as u32;
        (start, Position::new(segment.id, segment.end))
    }

    /// Takes all that is pending, to be written. It can still be read until [`Tail::written`].
    pub(crate) fn take(&mut self, durable: Position) -> Arc<Vec<Chunk>> {
        let mut chunks = std::mem::take(&mut self.chunks);
        for chunk in &mut chunks {
            if let Some(at) = chunk.batch {
                let position = Position::new(chunk.segment, chunk.offset + at as u32);
                let payload = durable.0.to_le_bytes();
                let parts: [&[u8]; 1] = [&payload];
                let header = frame::encode(Kind::BATCH, 0, chunk.salt, position, 8, &parts);
                let body = at + frame::HEADER;
                chunk.bytes[at..body].copy_from_slice(&header);
                chunk.bytes[body..body + 8].copy_from_slice(&payload);
            }
        }
        let chunks = Arc::new(chunks);
        self.writing = Some(chunks.clone());
        self.batch_open = false;
        chunks
    }

    /// What was taken is in the files; its buffers are used again.
    pub(crate) fn written(&mut self, chunks: Arc<Vec<Chunk>>) {
        self.writing = None;
        self.pending -= chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        if let Ok(chunks) = Arc::try_unwrap(chunks) {
            for mut chunk in chunks {
                if chunk.bytes.capacity() == CHUNK_BYTES && self.free.len() < FREE_CHUNKS_MAX {
                    chunk.bytes.clear();
                    self.free.push(chunk.bytes);
                }
            }
        }
    }

    /// Nothing has come for a while: memory for what may come is given back.
    pub(crate) fn rest(&mut self) {
        self.free = Vec::new();
    }

    /// The record at `at` if it is not yet in its file: its salt and the bytes from its header on.
    pub(crate) fn find(&self, at: Position) -> Option<(u32, &[u8])> {
        let writing = self.writing.iter().flat_map(|chunks| chunks.iter());
        writing
            .chain(&self.chunks)
            .find_map(|chunk| chunk.find(at).map(|bytes| (chunk.salt, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_until_the_log_rests() {
        let segment = Segment {
            id: SegmentId(1),
            salt: 7,
            capacity: 1 << 20,
            end: 0,
            sealed: false,
            recycled: false,
            kept: false,
            open_ended: false,
        };
        let mut tail = Tail::new(Some(segment), 0);
        for round in 0..3 {
            tail.put(Kind(20), 0, 3, &[b"abc"]);
            assert!(tail.free.is_empty(), "the only buffer is in use, round {round}");
            let chunks = tail.take(Position(0));
            tail.written(chunks);
            assert_eq!(tail.free.len(), 1, "one buffer serves all rounds, round {round}");
        }
        tail.rest();
        assert!(tail.free.is_empty());
        let (start, _) = tail.put(Kind(20), 0, 3, &[b"abc"]);
        assert!(tail.find(start).is_some(), "it goes on");
    }
}
