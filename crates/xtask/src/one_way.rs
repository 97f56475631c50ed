//! Inside a crate a module uses only modules declared above it.
//!
//! The `mod` lines of `lib.rs` (or `main.rs`) are the order of reading. A folder of sub-modules
//! counts as one module. A name that the root re-exports stands for the module it comes from.

use std::collections::BTreeMap;

use crate::{
    report::Report,
    source::{Kind, Source, find_word, first_word},
};

pub(crate) fn check(sources: &[&Source], report: &mut Report) {
    let root_of = |name: &str| sources.iter().find(|it| it.module_path() == Some(name));
    let Some(root) = root_of("lib.rs").or_else(|| root_of("main.rs")) else { return };
    let order = declared_modules(&root.code[..root.tests_at]);
    let exported = re_exports(&root.code[..root.tests_at], &order);
    for source in sources.iter().filter(|it| it.kind == Kind::Code) {
        let Some(path) = source.module_path() else { continue };
        let top = path.split(['/', '.']).next().unwrap_or("");
        let Some(rank) = order.iter().position(|it| *it == top) else { continue };
        let code = &source.code[..source.tests_at];
        for (at, name) in root_names(code, depth(path)) {
            let used = exported.get(name).copied().unwrap_or(name);
            if order.iter().position(|it| *it == used).is_some_and(|it| rank < it) {
                report.add(source.place(at), format!("uses `{used}`, declared below `{top}`"));
            }
        }
    }
}

/// How many `super::` lead from the file to the root of the crate.
fn depth(path: &str) -> usize {
    path.trim_end_matches(".rs").trim_end_matches("/mod").matches('/').count() + 1
}

fn declared_modules(code: &str) -> Vec<&str> {
    code.lines()
        .filter_map(|it| {
            let it =
                it.strip_prefix("pub(crate) ").or_else(|| it.strip_prefix("pub ")).unwrap_or(it);
            it.strip_prefix("mod ")?.trim_end().strip_suffix(';')
        })
        .collect()
}

/// From each name that the root re-exports to the module it comes from.
fn re_exports<'a>(code: &'a str, order: &[&'a str]) -> BTreeMap<&'a str, &'a str> {
    let mut exported = BTreeMap::new();
    for (at, word) in code.match_indices("pub use ").chain(code.match_indices("pub(crate) use ")) {
        let statement = code[at + word.len()..].split(';').next().unwrap_or("");
        let (module, names) = statement.split_once("::").unwrap_or((statement, ""));
        let Some(module) = order.iter().copied().find(|it| *it == module.trim()) else { continue };
        for name in names.split(|it: char| !it.is_alphanumeric() && it != '_') {
            if name.starts_with(|it: char| it.is_uppercase()) {
                exported.insert(name, module);
            }
        }
    }
    exported
}

/// The first names after `crate::`, or after as many `super::` as lead to the root.
fn root_names(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth);
    let by_crate = find_word(code, "crate::").map(|it| (it, it + "crate::".len()));
    let by_super = code
        .match_indices(&up)
        .filter(|(at, _)| !code[..*at].ends_with("super::"))
        .map(|(at, it)| (at, at + it.len()));
    by_crate.chain(by_super).flat_map(|(at, end)| heads(&code[end..], at)).collect()
}

/// The first name of a path, or of each member of a group `{a::B, c::{D, E}}`.
fn heads(rest: &str, at: usize) -> Vec<(usize, &str)> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![(at, first_word(rest))];
    };
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (index, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push((at, first_word(group[start..index].trim_start())));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push((at, first_word(group[start..index].trim_start())));
                start = index + 1;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| {
                Source::new("engine", &format!("crates/engine/src/{path}"), Kind::Code, text)
            })
            .collect();
        let mut report = Report::default();
        check(&sources.iter().collect::<Vec<_>>(), &mut report);
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn module_that_looks_down_is_reported() {
        let lib = ("lib.rs", "mod record;\npub mod queue;\n");
        let down = "crates/engine/src/record.rs:1: uses `queue`, declared below `record`";
        check_files(&[lib, ("record.rs", "use crate::queue::Queue;\n")], &[down]);
        check_files(&[lib, ("record.rs", "use crate::{a::{B, C}, queue::Queue};\n")], &[down]);
        check_files(&[lib, ("record.rs", "fn f(_: super::queue::Queue) {}\n")], &[down]);
        check_files(&[lib, ("queue.rs", "use crate::{record::Record};\n")], &[]);
    }

    #[test]
    fn re_exported_name_stands_for_its_module() {
        check_files(
            &[
                ("lib.rs", "mod record;\nmod queue;\npub use queue::{Queue, Turn};\n"),
                ("record.rs", "use crate::Turn;\n"),
            ],
            &["crates/engine/src/record.rs:1: uses `queue`, declared below `record`"],
        );
    }

    #[test]
    fn folder_of_modules_is_one_module() {
        check_files(
            &[
                ("lib.rs", "mod job;\nmod queue;\n"),
                ("job.rs", "use crate::job::state::State;\n"),
                ("job/state.rs", "use super::Job;\nuse super::super::queue::Queue;\n"),
            ],
            &["crates/engine/src/job/state.rs:2: uses `queue`, declared below `job`"],
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let record = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::queue::Queue;\n}\n";
        check_files(&[("lib.rs", "mod record;\nmod queue;\n"), ("record.rs", record)], &[]);
    }
}
