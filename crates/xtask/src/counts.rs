//! Instructions per message of every case in `crates/counts`, against a budget.
//!
//! Each case runs twice under valgrind, with n and with 2n messages; the difference divided by n is
//! what a message costs, without start and setup. Valgrind shows every program the same processor,
//! so the machine hardly matters; compiler and profile do, and both are pinned.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

const BUDGET: &str = "benches/budget.toml";
const PACKAGE: &str = "ferrymq-counts";
const HEADER: &str = "\
# Instructions per message of the cases in crates/counts/src/cases.rs, built for release.
# `cargo xtask counts` fails when one needs more than above_percent more and also more than
# above_instructions, and says when one needs so much less that its budget is to be lowered.
# `cargo xtask counts --update` writes this file.
";

/// What a message of each case may cost.
#[derive(Debug, PartialEq)]
struct Budget {
    /// More than this above the budget fails.
    above_percent: f64,
    /// As many instructions more are no reason to fail: inlining changes with code elsewhere.
    above_instructions: f64,
    /// More than this below it is worth a lower budget.
    below_percent: f64,
    instructions: BTreeMap<String, f64>,
}

impl Budget {
    /// Reads the few lines of TOML that [`Budget::text`] writes.
    fn parse(text: &str) -> Result<Self, String> {
        let mut budget = Self {
            above_percent: 3.0,
            above_instructions: 40.0,
            below_percent: 10.0,
            instructions: BTreeMap::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() || line == "[instructions]" {
                continue;
            }
            let wrong = || format!("{BUDGET}:{}: not `name = number`", index + 1);
            let (name, number) = line.split_once('=').ok_or_else(wrong)?;
            let number = number.trim().replace('_', "").parse().map_err(|_| wrong())?;
            match name.trim() {
                "above_percent" => budget.above_percent = number,
                "above_instructions" => budget.above_instructions = number,
                "below_percent" => budget.below_percent = number,
                name => drop(budget.instructions.insert(name.to_owned(), number)),
            }
        }
        Ok(budget)
    }

    fn text(&self, cases: &[Case]) -> String {
        let Self { above_percent, above_instructions, below_percent, instructions } = self;
        let mut text = format!(
            "{HEADER}above_percent = {above_percent}\nabove_instructions = {above_instructions}\n\
             below_percent = {below_percent}\n\n[instructions]\n"
        );
        for (name, count) in cases.iter().filter_map(|it| instructions.get_key_value(&it.name)) {
            let _ = writeln!(text, "{name} = {count:.0}");
        }
        text
    }

    fn judge(&self, name: &str, found: f64) -> Verdict {
        let Some(allowed) = self.instructions.get(name) else { return Verdict::Unknown };
        let percent = 100.0 * (found / allowed - 1.0);
        if self.above_percent < percent && self.above_instructions < found - allowed {
            Verdict::Above(percent)
        } else if percent < -self.below_percent {
            Verdict::Below(percent)
        } else {
            Verdict::Within(percent)
        }
    }
}

/// How a count stands to its budget, in percent of it.
#[derive(Debug, PartialEq)]
enum Verdict {
    Within(f64),
    Above(f64),
    Below(f64),
    /// There is none.
    Unknown,
}

impl Verdict {
    fn passes(&self) -> bool {
        matches!(self, Self::Within(_) | Self::Below(_))
    }

    fn text(&self) -> String {
        match self {
            Self::Within(percent) => format!("{percent:+.1} %"),
            Self::Above(percent) => format!("{percent:+.1} %  TOO MANY"),
            Self::Below(percent) => format!("{percent:+.1} %  lower the budget"),
            Self::Unknown => "NO BUDGET".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Case {
    name: String,
    messages: u64,
}

/// Counts all cases, or those named, and compares them with the budget, or writes it anew. True
/// when nothing costs too much.
pub(crate) fn run(root: &Path, update: bool, only: &[&str]) -> Result<bool, String> {
    let program = build(root)?;
    let mut cases = list(&program)?;
    let budget_text = fs::read_to_string(root.join(BUDGET)).unwrap_or_default();
    let mut budget = Budget::parse(&budget_text)?;
    let gone = budget.instructions.keys().filter(|it| !cases.iter().any(|case| case.name == **it));
    let gone: Vec<String> = gone.cloned().collect();
    let all = cases.clone();
    if let Some(name) = only.iter().find(|it| !all.iter().any(|case| case.name == **it)) {
        return Err(format!("there is no case {name}"));
    }
    cases.retain(|it| only.is_empty() || only.contains(&it.name.as_str()));
    let found = count_all(&program, &cases)?;
    println!("{:30} {:>13} {:>8}", "instructions per message", "found", "budget");
    let mut passes = true;
    for (case, found) in cases.iter().zip(found) {
        let (verdict, name) = (budget.judge(&case.name, found), &case.name);
        let allowed =
            budget.instructions.get(name).map_or_else(|| "-".into(), |it| format!("{it:.0}"));
        println!("{name:30} {found:13.1} {allowed:>8}  {}", verdict.text());
        passes &= verdict.passes();
        if update {
            budget.instructions.insert(name.clone(), found.round());
        }
    }
    if update {
        let written = fs::create_dir_all(root.join("benches"))
            .and_then(|()| fs::write(root.join(BUDGET), budget.text(&all)));
        return written.map(|()| true).map_err(|error| format!("{BUDGET}: {error}"));
    }
    for name in &gone {
        println!("{BUDGET} has a budget for {name}, which does not exist");
    }
    if !passes {
        println!(
            "an increase that is worth it: cargo xtask counts --update, and say why in the commit"
        );
    }
    Ok(passes && gone.is_empty())
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let arguments = ["build", "--release", "--locked", "--package", PACKAGE];
    if !super::run_cargo(root, &arguments) {
        return Err(format!("{PACKAGE} does not build"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root.join(target).join("release").join(PACKAGE))
}

fn list(program: &Path) -> Result<Vec<Case>, String> {
    let output = output(Command::new(program).arg("--list"))?;
    let case = |line: &str| {
        let (name, messages) = line.split_once(' ')?;
        Some(Case { name: name.to_owned(), messages: messages.parse().ok()? })
    };
    output.lines().map(|it| case(it).ok_or_else(|| format!("not a case: {it}"))).collect()
}

/// Instructions per message of each case, on all cores.
fn count_all(program: &Path, cases: &[Case]) -> Result<Vec<f64>, String> {
    let folder = std::env::temp_dir().join(format!("ferrymq-counts-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let runs: Vec<(usize, u64)> =
        (0..cases.len()).flat_map(|it| [(it, 1), (it, 2)]).rev().collect();
    let (waiting, counts) = (Mutex::new(runs), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let next = waiting.lock().map(|mut it| it.pop()).ok().flatten();
            let Some((case, times)) = next else { return };
            let Case { name, messages } = &cases[case];
            let report = folder.join(format!("{name}-{times}"));
            let count = count(program, name, times * messages, &report);
            if let Ok(mut counts) = counts.lock() {
                counts.insert((case, times), count);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    // What is left behind there is no reason to fail.
    let _ = fs::remove_dir_all(&folder);
    let mut counts = counts.into_inner().map_err(|error| error.to_string())?;
    let mut take = |key| counts.remove(&key).unwrap_or_else(|| Err("it was not run".into()));
    let each = |(index, case): (usize, &Case)| {
        let (once, twice) = (take((index, 1))?, take((index, 2))?);
        Ok(twice.saturating_sub(once) as f64 / case.messages as f64)
    };
    cases.iter().enumerate().map(each).collect()
}

/// Instructions of one whole run.
fn count(program: &Path, case: &str, messages: u64, report: &Path) -> Result<u64, String> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", report.display()));
    command.arg(program).args([case, &messages.to_string()]);
    // When memory goes back to the system would depend on the time it took.
    command.env("MIMALLOC_PURGE_DELAY", "-1");
    output(&mut command)?;
    let text = fs::read_to_string(report).map_err(|error| error.to_string())?;
    total(&text).ok_or_else(|| format!("valgrind counted nothing of {case}"))
}

/// The sum in a file of callgrind.
fn total(report: &str) -> Option<u64> {
    let line = report.lines().find_map(|it| it.strip_prefix("summary: "))?;
    line.split_whitespace().next()?.parse().ok()
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("{name}: {error}"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {}\n{said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        let instructions = [("route".to_owned(), 2_000.0), ("append".to_owned(), 50.0)].into();
        let (above_percent, above_instructions, below_percent) = (3.0, 40.0, 10.0);
        Budget { above_percent, above_instructions, below_percent, instructions }
    }

    fn cases() -> Vec<Case> {
        ["route", "append"].map(|it| Case { name: it.to_owned(), messages: 1 }).to_vec()
    }

    #[test]
    fn budget_reads_what_it_writes() {
        let text = budget().text(&cases());
        assert!(text.ends_with("[instructions]\nroute = 2000\nappend = 50\n"), "{text}");
        assert_eq!(Ok(budget()), Budget::parse(&text));
    }

    #[test]
    fn line_that_is_no_budget_is_named() {
        let found = Budget::parse("[instructions]\nroute: 7\n");
        assert_eq!(Err("benches/budget.toml:2: not `name = number`".to_owned()), found);
    }

    #[test]
    fn too_many_instructions_and_a_case_without_a_budget_fail() {
        let budget = budget();
        assert!(budget.judge("route", 2_059.0).passes());
        assert!(!budget.judge("route", 2_061.0).passes());
        assert!(budget.judge("append", 89.0).passes(), "few instructions");
        assert!(!budget.judge("append", 91.0).passes());
        assert!(!budget.judge("new", 1.0).passes());
    }

    #[test]
    fn far_below_the_budget_passes_and_says_so() {
        let verdict = budget().judge("route", 1_780.0);
        assert!(verdict.passes());
        assert_eq!(verdict.text(), "-11.0 %  lower the budget");
        assert_eq!(budget().judge("route", 1_820.0).text(), "-9.0 %");
    }

    #[test]
    fn sum_stands_in_the_report_of_callgrind() {
        let report = "# callgrind format\nevents: Ir\nsummary: 12345\n\nfn=(1)\n0 1\n";
        assert_eq!(total(report), Some(12_345));
        assert_eq!(total("events: Ir\n"), None);
    }
}
