//! Log lines: where they go, how they look, and how many of one kind may be written.

use crate::config::{LogFormat, LogLevel};
use model::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::{filter::LevelFilter, fmt::writer::BoxMakeWriter};

/// Lines of one kind per second.
const LINES_PER_SECOND_MAX: u64 = 10;

/// Sends log lines to the standard output from now on. Does nothing the second time.
pub fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(BoxMakeWriter::new(std::io::stdout));
    let started = match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            tracing::subscriber::set_global_default(
                lines.with_ansi(std::io::stdout().is_terminal()).finish(),
            )
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
        }
    };
    // A program that embeds the server may have set up its own.
    started.ok();
}

/// Lets a few lines of one kind through per second and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// The second in the upper half, the lines seen in it in the lower one.
    seen: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// `Some` when the line may be written, with how many were not since the last one.
    pub(crate) fn admit(&self, now: Timestamp) -> Option<u64> {
        let second = (now.0 / 1_000) & u64::from(u32::MAX);
        let count = |seen: u64| {
            Some(if seen >> 32 == second { seen.saturating_add(1) } else { second << 32 | 1 })
        };
        let before = self.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        let before = before.unwrap_or_default();
        let lines = if before >> 32 == second { before & u64::from(u32::MAX) } else { 0 };
        if lines < LINES_PER_SECOND_MAX {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_pass_and_the_rest_is_counted() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert_eq!(throttle.admit(Timestamp(9_001)), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(throttle.admit(Timestamp(9_001)), None);
        }
        assert_eq!(throttle.admit(Timestamp(10_000)), Some(7));
        assert_eq!(throttle.admit(Timestamp(10_000)), Some(0));
    }
}
