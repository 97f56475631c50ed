//! Which files may contain `unsafe`, and that each use says why it is sound.

use crate::{
    report::Report,
    source::{Source, find_word},
};

/// Only where a benchmark shows the need, in a small file of its own with what must hold; and where
/// a test counts allocations.
const UNSAFE_FILES: &[&str] = &[
    "crates/counts/tests/allocations.rs",
    "crates/ferrymq/src/allocator.rs",
    "crates/node/src/scheduling.rs",
];

pub(crate) fn check(source: &Source, report: &mut Report) {
    check_with(source, UNSAFE_FILES, report);
}

fn check_with(source: &Source, allowed: &[&str], report: &mut Report) {
    for at in find_word(&source.code, "unsafe") {
        if !allowed.contains(&source.path.as_str()) {
            report.add(source.place(at), "`unsafe` in a file that is not on the list");
        } else if !has_safety_comment(&source.text[..at]) {
            report.add(source.place(at), "`unsafe` without a `// SAFETY:` comment above it");
        }
    }
}

/// Whether the comment that ends above the current line has a `SAFETY:`.
fn has_safety_comment(before: &str) -> bool {
    let mut lines = before.lines().rev();
    if !before.ends_with('\n') {
        lines.next();
    }
    lines
        .map(str::trim_start)
        .take_while(|it| it.starts_with("//"))
        .any(|it| it.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    #[track_caller]
    fn check_text(allowed: &[&str], text: &str, expected: &[&str]) {
        let mut report = Report::default();
        check_with(&Source::new("stdx", "x.rs", Kind::Code, text), allowed, &mut report);
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn unsafe_needs_a_listed_file_and_a_reason() {
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        check_text(&[], bare, &["x.rs:2: `unsafe` in a file that is not on the list"]);
        let missing = "x.rs:2: `unsafe` without a `// SAFETY:` comment above it";
        check_text(&["x.rs"], bare, &[missing]);
        let elsewhere = "// SAFETY: of another.\nfn f() {\n    unsafe { g() }\n}\n";
        check_text(
            &["x.rs"],
            elsewhere,
            &["x.rs:3: `unsafe` without a `// SAFETY:` comment above it"],
        );
        let sound =
            "fn f() {\n    // SAFETY: g only reads,\n    // always.\n    unsafe { g() }\n}\n";
        check_text(&["x.rs"], sound, &[]);
    }

    #[test]
    fn names_of_lints_and_comments_are_not_unsafe() {
        check_text(&[], "#![forbid(unsafe_code)]\n// unsafe\n", &[]);
    }
}
