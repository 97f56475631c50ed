//! Notices on their way out of a shard. The one place that looks at what waits for the disk: what
//! waits for nothing, or for something durable already, leaves at the end of its turn; the rest
//! stands in a ring by log position and leaves when the log says that this position is durable.

use crate::mailbox::Mailbox;
use foldhash::HashMap;
use model::{LogPosition, Notice, SessionId};
use std::{collections::VecDeque, sync::Arc};
use stdx::seeded::{Seeded, is_sown};

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_session: HashMap<SessionId, usize>,
    /// Where the last look-up ended; notices come in runs.
    recent: usize,
    /// Slots with something in `leaving`.
    dirty: Vec<usize>,
    /// What this turn left to wait, and the newest position that any of it waits for.
    staged: Vec<(SessionId, Notice)>,
    staged_after: LogPosition,
    waiting: VecDeque<Batch>,
    /// Empty vectors with capacity, for the next turns.
    spare: Vec<Vec<(SessionId, Notice)>>,
}

#[derive(Debug)]
struct Slot {
    session: SessionId,
    mailbox: Arc<Mailbox>,
    leaving: Vec<Notice>,
}

#[derive(Debug)]
struct Batch {
    after: LogPosition,
    notices: Vec<(SessionId, Notice)>,
}

/// Vectors kept for reuse.
const SPARE_MAX: usize = 16;

impl Outbox {
    /// Notices of this session go to this mailbox.
    pub(crate) fn register(&mut self, session: SessionId, mailbox: &Arc<Mailbox>) {
        if self.find(session).is_none() {
            let slot = Slot { session, mailbox: Arc::clone(mailbox), leaving: Vec::new() };
            let at = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            self.slots[at] = Some(slot);
            self.by_session.insert(session, at);
        }
    }

    #[inline]
    fn find(&mut self, session: SessionId) -> Option<&mut Slot> {
        let is_of = |it: &Option<Slot>| it.as_ref().is_some_and(|it| it.session == session);
        if !self.slots.get(self.recent).is_some_and(is_of) {
            self.recent = *self.by_session.get(&session)?;
        }
        self.slots[self.recent].as_mut()
    }

    /// What is still to be said to the session is dropped.
    pub(crate) fn forget(&mut self, session: SessionId) {
        if let Some(at) = self.by_session.remove(&session) {
            self.slots[at] = None;
            self.free.push(at);
        }
    }

    /// Says it at the end of this turn, or once `after` is durable.
    pub(crate) fn push(
        &mut self,
        session: SessionId,
        notice: Notice,
        after: Option<LogPosition>,
        durable: LogPosition,
    ) {
        // A delivery that could leave does not overtake one of its queue that waits.
        let is_behind = matches!(notice, Notice::Delivery(_) | Notice::Fetched { .. })
            && !(self.waiting.is_empty() && self.staged.is_empty());
        let joins = is_sown(Seeded::ConfirmPastWaiting) && self.joins_leaving(session, &notice);
        match after {
            Some(after) if (durable < after || is_behind) && !joins => {
                self.staged_after = self.staged_after.max(after);
                let before = self.staged.last_mut().filter(|(same, _)| *same == session);
                if !extends(before.map(|(_, it)| it), &notice) {
                    self.staged.push((session, notice));
                }
            }
            _ => self.leave(session, notice),
        }
    }

    /// Does this confirm go on where the last notice that leaves ends?
    fn joins_leaving(&mut self, session: SessionId, notice: &Notice) -> bool {
        let last = self.find(session).and_then(|it| it.leaving.last());
        last.is_some_and(|it| joined(it, notice).is_some())
    }

    fn leave(&mut self, session: SessionId, notice: Notice) {
        let Some(slot) = self.find(session) else { return };
        let is_first = slot.leaving.is_empty();
        if !extends(slot.leaving.last_mut(), &notice) {
            slot.leaving.push(notice);
        }
        if is_first {
            self.dirty.push(self.recent);
        }
    }

    /// Ends a turn: what this turn staged joins the ring, what is durable leaves it, and every
    /// mailbox gets its batch. Returns the newest position that is waited for, if any.
    pub(crate) fn release(&mut self, durable: LogPosition) -> Option<LogPosition> {
        if !self.staged.is_empty() {
            // The ring stays sorted although sessions append in their own order.
            let newest = self.waiting.back().map_or(LogPosition(0), |it| it.after);
            let after = self.staged_after.max(newest);
            let notices = std::mem::replace(&mut self.staged, self.spare.pop().unwrap_or_default());
            self.waiting.push_back(Batch { after, notices });
            self.staged_after = LogPosition(0);
        }
        while self.waiting.front().is_some_and(|it| it.after <= durable) {
            let Some(mut batch) = self.waiting.pop_front() else { break };
            for (session, notice) in batch.notices.drain(..) {
                self.leave(session, notice);
            }
            if self.spare.len() < SPARE_MAX {
                self.spare.push(batch.notices);
            }
        }
        for at in self.dirty.drain(..) {
            if let Some(slot) = &mut self.slots[at] {
                slot.mailbox.push_all(&mut slot.leaving);
            }
        }
        self.waiting.back().map(|it| it.after)
    }
}

/// Two confirms in a row as one.
fn joined(before: &Notice, notice: &Notice) -> Option<Notice> {
    match (before, notice) {
        (
            Notice::Confirmed { channel, first, last },
            Notice::Confirmed { channel: same, first: next, last: end },
        ) if channel == same && *last + 1 == *next => {
            Some(Notice::Confirmed { channel: *channel, first: *first, last: *end })
        }
        _ => None,
    }
}

/// Joins a confirm to the one before it. Returns whether it did.
fn extends(before: Option<&mut Notice>, notice: &Notice) -> bool {
    let Some(before) = before else { return false };
    let Some(joined) = joined(before, notice) else { return false };
    *before = joined;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ChannelId;
    use std::task::{Context, Waker};

    const SESSION: SessionId = SessionId(1);

    fn said(mailbox: &Mailbox) -> String {
        let mut out = Vec::new();
        let _ = mailbox.poll(&mut Context::from_waker(Waker::noop()), &mut out);
        let text = out.iter().map(|it| match it {
            Notice::Confirmed { first, last, .. } => format!("{first}-{last}"),
            other => format!("{other:?}"),
        });
        text.collect::<Vec<_>>().join(" ")
    }

    fn confirm(number: u64) -> Notice {
        Notice::Confirmed { channel: ChannelId(1), first: number, last: number }
    }

    fn outbox() -> (Outbox, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut outbox = Outbox::default();
        outbox.register(SESSION, &mailbox);
        (outbox, mailbox)
    }

    #[test]
    fn nothing_leaves_before_its_position_is_durable() {
        let (mut outbox, mailbox) = outbox();
        outbox.push(SESSION, confirm(1), Some(LogPosition(10)), LogPosition(0));
        outbox.push(SESSION, confirm(2), Some(LogPosition(20)), LogPosition(0));
        assert_eq!(outbox.release(LogPosition(19)), Some(LogPosition(20)));
        assert_eq!(said(&mailbox), "");
        assert_eq!(outbox.release(LogPosition(20)), None);
        assert_eq!(said(&mailbox), "1-2");
    }

    #[test]
    fn run_of_confirms_ends_before_one_that_waits() {
        let (mut outbox, mailbox) = outbox();
        outbox.push(SESSION, confirm(1), None, LogPosition(0));
        outbox.push(SESSION, confirm(2), Some(LogPosition(10)), LogPosition(0));
        outbox.release(LogPosition(0));
        assert_eq!(said(&mailbox), "1-1");
        outbox.release(LogPosition(10));
        assert_eq!(said(&mailbox), "2-2");
    }

    #[test]
    fn later_turn_never_overtakes_an_earlier_one() {
        let (mut outbox, mailbox) = outbox();
        outbox.push(SESSION, confirm(1), Some(LogPosition(20)), LogPosition(0));
        outbox.release(LogPosition(0));
        outbox.push(SESSION, confirm(2), Some(LogPosition(10)), LogPosition(0));
        outbox.release(LogPosition(15));
        assert_eq!(said(&mailbox), "");
        outbox.release(LogPosition(20));
        assert_eq!(said(&mailbox), "1-2");
    }

    #[test]
    fn what_is_durable_already_leaves_with_its_turn() {
        let (mut outbox, mailbox) = outbox();
        outbox.push(SESSION, confirm(7), Some(LogPosition(5)), LogPosition(5));
        outbox.push(SESSION, confirm(9), None, LogPosition(5));
        assert_eq!(outbox.release(LogPosition(5)), None);
        assert_eq!(said(&mailbox), "7-7 9-9");
    }
}
