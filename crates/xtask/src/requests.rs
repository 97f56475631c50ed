//! Every request a session can make of the broker is made by some test.

use crate::{
    report::Report,
    source::{Source, find_word, first_word},
};

const FILE: &str = "crates/model/src/request.rs";

pub(crate) fn check(sources: &[Source], report: &mut Report) {
    let Some(file) = sources.iter().find(|it| it.path == FILE) else { return };
    for variant in variants(&file.code, "pub enum Request {") {
        let call = format!("Request::{variant}");
        let is_tested = |it: &Source| {
            // The simulator is a test as a whole.
            let from = if it.crate_name == "sim" { 0 } else { it.tests_at };
            find_word(&it.code[from..], &call).count() > 0
        };
        if !sources.iter().any(is_tested) {
            report.add(FILE, format!("no test makes a `{call}`"));
        }
    }
}

/// The names directly inside the braces of the enum.
fn variants<'a>(code: &'a str, head: &str) -> Vec<&'a str> {
    let Some((_, body)) = code.split_once(head) else { return Vec::new() };
    let mut found = Vec::new();
    let (mut depth, mut expects_name) = (0_usize, true);
    for (at, letter) in body.char_indices() {
        match letter {
            '}' if depth == 0 => break,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => expects_name = true,
            _ if depth == 0 && expects_name && letter.is_uppercase() => {
                found.push(first_word(&body[at..]));
                expects_name = false;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    #[test]
    fn request_that_no_test_makes_is_reported() {
        let text = "pub enum Request {\n    #[doc(hidden)]\n    Publish(Message),\n    Bind { \
                    queue: Name, key: Key },\n    Fetch,\n}\n";
        let used = "fn f() { Request::Fetch; }\n#[cfg(test)]\nmod tests { fn g() { \
                    Request::Publish(x); Request::Binding; } }\n";
        let sources = [
            Source::new("model", FILE, Kind::Code, text),
            Source::new("broker", "crates/broker/src/gate.rs", Kind::Code, used),
        ];
        let mut report = Report::default();
        check(&sources, &mut report);
        let missing = |name| format!("{FILE}: no test makes a `Request::{name}`");
        assert_eq!(vec![missing("Bind"), missing("Fetch")], report.findings);
    }
}
