//! How far a run is, on the standard error: a bar on a terminal, elsewhere a line now and then.

use crate::{
    clock::{Nanos, SECOND, seconds},
    report::grouped,
    shared::Counts,
};
use std::io::{self, IsTerminal as _, Write as _};

/// What is over sooner needs no bar.
const SHOWN_AFTER: Nanos = SECOND;
const BAR_EVERY: Nanos = SECOND / 5;
const LINE_EVERY: Nanos = 10 * SECOND;
const BAR_LEN: usize = 24;
const CLEAR: &str = "\r\x1b[K";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Silent,
    Bar,
    Lines,
}

pub(crate) struct Progress {
    way: Way,
    /// What is going on.
    label: String,
    begun_at: Nanos,
    shown_at: Option<Nanos>,
    before: (Nanos, Counts),
}

impl Progress {
    pub(crate) fn new(is_quiet: bool) -> Self {
        let way = match (is_quiet, io::stderr().is_terminal()) {
            (true, _) => Way::Silent,
            (false, true) => Way::Bar,
            (false, false) => Way::Lines,
        };
        let label = String::new();
        Self { way, label, begun_at: 0, shown_at: None, before: (0, Counts::default()) }
    }

    pub(crate) fn begin(&mut self, label: &str, now: Nanos) {
        self.end();
        label.clone_into(&mut self.label);
        (self.begun_at, self.before) = (now, (now, Counts::default()));
    }

    /// `share` of the whole is done, from 0 to 1, if that can be known.
    pub(crate) fn show(&mut self, now: Nanos, share: Option<f64>, counts: Counts) {
        let (first, every) = match self.way {
            Way::Silent => return,
            Way::Bar => (SHOWN_AFTER, BAR_EVERY),
            Way::Lines => (LINE_EVERY, LINE_EVERY),
        };
        let due = self.shown_at.map_or(self.begun_at + first, |it| it + every);
        if now < due {
            return;
        }
        let line = line(&self.label, share, rates(self.before, (now, counts)));
        let (before, end) = if self.way == Way::Bar { (CLEAR, "") } else { ("", "\n") };
        // Nobody may be looking any more, which changes nothing.
        write!(io::stderr(), "{before}{line}{end}").and_then(|()| io::stderr().flush()).ok();
        (self.shown_at, self.before) = (Some(now), (now, counts));
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if self.way == Way::Bar && self.shown_at.is_some() {
            write!(io::stderr(), "{CLEAR}").ok();
        }
        self.shown_at = None;
    }
}

/// Messages a second since the last look: published, confirmed, consumed.
fn rates(before: (Nanos, Counts), now: (Nanos, Counts)) -> [(&'static str, f64); 3] {
    let passed = seconds(now.0.saturating_sub(before.0)).max(1e-9);
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / passed;
    [
        ("published", rate(now.1.published, before.1.published)),
        ("confirmed", rate(now.1.confirmed, before.1.confirmed)),
        ("consumed", rate(now.1.consumed, before.1.consumed)),
    ]
}

fn line(label: &str, share: Option<f64>, rates: [(&str, f64); 3]) -> String {
    let mut line = label.to_owned();
    if let Some(share) = share.map(|it| it.clamp(0.0, 1.0)) {
        let full = (share * BAR_LEN as f64) as usize;
        let percent = (share * 100.0) as u64;
        let (done, open) = ("#".repeat(full), ".".repeat(BAR_LEN - full));
        line += &format!(" [{done}{open}] {percent:3} %");
    }
    for (what, rate) in rates.into_iter().filter(|it| 0.5 <= it.1) {
        line += &format!("  {what} {}/s", grouped(rate.round() as u64));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_how_far_and_how_fast() {
        let counts = |published, consumed| Counts { published, confirmed: 0, consumed };
        let rates = rates((SECOND, counts(0, 0)), (3 * SECOND, counts(4_000_000, 10)));
        let shown = line("drain", Some(0.5), rates);
        assert_eq!(
            shown,
            "drain [############............]  50 %  published 2,000,000/s  consumed 5/s"
        );
        assert_eq!(line("x", None, [("a", 0.0), ("b", 0.0), ("c", 0.0)]), "x");
        assert!(line("x", Some(7.0), rates).contains("100 %"));
    }
}
