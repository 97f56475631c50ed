//! What tidy has found: one line per finding, `place: what`.

use std::fmt::Display;

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, place: impl Display, what: impl Display) {
        self.findings.push(format!("{place}: {what}"));
    }
}
