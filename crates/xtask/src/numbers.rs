//! Figures that should not jump unseen: lines per crate, the longest files and functions,
//! packages.

use std::{fmt::Write, path::Path};

use crate::{
    packages, shape,
    source::{self, Source},
};

const LONGEST_SHOWN: usize = 5;

pub(crate) fn table(root: &Path) -> String {
    let sources = source::read_workspace(root);
    let mut out = String::from("lines        program    tests\n");
    let (mut program_total, mut tests_total) = (0, 0);
    for folder in source::crate_folders(root) {
        let of_crate = sources.iter().filter(|it| it.crate_name == folder);
        let (program, tests) = of_crate.map(lines).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        program_total += program;
        tests_total += tests;
        line(&mut out, &format!("{folder:12} {program:7}  {tests:7}"));
    }
    line(&mut out, &format!("{:12} {program_total:7}  {tests_total:7}", "all"));
    let mut files: Vec<(usize, &str)> =
        sources.iter().map(|it| (lines(it).0, it.path.as_str())).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    line(&mut out, "longest files, without their tests");
    for (count, path) in files.iter().take(LONGEST_SHOWN) {
        line(&mut out, &format!("{count:5}  {path}"));
    }
    let mut functions: Vec<(usize, String)> = sources
        .iter()
        .flat_map(|it| shape::functions(it).into_iter().map(move |f| (it, f)))
        .map(|(it, f)| (f.lines, format!("{} {}", it.place(f.offset), f.name)))
        .collect();
    functions.sort_unstable_by(|a, b| b.cmp(a));
    line(&mut out, "longest functions");
    for (count, name) in functions.iter().take(LONGEST_SHOWN) {
        line(&mut out, &format!("{count:5}  {name}"));
    }
    line(&mut out, &format!("packages below ferrymq: {}", packages::count(root)));
    out
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes everything");
}

/// Lines of the program and of its tests.
fn lines(source: &Source) -> (usize, usize) {
    let all = source.text.lines().count();
    let program = source.text[..source.tests_at].lines().count();
    (program, all - program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    #[test]
    fn lines_of_tests_are_counted_apart() {
        let text = "//! X.\nfn f() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!((2, 3), lines(&Source::new("model", "x.rs", Kind::Code, text)));
        assert_eq!((0, 5), lines(&Source::new("model", "x.rs", Kind::Test, text)));
    }
}
