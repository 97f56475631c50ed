//! Tests of the tests: each fault that can be sown (`crates/stdx/src/seeded.rs`) must make the case
//! named for it fail, and without a fault the same case must pass.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    time::Instant,
};

/// A fault and who must see it. `docs/test-plan.md` says more of the cases.
struct Fault {
    number: u8,
    what: &'static str,
    /// The case of the test plan.
    case: &'static str,
    /// Package, target as cargo selects it, and test.
    caught_by: Test,
}

type Test = (&'static str, &'static [&'static str], &'static str);

const CRASH: Test = (
    "ferrymq-storage",
    &["--test", "crash"],
    "power_cuts_lose_nothing_durable_and_invent_nothing_a",
);
const FLIPPED: Test = (
    "ferrymq-storage",
    &["--test", "damage"],
    "every_flipped_bit_of_a_record_is_reported_and_costs_that_record",
);
const DAMAGED_READ: Test = (
    "ferrymq-storage",
    &["--test", "damage"],
    "damage_met_by_a_read_is_set_aside_and_keeps_the_segment",
);
const MANIFESTS: Test = ("ferrymq-storage", &["--test", "damage"], "deleted_files_are_seen");
const EIO: Test =
    ("ferrymq-storage", &["--test", "faults"], "nothing_becomes_durable_after_the_first_eio");
const ENOSPC: Test = (
    "ferrymq-storage",
    &["--test", "faults"],
    "enospc_from_the_sync_of_a_preparation_is_a_failed_sync",
);
const SIMULATED: Test =
    ("ferrymq-sim", &["--test", "seeds"], "nothing_confirmed_is_lost_by_crashes");
const MODEL: Test = ("ferrymq-engine", &["--test", "it"], "random::queue_behaves_like_the_model");
const CHECKPOINTS: Test = (
    "ferrymq-storage",
    &["--test", "checkpoint"],
    "damaged_cut_or_missing_checkpoint_costs_time_and_is_told",
);
const CHECKPOINT_CRASH: Test = (
    "ferrymq-storage",
    &["--test", "checkpoint"],
    "crash_at_every_operation_of_a_checkpoint_shows_what_the_log_says",
);
const WAKE_UP: Test = (
    "ferrymq-node",
    &["--lib"],
    "signal::tests::signal_that_comes_before_the_wait_ends_it_at_once",
);
const LOST_QUEUE: Test = (
    "ferrymq-broker",
    &["--test", "it"],
    "durability::messages_of_a_queue_whose_declaration_is_damaged_are_kept_and_reported",
);

const fn fault(number: u8, what: &'static str, case: &'static str, caught_by: Test) -> Fault {
    Fault { number, what, case, caught_by }
}

const FAULTS: &[Fault] = &[
    fault(1, "confirm before fdatasync", "R4", SIMULATED),
    fault(2, "folder not synced when a segment is made", "R4", CRASH),
    fault(3, "rename without a sync of the new file", "R4", CRASH),
    fault(4, "checksum not looked at on read", "R5", DAMAGED_READ),
    fault(5, "checksum without the header", "R5", FLIPPED),
    fault(6, "truncate at the first bad record", "R5", FLIPPED),
    fault(7, "sync tried again after EIO, then confirm", "R6", EIO),
    fault(8, "removals apart from messages, unordered", "R4", SIMULATED),
    fault(9, "end of the log by the blocks of its file", "R4", CRASH),
    fault(10, "redelivered=false after a crash", "R1 in simulation", SIMULATED),
    fault(11, "requeue to the tail", "R20", MODEL),
    fault(12, "multiple past an unsynced publish", "R4", SIMULATED),
    fault(13, "unroutable message dropped without return", "R20 in simulation", SIMULATED),
    fault(16, "position stored before its data, on one node", "R4", CRASH),
    fault(17, "manifest without checksum", "R5", MANIFESTS),
    fault(18, "lost wake-up in group commit", "R21", WAKE_UP),
    fault(19, "record visible before its body is complete", "R4", CRASH),
    fault(20, "ENOSPC from a sync taken for a full disk", "R6", ENOSPC),
    fault(21, "queue without declaration started empty", "R5", LOST_QUEUE),
    fault(22, "checkpoint without checksum", "R5", CHECKPOINTS),
    fault(23, "checkpoint renamed before it is synced", "R4", CHECKPOINT_CRASH),
    fault(24, "removals after a checkpoint forgotten", "R4", SIMULATED),
];
const NOT_APPLICABLE: &[(u8, &str)] =
    &[(14, "vote not synced: no replication"), (15, "follower answers early: no replication")];
/// The faults from here on were added later; the gate counts those up to it.
const COUNTED_MAX: u8 = 18;

const FEATURE: &str = "ferrymq-stdx/seeded-faults";
const CHOSEN: &str = "SEEDED_FAULT";

/// Sows every fault; returns whether all were caught and nothing failed without one.
pub(crate) fn run(root: &Path) -> bool {
    let started = Instant::now();
    let built = cargo(root).args(["--no-run"]).status();
    if !built.is_ok_and(|it| it.success()) {
        println!("faults: the tests do not build");
        return false;
    }
    let mut passed = is_refused_by_a_release(root);
    println!("the feature in an optimised build: {}", if passed { "refused" } else { "THERE" });
    let cases: BTreeSet<Test> = FAULTS.iter().map(|it| it.caught_by).collect();
    for case in cases {
        let sound = says(&test(root, case, None), case.2, "ok");
        println!("without a fault: {} {}", case.2, if sound { "passes" } else { "FAILS" });
        passed &= sound;
    }
    let mut caught = Vec::new();
    for fault in FAULTS {
        let seen =
            says(&test(root, fault.caught_by, Some(fault.number)), fault.caught_by.2, "FAILED");
        let verdict = if seen { "caught" } else { "NOT CAUGHT" };
        let (package, _, name) = fault.caught_by;
        println!(
            "S{:<2} {} | {verdict} by {}: {package} {name}",
            fault.number, fault.what, fault.case
        );
        if seen {
            caught.push(fault.number);
        }
    }
    for (number, why) in NOT_APPLICABLE {
        println!("S{number} not applicable: {why}");
    }
    println!("{}, {} s", summary(&caught), started.elapsed().as_secs());
    passed && caught.len() == FAULTS.len()
}

/// Faults must not get into what is shipped, whoever turns the feature on.
fn is_refused_by_a_release(root: &Path) -> bool {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["check", "--release", "-p", "ferrymq-stdx", "--features", FEATURE]);
    let Ok(output) = command.current_dir(root).output() else { return false };
    !output.status.success()
        && String::from_utf8_lossy(&output.stderr).contains("no optimised build has them")
}

fn summary(caught: &[u8]) -> String {
    let counted = |it: &&u8| **it <= COUNTED_MAX;
    let not_applicable: Vec<String> =
        NOT_APPLICABLE.iter().map(|(number, _)| format!("S{number}")).collect();
    let of_set = FAULTS.iter().filter(|it| it.number <= COUNTED_MAX).count();
    format!(
        "faults: {} of {of_set} of S1-S{COUNTED_MAX} caught, {} not applicable ({}); \
         {} of {} after them",
        caught.iter().filter(counted).count(),
        not_applicable.len(),
        not_applicable.join(", "),
        caught.iter().filter(|it| !counted(it)).count(),
        FAULTS.len() - of_set,
    )
}

/// The same packages each time, so that nothing is built twice.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let packages: BTreeSet<&str> = FAULTS.iter().map(|it| it.caught_by.0).collect();
    command.current_dir(root).args(["test", "-p", "ferrymq-stdx"]);
    command.args(packages.iter().flat_map(|it| ["-p", it]));
    command.args(["--features", FEATURE]).env_remove(CHOSEN);
    command
}

fn test(root: &Path, (_, target, name): Test, number: Option<u8>) -> Option<Output> {
    let mut command = cargo(root);
    command.args(target).args(["--", "--exact", name]);
    if let Some(number) = number {
        command.env(CHOSEN, number.to_string());
    }
    command.output().ok()
}

/// Does the output say this of the test? A test that did not run says nothing.
fn says(output: &Option<Output>, test: &str, verdict: &str) -> bool {
    let Some(output) = output else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().any(|it| it == format!("test {test} ... {verdict}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_program_is_sown_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stdx/src/seeded.rs");
        let text = std::fs::read_to_string(root).expect("it is part of the workspace");
        let there = text.lines().filter_map(|it| it.split_once(" = ")?.1.strip_suffix(','));
        let mut there: Vec<u8> = there.filter_map(|it| it.parse().ok()).collect();
        there.extend(NOT_APPLICABLE.iter().map(|(number, _)| *number));
        there.sort_unstable();
        assert_eq!(there, (1..=24).collect::<Vec<u8>>());
        let mut sown: Vec<u8> = FAULTS.iter().map(|it| it.number).collect();
        sown.extend(NOT_APPLICABLE.iter().map(|(number, _)| *number));
        sown.sort_unstable();
        assert_eq!(sown, there);
    }

    #[test]
    fn what_is_not_applicable_is_not_counted_as_caught() {
        let all: Vec<u8> = FAULTS.iter().map(|it| it.number).collect();
        let expected = "faults: 16 of 16 of S1-S18 caught, 2 not applicable (S14, S15); 6 of 6 \
                        after them";
        assert_eq!(summary(&all), expected);
        assert!(summary(&[1, 19]).starts_with("faults: 1 of 16 of S1-S18 caught"));
    }
}
