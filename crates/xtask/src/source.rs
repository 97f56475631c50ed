//! A Rust file as tidy sees it: its text, its code without comments and strings, its tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Part of the program; its inline tests begin at `Source::tests_at`.
    Code,
    /// A file below `tests/`, `examples/`, `benches/` or `fuzz/`, or one declared `cfg(test)`.
    Test,
}

pub(crate) struct Source {
    /// The folder below `crates/`; empty outside.
    pub(crate) crate_name: String,
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// `text` with comments and the insides of strings blanked; offsets and lines are the same.
    pub(crate) code: String,
    /// `text` with comments blanked, strings kept.
    pub(crate) spoken: String,
    /// Offset where the inline tests begin; the length of the text without any.
    pub(crate) tests_at: usize,
}

impl Source {
    pub(crate) fn new(crate_name: &str, path: &str, kind: Kind, text: &str) -> Self {
        let code = blank(text, false);
        let tests_at = match kind {
            Kind::Code => find_tests(&code).unwrap_or(text.len()),
            Kind::Test => 0,
        };
        Self {
            crate_name: crate_name.to_owned(),
            path: path.to_owned(),
            kind,
            text: text.to_owned(),
            spoken: blank(text, true),
            code,
            tests_at,
        }
    }

    /// Path below `src/`, if the file lies there.
    pub(crate) fn module_path(&self) -> Option<&str> {
        self.path.strip_prefix(&format!("crates/{}/src/", self.crate_name))
    }

    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    pub(crate) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line_of(offset))
    }
}

/// Offsets where `word` stands in `code` and is not part of a longer identifier.
pub(crate) fn find_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_name = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    let starts_in_name = in_name(word.chars().next());
    let ends_in_name = in_name(word.chars().next_back());
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !(starts_in_name && in_name(before) || ends_in_name && in_name(after))
    })
}

/// The longest identifier at the start of `text`.
pub(crate) fn first_word(text: &str) -> &str {
    text.split(|it: char| !it.is_alphanumeric() && it != '_').next().unwrap_or("")
}

/// Replaces comments, and unless `keep_strings` the insides of literals, by spaces.
pub(crate) fn blank(text: &str, keep_strings: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, is_comment) = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => (line_end(bytes, at), true),
            b'/' if bytes[at..].starts_with(b"/*") => (comment_end(bytes, at), true),
            b'"' => (string_end(bytes, at), false),
            b'r' if raw_hashes(bytes, at).is_some() => (raw_end(bytes, at), false),
            b'\'' => (char_end(text, at), false),
            _ => (at + 1, false),
        };
        let inside = match (is_comment, end - at) {
            (true, _) => at..end,
            (false, 0..=2) => at..at,
            (false, _) if keep_strings => at..at,
            (false, _) => at + 1..end - 1,
        };
        for byte in &mut out[inside] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are replaced")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|it| *it == b'\n').map_or(bytes.len(), |it| at + it)
}

/// Block comments nest.
fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The number of `#` if a raw string begins at `at`, where an `r` stands.
fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let is_name = |it: &u8| it.is_ascii_alphanumeric() || *it == b'_';
    let prefix = at - usize::from(at > 0 && matches!(bytes[at - 1], b'b' | b'c'));
    if prefix > 0 && is_name(&bytes[prefix - 1]) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|it| **it == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(bytes: &[u8], at: usize) -> usize {
    let hashes = raw_hashes(bytes, at).expect("the caller has looked");
    let close: Vec<u8> = std::iter::once(b'"').chain(vec![b'#'; hashes]).collect();
    let body = at + hashes + 2;
    let length = bytes[body..].windows(close.len()).position(|it| it == close);
    length.map_or(bytes.len(), |it| body + it + close.len())
}

/// The end of a character literal; of a lifetime, only its quote.
fn char_end(text: &str, at: usize) -> usize {
    let mut rest = text[at + 1..].char_indices();
    match rest.next() {
        Some((_, '\\')) => {
            rest.next();
            rest.find(|(_, it)| *it == '\'').map_or(at + 1, |(it, _)| at + it + 2)
        }
        Some(_) => match rest.next() {
            Some((length, '\'')) => at + 1 + length + 1,
            _ => at + 1,
        },
        None => at + 1,
    }
}

fn find_tests(code: &str) -> Option<usize> {
    code.match_indices("#[cfg(test)]").map(|(at, it)| (at, at + it.len())).find_map(|(at, end)| {
        let next = code[end..].trim_start();
        (next.starts_with("mod ") && !next.lines().next()?.trim_end().ends_with(';')).then_some(at)
    })
}

/// Every Rust file of the workspace, in the order of their paths.
pub(crate) fn read_workspace(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in crate_folders(root) {
        let mut files = Vec::new();
        collect(&root.join("crates").join(&folder), &mut files);
        let texts = read_all(root, files);
        let test_modules = test_modules(&texts);
        for (path, text) in &texts {
            let below = path.trim_start_matches("crates/").trim_start_matches(folder.as_str());
            let is_test = !below.starts_with("/src/") && !below.starts_with("/build.rs");
            let is_test = is_test || test_modules.iter().any(|it| is_module_file(path, it));
            let kind = if is_test { Kind::Test } else { Kind::Code };
            sources.push(Source::new(&folder, path, kind, text));
        }
    }
    let mut files = Vec::new();
    collect(&root.join("fuzz"), &mut files);
    for (path, text) in read_all(root, files) {
        sources.push(Source::new("", &path, Kind::Test, &text));
    }
    sources
}

pub(crate) fn crate_folders(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("crates")).expect("the workspace has crates");
    let mut names: Vec<String> = entries
        .map(|it| it.expect("crates/ is readable"))
        .filter(|it| it.path().join("Cargo.toml").exists())
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn read_all(root: &Path, mut files: Vec<PathBuf>) -> Vec<(String, String)> {
    files.sort();
    files
        .into_iter()
        .map(|it| {
            let text = fs::read_to_string(&it).expect("a Rust file is UTF-8 text");
            let path = it.strip_prefix(root).expect("it was found below the root");
            (path.to_string_lossy().replace('\\', "/"), text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the workspace is readable").path();
        if path.is_dir() && path.file_name().is_none_or(|it| it != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}

/// Paths, without `.rs`, of the modules that are declared in another file under `cfg(test)`.
fn test_modules(texts: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts {
        let code = blank(text, false);
        for (at, attribute) in code.match_indices("#[cfg(test)]") {
            let rest = code[at + attribute.len()..].trim_start();
            let line = rest.lines().next().unwrap_or("").trim();
            let name = line.rsplit_once("mod ").and_then(|(_, it)| it.strip_suffix(';'));
            if let Some(name) = name {
                found.push(format!("{}/{name}", module_folder(path)));
            }
        }
    }
    found
}

/// Where the modules declared in a file lie.
fn module_folder(path: &str) -> &str {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder,
        _ => stem,
    }
}

fn is_module_file(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|it| it == ".rs" || it.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_insides_of_strings_are_blanked_in_place() {
        let text = "a(\"x // y\"); // c\nb('\\'', '\"', r#\"q\"w\"#); /* d /* e */ */ f::<'a>()";
        let expected = format!(
            "a(\"      \"); {}\nb('  ', ' ', r    {}#); {} f::<'a>()",
            " ".repeat(4),
            " ".repeat(2),
            " ".repeat(15),
        );
        let blanked = blank(text, false);
        assert_eq!(text.len(), blanked.len());
        assert_eq!(expected, blanked);
    }

    #[test]
    fn strings_are_kept_when_only_comments_are_blanked() {
        assert_eq!("f(\"amq.\")      ", blank("f(\"amq.\") // no", true));
    }

    #[test]
    fn text_after_a_raw_string_with_quotes_is_code_again() {
        let blanked = blank("let a = br##\"x\"# \"##; y.unwrap()", false);
        assert!(blanked.ends_with("; y.unwrap()") && !blanked.contains('x'), "{blanked}");
    }

    #[test]
    fn inline_tests_begin_at_their_attribute() {
        let text = "//! X.\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
        let source = Source::new("model", "crates/model/src/x.rs", Kind::Code, text);
        assert_eq!(Some("x.rs"), source.module_path());
        assert_eq!(4, source.line_of(source.tests_at));
    }

    #[test]
    fn attribute_of_a_declared_test_module_starts_no_inline_tests() {
        let text = "//! X.\n#[cfg(test)]\nmod fake;\nfn f() {}\n";
        assert_eq!(
            text.len(),
            Source::new("model", "crates/model/src/lib.rs", Kind::Code, text).tests_at
        );
        let texts = [("crates/model/src/lib.rs".to_owned(), text.to_owned())];
        assert_eq!(vec!["crates/model/src/fake"], test_modules(&texts));
        assert!(is_module_file("crates/model/src/fake.rs", "crates/model/src/fake"));
        assert!(!is_module_file("crates/model/src/faked.rs", "crates/model/src/fake"));
    }

    #[test]
    fn word_inside_a_longer_name_is_not_found() {
        assert_eq!(0, find_word("operand::x, sleepy(", "rand::").count());
        assert_eq!(1, find_word("rand::random()", "rand::").count());
        assert_eq!(0, find_word("tokio_like", "tokio").count());
    }
}
