//! Heartbeats and time limits of one connection. The time is handed in.

use model::Timestamp;

/// How long a client may take to open a connection, and to answer a close.
const PATIENCE_MS: u64 = 10_000;
const MILLIS: u64 = 1_000;

/// When something is due.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Between heartbeats; 0 is none.
    interval_ms: u64,
    received: Timestamp,
    sent: Timestamp,
    /// When the connection ends unless it goes on.
    deadline: Option<Timestamp>,
    is_limited: bool,
}

/// What the time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Heartbeat,
    /// The peer was silent for two intervals.
    Silence,
    /// The peer took too long to open or to close.
    Overdue,
}

impl Pulse {
    /// A connection that has to open within its time.
    pub(crate) fn new() -> Self {
        Self { is_limited: true, ..Self::default() }
    }

    /// The connection is open, with this many seconds between heartbeats.
    pub(crate) fn open(&mut self, interval_s: u16) {
        self.interval_ms = u64::from(interval_s) * MILLIS;
        self.is_limited = false;
        self.deadline = None;
    }

    /// From now on, by the next look at the clock, an answer has to come.
    pub(crate) fn limit(&mut self) {
        self.is_limited = true;
        self.deadline = None;
    }

    pub(crate) fn received(&mut self, now: Timestamp) {
        self.received = now;
    }

    pub(crate) fn sent(&mut self, now: Timestamp) {
        self.sent = now;
    }

    /// Looks at the clock.
    pub(crate) fn look(&mut self, now: Timestamp) -> Due {
        if self.is_limited && self.deadline.is_none() {
            self.deadline = Some(now.plus_ms(PATIENCE_MS));
        }
        if self.deadline.is_some_and(|it| it <= now) {
            return Due::Overdue;
        }
        if self.interval_ms == 0 || self.is_limited {
            return Due::Nothing;
        }
        if self.received.plus_ms(2 * self.interval_ms) <= now {
            return Due::Silence;
        }
        if self.sent.plus_ms(self.interval_ms / 2) <= now { Due::Heartbeat } else { Due::Nothing }
    }

    /// When to look at the clock again.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_limited {
            return Some(self.deadline.unwrap_or(now));
        }
        if self.interval_ms == 0 {
            return None;
        }
        let heartbeat = self.sent.plus_ms(self.interval_ms / 2);
        Some(heartbeat.min(self.received.plus_ms(2 * self.interval_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis)
    }

    #[test]
    fn a_connection_opens_in_time_or_ends() {
        let mut pulse = Pulse::new();
        assert_eq!(pulse.look(at(5)), Due::Nothing);
        assert_eq!(pulse.next(at(5)), Some(at(10_005)));
        assert_eq!(pulse.look(at(10_004)), Due::Nothing);
        assert_eq!(pulse.look(at(10_005)), Due::Overdue);
        let mut pulse = Pulse::new();
        pulse.look(at(5));
        pulse.open(0);
        assert_eq!((pulse.look(at(99_999)), pulse.next(at(99_999))), (Due::Nothing, None));
        pulse.limit();
        assert_eq!(pulse.next(at(100_000)), Some(at(100_000)));
        assert_eq!(pulse.look(at(100_000)), Due::Nothing);
        assert_eq!(pulse.look(at(110_000)), Due::Overdue);
    }

    #[test]
    fn heartbeats_leave_in_half_the_interval_and_silence_ends_after_two() {
        let mut pulse = Pulse::new();
        pulse.received(at(1_000));
        pulse.sent(at(1_000));
        pulse.open(1);
        assert_eq!(pulse.look(at(1_499)), Due::Nothing);
        assert_eq!(pulse.next(at(1_499)), Some(at(1_500)));
        assert_eq!(pulse.look(at(1_500)), Due::Heartbeat);
        pulse.sent(at(2_900));
        assert_eq!(pulse.look(at(2_999)), Due::Nothing);
        assert_eq!(pulse.next(at(2_999)), Some(at(3_000)));
        assert_eq!(pulse.look(at(3_000)), Due::Silence);
        pulse.received(at(2_000));
        assert_eq!(pulse.look(at(3_000)), Due::Nothing);
    }
}
