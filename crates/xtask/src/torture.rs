//! The second tier of the test plan: everything random, from seeds, for as long as it is given.
//!
//! Two lanes run beside each other: one in process (crash states, spoiled folders, the simulator,
//! the engine against its model), one with the real binary on real file systems (kills, power cuts,
//! failing syncs, full disks, damage), where the machine has the rig for it. Each line that is
//! printed before a piece runs is the command that runs it again.

use std::{
    fmt,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

const MINUTES: u64 = 30;
/// A piece that needs longer than this hangs.
const PIECE_MAX: Duration = Duration::from_secs(300);
/// Taken for the length of a piece before it has run once.
const FIRST_GUESS: Duration = Duration::from_secs(30);
/// Of what a failing piece has printed.
const LINES_SHOWN: usize = 40;
/// The variable from which the rig takes the broker's command.
const SERVE: &str = "FAULTLAB_CMD";
const POLL: Duration = Duration::from_millis(50);

pub(crate) const USAGE: &str =
    "usage: cargo xtask torture [--minutes N] [--seed S] [--binary PATH]";

/// How long, and from which seed on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    minutes: u64,
    seed: u64,
    /// A release binary that is there; otherwise one is built.
    binary: Option<PathBuf>,
}

impl Plan {
    /// Reads the arguments; without a seed the clock gives one.
    pub(crate) fn parse(arguments: &[&str]) -> Option<Self> {
        let since = std::time::UNIX_EPOCH.elapsed().map_or(1, |it| it.as_secs());
        let mut plan = Self { minutes: MINUTES, seed: since % 1_000_000, binary: None };
        for pair in arguments.chunks(2) {
            let value = *pair.get(1)?;
            match pair[0] {
                "--minutes" => plan.minutes = value.parse().ok()?,
                "--seed" => plan.seed = value.parse().ok()?,
                "--binary" => plan.binary = Some(value.into()),
                _ => return None,
            }
        }
        Some(plan)
    }
}

/// What a piece is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A program of ours: its status.
    Test,
    /// A script of the rig: its status and its last lines.
    Rig,
    /// As `Rig`, but it loses on purpose: that must be seen.
    Control,
}

/// Something that runs from a seed, again and again.
struct Piece {
    name: &'static str,
    kind: Kind,
    /// Words of the command; `{seed}` is replaced. Words with `=` before the program are variables.
    command: String,
    /// States that a test judges without saying how many.
    states: u64,
    took: Duration,
    once: bool,
}

impl Piece {
    fn new(name: &'static str, kind: Kind, command: impl Into<String>) -> Self {
        let once = kind == Kind::Control;
        Self { name, kind, command: command.into(), states: 0, took: FIRST_GUESS, once }
    }
}

/// What all pieces together have found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    pieces: u64,
    confirmed: u64,
    judged: u64,
    lost: u64,
    phantom: u64,
    reordered: u64,
    wrong_flags: u64,
    other: u64,
    replays: Vec<String>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pieces, confirmed, judged, lost, phantom, reordered, wrong_flags, other, ..
        } = self;
        writeln!(
            f,
            "{pieces} pieces, {judged} states judged in process, {confirmed} messages confirmed, \
             {other} other findings"
        )?;
        write!(f, "lost {lost} phantom {phantom} reordered {reordered} wrong flags {wrong_flags}")
    }
}

/// The number behind a word, as in `lost 3`.
fn after(text: &str, word: &str) -> Option<u64> {
    let rest = text.rsplit_once(word)?.1.trim_start();
    let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// The number before a word, as in `812 disks judged`.
fn before(text: &str, word: &str) -> Option<u64> {
    text.rsplit_once(word)?.0.split_whitespace().next_back()?.parse().ok()
}

impl Totals {
    /// Adds what a piece has printed. Returns whether all was well.
    fn take(&mut self, kind: Kind, passed: bool, output: &str) -> bool {
        self.pieces += 1;
        let found = self.lost + self.phantom + self.reordered + self.wrong_flags;
        match kind {
            Kind::Test => {
                self.judged += before(output, " disks judged").unwrap_or(0);
                self.confirmed += before(output, " confirmed messages").unwrap_or(0);
                if !passed {
                    self.classify(output);
                }
            }
            Kind::Rig => {
                self.confirmed += after(output, ": confirmed ").unwrap_or(0);
                self.lost += after(output, " lost ").unwrap_or(0);
                self.phantom += after(output, " phantom ").unwrap_or(0);
                self.reordered += after(output, " reordered ").unwrap_or(0);
                self.wrong_flags += after(output, " unflagged ").unwrap_or(0);
            }
            Kind::Control => {}
        }
        let nothing_named = found == self.lost + self.phantom + self.reordered + self.wrong_flags;
        self.other += u64::from(!passed && nothing_named);
        passed && nothing_named
    }

    /// A failed test has said in its own words what it misses.
    fn classify(&mut self, output: &str) {
        let says = |words: &[&str]| words.iter().any(|it| output.contains(it));
        if says(&["not marked"]) {
            self.wrong_flags += 1;
        } else if says(&["phantom", "twice", "which cannot be"]) {
            self.phantom += 1;
        } else if says(&[" behind ", "order\n"]) {
            self.reordered += 1;
        } else if says(&["lost ", "is missing", "gap at"]) {
            self.lost += 1;
        }
    }
}

fn in_process() -> Vec<Piece> {
    let test = |name, states, command: String| {
        let piece = Piece::new(name, Kind::Test, command);
        Piece { states, ..piece }
    };
    let cargo = "cargo test -q --profile torture --locked -p";
    let sim = "cargo run -q --profile torture --locked -p ferrymq-sim --example torture --";
    let crash = "CRASH_SEED={seed} CRASH_STATES=20000";
    let spoil = "SPOIL_SEED={seed} SPOIL_COUNT=10000";
    let model = "MODEL_SEED={seed}";
    let walks = "PROPTEST_RNG_SEED={seed} PROPTEST_CASES=30000";
    vec![
        test("simulator", 0, format!("{sim} --seconds 20 --mixed --seed {{seed}}000000")),
        // Four tests of so many states.
        test("crash states", 80_000, format!("{crash} {cargo} ferrymq-storage --test crash")),
        test("engine", 10_000, format!("{model} {cargo} ferrymq-engine --test it random")),
        test("spoiled folders", 10_000, format!("{spoil} {cargo} ferrymq-storage --test corpus")),
        test(
            "sessions",
            90_000,
            format!("{walks} {cargo} ferrymq-amqp091 --test session anything"),
        ),
        test(
            "failing disks",
            0,
            format!("{sim} --seconds 10 --faults --restart-every 12 --seed {{seed}}500000"),
        ),
    ]
}

fn on_the_rig(lab: &Path, python: &Path, binary: &Path) -> Vec<Piece> {
    let script = |kind, name: &'static str, script: &str, arguments: &str| {
        // A script may have variables before its name.
        let (variables, file) = script.rsplit_once(' ').unwrap_or(("", script));
        let (python, path) = (python.display(), lab.join(file));
        let path = path.display();
        let command = format!("{variables} {python} {path} --seed {{seed}} {arguments}");
        Piece::new(name, kind, command.trim_start())
    };
    let rig = |name, file: &str, arguments: &str| script(Kind::Rig, name, file, arguments);
    // Small segments, so that the log rolls and files come and go.
    let small = |file: &str| format!("FERRYMQ_STORAGE__SEGMENT_BYTES=1MiB {file}");
    let (program, binary) = (python.display(), binary.display());
    let hardship = format!("{program} conformance/hardship.py --broker {binary} --seed {{seed}}");
    let swallowed = "--presync --swallow-sync --expect-loss --seconds 2";
    vec![
        script(Kind::Control, "control: syncs swallowed", "powercut.py", swallowed),
        rig("kills", "killloop.py", "--strict --cycles 10 --max-body 1048576 --max-restart 10"),
        rig("power cuts, ext4", "powercut.py", "--strict --cycles 8 --seconds 1 --linger 0.3"),
        rig("damage", &small("damage.py"), "--strict --trials 4"),
        rig("power cuts, xfs", &small("powercut.py"), "--strict --cycles 5 --seconds 1 --fs xfs"),
        rig("failing sync", "eio.py", "--strict --status 74 --fail data"),
        rig("failing journal", "eio.py", "--strict --status 74 --fail journal"),
        rig("full disk", "enospc.py", "--strict"),
        Piece::new("hardship", Kind::Test, hardship),
    ]
}

/// What both lanes share.
struct Run {
    root: PathBuf,
    end: Instant,
    seed: u64,
    /// How the rig starts the broker.
    serve: String,
    totals: Mutex<Totals>,
}

impl Run {
    /// Runs the pieces of a lane one after the other until time is over.
    fn lane(&self, mut pieces: Vec<Piece>) {
        let mut seed = self.seed;
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let Some(at) = pieces.iter().position(|it| it.took < left) else { return };
            let mut piece = pieces.remove(at);
            let started = Instant::now();
            let command = piece.command.replace("{seed}", &seed.to_string());
            println!("{}: {command}", piece.name);
            let is_able = self.piece(&piece, &command);
            piece.took = started.elapsed() * 5 / 4;
            if is_able && !piece.once {
                pieces.push(piece);
            }
            seed += 1;
        }
    }

    /// Runs one piece; returns whether the machine can do such a thing at all.
    fn piece(&self, piece: &Piece, command: &str) -> bool {
        let (status, output) = run(&self.root, &self.serve, command);
        if piece.kind != Kind::Test && status == Some(2) {
            println!("{}: this machine cannot: {}", piece.name, output.trim());
            return false;
        }
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if totals.take(piece.kind, status == Some(0), &output) {
            totals.judged += piece.states;
            return true;
        }
        let tail: Vec<&str> = output.lines().rev().take(LINES_SHOWN).collect();
        tail.iter().rev().for_each(|it| println!("    {it}"));
        println!("{}: FAILED; again: {command}", piece.name);
        totals.replays.push(command.to_owned());
        true
    }
}

/// Runs a command to its end, or as long as it may; its status and all it said.
fn run(root: &Path, serve: &str, command: &str) -> (Option<i32>, String) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_variable = |it: &&&str| it.contains('=') && !it.starts_with('-');
    let variables = words.iter().take_while(is_variable).count();
    let Some(program) = words.get(variables) else { return (None, String::new()) };
    let path = std::env::temp_dir().join(format!(
        "ferrymq-torture-{}-{:?}.log",
        std::process::id(),
        thread::current().id()
    ));
    let Ok(log) = File::create(&path) else { return (None, "no temporary file".into()) };
    let Ok(log_too) = log.try_clone() else { return (None, "no temporary file".into()) };
    let mut command = Command::new(program);
    command.current_dir(root).args(&words[variables + 1..]).stdin(Stdio::null());
    // A group of its own, so that what hangs ends with all that it started.
    command.process_group(0);
    command.env(SERVE, serve).envs(words[..variables].iter().filter_map(|it| it.split_once('=')));
    let status = match command.stdout(log).stderr(log_too).spawn() {
        Ok(mut child) => {
            let started = Instant::now();
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => break status.code(),
                    Ok(None) if started.elapsed() < PIECE_MAX => thread::sleep(POLL),
                    _ => {
                        let group = format!("-{}", child.id());
                        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                        let _ = child.wait();
                        break None;
                    }
                }
            }
        }
        Err(error) => {
            println!("{program} does not start: {error}");
            None
        }
    };
    let output = std::fs::read(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    (status, String::from_utf8_lossy(&output).into_owned())
}

/// Where the rig lies: `FAULTLAB_DIR`, or beside the project.
fn lab(root: &Path) -> Option<PathBuf> {
    let chosen = std::env::var_os("FAULTLAB_DIR").map(PathBuf::from);
    let lab = chosen.unwrap_or_else(|| root.join("../shared/tools/faultlab"));
    lab.join("powercut.py").exists().then_some(lab)
}

/// Builds what the lanes need, so that no piece pays for it: one package at a time, as they run.
fn build(root: &Path, with_program: bool) -> bool {
    let test = |package| format!("test -q --profile torture --locked --no-run -p {package}");
    let mut commands: Vec<String> =
        ["ferrymq-storage", "ferrymq-engine", "ferrymq-amqp091"].map(test).into();
    commands.push("build -q --profile torture --locked -p ferrymq-sim --example torture".into());
    if with_program {
        commands.push("build -q --release --locked -p ferrymq".into());
    }
    commands.iter().all(|it| {
        println!("cargo {it}");
        let mut command = Command::new("cargo");
        command.args(it.split_whitespace()).current_dir(root);
        command.status().is_ok_and(|it| it.success())
    })
}

/// Runs until the minutes are over; returns whether nothing was found.
pub(crate) fn torture(root: &Path, plan: &Plan) -> bool {
    println!("torture: {} minutes from seed {}, and the build before", plan.minutes, plan.seed);
    let lab = lab(root);
    if !build(root, lab.is_some() && plan.binary.is_none()) {
        return false;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let built = target.unwrap_or_else(|| root.join("target")).join("release/ferrymq");
    let binary = plan.binary.clone().unwrap_or(built);
    let arguments = "serve --data-dir {data} --listen 127.0.0.1:{port}";
    let serve =
        std::env::var(SERVE).unwrap_or_else(|_| format!("exec {} {arguments}", binary.display()));
    println!("export {SERVE}='{serve}'");
    let end = Instant::now() + Duration::from_secs(plan.minutes * 60);
    let run = Run { root: root.to_owned(), end, seed: plan.seed, serve, totals: Mutex::default() };
    let rig = match &lab {
        None => {
            println!("no rig: kills, cuts, failing and full disks are left out");
            Vec::new()
        }
        Some(lab) => on_the_rig(lab, &python(root), &binary),
    };
    thread::scope(|scope| {
        scope.spawn(|| run.lane(rig));
        run.lane(in_process());
    });
    let totals = run.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.replays.iter().for_each(|it| println!("again: {it}"));
    println!("{totals}");
    totals.replays.is_empty() && 0 < totals.pieces
}

fn python(root: &Path) -> PathBuf {
    let ours = root.join(".ci/cache/venv/bin/python");
    if ours.exists() { ours } else { "python3".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let plan = Plan::parse(&["--minutes", "5", "--binary", "x", "--seed", "9"]);
        assert_eq!(plan, Some(Plan { minutes: 5, seed: 9, binary: Some("x".into()) }));
        assert!(Plan::parse(&[]).is_some_and(|it| it.minutes == MINUTES));
        assert_eq!(Plan::parse(&["--minutes"]), None);
        assert_eq!(Plan::parse(&["--hours", "1"]), None);
    }

    #[test]
    fn verdict_of_a_script_is_counted() {
        let mut totals = Totals::default();
        let line = "also judged: unflagged 4, back although settled 0, odd confirms 0\n\
                    killloop: confirmed 100 lost 1 phantom 2 reordered 3 -> FAIL\n";
        assert!(!totals.take(Kind::Rig, false, line));
        let found = (totals.lost, totals.phantom, totals.reordered, totals.wrong_flags);
        assert_eq!((found, totals.confirmed, totals.other), ((1, 2, 3, 4), 100, 0));
        let line = "also judged: unflagged 0, odd confirms 0\n\
                    killloop: confirmed 50 lost 0 phantom 0 reordered 0 -> pass\n";
        assert!(totals.take(Kind::Rig, true, line));
        assert_eq!(totals.confirmed, 150);
    }

    #[test]
    fn loss_of_a_control_is_not_counted_and_its_absence_fails() {
        let mut totals = Totals::default();
        let line = "powercut-control: confirmed 9 lost 9 phantom 0 reordered 0 -> pass";
        assert!(totals.take(Kind::Control, true, line));
        assert_eq!((totals.lost, totals.other), (0, 0));
        assert!(!totals.take(Kind::Control, false, "lost 0"));
        assert_eq!(totals.other, 1);
    }

    #[test]
    fn failed_test_is_always_a_finding() {
        let mut totals = Totals::default();
        assert!(!totals.take(Kind::Test, false, "no word that is known"));
        assert!(!totals.take(Kind::Test, false, "panicked: lost 0000000001:64"));
        assert!(!totals.take(Kind::Test, false, "first has message 4, delivered and not marked"));
        assert_eq!((totals.other, totals.lost, totals.wrong_flags), (1, 1, 1));
    }

    #[test]
    fn command_runs_with_its_variables_and_tells_its_status() {
        let (status, output) = run(Path::new("/"), "", "TORTURE_TEST=seven env");
        assert_eq!(status, Some(0));
        assert!(output.contains("TORTURE_TEST=seven"));
        assert_eq!(run(Path::new("/"), "", "false").0, Some(1));
        assert_eq!(run(Path::new("/"), "", "no-such-program-here").0, None);
    }
}
