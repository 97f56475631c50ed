//! A disk in memory that can lose power, fail and fill up: the fake behind crash tests and the
//! simulator.
//!
//! What is not synced is pending: writes per file, names per folder. A crash keeps any subset of
//! it, writes torn at 512 bytes. A failed sync behaves as on Linux: the pages count as clean, reads
//! still show them, and only a read past the cache sees that the device never got them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock};

/// Writes are torn at this many bytes.
const SECTOR: usize = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The device failed. A failed sync loses what was pending in that file.
    Eio,
    /// No space. From a sync it loses what was pending, as [`FaultKind::Eio`] does.
    Enospc,
    /// A write, sync or reservation is interrupted by a signal before it did anything; calls on
    /// names are not affected.
    Eintr,
    /// A write takes only half of the bytes; other operations are not affected.
    Short,
}

/// One operation that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number of the operation, from 0; see [`MemoryDisk::operations`].
    pub at: u64,
    /// How it fails.
    pub kind: FaultKind,
    /// Do all later operations fail as well?
    pub forever: bool,
}

#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What a read shows.
    current: Vec<u8>,
    /// What the device has.
    durable: Vec<u8>,
    /// Written since the last sync, in order.
    pending: Vec<Write>,
    /// Counts the open handles.
    handles: Arc<()>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    folders: BTreeSet<String>,
    locked: bool,
    operations: u64,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    unreadable: Vec<String>,
    random: u64,
    recording: Option<u64>,
    crashes: Vec<MemoryDisk>,
}

/// A disk in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as it may look after the power went: synced bytes and names, and any legal subset
    /// of the rest, chosen by `seed`. This disk is not changed.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        self.0.lock().crash(seed)
    }

    /// Operations so far that change the disk: writes, syncs, names, reservations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.unreadable.clear();
    }

    /// From now on the files may have at most `bytes` together; `None` lifts the limit.
    pub fn limit(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Every read of the file fails with EIO.
    pub fn make_unreadable(&self, name: &str) {
        self.0.lock().unreadable.push(name.to_owned());
    }

    /// After every operation from now on, keeps one disk that lost power just then.
    pub fn record_crashes(&self, seed: u64) {
        self.0.lock().recording = Some(seed);
    }

    /// The disks recorded since the last call.
    #[must_use]
    pub fn take_crashes(&self) -> Vec<MemoryDisk> {
        std::mem::take(&mut self.0.lock().crashes)
    }

    /// The content of a file, as a read would show it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.names.get(name)?;
        Some(state.inodes[inode].current.clone())
    }

    /// Sets the content of a file, durably: how tests damage, add and cut files.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let inode = Inode { current: bytes.clone(), durable: bytes, ..Inode::default() };
        let number = state.add(inode);
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }

    /// Removes a file, durably.
    pub fn remove_content(&self, name: &str) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// All names, with sub-folders.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// A disk of its own with the same content; what was pending counts as synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let mut copy = State { folders: state.folders.clone(), ..State::default() };
        copy.random = state.random;
        copy.inode_next = state.inode_next;
        for (name, number) in &state.names {
            let bytes = state.inodes[number].current.clone();
            let inode = Inode { current: bytes.clone(), durable: bytes, ..Inode::default() };
            copy.inodes.insert(*number, inode);
            copy.names.insert(name.clone(), *number);
        }
        copy.durable_names = copy.names.clone();
        Self(Arc::new(Mutex::new(copy)))
    }

    /// A disk of its own in the same state: what was pending still is, and what only the cache has
    /// only the cache has. It does not fail.
    #[must_use]
    pub fn twin(&self) -> Self {
        let state = self.0.lock();
        let apart = |inode: &Inode| Inode { handles: Arc::default(), ..inode.clone() };
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.iter().map(|(number, it)| (*number, apart(it))).collect(),
            inode_next: state.inode_next,
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            folders: state.folders.clone(),
            random: state.random,
            ..State::default()
        })))
    }
}

fn apply(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl NameChange {
    fn folder(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Remove(name) => folder_of(name),
            Self::Rename(_, to, _) => folder_of(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn error_of(kind: FaultKind) -> io::Error {
    let errno = match kind {
        FaultKind::Eio | FaultKind::Short => rustix::io::Errno::IO,
        FaultKind::Enospc => rustix::io::Errno::NOSPC,
        FaultKind::Eintr => rustix::io::Errno::INTR,
    };
    errno.into()
}

impl State {
    fn add(&mut self, inode: Inode) -> u64 {
        let number = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn crash(&self, seed: u64) -> MemoryDisk {
        let mut random = seed;
        // Of ten: nothing pending survives, everything does, or a share of it.
        let share = [0, 10, 5, 9, 1][(next_random(&mut random) % 5) as usize];
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            if next_random(&mut random) % 10 < share {
                change.apply(&mut names);
            }
        }
        let mut inodes = BTreeMap::new();
        for number in names.values() {
            let inode = &self.inodes[number];
            let mut content = inode.durable.clone();
            for write in &inode.pending {
                let mut at = 0;
                while at < write.bytes.len() {
                    let to_edge = SECTOR - (write.offset + at) % SECTOR;
                    let end = (at + to_edge).min(write.bytes.len());
                    if next_random(&mut random) % 10 < share {
                        apply(&mut content, write.offset + at, &write.bytes[at..end]);
                    }
                    at = end;
                }
            }
            let inode = Inode { current: content.clone(), durable: content, ..Inode::default() };
            inodes.insert(*number, inode);
        }
        MemoryDisk(Arc::new(Mutex::new(State {
            inodes,
            inode_next: self.inode_next,
            durable_names: names.clone(),
            names,
            folders: self.folders.clone(),
            random: self.random ^ random,
            capacity: self.capacity,
            ..State::default()
        })))
    }

    /// Counts an operation and says how it fails.
    fn step(&mut self) -> Option<FaultKind> {
        let number = self.operations;
        self.operations += 1;
        let hit = |fault: &&Fault| fault.at == number || fault.forever && fault.at < number;
        self.faults.iter().find(hit).map(|fault| fault.kind)
    }

    fn step_or_fail(&mut self) -> io::Result<()> {
        match self.step() {
            None | Some(FaultKind::Short | FaultKind::Eintr) => Ok(()),
            Some(kind) => Err(error_of(kind)),
        }
    }

    fn done(&mut self) {
        if let Some(seed) = self.recording {
            let crash = self.crash(seed ^ self.operations.wrapping_mul(0x0051_7CC1_B727_220A));
            self.crashes.push(crash);
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|number| self.inodes[number].current.len() as u64).sum()
    }

    fn reserve(&self, inode: u64, end: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let more = end.saturating_sub(self.inodes[&inode].current.len()) as u64;
        if more > 0 && self.used() + more > capacity {
            return Err(error_of(FaultKind::Enospc));
        }
        Ok(())
    }

    fn forget_unnamed(&mut self) {
        let mut named: BTreeSet<u64> = self.names.values().copied().collect();
        named.extend(self.durable_names.values());
        named.extend(self.pending_names.iter().filter_map(|change| match change {
            NameChange::Set(_, inode) | NameChange::Rename(_, _, inode) => Some(*inode),
            NameChange::Remove(_) => None,
        }));
        self.inodes.retain(|number, inode| {
            named.contains(number) || Arc::strong_count(&inode.handles) > 1
        });
    }

    fn lookup(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct MemoryLock(MemoryDisk);

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

impl MemoryDisk {
    fn handle(&self, state: &State, inode: u64) -> Arc<dyn DiskFile> {
        let held = state.inodes[&inode].handles.clone();
        Arc::new(MemoryFile { disk: self.clone(), inode, _held: held })
    }
}

impl Disk for MemoryDisk {
    fn lock(&self) -> io::Result<DiskLock> {
        let mut state = self.0.lock();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(MemoryLock(self.clone())))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        let inode = state.lookup(name)?;
        Ok(self.handle(&state, inode))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step_or_fail()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !folder_of(name).is_empty() && !state.folders.contains(folder_of(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = state.add(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.pending_names.push(NameChange::Set(name.to_owned(), inode));
        state.done();
        Ok(self.handle(&state, inode))
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_or_fail()?;
        state.folders.insert(folder.to_owned());
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|name| folder_of(name) == folder);
        let strip = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
        Ok(inside.map(strip).collect())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_or_fail()?;
        let changes = std::mem::take(&mut state.pending_names);
        for change in changes {
            if change.folder() == folder {
                change.apply(&mut state.durable_names);
            } else {
                state.pending_names.push(change);
            }
        }
        state.forget_unnamed();
        state.done();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_or_fail()?;
        let inode = state.lookup(from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        change.apply(&mut state.names);
        state.pending_names.push(change);
        state.done();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step_or_fail()?;
        state.lookup(name)?;
        let change = NameChange::Remove(name.to_owned());
        change.apply(&mut state.names);
        state.pending_names.push(change);
        state.done();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().capacity.unwrap_or(u64::MAX))
    }

    fn random(&self) -> io::Result<u64> {
        Ok(next_random(&mut self.0.lock().random))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    _held: Arc<()>,
}

const HELD: &str = "an inode lives while a handle to it does";

impl DiskFile for MemoryFile {
    fn read_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        if state.unreadable.iter().any(|name| state.names.get(name) == Some(&self.inode)) {
            return Err(error_of(FaultKind::Eio));
        }
        let content = &state.inodes.get(&self.inode).expect(HELD).current;
        let start = (offset as usize).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_once(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        let fault = state.step();
        let bytes = match fault {
            Some(FaultKind::Short) if bytes.len() > 1 => &bytes[..bytes.len() / 2],
            None | Some(FaultKind::Short) => bytes,
            Some(kind) => return Err(error_of(kind)),
        };
        let offset = offset as usize;
        state.reserve(self.inode, offset + bytes.len())?;
        let inode = state.inodes.get_mut(&self.inode).expect(HELD);
        apply(&mut inode.current, offset, bytes);
        inode.pending.push(Write { offset, bytes: bytes.to_vec() });
        state.done();
        Ok(bytes.len())
    }

    fn sync_once(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.step();
        let inode = state.inodes.get_mut(&self.inode).expect(HELD);
        match fault {
            None | Some(FaultKind::Short) => {}
            Some(FaultKind::Eintr) => return Err(error_of(FaultKind::Eintr)),
            Some(kind) => {
                // The pages are clean now, though the device never had them.
                inode.pending.clear();
                return Err(error_of(kind));
            }
        }
        for write in std::mem::take(&mut inode.pending) {
            apply(&mut inode.durable, write.offset, &write.bytes);
        }
        state.done();
        Ok(())
    }

    fn allocate_once(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        match state.step() {
            None | Some(FaultKind::Short) => {}
            Some(kind) => return Err(error_of(kind)),
        }
        state.reserve(self.inode, bytes as usize)?;
        let inode = state.inodes.get_mut(&self.inode).expect(HELD);
        let from = inode.current.len();
        if (bytes as usize) > from {
            let zeros = vec![0; bytes as usize - from];
            apply(&mut inode.current, from, &zeros);
            inode.pending.push(Write { offset: from, bytes: zeros });
        }
        state.done();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes.get(&self.inode).expect(HELD).current.len() as u64)
    }

    fn drop_cache(&self, _bytes: Option<NonZeroU64>) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let inode = state.inodes.get_mut(&self.inode).expect(HELD);
        let mut content = inode.durable.clone();
        for write in &inode.pending {
            apply(&mut content, write.offset, &write.bytes);
        }
        inode.current = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_and_names_survive_every_crash_and_others_need_not() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 2048], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[2; 2048], 0).unwrap();
        disk.create("b").unwrap();
        let mut torn = false;
        let mut unnamed = false;
        for seed in 0..100 {
            let after = disk.crash(seed);
            let content = after.content("a").unwrap();
            assert!(content.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0])));
            torn |= content.contains(&1) && content.contains(&2);
            unnamed |= after.content("b").is_none();
        }
        assert!(torn && unnamed);
    }

    #[test]
    fn a_failed_sync_leaves_pages_that_only_the_cache_has() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        disk.fail(Fault { at: 2, kind: FaultKind::Eio, forever: false });
        file.write_at(b"x", 0).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.content("a").unwrap(), b"x");
        file.drop_cache(None).unwrap();
        assert_eq!(disk.content("a").unwrap(), b"");
    }
}
