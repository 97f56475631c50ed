//! Texts that clients chose, on their way into a log line.

use std::fmt::{self, Write as _};

/// Octets of one text of a client that a log line shows.
const SHOWN_BYTES_MAX: usize = 256;

/// Shows a text with everything escaped that could forge a line or turn it around, and cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = 0;
        for letter in self.0.chars() {
            written += letter.len_utf8();
            if SHOWN_BYTES_MAX < written {
                return f.write_char('…');
            }
            if letter.is_control() || turns_text(letter) {
                write!(f, "{}", letter.escape_unicode())?;
            } else {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

/// Marks of bidirectional writing, line and paragraph separators, and the byte order mark.
fn turns_text(letter: char) -> bool {
    matches!(letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        for (text, shown) in [
            ("app é", "app é"),
            ("a\nb", "a\\u{a}b"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{202e}txt", "\\u{202e}txt"),
            ("\u{85}", "\\u{85}"),
            ("\u{2028}", "\\u{2028}"),
        ] {
            assert_eq!(Shown(text).to_string(), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let shown = Shown(&"é".repeat(300)).to_string();
        assert_eq!(shown, format!("{}…", "é".repeat(128)));
        assert_eq!(Shown(&"x".repeat(256)).to_string().len(), 256);
    }
}
