//! Regular expressions of permissions: unanchored, compiled once, bounded in size. The common
//! shapes (`.*`, `^name$`, `^prefix`) are compared as text.

use model::Name;
use regex::{Regex, RegexBuilder};
use std::fmt;

/// Octets of a pattern's text.
const PATTERN_BYTES_MAX: usize = 1024;
/// Octets of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Characters with a meaning in a pattern.
const META: &[char] =
    &['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$', '#', '&', '-', '~'];

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("pattern is longer than {PATTERN_BYTES_MAX} octets")]
    TooLong,
    #[error("{0}")]
    Syntax(String),
}

/// A compiled pattern and its text. The empty pattern matches nothing.
#[derive(Clone)]
pub struct Pattern {
    text: Name,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Nothing,
    Everything,
    Exact(Name),
    Prefix(Name),
    Within(Name),
    Compiled(Regex),
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// [`PatternError`], when it is too long, too large compiled, or no regular expression.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Ok(Self { text: Name::new(text), matcher: Matcher::new(text)? })
    }

    /// A pattern that is shown as `text` and matches as `compiled`, what `text` came to when its
    /// variables were replaced.
    ///
    /// # Errors
    /// As [`Pattern::new`].
    pub(crate) fn expanded(text: &str, compiled: &str) -> Result<Self, PatternError> {
        if PATTERN_BYTES_MAX < text.len() {
            return Err(PatternError::TooLong);
        }
        Ok(Self { text: Name::new(text), matcher: Matcher::compile(compiled)? })
    }

    /// The text it was made of.
    pub fn text(&self) -> &Name {
        &self.text
    }

    /// Some part of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Nothing => false,
            Matcher::Everything => true,
            Matcher::Exact(it) => name == it.as_str(),
            Matcher::Prefix(it) => name.starts_with(it.as_str()),
            Matcher::Within(it) => name.contains(it.as_str()),
            Matcher::Compiled(it) => it.is_match(name),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Self, PatternError> {
        if PATTERN_BYTES_MAX < text.len() {
            Err(PatternError::TooLong)
        } else {
            Self::compile(text)
        }
    }

    fn compile(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Ok(Self::Nothing);
        }
        if let Some(plain) = Self::plain(text) {
            return Ok(plain);
        }
        let built = RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build();
        built.map(Self::Compiled).map_err(|error| PatternError::Syntax(error.to_string()))
    }

    /// The shapes that need no regular expression.
    fn plain(text: &str) -> Option<Self> {
        let (anchored, rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (open, rest) = match rest.strip_suffix(".*") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (ended, rest) = match rest.strip_suffix('$') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.contains(META) || (ended && open) {
            return None;
        }
        match (anchored, ended, rest.is_empty()) {
            (_, false, true) => Some(Self::Everything),
            (true, false, false) => Some(Self::Prefix(Name::new(rest))),
            (true, true, _) => Some(Self::Exact(Name::new(rest))),
            (false, false, false) => Some(Self::Within(Name::new(rest))),
            (false, true, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_empty_pattern_matches_nothing_and_others_are_unanchored() {
        assert!(!Pattern::new("").expect("compiles").matches(""));
        assert!(!Pattern::new("").expect("compiles").matches("q"));
        assert!(Pattern::new("pq").expect("compiles").matches("xx-pq-xx"));
        assert!(Pattern::new(".*").expect("compiles").matches(""));
        assert!(Pattern::new("^$").expect("compiles").matches(""));
        assert!(!Pattern::new("^$").expect("compiles").matches("q"));
    }

    #[test]
    fn a_pattern_too_long_or_too_large_is_refused() {
        assert_eq!(Pattern::new(&"a".repeat(1025)), Err(PatternError::TooLong));
        assert!(matches!(Pattern::new(r"(\pL{500}){500}"), Err(PatternError::Syntax(_))));
        assert!(matches!(Pattern::new("("), Err(PatternError::Syntax(_))));
    }

    proptest! {
        #[test]
        fn the_shortcuts_match_as_the_regular_expression_does(
            text in r"\^?[ab]{0,2}(\.\*)?\$?(\.\*)?",
            name in "[abc]{0,4}",
        ) {
            prop_assume!(!text.is_empty());
            let expected = Regex::new(&text).expect("compiles").is_match(&name);
            prop_assert_eq!(Pattern::new(&text).expect("compiles").matches(&name), expected);
        }
    }
}
