//! A shard: some queues and the ring through which commands come. Whoever brings work turns it; who
//! finds it taken leaves the batch in the ring and goes on, and the holder takes it before letting
//! go.

use crate::{
    hand_over::{Aftermath, HandOver},
    shared::Shared,
    turn::State,
};
use model::{LogPosition, ShardId, Timestamp, limits};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

pub(crate) struct Shard {
    ring: Mutex<VecDeque<HandOver>>,
    /// There is something to do although the ring may be empty: a sync has returned, or a timer is
    /// due.
    poked: AtomicBool,
    deadline: AtomicU64,
    state: Mutex<State>,
}

impl Shard {
    pub(crate) fn new(id: ShardId) -> Self {
        Self {
            ring: Mutex::default(),
            poked: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            state: Mutex::new(State::new(id)),
        }
    }

    /// Leaves a batch; the caller turns the shard afterwards.
    pub(crate) fn hand_over(&self, batch: HandOver) {
        self.ring.lock().push_back(batch);
    }

    /// The next turn is to look at what waits for the disk and at the timers.
    pub(crate) fn poke(&self) {
        self.poked.store(true, Ordering::Release);
    }

    /// When its next timer is due.
    pub(crate) fn deadline(&self) -> Timestamp {
        Timestamp(self.deadline.load(Ordering::Acquire))
    }

    fn has_work(&self) -> bool {
        self.poked.load(Ordering::Acquire) || !self.ring.lock().is_empty()
    }

    /// Turns the shard as long as there is work and nobody else does. What it leaves to be done is
    /// added to `aftermath`.
    pub(crate) fn turn(&self, shared: &Shared, now: Timestamp, aftermath: &mut Aftermath) {
        // After letting go, look again: who came meanwhile found the shard taken and went on.
        while self.has_work() {
            let Some(mut state) = self.state.try_lock() else {
                if self.ring.lock().len() < limits::RING_HANDOVERS_MAX {
                    return;
                }
                // The ring is full: who brings more waits for the holder.
                self.turn_held(&mut self.state.lock(), shared, now, aftermath);
                continue;
            };
            self.turn_held(&mut state, shared, now, aftermath);
        }
    }

    fn turn_held(
        &self,
        state: &mut State,
        shared: &Shared,
        now: Timestamp,
        aftermath: &mut Aftermath,
    ) {
        self.poked.store(false, Ordering::Release);
        std::mem::swap(&mut *self.ring.lock(), &mut state.incoming);
        state.tick(shared, now, aftermath);
        while let Some(batch) = state.incoming.pop_front() {
            state.take(batch, shared, now, aftermath);
        }
        if let Some(wanted) = state.end_turn(shared) {
            shared.want_durable(wanted);
        }
        let deadline = state.deadline().map_or(u64::MAX, |it| it.0);
        if deadline < self.deadline.swap(deadline, Ordering::AcqRel) {
            shared.hooks.deadline_moved();
        }
    }

    /// Exclusive access, for recovery, reclaim and an orderly stop.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Ends what was begun under [`Shard::lock`].
    pub(crate) fn finish(&self, state: &mut State, shared: &Shared) -> Option<LogPosition> {
        let wanted = state.end_turn(shared);
        if let Some(wanted) = wanted {
            shared.want_durable(wanted);
        }
        let deadline = state.deadline().map_or(u64::MAX, |it| it.0);
        self.deadline.store(deadline, Ordering::Release);
        wanted
    }
}
