//! Opens disks that a crash has left, and judges what is on them.

use crate::{
    drain::{check_reclaim, drain},
    history::History,
    host::{Host, Sizes},
    judge::judge,
    random::Random,
    world::SpecId,
};
use model::Timestamp;
use storage::MemoryDisk;

/// What every disk of a simulation is judged with.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    pub sizes: Sizes,
    pub specs: &'a [SpecId],
    pub now: Timestamp,
    /// The stop before was an orderly one.
    pub orderly: bool,
    pub may_fail: bool,
}

impl Bench<'_> {
    /// Opens a disk.
    ///
    /// # Errors
    /// A text: it does not open, or recovery finds what must not be there.
    pub fn open(&self, disk: &MemoryDisk, seed: u64) -> Result<Host, String> {
        let host = Host::open(disk.clone(), self.sizes, self.now, seed)?;
        // On a full disk the mark of the stop is left out.
        if self.orderly && !host.recovery.orderly && !self.may_fail {
            return Err("an orderly stop is not known as one".to_owned());
        }
        host.complaint().map_or(Ok(host), Err)
    }

    /// Opens the disk, sometimes after more crashes, empties it and judges. Returns how many states
    /// were judged.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn judge(
        &self,
        disk: MemoryDisk,
        history: &History,
        random: &mut Random,
    ) -> Result<u64, String> {
        match random.below(8) {
            // The power goes again right after the start.
            0 => {
                let host = self.open(&disk, random.number())?;
                drop(host);
                let after = Self { orderly: false, ..*self };
                after
                    .judge_once(&disk.crash(random.number()), history, random)
                    .map_err(|it| format!("crash after a start: {it}"))
            }
            // The power goes during the start.
            1 => {
                let copy = disk.crash(random.number());
                copy.record_crashes(random.number());
                drop(self.open(&copy, random.number())?);
                let mut crashes = copy.take_crashes();
                let mut states = 0;
                let after = Self { orderly: false, ..*self };
                for _ in 0..3.min(crashes.len()) {
                    let crash = crashes.swap_remove(random.index(crashes.len()));
                    let judged = after.judge_once(&crash, history, random);
                    states += judged.map_err(|it| format!("crash within a start: {it}"))?;
                }
                Ok(states)
            }
            _ => self.judge_once(&disk, history, random),
        }
    }

    fn judge_once(
        &self,
        disk: &MemoryDisk,
        history: &History,
        random: &mut Random,
    ) -> Result<u64, String> {
        let mut host = self.open(disk, random.number())?;
        let drained = drain(&host, history, self.specs)?;
        let wrong = judge(history, &drained, self.specs);
        if !wrong.is_empty() {
            let more = wrong.len().saturating_sub(3);
            let recovery = &host.recovery;
            let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
            return Err(format!("{shown}; {more} more; {recovery:?}"));
        }
        if random.once_in(8) {
            check_reclaim(&mut host)?;
        }
        host.complaint().map_or(Ok(1), Err)
    }
}
