//! How the process ends: what is said, where, and the status.

use server::exit;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// What is left to be done when a verb is through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: u8,
    /// For the standard output.
    pub(crate) said: String,
    /// For the standard error.
    pub(crate) complaint: String,
}

impl Ending {
    pub(crate) fn silent() -> Self {
        Self::said("")
    }

    pub(crate) fn said(text: &str) -> Self {
        Self { code: 0, said: text.to_owned(), complaint: String::new() }
    }

    pub(crate) fn failed(code: u8, error: &dyn std::fmt::Display) -> Self {
        Self { code, said: String::new(), complaint: format!("ferrymq: {error}") }
    }

    /// Wrong arguments; asking for help is none.
    pub(crate) fn of_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string().trim_end().to_owned();
        if error.use_stderr() {
            Self { code: exit::USAGE, said: String::new(), complaint: text }
        } else {
            Self::said(&text)
        }
    }

    /// Says it. Nobody may be listening any more, which changes nothing.
    pub(crate) fn tell(self) -> ExitCode {
        if !self.said.is_empty() {
            writeln!(io::stdout(), "{}", self.said).ok();
        }
        if !self.complaint.is_empty() {
            writeln!(io::stderr(), "{}", self.complaint).ok();
        }
        ExitCode::from(self.code)
    }
}
