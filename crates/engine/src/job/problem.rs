//! The few members that are read of a JSON object which a worker sends: whether it may be tried
//! again, what it says about it, how far it is. Everything else in it is passed over.

/// Octets of a text that are kept.
const TEXT_BYTES_MAX: usize = 1_024;
/// Values within each other that are passed over.
const DEPTH_MAX: usize = 64;

/// What stands in an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    pub retryable: Option<bool>,
    pub title: Option<String>,
    pub detail: Option<String>,
    pub note: Option<String>,
    /// Whole, 0 to 100.
    pub percent: Option<u8>,
}

/// What a content type stands for without its parameters.
pub fn is_problem(content_type: &str) -> bool {
    let bare = content_type.split(';').next().unwrap_or("").trim();
    bare.eq_ignore_ascii_case("application/problem+json")
}

/// The members of the object that these octets are; `None` where they are no object in JSON.
pub fn members(octets: &[u8]) -> Option<Members> {
    let mut reader = Reader { octets, at: 0 };
    let mut found = Members::default();
    reader.expect(b'{')?;
    if !reader.takes(b'}') {
        loop {
            let key = reader.string()?;
            reader.expect(b':')?;
            reader.member(&key, &mut found)?;
            if reader.takes(b'}') {
                break;
            }
            reader.expect(b',')?;
        }
    }
    reader.peek().is_none().then_some(found)
}

/// Cut so that it stays text.
pub fn short(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next octet that is no space.
    fn peek(&mut self) -> Option<u8> {
        let space = |it: &&u8| matches!(it, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.octets[self.at..].iter().take_while(space).count();
        self.octets.get(self.at).copied()
    }

    fn takes(&mut self, octet: u8) -> bool {
        let is_next = self.peek() == Some(octet);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, octet: u8) -> Option<()> {
        self.takes(octet).then_some(())
    }

    fn member(&mut self, key: &str, found: &mut Members) -> Option<()> {
        let first = self.peek()?;
        if first == b'"' && matches!(key, "title" | "detail" | "note") {
            let text = Some(short(&self.string()?).to_owned());
            match key {
                "title" => found.title = text,
                "detail" => found.detail = text,
                _ => found.note = text,
            }
            return Some(());
        }
        let start = self.at;
        self.skip(0)?;
        let value = std::str::from_utf8(&self.octets[start..self.at]).ok()?;
        match key {
            "retryable" => found.retryable = value.parse().ok(),
            "percent" | "progress" => {
                let percent = value.parse::<f64>().ok().filter(|it| (0.0..=100.0).contains(it));
                found.percent = percent.map(|it| it as u8);
            }
            _ => {}
        }
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            let octet = *self.octets.get(self.at)?;
            self.at += 1;
            match octet {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => self.escape(&mut text)?,
                0..0x20 => return None,
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let octet = *self.octets.get(self.at)?;
        self.at += 1;
        text.push(match octet {
            b'"' | b'\\' | b'/' => octet,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = u32::from(self.unit()?);
                if (0xd800..0xdc00).contains(&code) && self.octets[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = u32::from(self.unit()?);
                    let pair = 0x1_0000 + ((code - 0xd800) << 10);
                    code = pair.wrapping_add(low.wrapping_sub(0xdc00));
                }
                let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.octets.get(self.at..self.at + 4)?;
        self.at += 4;
        let digits = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with('+'))?;
        u16::from_str_radix(digits, 16).ok()
    }

    /// Passes over one value.
    fn skip(&mut self, depth: usize) -> Option<()> {
        if DEPTH_MAX < depth {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(drop),
            open @ (b'{' | b'[') => {
                self.at += 1;
                let close = if open == b'{' { b'}' } else { b']' };
                if self.takes(close) {
                    return Some(());
                }
                loop {
                    if open == b'{' {
                        self.string()?;
                        self.expect(b':')?;
                    }
                    self.skip(depth + 1)?;
                    if self.takes(close) {
                        return Some(());
                    }
                    self.expect(b',')?;
                }
            }
            _ => {
                let word = |it: &&u8| it.is_ascii_alphanumeric() || b"+-.".contains(it);
                let length = self.octets[self.at..].iter().take_while(word).count();
                self.at += length;
                (0 < length).then_some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_members_are_found_among_others() {
        let text = br#" {"a":[1,{"b":"\"}"}],"retryable" : true, "title":"Caf\u00e9 \ud83d\ude00",
                        "detail":"x\ny","x":{},"progress":40.7,"note":"page 4"} "#;
        let found = members(text).unwrap();
        assert_eq!((found.retryable, found.percent), (Some(true), Some(40)));
        assert_eq!(found.title.as_deref(), Some("Caf\u{e9} \u{1f600}"));
        assert_eq!(
            (found.detail.as_deref(), found.note.as_deref()),
            (Some("x\ny"), Some("page 4"))
        );
        assert_eq!(members(b"{}"), Some(Members::default()));
        let odd = members(br#"{"retryable":"true","percent":101,"title":1}"#).unwrap();
        assert_eq!(odd, Members::default());
    }

    #[test]
    fn what_is_no_object_is_none() {
        let deep = [b"{\"a\":".as_slice(), &b"[".repeat(100_000)].concat();
        for text in
            [&b""[..], b"[]", b"{", b"{\"a\"}", b"{\"a\":1,}", b"{} x", b"{\"\\u12\":1}", &deep]
        {
            assert_eq!(
                members(text),
                None,
                "{}",
                String::from_utf8_lossy(&text[..text.len().min(9)])
            );
        }
        let surrogates = members(br#"{"title":"\ud800","detail":"\ud800\u0041"}"#);
        assert_eq!(surrogates.unwrap().title.as_deref(), Some("\u{fffd}"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn any_octets_are_taken(text in "[{}\\[\\]\":,\\\\u0-9a-fd8truelntidg ]{0,40}", octets: Vec<u8>) {
            let _ = (members(text.as_bytes()), members(&octets));
        }
    }

    #[test]
    fn parameters_do_not_hide_a_problem() {
        assert!(is_problem("Application/Problem+JSON; charset=utf-8"));
        assert!(!is_problem("application/json") && !is_problem(""));
    }
}
