//! Schedules: when a job is planned again (cron, in a time zone), and which planned times are run
//! after the server was down or while the run before is not done.

use crate::moment::Written;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp as Instant, tz::TimeZone};
use model::Timestamp;

/// Runs that are made up for at most, of however long a time that the server was down.
pub const CAUGHT_UP_MAX: usize = 1_000;

/// What happens to planned times that passed while the server was down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    None,
    /// The latest of them is run.
    #[default]
    One,
    /// Every one is run; of very many the latest.
    All,
}

/// What happens at a planned time while the run before is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    #[default]
    Skip,
    Allow,
}

/// Why there is no such schedule. The message says what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("cron has five fields, such as */5 * * * * ({0})")]
    Cron(String),
    #[error("no time zone is called {0}; one is called Europe/Paris")]
    Zone(String),
    #[error("there is no such day: it would never run")]
    Never,
}

/// When a job is planned.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    pub catch_up: CatchUp,
    pub overlap: Overlap,
}

/// Where a schedule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Planned times up to this one are dealt with.
    pub done: Timestamp,
    /// Planned times after this one were not missed.
    pub up_since: Timestamp,
    pub now: Timestamp,
    /// The run before is not settled.
    pub is_pending: bool,
}

fn instant(time: Timestamp) -> Instant {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    Instant::from_millisecond(ms).unwrap_or(Instant::MAX)
}

impl Schedule {
    /// `zone` is a name of the IANA data base.
    ///
    /// # Errors
    /// [`ScheduleError`]
    pub fn parse(cron: &str, zone: &str) -> Result<Self, ScheduleError> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|it| ScheduleError::Cron(it.to_string()))?;
        let zone = TimeZone::get(zone).map_err(|_| ScheduleError::Zone(zone.to_owned()))?;
        let (catch_up, overlap) = (CatchUp::default(), Overlap::default());
        let schedule = Self { cron, zone, catch_up, overlap };
        schedule.next_after(Timestamp(0)).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }

    /// The first planned time after `time`; `None` when there is none any more.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let from = instant(time).to_zoned(self.zone.clone());
        let found = self.cron.find_next_occurrence(&from, false).ok()?;
        let ms = u64::try_from(found.timestamp().as_millisecond()).ok()?;
        Some(Timestamp(ms)).filter(|it| time < *it)
    }

    /// The planned times that are to be run now, in order.
    pub fn due(&self, situation: &Situation) -> Vec<Timestamp> {
        let Situation { done, up_since, now, is_pending } = *situation;
        let missed_from = match self.catch_up {
            CatchUp::None => done.max(up_since.min(now)),
            CatchUp::One | CatchUp::All => done,
        };
        let mut runs: Vec<Timestamp> = self.planned(missed_from, now);
        if self.catch_up == CatchUp::One {
            let missed = runs.iter().filter(|it| **it <= up_since).count();
            runs.drain(..missed.saturating_sub(1));
        }
        match self.overlap {
            Overlap::Allow => runs,
            Overlap::Skip if is_pending => Vec::new(),
            // The first of several would be pending when the second is submitted.
            Overlap::Skip => runs.split_off(runs.len().saturating_sub(1)),
        }
    }

    /// Planned times after `from` up to `until`; of very many the latest.
    fn planned(&self, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let mut found = Vec::new();
        let mut at = until;
        // Backwards, so that a long rest costs no more than what is run after it.
        while found.len() < CAUGHT_UP_MAX
            && let Some(before) = self.last_until(at).filter(|it| from < *it)
        {
            found.push(before);
            at = Timestamp(before.0 - 1);
        }
        found.reverse();
        found
    }

    /// The last planned time that is not after `time`.
    fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        let until = instant(time).to_zoned(self.zone.clone());
        let found = self.cron.find_previous_occurrence(&until, true).ok()?;
        let ms = u64::try_from(found.timestamp().as_millisecond()).ok()?;
        Some(Timestamp(ms)).filter(|it| *it <= time)
    }
}

/// The id of the run of a schedule at a planned time: the same run has the same id, wherever and
/// whenever it is submitted.
pub fn run_id(name: &str, planned: Timestamp) -> String {
    format!("{name}@{}", Written(planned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::parse_time;

    const PARIS: &str = "Europe/Paris";

    fn time(text: &str) -> Timestamp {
        parse_time(text).expect(text)
    }

    #[track_caller]
    fn check_next(cron: &str, zone: &str, from: &str, expected: &[&str]) {
        let schedule = Schedule::parse(cron, zone).expect("a schedule");
        let mut at = time(from);
        for wanted in expected {
            at = schedule.next_after(at).expect("there is a next one");
            assert_eq!(at, time(wanted), "{} is not {wanted}", Written(at));
        }
    }

    #[test]
    fn planned_times_are_those_of_the_zone() {
        let noon = "2026-06-01T12:00:00Z";
        check_next("*/5 * * * *", "UTC", noon, &["2026-06-01T12:05:00Z", "2026-06-01T12:10:00Z"]);
        check_next("0 9 * * 1", PARIS, noon, &["2026-06-08T09:00:00+02:00"]);
        check_next("0 0 1 1 *", "Asia/Kolkata", noon, &["2027-01-01T00:00:00+05:30"]);
        check_next("0 0 29 2 *", "UTC", noon, &["2028-02-29T00:00:00Z"]);
    }

    /// In the night of 29 March 2026 there is no half past two in Paris.
    #[test]
    fn a_fixed_time_in_the_gap_of_spring_is_run_once_behind_it() {
        let days =
            ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"];
        check_next("30 2 * * *", PARIS, "2026-03-27T12:00:00Z", &days);
    }

    /// In the night of 25 October 2026 half past two comes twice.
    #[test]
    fn a_fixed_time_in_the_overlap_of_autumn_is_run_once() {
        let days = ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"];
        check_next("30 2 * * *", PARIS, "2026-10-24T12:00:00Z", &days);
    }

    #[test]
    fn an_interval_goes_on_through_gap_and_overlap() {
        let spring = ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
        check_next("*/30 * * * *", PARIS, "2026-03-29T00:00:00Z", &spring);
        let autumn = [
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z",
        ];
        check_next("*/30 * * * *", PARIS, "2026-10-25T00:00:00Z", &autumn);
    }

    #[test]
    fn what_can_never_be_is_refused() {
        for cron in ["", "* * * *", "0 0 * * * *", "60 * * * *", "x * * * *", "*/0 * * * *"] {
            let error = Schedule::parse(cron, "UTC").expect_err(cron);
            assert!(matches!(error, ScheduleError::Cron(_)), "{cron}: {error}");
        }
        let never = Schedule::parse("0 0 30 2 *", "UTC").expect_err("no such day");
        assert_eq!(never, ScheduleError::Never);
        for zone in ["", "Paris", "Mars/Phobos", "../etc/passwd"] {
            let error = Schedule::parse("* * * * *", zone).expect_err(zone);
            assert_eq!(error, ScheduleError::Zone(zone.to_owned()));
        }
    }

    fn hourly(catch_up: CatchUp, overlap: Overlap) -> Schedule {
        let schedule = Schedule::parse("0 * * * *", "UTC").expect("a schedule");
        Schedule { catch_up, overlap, ..schedule }
    }

    /// Hours of one day; down from half past `down` until half past `up`.
    #[track_caller]
    fn check_due(schedule: &Schedule, hours: (u64, u64, u64), is_pending: bool, expected: &[u64]) {
        const HOUR_MS: u64 = 3_600_000;
        let day = time("2026-06-01T00:00:00Z");
        let half_past = |hour: u64| day.plus_ms(hour * HOUR_MS + HOUR_MS / 2);
        let (down, up, now) = hours;
        let (done, up_since, now) = (half_past(down), half_past(up), half_past(now));
        let due = schedule.due(&Situation { done, up_since, now, is_pending });
        let due: Vec<u64> = due.iter().map(|it| (it.0 - day.0) / HOUR_MS).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn missed_times_are_made_up_for_as_the_schedule_says() {
        let with = |it| hourly(it, Overlap::Allow);
        check_due(&with(CatchUp::None), (2, 6, 6), false, &[]);
        check_due(&with(CatchUp::One), (2, 6, 6), false, &[6]);
        check_due(&with(CatchUp::All), (2, 6, 6), false, &[3, 4, 5, 6]);
        check_due(&with(CatchUp::None), (2, 6, 8), false, &[7, 8]);
        check_due(&with(CatchUp::One), (2, 6, 8), false, &[6, 7, 8]);
        check_due(&with(CatchUp::All), (6, 2, 8), false, &[7, 8]);
        check_due(&with(CatchUp::None), (6, 2, 8), false, &[7, 8]);
        check_due(&with(CatchUp::All), (6, 6, 6), false, &[]);
    }

    #[test]
    fn a_pending_run_keeps_the_next_one_away_where_it_is_to() {
        let with = |it| hourly(CatchUp::All, it);
        check_due(&with(Overlap::Skip), (2, 2, 3), true, &[]);
        check_due(&with(Overlap::Skip), (2, 2, 3), false, &[3]);
        check_due(&with(Overlap::Skip), (2, 6, 6), false, &[6]);
        check_due(&with(Overlap::Allow), (2, 2, 3), true, &[3]);
    }

    #[test]
    fn a_year_of_minutes_is_made_up_for_in_bounds() {
        let minutely = Schedule::parse("* * * * *", "UTC").expect("a schedule");
        let all = Schedule { catch_up: CatchUp::All, overlap: Overlap::Allow, ..minutely };
        let (done, now) = (time("2026-06-01T00:00:00Z"), time("2026-06-03T00:00:00Z"));
        let due = all.due(&Situation { done, up_since: now, now, is_pending: false });
        assert_eq!((due.len(), due.last()), (CAUGHT_UP_MAX, Some(&now)));
    }

    /// A year around the two nights that are special in Paris.
    #[test]
    fn forwards_and_backwards_the_same_times_are_planned() {
        let (from, until) = (time("2026-01-01T00:00:00Z"), time("2027-01-01T00:00:00.500Z"));
        for cron in ["30 2 * * *", "0 3 * * *", "0 * * * *", "*/30 1-3 * * *", "0 0 1 * *"] {
            let schedule = Schedule::parse(cron, PARIS).expect("a schedule");
            let mut forwards = Vec::new();
            let mut at = from;
            while let Some(next) = schedule.next_after(at).filter(|it| *it <= until) {
                forwards.push(next);
                at = next;
            }
            let latest = forwards.split_off(forwards.len().saturating_sub(CAUGHT_UP_MAX));
            assert_eq!(schedule.planned(from, until), latest, "{cron}");
        }
    }

    #[test]
    fn a_run_has_the_same_id_wherever_it_is_submitted() {
        let id = run_id("nightly", time("2026-03-29T03:00:00+02:00"));
        assert_eq!(id, "nightly@2026-03-29T01:00:00.000Z");
    }
}
