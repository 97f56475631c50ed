//! A queue of jobs and what its shard knows of it.

use crate::shared::Shared;
use engine::{Command, Effect, JobCommand, JobQueue};
use model::Timestamp;

pub(crate) struct HeldJobs {
    pub(crate) queue: JobQueue,
    resident: u64,
    pub(crate) wake_at: Option<Timestamp>,
}

impl HeldJobs {
    pub(crate) fn new(queue: JobQueue) -> Self {
        Self { queue, resident: 0, wake_at: None }
    }

    pub(crate) fn apply(
        &mut self,
        command: Command,
        shared: &Shared,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.queue.apply(command, now, effects);
        self.tell_budget(shared);
    }

    pub(crate) fn ask(
        &mut self,
        command: JobCommand,
        shared: &Shared,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.queue.ask(command, now, effects);
        self.tell_budget(shared);
    }

    /// Tells the budget what the queue holds now.
    pub(crate) fn tell_budget(&mut self, shared: &Shared) {
        let resident = self.queue.resident_bytes();
        shared.budget.add(resident.cast_signed() - self.resident.cast_signed());
        self.resident = resident;
    }

    /// The queue goes.
    pub(crate) fn leave_budget(&mut self, shared: &Shared) {
        shared.budget.add(-self.resident.cast_signed());
        self.resident = 0;
    }
}
