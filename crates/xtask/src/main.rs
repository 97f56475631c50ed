//! Tasks of the workspace: `cargo xtask tidy`, `check`, `numbers`, `counts`, `faults`, `torture`.
//!
//! Tidy holds the rules of `docs/style.md` that a program can check, so that no review has to say
//! them again. It is also a unit test, therefore `cargo test --workspace` includes it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod report;
mod source;
mod manifest;
mod exceptions;
mod layers;
mod one_way;
mod words;
mod shape;
mod unsafety;
mod documents;
mod packages;
mod stored_files;
mod requests;
mod tidy;
mod numbers;
mod counts;
mod faults;
mod torture;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy      checks the rules of docs/style.md that a program can check
  check     cargo fmt --check, cargo clippy with warnings as errors, tidy; writes nothing
  numbers   lines per crate, the longest files and functions, packages
  counts    [--update] [CASE...]: instructions per message against benches/budget.toml
  faults    sows each seeded fault and demands that the case named for it fails
  torture   [--minutes N] [--seed S] [--binary PATH]: everything random, in pieces that can
            run again";

fn main() -> ExitCode {
    let root = root();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let passed = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => run_tidy(&root),
        ["check"] => {
            run_cargo(&root, &["fmt", "--check"])
                && run_cargo(
                    &root,
                    &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
                )
                && run_tidy(&root)
        }
        ["numbers"] => {
            print!("{}", numbers::table(&root));
            true
        }
        ["counts", rest @ ..] => {
            let (update, cases) = match rest {
                ["--update", cases @ ..] => (true, cases),
                cases => (false, cases),
            };
            counts::run(&root, update, cases).unwrap_or_else(|error| {
                eprintln!("{error}");
                false
            })
        }
        ["faults"] => faults::run(&root),
        ["torture", rest @ ..] => match torture::Plan::parse(rest) {
            Some(plan) => torture::torture(&root, &plan),
            None => {
                eprintln!("{}", torture::USAGE);
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The folder of the workspace, wherever the command was started.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies in crates/xtask").to_owned()
}

fn run_tidy(root: &Path) -> bool {
    let report = tidy::check_workspace(root);
    for finding in &report.findings {
        println!("{finding}");
    }
    match report.findings.len() {
        0 => println!("tidy: nothing to say"),
        count => println!("tidy: {count} findings"),
    }
    report.findings.is_empty()
}

fn run_cargo(root: &Path, arguments: &[&str]) -> bool {
    println!("cargo {}", arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(cargo).args(arguments).current_dir(root).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cargo does not start: {error}");
            false
        }
    }
}
