//! Reading a segment from its first record to its last, past damage.

use std::collections::BTreeSet;

use stdx::seeded::{Seeded, is_sown};

use crate::error::Damage;
use crate::frame::{self, Checked, Header};
use crate::position::{Kind, Position, Record, SegmentId};
use crate::recovery::{Missing, Quarantined, Recovery};
use crate::segment::List;

/// A segment as it was read, to be scanned.
pub(crate) struct Image<'a> {
    pub(crate) id: SegmentId,
    pub(crate) salt: u32,
    pub(crate) bytes: &'a [u8],
    /// A later segment was begun, so all of this one was synced.
    pub(crate) sealed: bool,
    pub(crate) recycled: bool,
    /// End of its last record, where a manifest tells.
    pub(crate) known_end: Option<u32>,
}

/// Where the good part of a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// End of the last good record, footer excluded.
    pub(crate) end: u32,
    /// End of what an unfinished write left; `end` where it left nothing.
    pub(crate) torn_end: u32,
    pub(crate) footer: bool,
}

/// Records of a unit whose end has not been met.
#[derive(Default)]
pub(crate) struct Unit {
    bytes: Vec<u8>,
    /// Position, end, kind, and the end of the payload in `bytes`.
    records: Vec<(Position, Position, Kind, usize)>,
}

/// Walks the segments of a folder in order and shows the good records.
pub(crate) struct Scanner<'v> {
    visit: &'v mut dyn FnMut(Record<'_>),
    pub(crate) recovery: Recovery,
    pub(crate) retired: BTreeSet<SegmentId>,
    /// The last position that is known to have been durable.
    pub(crate) proven: Position,
    /// The list in the last good footer.
    pub(crate) footer: Option<List>,
    pub(crate) unit: Unit,
    ignore_units: bool,
    /// The first copy of a clean stop is there, the second is not (yet).
    stop_begun: bool,
    first_copy: Option<(Kind, u32)>,
}

/// A record of a newer version was met; the folder must be left alone.
#[derive(Debug)]
pub(crate) struct NewerRecord(pub(crate) u8);

fn word(payload: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let count = payload.len().min(8);
    bytes[..count].copy_from_slice(&payload[..count]);
    u64::from_le_bytes(bytes)
}

impl Unit {
    pub(crate) fn is_open(&self) -> bool {
        !self.records.is_empty()
    }
}

impl<'v> Scanner<'v> {
    pub(crate) fn new(visit: &'v mut dyn FnMut(Record<'_>)) -> Self {
        Self {
            visit,
            recovery: Recovery::default(),
            retired: BTreeSet::new(),
            proven: Position::default(),
            footer: None,
            unit: Unit::default(),
            ignore_units: false,
            stop_begun: false,
            first_copy: None,
        }
    }

    /// Shows the records of units as they come: for a segment that recovery has judged before.
    pub(crate) fn units_are_shown(&mut self) {
        self.ignore_units = true;
    }

    /// Scans one segment; everything before `at` has been seen. Bad bytes that were durable are
    /// reported and passed over; the first bad byte that was not ends the log.
    pub(crate) fn scan_from(
        &mut self,
        image: &Image<'_>,
        mut at: usize,
    ) -> Result<Ended, NewerRecord> {
        loop {
            match frame::check(image.bytes, image.id, image.salt, at) {
                Checked::Newer(version) => return Err(NewerRecord(version)),
                Checked::Good { header, end } => {
                    let start = at + frame::HEADER;
                    let payload = &image.bytes[start..start + header.length as usize];
                    if header.kind == Kind::FOOTER {
                        self.footer = List::decode(payload);
                        let ended = Ended { end: at as u32, torn_end: at as u32, footer: true };
                        return Ok(ended);
                    }
                    self.on_good(&header, Position::new(image.id, end as u32), payload);
                    at = end;
                }
                bad if is_sown(Seeded::TruncateAtDamage) => {
                    return Ok(self.on_end(image, at, None, bad));
                }
                bad => match resume(image, at, bad) {
                    Some(next) if image.sealed || proves(image, at, next) => {
                        self.on_damage(image, at, next, bad);
                        at = next;
                    }
                    resume => return Ok(self.on_end(image, at, resume, bad)),
                },
            }
        }
    }

    /// May blank bytes at the end of what was read be the end of the log, and nothing else?
    pub(crate) fn may_end(&self) -> bool {
        !self.stop_begun
    }

    pub(crate) fn on_good(&mut self, header: &Header, end: Position, payload: &[u8]) {
        let first_copy = self.first_copy;
        if header.kind != Kind::PADDING {
            self.first_copy = None;
        }
        if header.kind != Kind::PADDING {
            self.recovery.orderly = false;
            self.stop_begun = false;
        }
        match header.kind {
            Kind::BATCH => self.proven = self.proven.max(Position(word(payload))),
            Kind::UNIT_END if word(payload) == 0 => self.cut_unit(),
            Kind::UNIT_END => self.end_unit(),
            Kind::CLEAN_STOP => {
                self.proven = self.proven.max(end);
                // The stop counts with its second copy; the first alone may be a crash in the stop.
                self.recovery.orderly = header.flags & frame::SECOND_COPY != 0;
                self.stop_begun = !self.recovery.orderly;
            }
            Kind::RETIRED => {
                self.retired.insert(SegmentId(word(payload) as u32));
            }
            Kind::OPENED => self.cut_unit(),
            kind if kind.is_reserved() => {}
            kind => {
                let copy = (kind, crc32c::crc32c(payload));
                if header.flags & frame::FIRST_COPY != 0 {
                    self.first_copy = Some(copy);
                } else if header.flags & frame::SECOND_COPY != 0 && first_copy == Some(copy) {
                    return;
                }
                self.show(header, end, payload);
            }
        }
    }

    fn show(&mut self, header: &Header, end: Position, payload: &[u8]) {
        let (position, kind) = (header.position, header.kind);
        if header.flags & frame::IN_UNIT != 0 && !self.ignore_units {
            self.unit.bytes.extend_from_slice(payload);
            self.unit.records.push((position, end, kind, self.unit.bytes.len()));
            return;
        }
        self.recovery.records += 1;
        (self.visit)(Record { position, end, kind, payload });
    }

    fn end_unit(&mut self) {
        let mut start = 0;
        for (position, end, kind, stop) in self.unit.records.drain(..) {
            let payload = &self.unit.bytes[start..stop];
            self.recovery.records += 1;
            (self.visit)(Record { position, end, kind, payload });
            start = stop;
        }
        self.unit.bytes.clear();
    }

    /// What was begun and found no room, or was not ended before the log was opened again, never
    /// happened.
    pub(crate) fn cut_unit(&mut self) {
        self.recovery.cut_unit_records += self.unit.records.len() as u64;
        self.unit.records.clear();
        self.unit.bytes.clear();
    }

    fn on_damage(&mut self, image: &Image<'_>, at: usize, next: usize, bad: Checked) {
        let (kind, reason) = describe(bad);
        self.recovery.quarantined.push(Quarantined {
            segment: image.id,
            offset: at as u32,
            bytes: (next - at) as u32,
            kind,
            reason,
            torn: false,
            copied: false,
        });
    }

    /// No good record follows that proves the bytes at `at` were durable.
    fn on_end(
        &mut self,
        image: &Image<'_>,
        at: usize,
        resume: Option<usize>,
        bad: Checked,
    ) -> Ended {
        let end = at as u32;
        if image.sealed {
            self.on_cut_segment(image, at, bad);
            return Ended { end, torn_end: end, footer: false };
        }
        let mut torn_end = torn_end(image, at, resume, bad);
        if self.stop_begun {
            torn_end = torn_end.max((at + frame::HEADER).min(image.bytes.len()));
        }
        if torn_end > at {
            // After an orderly stop every bad byte is damage.
            let torn = !self.recovery.orderly;
            self.on_damage(image, at, torn_end, bad);
            if let Some(range) = self.recovery.quarantined.last_mut() {
                range.torn = torn;
            }
            if torn {
                self.recovery.torn_tail_bytes += (torn_end - at) as u64;
            }
        }
        Ended { end, torn_end: torn_end as u32, footer: false }
    }

    /// A sealed segment stops without its footer.
    fn on_cut_segment(&mut self, image: &Image<'_>, at: usize, bad: Checked) {
        let written = image.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let known = image.known_end.map(|end| end as usize);
        let stop = known.unwrap_or(written).clamp(at, image.bytes.len().max(at));
        let footer_stop = written.max(stop).min(image.bytes.len());
        if footer_stop > at && (stop > at || !image.recycled) {
            self.on_damage(image, at, footer_stop, bad);
        }
        let from = Position::new(image.id, stop as u32);
        match known {
            Some(known) if known > stop => {
                let to = Position::new(image.id, known as u32);
                self.recovery.missing.push(Missing { from, to });
            }
            None if footer_stop <= at => {
                let to = Position::new(SegmentId(image.id.0.saturating_add(1)), 0);
                self.recovery.missing.push(Missing { from, to });
            }
            _ => {}
        }
    }
}

fn describe(bad: Checked) -> (Option<Kind>, Damage) {
    match bad {
        Checked::BadBody { header, .. } => (Some(header.kind), Damage::Body),
        _ => (None, Damage::Header),
    }
}

/// The next good record after the bad bytes at `at`.
fn resume(image: &Image<'_>, at: usize, bad: Checked) -> Option<usize> {
    if let Checked::BadBody { end, .. } = bad
        && let Checked::Good { .. } = frame::check(image.bytes, image.id, image.salt, end)
    {
        return Some(end);
    }
    frame::next_good(image.bytes, image.id, image.salt, at + 8)
}

/// Does a record from `next` on prove that the byte at `bad` was durable?
fn proves(image: &Image<'_>, bad: usize, next: usize) -> bool {
    let bad = Position::new(image.id, bad as u32);
    let mut at = Some(next);
    while let Some(here) = at {
        let checked = frame::check(image.bytes, image.id, image.salt, here);
        at = match checked {
            Checked::Good { header, end } => {
                let start = here + frame::HEADER;
                let payload = &image.bytes[start..start + header.length as usize];
                match header.kind {
                    Kind::CLEAN_STOP => return true,
                    Kind::BATCH if Position(word(payload)) > bad => return true,
                    _ => Some(end),
                }
            }
            bad => resume(image, here, bad),
        };
    }
    false
}

/// How far the unfinished write reaches.
fn torn_end(image: &Image<'_>, at: usize, mut good: Option<usize>, bad: Checked) -> usize {
    let length = image.bytes.len();
    let mut end = match bad {
        Checked::BadBody { end, .. } => end.min(length),
        _ => at,
    };
    while let Some(here) = good {
        let checked = frame::check(image.bytes, image.id, image.salt, here);
        if let Checked::Good { end: stop, .. } | Checked::BadBody { end: stop, .. } = checked {
            end = end.max(stop.min(length));
        }
        good = resume(image, here.max(end) - 8, Checked::BadHeader);
    }
    if !image.recycled {
        let written = image.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        end = end.max(written);
    }
    end
}
