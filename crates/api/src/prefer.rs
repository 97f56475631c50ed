//! What a client would like (RFC 7240): to wait for the answer, or not to.
//!
//! A preference is never a reason to refuse: unknown ones, and a `wait` without a sensible number,
//! count as absent, and `Preference-Applied` tells what was heeded.

use std::time::Duration;

/// The longest wait of one request; who wants more asks again.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

/// The preferences that mean something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// As asked for; [`Self::wait`] is what is granted.
    wait_s: Option<u64>,
    pub respond_async: bool,
}

impl Prefer {
    /// Reads all fields named `Prefer`. Of a preference that is given twice the first one counts.
    pub fn parse<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        let mut wait_seen = false;
        for preference in fields.into_iter().flat_map(|it| split_outside_quotes(it, b',')) {
            let first = split_outside_quotes(preference, b';').next().unwrap_or("");
            let (name, value) = first.split_once('=').unwrap_or((first, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "wait" if !wait_seen => {
                    wait_seen = true;
                    found.wait_s = seconds(value.trim());
                }
                "respond-async" => found.respond_async = true,
                _ => {}
            }
        }
        found
    }

    /// How long the client is to wait, at most [`WAIT_MAX`]; `None` when it is not to.
    pub fn wait(&self) -> Option<Duration> {
        self.wait_s.map(|it| Duration::from_secs(it).min(WAIT_MAX))
    }

    /// The value of `Preference-Applied` of an answer that was waited for.
    pub fn wait_applied(&self) -> Option<String> {
        self.wait().map(|it| format!("wait={}", it.as_secs()))
    }
}

/// Digits, perhaps in quotes. A number beyond all bounds is a very long wait.
fn seconds(text: &str) -> Option<u64> {
    let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text);
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The parts between separators that do not stand in a quoted string.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |it: char| {
        let escapes = quoted && !escaped && it == '\\';
        let is_escaped = std::mem::replace(&mut escaped, escapes);
        match it {
            '"' if !is_escaped => {
                quoted = !quoted;
                false
            }
            it => !quoted && it == char::from(separator),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(fields: &[&str], wait_s: Option<u64>, respond_async: bool) {
        let found = Prefer::parse(fields.iter().copied());
        assert_eq!(
            (found.wait().map(|it| it.as_secs()), found.respond_async),
            (wait_s, respond_async)
        );
    }

    #[test]
    fn wait_and_respond_async_are_found_among_others() {
        check(&[], None, false);
        check(&["wait=10"], Some(10), false);
        check(&["respond-async"], None, true);
        check(&["respond-async, wait=100"], Some(100), true);
        check(&["return=minimal; foo=\"some, parameter\"", "Wait = 7 ; x"], Some(7), false);
        check(&["handling=lenient, wait=\"3\""], Some(3), false);
        check(&["wait=0"], Some(0), false);
    }

    #[test]
    fn the_first_of_two_counts() {
        check(&["wait=1, wait=2", "wait=3"], Some(1), false);
        check(&["wait=x, wait=2"], None, false);
    }

    #[test]
    fn what_cannot_be_heeded_is_no_preference() {
        check(&["wait", "Respond-Sync"], None, false);
        for field in ["wait=", "wait=-1", "wait=1.5", "wait=ten", "await=1", "x=\"a, wait=5\""] {
            check(&[field], None, false);
        }
        check(&["x=\"a\\\", wait=5\", respond-async"], None, true);
    }

    #[test]
    fn a_wait_ends_at_the_limit_and_says_so() {
        for field in ["wait=86400", "wait=99999999999999999999999"] {
            let found = Prefer::parse([field]);
            assert_eq!(found.wait(), Some(WAIT_MAX));
            assert_eq!(found.wait_applied().as_deref(), Some("wait=120"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(fields: Vec<String>) {
            Prefer::parse(fields.iter().map(String::as_str));
        }
    }
}
