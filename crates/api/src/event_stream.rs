//! Server-sent events: how one is framed, and where a client wants to go on.

use std::fmt::Write as _;

/// What keeps intermediaries from closing a silent stream: a comment, which clients ignore.
pub const KEEP_ALIVE: &str = ":\n\n";

/// One event. `id` is what the client sends back to go on behind it; `data` is one line of JSON.
pub fn frame(id: u64, data: &serde_json::Value) -> String {
    let mut frame = String::new();
    // JSON escapes line ends, so that the data is one line whatever stands in it.
    write!(frame, "id: {id}\ndata: {data}\n\n").expect("a string takes it");
    frame
}

/// The id behind which a client wants to go on, from the value of `Last-Event-ID`. What was
/// not given out here begins anew.
pub fn last_id(field: &str) -> Option<u64> {
    let is_number = !field.is_empty() && field.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| field.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_frame_whatever_stands_in_it() {
        let data = serde_json::json!({ "note": "a\nid: 7\r\n\ndata: x\u{2028}" });
        let framed = frame(42, &data);
        assert!(framed.starts_with("id: 42\ndata: {"));
        assert_eq!(framed.matches('\n').count(), 3);
        assert!(!framed.contains('\r') && framed.ends_with("}\n\n"));
    }

    #[test]
    fn an_id_comes_back() {
        assert_eq!(last_id("42"), Some(42));
        for other in ["", "-1", "+1", "x", "1 ", "99999999999999999999"] {
            assert_eq!(last_id(other), None);
        }
    }
}
