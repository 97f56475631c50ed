//! Deliveries are settled, or come back to the place where they were.

use super::Queue;
use crate::{
    delayed::Delayed,
    effect::{DeathReason, Effect},
    entry::Item,
    unsettled::Returned,
};
use model::{EntryId, Outcome, SessionId, Timestamp, policy::DelayedRetry};

impl Queue {
    /// Settles those of the entries that the session holds. Others were settled or came back
    /// already.
    pub(super) fn settle(
        &mut self,
        session: SessionId,
        entries: &[EntryId],
        outcome: Outcome,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for id in entries {
            let returned = self.unsettled.there().and_then(|it| it.remove(*id, session));
            let Some(Returned { item, consumer }) = returned else { continue };
            if let Some(slot) = consumer {
                self.consumers_mut().on_settled(slot);
            }
            match outcome {
                Outcome::Accept => Self::forget(item.entry.place(), effects),
                Outcome::Requeue { failed } | Outcome::Release { failed } => {
                    self.take_back(item, failed, now, effects);
                }
                Outcome::Reject { flagged } => {
                    self.bury(item, DeathReason::Rejected, flagged, effects);
                }
            }
        }
    }

    fn take_back(
        &mut self,
        mut item: Item,
        failed: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if failed && self.counts() {
            item.failed = item.failed.saturating_add(1);
            if self.policy.delivery_limit.is_some_and(|it| it < item.failed) {
                return self.bury(item, DeathReason::DeliveryLimit, true, effects);
            }
        }
        if self.policy.counts_deliveries
            && let Some(position) = item.entry.kept_at()
        {
            let (acquired, failed) = (item.acquired, item.failed);
            effects.push(Effect::Counted { position, acquired, failed });
        }
        match self.rest_ms(&item, failed) {
            0 => self.put_ready(item),
            rest_ms => {
                self.delayed.made(Delayed::new).insert(item, now.plus_ms(rest_ms));
            }
        }
    }

    /// How long a message that came back waits before it is ready. Milliseconds.
    fn rest_ms(&self, item: &Item, failed: bool) -> u64 {
        let rests = match self.policy.delayed_retry {
            DelayedRetry::Disabled => false,
            DelayedRetry::All => true,
            DelayedRetry::Failed => failed,
            DelayedRetry::Returned => !failed,
        };
        let times = u64::from(item.failed.max(1));
        let rest_ms = self.policy.delayed_retry_ms_min.saturating_mul(times);
        if rests { rest_ms.min(self.policy.delayed_retry_ms_max) } else { 0 }
    }
}
