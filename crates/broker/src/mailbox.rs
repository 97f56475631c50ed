//! Where the broker leaves notices for one session. Shards push batches, the session's worker takes
//! all at once; only the push that finds it empty wakes.

use model::Notice;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll, Waker},
};

/// Replies that may wait for one session; further ones are dropped, as a reply address promises
/// nothing.
const REPLIES_MAX: usize = 100_000;

/// What a session that publishes does to queues whose consumers are slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Much waits for consumers that could catch up: it does well to let them, for so long.
    Backlog { pause_ms: u8 },
    /// Memory is full of it: it does well to pause until there is room.
    Memory,
}

/// How memory stands among the milliseconds of a backlog.
const MEMORY: u8 = u8::MAX;

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inside: Mutex<Inside>,
    pressure: AtomicU8,
}

#[derive(Debug, Default)]
struct Inside {
    notices: Vec<Notice>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Moves everything in `notices` behind what waits.
    pub(crate) fn push_all(&self, notices: &mut Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let waker = {
            let mut inside = self.inside.lock();
            if inside.notices.is_empty() {
                // Both vectors keep their capacity: in steady state nobody allocates.
                std::mem::swap(&mut inside.notices, notices);
            } else {
                inside.notices.append(notices);
            }
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn push(&self, notice: Notice) {
        let waker = {
            let mut inside = self.inside.lock();
            inside.notices.push(notice);
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The session publishes faster than its consumers can be served.
    pub(crate) fn press(&self, pressure: Pressure) {
        let pressure = match pressure {
            Pressure::Backlog { pause_ms } => pause_ms,
            Pressure::Memory => MEMORY,
        };
        self.pressure.fetch_max(pressure, Ordering::Relaxed);
    }

    /// Whether it did since this was last asked.
    pub(crate) fn take_pressure(&self) -> Option<Pressure> {
        if self.pressure.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match self.pressure.swap(0, Ordering::Relaxed) {
            0 => None,
            MEMORY => Some(Pressure::Memory),
            pause_ms => Some(Pressure::Backlog { pause_ms }),
        }
    }

    /// Pushes a reply, unless too many wait already.
    pub(crate) fn push_reply(&self, notice: Notice) {
        if self.inside.lock().notices.len() < REPLIES_MAX {
            self.push(notice);
        }
    }

    /// Moves everything that waits into `out`, or remembers whom to wake.
    pub(crate) fn poll(&self, context: &mut Context<'_>, out: &mut Vec<Notice>) -> Poll<()> {
        let mut inside = self.inside.lock();
        if inside.notices.is_empty() {
            if !inside.waker.as_ref().is_some_and(|it| it.will_wake(context.waker())) {
                inside.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        if out.is_empty() {
            std::mem::swap(&mut inside.notices, out);
        } else {
            out.append(&mut inside.notices);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_batch_wakes_once_and_keeps_its_order() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mailbox = Mailbox::default();
        let mut out = Vec::new();
        assert!(mailbox.poll(&mut context, &mut out).is_pending());
        let confirmed =
            |first| Notice::Confirmed { channel: model::ChannelId(1), first, last: first };
        mailbox.push_all(&mut vec![confirmed(1), confirmed(2)]);
        mailbox.push(confirmed(3));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(mailbox.poll(&mut context, &mut out).is_ready());
        let firsts: Vec<u64> = out
            .iter()
            .map(|it| if let Notice::Confirmed { first, .. } = it { *first } else { 0 })
            .collect();
        assert_eq!(firsts, [1, 2, 3]);
    }
}
