//! The shape of a file: its purpose first, functions that fit on a screen, lines that fit on it.

use crate::{
    report::Report,
    source::{Kind, Source, find_word, first_word},
};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const LINE_COLUMNS_MAX: usize = 100;

pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Where its `fn` stands.
    pub(crate) offset: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(crate) lines: usize,
}

pub(crate) fn check(source: &Source, report: &mut Report) {
    if !source.text.starts_with("//!") {
        report.add(&source.path, "starts with no `//!` line saying what it is for");
    }
    let lines = source.text[..source.tests_at].lines().count();
    if FILE_LINES_MAX < lines {
        report
            .add(&source.path, format!("{lines} lines before its tests, {FILE_LINES_MAX} allowed"));
    }
    check_columns(source, report);
    for function in functions(source).iter().filter(|it| FUNCTION_LINES_MAX < it.lines) {
        let Function { name, offset, lines } = *function;
        let what = format!("`{name}`: function of {lines} lines, {FUNCTION_LINES_MAX} allowed");
        report.add(source.place(offset), what);
    }
    check_tests_last(source, report);
}

/// In tests a long literal may stand whole: the texts of the wire are searched for as they are.
fn check_columns(source: &Source, report: &mut Report) {
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let columns = line.trim_end_matches('\n').chars().count();
        let range = start..start + line.len();
        let has_literal = source.code[range.clone()] != source.spoken[range];
        let is_excused = has_literal && source.tests_at <= start;
        if LINE_COLUMNS_MAX < columns && !is_excused {
            let what = format!("{columns} columns, {LINE_COLUMNS_MAX} allowed");
            report.add(source.place(start), what);
        }
        start += line.len();
    }
}

/// The functions of the program, without those of its tests.
pub(crate) fn functions(source: &Source) -> Vec<Function<'_>> {
    let code = &source.code[..source.tests_at];
    find_word(code, "fn ")
        .filter_map(|offset| {
            let name = first_word(&code[offset + "fn ".len()..]);
            let body = body_start(code, offset)?;
            let end = closing_brace(code, body)?;
            let lines = code[offset..end].matches('\n').count() + 1;
            (!name.is_empty()).then_some(Function { name, offset, lines })
        })
        .collect()
}

/// The brace that opens the body; none for a declaration in a trait.
fn body_start(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in code[start..].char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.checked_sub(1)?,
            '{' if depth == 0 => return Some(start + at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The offset behind the brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in code[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at + 1);
        }
    }
    None
}

/// Whoever reads the program meets the tests at the end, and nothing behind them.
fn check_tests_last(source: &Source, report: &mut Report) {
    if source.kind == Kind::Test || source.tests_at == source.code.len() {
        return;
    }
    let Some(open) = source.code[source.tests_at..].find('{') else { return };
    let end = closing_brace(&source.code, source.tests_at + open);
    if end.is_some_and(|it| !source.code[it..].trim().is_empty()) {
        report.add(source.place(source.tests_at), "inline tests stand last in the file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(text: &str, expected: &[&str]) {
        let mut report = Report::default();
        check(&Source::new("engine", "x.rs", Kind::Code, text), &mut report);
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn file_without_a_purpose_is_reported() {
        check_text("fn f() {}\n", &["x.rs: starts with no `//!` line saying what it is for"]);
    }

    #[test]
    fn function_of_seventy_lines_passes_and_of_seventy_one_does_not() {
        let function =
            |lines| format!("//! X.\nfn f() {{\n{}}}\n", "    g(\"}\");\n".repeat(lines));
        check_text(&function(68), &[]);
        check_text(&function(69), &["x.rs:2: `f`: function of 71 lines, 70 allowed"]);
    }

    #[test]
    fn declaration_in_a_trait_has_no_body() {
        let text =
            format!("//! X.\ntrait T {{\n    fn f(&self, a: [u8; 4]);\n{}}}\n", "\n".repeat(90));
        check_text(&text, &[]);
    }

    #[test]
    fn long_file_is_reported_without_counting_its_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(900));
        check_text(&format!("//! X.\n{tests}"), &[]);
        let expected = "x.rs: 801 lines before its tests, 800 allowed";
        check_text(&format!("//! X.\n{}{tests}", "const A: u8 = 1;\n".repeat(800)), &[expected]);
    }

    #[test]
    fn wide_line_is_reported_where_it_stands() {
        let text = format!("//! X.\n// {}\n", "é".repeat(98));
        check_text(&text, &["x.rs:2: 101 columns, 100 allowed"]);
    }

    #[test]
    fn long_literal_is_allowed_in_tests_only() {
        let line = format!("const A: &str = \"{}\";\n", "x".repeat(90));
        check_text(&format!("//! X.\n{line}"), &["x.rs:2: 109 columns, 100 allowed"]);
        check_text(&format!("//! X.\n#[cfg(test)]\nmod tests {{\n{line}}}\n"), &[]);
        let comment = format!("// {}\n", "x".repeat(98));
        let tests = format!("//! X.\n#[cfg(test)]\nmod tests {{\n{comment}}}\n");
        check_text(&tests, &["x.rs:4: 101 columns, 100 allowed"]);
    }

    #[test]
    fn code_behind_the_tests_is_reported() {
        let text = "//! X.\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nfn g() {}\n";
        check_text(text, &["x.rs:2: inline tests stand last in the file"]);
    }
}
