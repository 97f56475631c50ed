//! Words that must not stand in certain files: what makes a pure crate impure, clocks, names of
//! protocols in the middle, and what is left over from work in progress.

use crate::{
    report::Report,
    source::{Kind, Source, find_word, first_word},
};

/// Crates that give the same answer for the same input.
const PURE: &[&str] = &["stdx", "model", "catalog", "engine", "broker", "amqp091"];
/// What would break that. Paths below `std` are found in grouped imports, too.
const IMPURE: &[&str] =
    &["tokio", "std::net", "std::fs", "std::thread", "Instant::now", "SystemTime::now", "rand::"];

/// Crates that speak of messages and queues, not of a protocol.
const NEUTRAL: &[&str] = &["model", "catalog", "engine", "broker"];
const PROTOCOLS: &[&str] = &["amqp", "mqtt", "stomp"];

const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now"];
const CLOCK_FILE: &str = "crates/node/src/clock.rs";
/// They run beside the broker, not inside it.
const CLOCKS_ALLOWED: &[&str] = &["bench", "sim", "xtask"];

/// Left over from work in progress, wherever it stands.
const LEFT_OVER: &[&str] = &["dbg!(", "todo!(", "unimplemented!(", "#[ignore", "#[should_panic"];
/// Looked for in comments, too; in two pieces, so that this file does not contain it.
const MARK: &str = concat!("FIX", "ME");

const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "util", "utils"];

pub(crate) fn check(source: &Source, report: &mut Report) {
    let program = &source.code[..source.tests_at];
    if PURE.contains(&source.crate_name.as_str()) {
        check_pure(source, program, report);
    }
    if NEUTRAL.contains(&source.crate_name.as_str()) {
        check_neutral(source, report);
    }
    let is_clock = source.path == CLOCK_FILE;
    if !is_clock && !CLOCKS_ALLOWED.contains(&source.crate_name.as_str()) {
        forbid(source, program, CLOCKS, &format!("time comes from {CLOCK_FILE}"), report);
    }
    forbid(source, program, &[".unwrap()"], "`expect` says why it holds", report);
    forbid(source, &source.code, LEFT_OVER, "left over", report);
    for (at, _) in source.text.match_indices(MARK) {
        report.add(source.place(at), format!("contains `{MARK}`: left over"));
    }
    check_sleep(source, report);
    let stem = source.path.rsplit('/').next().unwrap_or("").trim_end_matches(".rs");
    if EMPTY_NAMES.contains(&stem) {
        report.add(&source.path, format!("a file called `{stem}` says nothing about its subject"));
    }
}

fn forbid(source: &Source, code: &str, words: &[&str], why: &str, report: &mut Report) {
    for word in words {
        for at in find_word(code, word) {
            report.add(source.place(at), format!("contains `{word}`: {why}"));
        }
    }
}

fn check_pure(source: &Source, program: &str, report: &mut Report) {
    if source.kind == Kind::Test {
        return;
    }
    forbid(source, program, IMPURE, "the crate is pure", report);
    for at in find_word(program, "std::{") {
        let group = program[at + "std::{".len()..].split(';').next().unwrap_or("");
        for word in ["net", "fs", "thread"] {
            let is_member = |it: usize| {
                group[..it].trim_end().is_empty() || group[..it].trim_end().ends_with(['{', ','])
            };
            if find_word(group, word).any(is_member) {
                let what = format!("contains `std::{word}`: the crate is pure");
                report.add(source.place(at), what);
            }
        }
    }
}

/// Code and strings, not comments: those may say why a rule is as it is.
fn check_neutral(source: &Source, report: &mut Report) {
    let lower = source.spoken[..source.tests_at].to_ascii_lowercase();
    for word in PROTOCOLS {
        for (at, _) in lower.match_indices(word) {
            report.add(source.place(at), format!("names the protocol `{word}`"));
        }
    }
}

/// A test waits for an event under a deadline; it never waits for time to pass.
fn check_sleep(source: &Source, report: &mut Report) {
    for (at, _) in source.code[source.tests_at..].match_indices("sleep(") {
        let at = source.tests_at + at;
        let before = source.code[..at].trim_end();
        let declares = before.ends_with("fn") && first_word(&source.code[at..]) == "sleep";
        if !declares {
            report.add(source.place(at), "contains `sleep(`: wait for an event instead");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let folder = path.split('/').nth(1).expect("crates/NAME/…").to_owned();
        let kind = if path.contains("/tests/") { Kind::Test } else { Kind::Code };
        let mut report = Report::default();
        check(&Source::new(&folder, path, kind, text), &mut report);
        let expected: Vec<String> = expected.iter().map(|it| format!("{path}:{it}")).collect();
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn clock_is_reported_everywhere_but_in_its_file() {
        let text = "fn f() { Instant::now(); }\n";
        let everywhere = "1: contains `Instant::now`: time comes from crates/node/src/clock.rs";
        let pure = "1: contains `Instant::now`: the crate is pure";
        check_text("crates/server/src/x.rs", text, &[everywhere]);
        check_text("crates/engine/src/x.rs", text, &[pure, everywhere]);
        check_text("crates/node/src/clock.rs", text, &[]);
        check_text("crates/sim/src/x.rs", text, &[]);
        check_text("crates/server/tests/it/main.rs", text, &[]);
    }

    #[test]
    fn file_system_in_a_pure_crate_is_reported_in_any_spelling() {
        let expected = &["1: contains `std::fs`: the crate is pure"];
        check_text("crates/engine/src/x.rs", "use std::fs::File;\n", expected);
        check_text("crates/engine/src/x.rs", "use std::{collections::BTreeMap, fs};\n", expected);
        check_text("crates/engine/src/x.rs", "use std::{fs::{self, File}};\n", expected);
        check_text("crates/engine/src/x.rs", "use std::{fmt, str};\n", &[]);
        check_text("crates/storage/src/x.rs", "use std::fs::File;\n", &[]);
    }

    #[test]
    fn protocol_is_named_in_comments_only() {
        let expected = &["1: names the protocol `amqp`"];
        check_text("crates/model/src/x.rs", "struct AmqpName;\n", expected);
        check_text("crates/model/src/x.rs", "const A: &str = \"amqp\";\n", expected);
        check_text("crates/model/src/x.rs", "const A: &str = \"amq.\"; // as in AMQP\n", &[]);
        check_text("crates/amqp091/src/x.rs", "struct AmqpName;\n", &[]);
    }

    #[test]
    fn unwrap_is_allowed_in_tests_only() {
        let line = "fn f() { g().unwrap(); }\n";
        let expected = &["1: contains `.unwrap()`: `expect` says why it holds"];
        check_text("crates/server/src/x.rs", line, expected);
        check_text("crates/server/tests/it/main.rs", line, &[]);
        let inline = format!("#[cfg(test)]\nmod tests {{\n{line}}}\n");
        check_text("crates/server/src/x.rs", &inline, &[]);
    }

    #[test]
    fn left_overs_are_reported_in_tests_too() {
        let expected = &["1: contains `#[ignore`: left over"];
        check_text("crates/server/tests/it/main.rs", "#[ignore]\nfn f() {}\n", expected);
        let comment = format!("// {MARK} later\n");
        let expected = format!("1: contains `{MARK}`: left over");
        check_text("crates/server/src/x.rs", &comment, &[&expected]);
    }

    #[test]
    fn sleep_is_reported_in_tests_only() {
        let text = "fn f() { thread::sleep(x); }\n";
        let expected = &["1: contains `sleep(`: wait for an event instead"];
        check_text("crates/node/tests/it/main.rs", text, expected);
        check_text("crates/node/src/x.rs", text, &[]);
    }

    #[test]
    fn word_in_a_string_is_no_code() {
        check_text("crates/server/src/x.rs", "const A: &str = \".unwrap() dbg!(\";\n", &[]);
    }
}
