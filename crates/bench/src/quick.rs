//! `bench --quick`: one table in twenty seconds that says what a machine does with confirms and
//! syncs, and what its disk and its network would allow.

use crate::{
    arguments::{Mode, Quick, Traffic},
    baseline,
    clock::{Clock, MILLISECOND, Nanos, SECOND, per_second, seconds},
    consumer::AckMode,
    error::BenchError,
    histogram::{Latency, Percentiles},
    load::{Done, Site},
    report::{Amount, Section, duration},
    traffic::Found,
};
use std::path::Path;

/// Of the whole time, kept for deleting and stopping.
const TAIL: f64 = 0.1;
/// Of the whole time, for each of the two measurements without the broker.
const BASELINE: f64 = 0.025;
const SHORTEST: Nanos = 100 * MILLISECOND;
const PATIENCE: Nanos = 20 * SECOND;
const WINDOW: u64 = 100;
const BODY: usize = 1024;

/// One part of the run.
#[derive(Clone, Copy)]
struct Part {
    mode: Mode,
    body_size: usize,
    is_durable: bool,
    window: u64,
    ack: AckMode,
    prefetch: u16,
    /// Of the whole time, how long it publishes, and how long it may take with the rest.
    share: f64,
    limit: f64,
}

const TRANSIENT: Part = Part {
    mode: Mode::Throughput,
    body_size: 16,
    is_durable: false,
    window: 0,
    ack: AckMode::Auto,
    prefetch: 0,
    share: 0.1,
    limit: 0.2,
};
const CONFIRMED: Part = Part {
    mode: Mode::Throughput,
    body_size: BODY,
    is_durable: true,
    window: WINDOW,
    ack: AckMode::Each,
    prefetch: 200,
    share: 0.15,
    limit: 0.2,
};
const ONE_AT_A_TIME: Part =
    Part { window: 1, ack: AckMode::Auto, prefetch: 0, share: 0.1, limit: 0.15, ..CONFIRMED };
const BACKLOG: Part = Part {
    mode: Mode::Drain,
    window: 1_000,
    ack: AckMode::Multiple(100),
    prefetch: 1_000,
    share: 0.075,
    limit: 0.25,
    ..CONFIRMED
};

/// What the machine does without a broker.
pub(crate) struct Baseline {
    syncs: Option<Percentiles>,
    trips: Option<Percentiles>,
}

impl Quick {
    /// To be measured before a broker of our own starts: that writes, too.
    pub(crate) fn baseline(&self, folder: &Path, clock: Clock) -> Result<Baseline, BenchError> {
        let each = self.of_whole(BASELINE);
        let syncs = baseline::sync_latency(folder, clock, each)?.percentiles();
        let trips = baseline::loopback_latency(clock, each)?.percentiles();
        Ok(Baseline { syncs, trips })
    }

    /// Measures everything in its time; the site's clock began with the verb.
    pub(crate) fn run(
        &self,
        site: &mut Site,
        Baseline { syncs, trips }: Baseline,
        is_own: bool,
    ) -> Result<Found, BenchError> {
        let mut found = Found::default();
        let single = self.part(ONE_AT_A_TIME, site, &mut found)?;
        let confirm = single.confirms.percentiles();
        let confirmed = self.part(CONFIRMED, site, &mut found)?;
        let transient = self.part(TRANSIENT, site, &mut found)?;
        let backlog = self.part(BACKLOG, site, &mut found)?;
        let mut section = Section::new("");
        for (key, label, amount) in [
            ("transient_per_s", "transient, 16 B, no acks", transient.consumed()),
            ("confirmed_per_s", "durable, 1 KiB, 100 unconfirmed", confirmed.confirmed()),
            (
                "publish_per_s",
                "durable, 1 KiB, 1,000 unconfirmed, no consumer",
                backlog.confirmed(),
            ),
            ("drain_per_s", "this backlog drained", backlog.consumed()),
            ("confirm_latency_us", "durable, 1 KiB, one confirm at a time", shown(confirm)),
            ("sync_latency_us", "the disk alone: write 1 KiB, fdatasync", shown(syncs)),
            ("loopback_latency_us", "the network alone: a round trip", shown(trips)),
        ] {
            section.add(key, label, amount);
        }
        section.add("quick_s", "all of it took", Amount::Seconds(seconds(site.clock.now())));
        found.sections = vec![section];
        found.notes.dedup();
        found.notes.push(meaning(is_own, confirm, syncs, trips));
        Ok(found)
    }

    fn of_whole(&self, share: f64) -> Nanos {
        (self.within as f64 * share) as Nanos
    }

    /// Its problems go to `found`. When there is no time left, it gives nothing.
    fn part(&self, part: Part, site: &mut Site, found: &mut Found) -> Result<Gave, BenchError> {
        let now = site.clock.now();
        let deadline = (now + self.of_whole(part.limit)).min(self.within - self.of_whole(TAIL));
        let duration = self.of_whole(part.share).min(deadline.saturating_sub(now));
        if duration < SHORTEST {
            found.notes.push(Found::TIME_IS_OVER.to_owned());
            return Ok(Gave::default());
        }
        // A part that is cut has its rates all the same.
        let of_part = part.traffic(duration).run(site, Some(deadline))?;
        if let Some(problem) = of_part.verdict {
            found.complain(&problem);
        }
        Ok(Gave::of(&of_part.done))
    }
}

fn shown(percentiles: Option<Percentiles>) -> Option<Amount> {
    percentiles.map(Amount::Middle)
}

/// What a confirm of this broker was worth, as far as that can be seen.
fn meaning(
    is_own: bool,
    confirm: Option<Percentiles>,
    sync: Option<Percentiles>,
    trip: Option<Percentiles>,
) -> String {
    let (Some(confirm), Some(sync), Some(trip)) = (confirm, sync, trip) else {
        return "The time was over before a confirm could be measured.".to_owned();
    };
    let limit = sync.p50 + trip.p50;
    let ratio = confirm.p50 / limit;
    let figures = format!(
        "A confirm takes {} where the disk's sync and a round trip take {} ({ratio:.1} times, \
         medians).",
        duration(confirm.p50),
        duration(limit),
    );
    if is_own {
        return format!(
            "{figures} This broker was started for this run with every sync on: it confirms when \
             fdatasync has returned."
        );
    }
    let seen = if confirm.p50 < sync.min {
        "Most were faster than the fastest sync of the current folder's disk: the broker does not \
         wait for its disk, or has a faster one."
    } else {
        "From outside it cannot be told whether it waits for its disk; its documentation must say \
         so. The sync was measured in the current folder, which may be another disk."
    };
    format!("{figures} {seen}")
}

/// What one part gave.
#[derive(Default)]
struct Gave {
    confirmed_per_s: Option<f64>,
    consumed_per_s: Option<f64>,
    confirms: Latency,
}

impl Gave {
    fn of(halves: &[Done]) -> Self {
        let mut gave = Self::default();
        for done in halves {
            let rate = |count, to| Some(per_second(count, done.started_at, to));
            if let Some(it) = &done.publishing {
                gave.confirmed_per_s = rate(it.confirmed, it.confirmed_at);
                gave.confirms = it.confirm_latency.clone();
            }
            if let Some(it) = &done.consuming {
                gave.consumed_per_s = rate(it.consumed, it.last_at);
            }
        }
        gave
    }

    fn confirmed(&self) -> Option<Amount> {
        self.confirmed_per_s.map(Amount::PerSecond)
    }

    fn consumed(&self) -> Option<Amount> {
        self.consumed_per_s.map(Amount::PerSecond)
    }
}

impl Part {
    fn traffic(self, duration: Nanos) -> Traffic {
        Traffic {
            mode: self.mode,
            publishers: 1,
            consumers: 1,
            queues: 1,
            body_size: self.body_size,
            is_persistent: self.is_durable,
            is_durable: self.is_durable,
            queue_type: None,
            queue_name: None,
            window: self.window,
            ack: self.ack,
            prefetch: self.prefetch,
            rate: None,
            count: None,
            duration,
            warmup: 0,
            patience: PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(micros: u64) -> Option<Percentiles> {
        let mut latency = Latency::default();
        latency.record(micros * 1_000);
        latency.percentiles()
    }

    #[test]
    fn parts_fit_in_the_time() {
        let parts = [TRANSIENT, CONFIRMED, ONE_AT_A_TIME, BACKLOG];
        let limits: f64 = parts.iter().map(|it| it.limit).sum();
        assert!(limits + 2.0 * BASELINE + TAIL < 0.951, "the rest is for starting a broker");
        assert!(parts.iter().all(|it| it.share < it.limit));
    }

    #[test]
    fn sentence_claims_no_more_than_was_seen() {
        let ours = meaning(true, median(150), median(100), median(10));
        assert!(ours.contains("1.4 times") && ours.contains("every sync on"), "{ours}");
        let slower = meaning(false, median(150), median(100), median(10));
        assert!(slower.contains("cannot be told"), "{slower}");
        let faster = meaning(false, median(90), median(100), median(10));
        assert!(faster.contains("does not wait for its disk, or has a faster one"), "{faster}");
        assert!(meaning(false, None, median(100), median(10)).contains("time was over"));
    }
}
