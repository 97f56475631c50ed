//! Opening a folder: find the end of the log by its records alone, set bad bytes aside, make the
//! unproven tail durable. Nothing is deleted.

use std::num::NonZeroU64;
use std::sync::Arc;

use stdx::seeded::{Seeded, is_sown};

use crate::checkpoint::{self, Checkpoints, Head};
use crate::disk::{Disk, DiskFile, is_full};
use crate::error::{Damage, OpenError};
use crate::frame;
use crate::inventory::{Found, Inventory, inventory, io_error, read_segment};
use crate::position::{Position, Record, SegmentId};
use crate::recovery::{Missing, Quarantined, Recovery};
use crate::scan::{Ended, Image, Scanner};
use crate::segment::{
    FIRST, FORMAT, List, Segment, SegmentHeader, encode_header, list_size, scratch_name,
    segment_name,
};
use crate::stream::{Streamed, blank_from, is_blank, stream};

/// A folder after recovery, ready to be appended to.
pub(crate) struct Recovered {
    /// All segments with records, the active one last.
    pub(crate) segments: Vec<Segment>,
    /// Does the last of `segments` go on, or must a new one begin?
    pub(crate) active: bool,
    /// Empty segments, in order.
    pub(crate) ready: Vec<Segment>,
    /// Retired, and the file is still there.
    pub(crate) retired: Vec<SegmentId>,
    pub(crate) sequence: u64,
    /// The first segment number that was never used.
    pub(crate) next: u32,
    pub(crate) report: Recovery,
    pub(crate) checkpoints: Checkpoints,
    /// Files whose names have gone.
    pub(crate) nameless: Nameless,
}

/// Files that have lost their names. Their blocks are free when the last handle has gone, which may
/// take a hundred milliseconds, so that is not done while everybody waits for the start.
pub(crate) type Nameless = Vec<Arc<dyn DiskFile>>;

/// Where the disk has less than this, the blocks are needed at once.
const NAMELESS_FREE_BYTES_MIN: u64 = 256 << 20;

/// Keeps the file that is about to lose its name.
fn hold(disk: &dyn Disk, name: &str, nameless: &mut Nameless) {
    if disk.free_bytes().is_ok_and(|free| NAMELESS_FREE_BYTES_MIN <= free) {
        nameless.extend(disk.open(name));
    }
}

/// What a folder holds, before its segments are read.
#[derive(Debug)]
pub(crate) struct Survey {
    found: Inventory,
    /// The last segment that may hold records.
    last: SegmentId,
    image: Vec<u8>,
    /// The newest one is there only while it fits the log.
    pub(crate) checkpoints: Checkpoints,
}

/// Looks at all files and chooses the checkpoint to begin with.
pub(crate) fn survey(disk: &dyn Disk) -> Result<Survey, OpenError> {
    let found = inventory(disk)?;
    let mut image = Vec::new();
    let last = last_begun(disk, &found, &mut image)?;
    let mut checkpoints = checkpoint::load(disk);
    if let Some(newest) = checkpoints.newest.take() {
        match fit(&found, last, &newest.head) {
            Fit::Good => checkpoints.newest = Some(newest),
            Fit::Outdated => {}
            Fit::Not(why) => checkpoints.faults.push(format!("{} is not used: {why}", newest.name)),
        }
    }
    Ok(Survey { found, last, image, checkpoints })
}

/// Does a checkpoint speak about the log that is here?
enum Fit {
    Good,
    /// A crash took the removal of a file back that the checkpoint does not know any more; the
    /// manifest may still list it, if it was not written anew before the log failed.
    Outdated,
    Not(String),
}

/// Where a file looks damaged, the whole log is read, so that everything about it is told.
fn fit(found: &Inventory, last: SegmentId, head: &Head) -> Fit {
    if last < head.before {
        return Fit::Not(format!("the log ends before segment {}", head.before));
    }
    let Some(list) = &found.list else { return Fit::Not("there is no manifest".to_owned()) };
    for file in found.segments.iter().filter(|file| file.id < head.before) {
        let SegmentHeader::Good { salt, made, .. } = file.header else {
            return Fit::Not(format!("the header of segment {} is damaged", file.id));
        };
        let Some(listed) = head.segments.iter().find(|it| it.id == file.id) else {
            return Fit::Outdated;
        };
        let sealed = list.sealed.iter().find(|it| it.id == file.id);
        let fits = listed.salt == salt
            && sealed.is_none_or(|it| it.end == listed.end)
            && u64::from(listed.end.max(made)) <= file.file_bytes;
        if !fits {
            return Fit::Not(format!("segment {} is not what it was", file.id));
        }
    }
    let here = |id: SegmentId| found.segments.iter().any(|file| file.id == id);
    let mut gone = list.sealed.iter().filter(|entry| {
        entry.id < head.before && !here(entry.id) && !head.retired.contains(&entry.id)
    });
    match gone.next() {
        Some(entry) => Fit::Not(format!("segment {} is gone", entry.id)),
        None => Fit::Good,
    }
}

/// Recovers the folder; `visit` sees each good record once, in order, from the checkpoint on.
pub(crate) fn recover(
    disk: &dyn Disk,
    survey: Survey,
    visit: &mut dyn FnMut(Record<'_>),
) -> Result<Recovered, OpenError> {
    let Survey { found, last, mut image, checkpoints } = survey;
    let mut scanner = Scanner::new(visit);
    let mut segments = Vec::new();
    let mut ready = Vec::new();
    let mut tail = None;
    let head = begin_at(&checkpoints, &mut scanner);
    for file in &found.segments {
        if file.id > last {
            if matches!(file.header, SegmentHeader::Good { .. }) {
                ready.push(file.segment(None, &[]));
            } else {
                // An empty segment whose header is damaged is left where it is.
                scanner.recovery.quarantined.push(bad_header(file, Damage::SegmentHeader));
            }
            continue;
        }
        if let Some(head) = head.filter(|head| file.id < head.before) {
            segments.push(unread(file, head));
            continue;
        }
        let is_last = file.id == last;
        let (mut segment, ended) = scan_one(disk, &found, file, is_last, &mut image, &mut scanner)?;
        segment.open_ended = scanner.unit.is_open();
        segments.push(segment);
        tail = is_last.then_some((segment, ended));
    }
    scanner.cut_unit();
    report_absent(&found, last, &mut scanner);
    let fresh = found.segments.is_empty() && found.lists_present == 0;
    let mut report = std::mem::take(&mut scanner.recovery);
    report.orderly |= fresh || report.records == 0 && !report.is_log_damaged();
    report.manifest_rebuilt = lists_damaged(&found, &report);
    report.foreign.clone_from(&found.foreign);
    report.end = segments
        .last()
        .map_or_else(Position::default, |segment: &Segment| Position::new(segment.id, segment.end));
    let mut nameless = clear_scratch(disk, &found)?;
    set_aside(disk, &mut report, &mut segments)?;
    let mut active = tail.is_some_and(|(_, ended)| !ended.footer);
    if let Some((segment, ended)) = tail
        && !ended.footer
        && needs_rewriting(&report, scanner.proven, ended)
    {
        let rewritten = rewrite(disk, &mut image, segment, ended, &mut ready, &mut nameless)?;
        active = rewritten.capacity > 0;
        segments.pop();
        segments.push(rewritten);
        report.rewritten = true;
    }
    let highest = found.segments.last().map_or(0, |file| file.id.0);
    let listed = found.list.as_ref().map_or(0, |list| list.active.0);
    let retired = scanner.retired;
    Ok(Recovered {
        retired: segments.iter().map(|s| s.id).filter(|id| retired.contains(id)).collect(),
        active,
        segments,
        ready,
        sequence: found.list.as_ref().map_or(0, |list| list.sequence),
        // Numbers that a checkpoint claims to stand for are never given again.
        next: highest.max(listed).max(checkpoints.before_max.0) + 1,
        report,
        checkpoints,
        nameless,
    })
}

/// Lets the scanner know what the checkpoint tells of the segments before it.
fn begin_at<'c>(checkpoints: &'c Checkpoints, scanner: &mut Scanner<'_>) -> Option<&'c Head> {
    scanner.recovery.checkpoint_faults.clone_from(&checkpoints.faults);
    let head = checkpoints.newest.as_ref().map(|it| &it.head)?;
    scanner.recovery.records = head.records;
    scanner.recovery.checkpoint = Some(head.before);
    scanner.retired.extend(&head.retired);
    Some(head)
}

/// A segment that a checkpoint stands for.
fn unread(file: &Found, head: &Head) -> Segment {
    let entry = head.segments.iter().find(|entry| entry.id == file.id);
    let (end, open_ended) = entry.map_or((FIRST, false), |it| (it.end, it.open_ended));
    Segment { end, open_ended, sealed: true, ..file.segment(None, &[]) }
}

/// Both manifests are in place before the first record is. A crash may tear the one that was just
/// being written, never both and never their names.
fn lists_damaged(found: &Inventory, report: &Recovery) -> bool {
    let torn = !found.lists_whole && !report.orderly && found.list.is_some();
    report.records > 0 && (found.lists_present < 2 || !found.lists_whole && !torn)
}

/// The last segment that may hold records; those after it were prepared and never begun.
fn last_begun(
    disk: &dyn Disk,
    found: &Inventory,
    image: &mut Vec<u8>,
) -> Result<SegmentId, OpenError> {
    if found.lists_whole
        && let Some(list) = &found.list
    {
        // On a full disk the manifest may be older than the last segment.
        for file in found.segments.iter().rev().take_while(|file| file.id > list.active) {
            let is_bad = file.header == SegmentHeader::Bad;
            if file.begun || is_bad && holds_records(disk, found, file, image)? {
                return Ok(file.id);
            }
        }
        return Ok(list.active);
    }
    for file in found.segments.iter().rev() {
        if holds_records(disk, found, file, image)? {
            return Ok(file.id);
        }
    }
    Ok(found.segments.first().map_or(SegmentId(0), |file| file.id))
}

/// Is there a good record anywhere in the segment?
fn holds_records(
    disk: &dyn Disk,
    found: &Inventory,
    file: &Found,
    image: &mut Vec<u8>,
) -> Result<bool, OpenError> {
    let name = segment_name(file.id);
    read_segment(disk, file, false, image).map_err(io_error("read", &name))?;
    let segment = file.segment(found.list.as_ref(), image);
    Ok(frame::next_good(image, segment.id, segment.salt, FIRST as usize).is_some())
}

fn scan_one(
    disk: &dyn Disk,
    found: &Inventory,
    file: &Found,
    is_last: bool,
    image: &mut Vec<u8>,
    scanner: &mut Scanner<'_>,
) -> Result<(Segment, Ended), OpenError> {
    let name = segment_name(file.id);
    let (from, ended) = scan_good(disk, file, is_last, scanner)?;
    if let Some(ended) = ended {
        image.clear();
        let (end, sealed) = (shown_end(is_last, from, file), !is_last || ended.footer);
        return Ok((Segment { end, sealed, ..file.segment(None, &[]) }, ended));
    }
    let whole = match read_segment(disk, file, is_last, image) {
        Ok(whole) => whole,
        Err(_) => {
            image.clear();
            image.resize(file.file_bytes as usize, 0);
            false
        }
    };
    let list = found.list.as_ref();
    let mut segment = file.segment(list, image);
    let listed = list.and_then(|list| list.sealed.iter().find(|entry| entry.id == file.id));
    if file.header == SegmentHeader::Bad {
        let reason = if whole { Damage::SegmentHeader } else { Damage::Unreadable };
        scanner.recovery.quarantined.push(bad_header(file, reason));
    }
    let image = Image {
        id: file.id,
        salt: segment.salt,
        bytes: image,
        sealed: !is_last,
        recycled: segment.recycled,
        known_end: listed.map(|entry| entry.end),
    };
    let ended = scanner.scan_from(&image, from as usize).map_err(|newer| {
        OpenError::NewerFormat { file: name, version: u16::from(newer.0), known: FORMAT }
    })?;
    segment.end = shown_end(is_last, ended.end, file);
    segment.sealed = !is_last || ended.footer;
    // No crash makes a file shorter than it was made: its end has been cut off.
    let made = if let SegmentHeader::Good { made, .. } = file.header { made } else { 0 };
    let is_cut = file.file_bytes < u64::from(made);
    if is_cut && !ended.footer {
        let (from, to) = (Position::new(file.id, ended.end), Position::new(file.id, made));
        if !scanner.recovery.missing.iter().any(|it| it.from.segment() == file.id) {
            scanner.recovery.missing.push(Missing { from, to });
        }
    }
    segment.kept = !whole || is_cut;
    Ok((segment, ended))
}

/// Scans a segment as far as all of it is good. Returns how far, and where it ends if nothing is
/// wrong with it.
fn scan_good(
    disk: &dyn Disk,
    file: &Found,
    is_last: bool,
    scanner: &mut Scanner<'_>,
) -> Result<(u32, Option<Ended>), OpenError> {
    let SegmentHeader::Good { salt, made, .. } = file.header else { return Ok((FIRST, None)) };
    let name = segment_name(file.id);
    let opened = disk.open(&name).map_err(io_error("open", &name))?;
    let mut blank = None;
    if is_last {
        // Zeros that were never written over may come from the page cache, records may not.
        blank = blank_from(&*opened, file.file_bytes);
        // The next start looks for them again.
        opened.drop_cache(blank.and_then(NonZeroU64::new)).map_err(io_error("read", &name))?;
    }
    let (at, footer) = match stream(&*opened, file.id, salt, scanner) {
        Streamed::Whole(ended) => (ended.end, true),
        Streamed::Until(at) => (at, false),
    };
    let is_whole = u64::from(made) <= file.file_bytes;
    let is_end = || {
        let to = blank.filter(|_| scanner.may_end());
        to.is_some_and(|to| is_blank(&*opened, u64::from(at), to))
    };
    let is_good = is_whole && (footer || is_end());
    Ok((at, is_good.then_some(Ended { end: at, torn_end: at, footer })))
}

fn shown_end(is_last: bool, end: u32, file: &Found) -> u32 {
    if is_last && is_sown(Seeded::EndByBlocks) {
        return end.next_multiple_of(4096).min(file.file_bytes as u32);
    }
    end
}

fn bad_header(file: &Found, reason: Damage) -> Quarantined {
    let bytes = FIRST.min(file.file_bytes as u32);
    let (torn, copied) = (false, false);
    Quarantined { segment: file.id, offset: 0, bytes, kind: None, reason, torn, copied }
}

/// Reports segments that the newest list names, that were not retired since, and that are gone.
fn report_absent(found: &Inventory, last: SegmentId, scanner: &mut Scanner<'_>) {
    let here = |id: SegmentId| found.segments.iter().any(|file| file.id == id);
    let gone = |id: SegmentId| !here(id) && !scanner.retired.contains(&id);
    let Some(list) = found.list.as_ref().or(scanner.footer.as_ref()) else { return };
    let mut missing = Vec::new();
    for entry in list.sealed.iter().filter(|entry| gone(entry.id)) {
        let from = Position::new(entry.id, FIRST);
        missing.push(Missing { from, to: Position::new(entry.id, entry.end) });
    }
    // A footer names the segment after it; those up to the last one had footers that are gone.
    let later = if found.list.is_some() { list.active.0 } else { last.0.max(list.active.0) };
    for id in (list.active.0..=later).map(SegmentId).filter(|id| gone(*id)) {
        let from = Position::new(id, FIRST);
        missing.push(Missing { from, to: Position::new(SegmentId(id.0.saturating_add(1)), 0) });
    }
    scanner.recovery.missing.extend(missing);
    scanner.recovery.missing.sort_unstable_by_key(|range| range.from);
}

fn clear_scratch(disk: &dyn Disk, found: &Inventory) -> Result<Nameless, OpenError> {
    let mut nameless = Nameless::new();
    for name in &found.scratch {
        hold(disk, name, &mut nameless);
        disk.remove(name).map_err(io_error("remove", name))?;
    }
    if !found.scratch.is_empty() {
        disk.sync_dir("").map_err(io_error("sync", ""))?;
    }
    Ok(nameless)
}

/// Copies bad bytes to `quarantine/`. Where that fails the segment is kept instead.
fn set_aside(
    disk: &dyn Disk,
    report: &mut Recovery,
    segments: &mut [Segment],
) -> Result<(), OpenError> {
    for range in &mut report.quarantined {
        match copy_aside(disk, range) {
            Ok(()) => range.copied = true,
            Err(_) => {
                for segment in segments.iter_mut().filter(|s| s.id == range.segment) {
                    segment.kept = true;
                }
            }
        }
    }
    Ok(())
}

/// Writes one quarantine file, unless an earlier start did.
pub(crate) fn copy_aside(disk: &dyn Disk, range: &Quarantined) -> std::io::Result<()> {
    const FOLDER: &str = "quarantine";
    let name = format!("{FOLDER}/{}-{}-{}.rec", range.segment, range.offset, range.bytes);
    let source = disk.open(&segment_name(range.segment))?;
    let mut bytes = vec![0; range.bytes as usize];
    let count = source.read_at(&mut bytes, u64::from(range.offset))?;
    bytes.truncate(count);
    let target = match disk.open(&name) {
        Ok(file) => file,
        Err(_) => {
            disk.create_dir(FOLDER)?;
            disk.create(&name)?
        }
    };
    target.write_at(&bytes, 0)?;
    target.sync_data()?;
    disk.sync_dir(FOLDER)?;
    disk.sync_dir("")
}

/// Reads a segment up to its end, all of which is good.
fn load(disk: &dyn Disk, segment: Segment, image: &mut Vec<u8>) -> Result<(), OpenError> {
    let name = segment_name(segment.id);
    let file = disk.open(&name).map_err(io_error("open", &name))?;
    image.resize(segment.end as usize, 0);
    match file.read_at(image, 0).map_err(io_error("read", &name))? {
        // Without records there is nothing that must be there.
        count if count == image.len() || segment.end <= FIRST => Ok(()),
        _ => Err(io_error("read", &name)(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

fn needs_rewriting(report: &Recovery, proven: Position, ended: Ended) -> bool {
    ended.torn_end > ended.end || !report.orderly && report.end > proven
}

/// Writes the active segment again, up to its end, into a new file of the same number, and syncs
/// it: what was read may have been in the page cache only, or on a device that failed a sync.
///
/// The copy is as short as it can be, so the log goes on in the next segment. Where there is no
/// room for it, a segment that was prepared gives its file; where there is none, the bytes are
/// written again in place.
fn rewrite(
    disk: &dyn Disk,
    image: &mut Vec<u8>,
    segment: Segment,
    ended: Ended,
    ready: &mut Vec<Segment>,
    nameless: &mut Nameless,
) -> Result<Segment, OpenError> {
    if image.is_empty() {
        load(disk, segment, image)?;
    }
    let scratch = scratch_name(segment.id.0);
    let name = segment_name(segment.id);
    match copy(disk, image, segment, &scratch) {
        Ok(copied) => {
            hold(disk, &name, nameless);
            disk.rename(&scratch, &name).map_err(io_error("rename", &scratch))?;
            disk.sync_dir("").map_err(io_error("sync", ""))?;
            return Ok(copied);
        }
        Err(error) if is_full(&error) => {
            if disk.remove(&scratch).is_ok() {
                disk.sync_dir("").map_err(io_error("sync", ""))?;
            }
        }
        Err(error) => return Err(io_error("write", &scratch)(error)),
    }
    let fits = |spare: &Segment| spare.capacity > segment.end;
    if let Some(spare) = ready.last().copied().filter(fits) {
        ready.pop();
        let spare_name = segment_name(spare.id);
        disk.rename(&spare_name, &scratch).map_err(io_error("rename", &spare_name))?;
        disk.sync_dir("").map_err(io_error("sync", ""))?;
        let taken = Segment { capacity: spare.capacity, recycled: spare.recycled, ..segment };
        write_copy(disk, image, taken, &scratch).map_err(io_error("write", &scratch))?;
        disk.rename(&scratch, &name).map_err(io_error("rename", &scratch))?;
        disk.sync_dir("").map_err(io_error("sync", ""))?;
        return Ok(taken);
    }
    let mut again = image[..segment.end as usize].to_vec();
    again.resize(ended.torn_end.max(segment.end) as usize, 0);
    let file = disk.open(&name).map_err(io_error("open", &name))?;
    file.write_at(&again, 0).map_err(io_error("write", &name))?;
    file.sync_data().map_err(io_error("sync", &name))?;
    Ok(segment)
}

fn copy(
    disk: &dyn Disk,
    image: &[u8],
    segment: Segment,
    scratch: &str,
) -> std::io::Result<Segment> {
    let room = list_size(4096) as u32;
    let capacity = segment.end.saturating_add(room).min(segment.capacity.max(segment.end + 4096));
    let file = disk.create(scratch)?;
    file.allocate(u64::from(capacity))?;
    let zeros = vec![0; (capacity - segment.end) as usize];
    file.write_at(&zeros, u64::from(segment.end))?;
    let short = Segment { capacity, recycled: false, ..segment };
    write_copy(disk, image, short, scratch)?;
    Ok(short)
}

fn write_copy(
    disk: &dyn Disk,
    image: &[u8],
    segment: Segment,
    scratch: &str,
) -> std::io::Result<()> {
    let file = disk.open(scratch)?;
    file.write_at(&encode_header(&segment), 0)?;
    if segment.end > FIRST {
        file.write_at(&image[FIRST as usize..segment.end as usize], u64::from(FIRST))?;
    }
    if is_sown(Seeded::RenameBeforeSync) {
        return Ok(());
    }
    file.sync_data()
}

/// The list of segments as it stands.
pub(crate) fn list_of<'a>(
    sequence: u64,
    active: SegmentId,
    segments: impl Iterator<Item = &'a Segment>,
) -> List {
    let sealed = segments
        .filter(|segment| segment.sealed && segment.id < active)
        .map(Segment::listed)
        .collect();
    List { sequence, active, sealed }
}
