//! What a run has found, as a table for people or as JSON for programs. Both come from one list.

use crate::histogram::Percentiles;
use serde_json::{Map, Value, json};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
    Markdown,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Amount {
    Count(u64),
    PerSecond(f64),
    Seconds(f64),
    Micros(f64),
    Mib(f64),
    Latency(Percentiles),
    /// The same, of which people see the median and the tail.
    Middle(Percentiles),
    Text(String),
}

/// A value with the name that programs know it by, and the words that people read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) key: &'static str,
    pub(crate) label: &'static str,
    /// `None` where it could not be measured: programs see `null`, people nothing.
    pub(crate) amount: Option<Amount>,
}

/// Figures that belong together, such as those of the second half of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Section {
    /// Empty for figures of the whole run.
    pub(crate) key: &'static str,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// What was measured, where and how: for programs, and the heading for people.
    pub(crate) context: Map<String, Value>,
    pub(crate) heading: Vec<String>,
    pub(crate) sections: Vec<Section>,
    /// Sentences below the table.
    pub(crate) notes: Vec<String>,
}

impl Section {
    pub(crate) fn new(key: &'static str) -> Self {
        Self { key, figures: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        key: &'static str,
        label: &'static str,
        amount: impl Into<Option<Amount>>,
    ) {
        self.figures.push(Figure { key, label, amount: amount.into() });
    }
}

impl Report {
    pub(crate) fn written(&self, format: Format) -> String {
        match format {
            Format::Json => self.json(),
            Format::Table => {
                let rows = self.rows();
                let lines = self.heading.iter().cloned().chain([String::new()]);
                self.with_notes(lines.chain(aligned(&rows)).collect(), "")
            }
            Format::Markdown => {
                let lines = self.heading.iter().flat_map(|it| [it.clone(), String::new()]);
                let head = ["| figure | value |".to_owned(), "|---|---:|".to_owned()];
                let rows = self.rows();
                let cells = rows.iter().map(|(label, value)| format!("| {label} | {value} |"));
                self.with_notes(lines.chain(head).chain(cells).collect(), "")
            }
        }
    }

    fn with_notes(&self, mut lines: Vec<String>, between: &str) -> String {
        for note in &self.notes {
            lines.push(between.to_owned());
            lines.push(note.clone());
        }
        lines.join("\n")
    }

    fn json(&self) -> String {
        let mut all = self.context.clone();
        for section in &self.sections {
            let mut figures = Map::new();
            for figure in &section.figures {
                let value = figure.amount.as_ref().map_or(Value::Null, Amount::json);
                figures.insert(figure.key.to_owned(), value);
            }
            if section.key.is_empty() {
                all.extend(figures);
            } else {
                all.insert(section.key.to_owned(), Value::Object(figures));
            }
        }
        if !self.notes.is_empty() {
            all.insert("notes".to_owned(), json!(self.notes));
        }
        Value::Object(all).to_string()
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        for section in &self.sections {
            let before = if section.key.is_empty() { "" } else { &format!("{}: ", section.key) };
            for figure in &section.figures {
                if let Some(amount) = &figure.amount {
                    rows.push((format!("{before}{}", figure.label), amount.shown()));
                }
            }
        }
        rows
    }
}

impl Amount {
    fn json(&self) -> Value {
        let rounded = |value: f64, digits: i32| {
            let scale = 10_f64.powi(digits);
            json!((value * scale).round() / scale)
        };
        match self {
            Self::Count(it) => json!(it),
            Self::PerSecond(it) => json!(it.round() as u64),
            Self::Seconds(it) => rounded(*it, 3),
            Self::Micros(it) | Self::Mib(it) => rounded(*it, 2),
            Self::Latency(it) | Self::Middle(it) => json!(it),
            Self::Text(it) => json!(it),
        }
    }

    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Count(it) => grouped(*it),
            Self::PerSecond(it) => format!("{}/s", grouped(it.round() as u64)),
            Self::Seconds(it) => format!("{it:.2} s"),
            Self::Micros(it) => duration(*it),
            Self::Mib(it) => format!("{it:.1} MiB"),
            Self::Latency(it) => {
                let Percentiles { p50, p90, p99, p999, max, .. } = *it;
                [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)]
                    .map(|(name, micros)| format!("{name} {}", duration(micros)))
                    .join("  ")
            }
            Self::Middle(it) => format!("p50 {}  p99 {}", duration(it.p50), duration(it.p99)),
            Self::Text(it) => it.clone(),
        }
    }
}

/// A time of so many microseconds, with three digits that count.
pub(crate) fn duration(micros: f64) -> String {
    let (value, unit) = match micros {
        it if it < 1_000.0 => (it, "µs"),
        it if it < 1_000_000.0 => (it / 1_000.0, "ms"),
        it => (it / 1_000_000.0, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// With commas between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Labels to the left; values below each other, numbers by their ends.
fn aligned(rows: &[(String, String)]) -> Vec<String> {
    let len = |text: &str| text.chars().count();
    let label_len = rows.iter().map(|it| len(&it.0)).max().unwrap_or(0);
    rows.iter()
        .map(|(label, value)| {
            let gap = " ".repeat(label_len - len(label) + 2);
            format!("{label}{gap}{value}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut whole = Section::new("");
        whole.add("published", "published", Amount::Count(1_234_567));
        whole.add("server_cpu_s", "server CPU", None);
        let mut drain = Section::new("drain");
        drain.add("consumed_per_s", "rate", Amount::PerSecond(600_800.6));
        let mut context = Map::new();
        context.insert("mode".to_owned(), json!("drain"));
        Report {
            context,
            heading: vec!["drain of x".to_owned()],
            sections: vec![whole, drain],
            notes: vec!["so".to_owned()],
        }
    }

    #[test]
    fn table_shows_what_was_measured_and_json_has_every_key() {
        let table = report().written(Format::Table);
        assert_eq!(table, "drain of x\n\npublished    1,234,567\ndrain: rate  600,801/s\n\nso");
        let json: Value = serde_json::from_str(&report().written(Format::Json)).unwrap();
        assert_eq!(
            json,
            json!({"mode": "drain", "published": 1_234_567, "server_cpu_s": null,
                   "drain": {"consumed_per_s": 600_801}, "notes": ["so"]})
        );
        let markdown = report().written(Format::Markdown);
        assert!(markdown.contains("| drain: rate | 600,801/s |"), "{markdown}");
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        let shown: Vec<String> = [0, 999, 1_000, 12_345_678].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "12,345,678"]);
        let shown = [0.5, 12.34, 999.0, 1_500.0, 45_600.0, 2_000_000.0].map(duration);
        assert_eq!(shown, ["0.50 µs", "12.3 µs", "999 µs", "1.50 ms", "45.6 ms", "2.00 s"]);
    }
}
