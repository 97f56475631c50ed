//! Scripts at the socket: what is sent and what has to come, as text.
//!
//! One step per line; `#` begins a comment.
//! - `send-raw "AMQP\x00\x00\x09\x01"` sends octets
//! - `send 1 10.11 table short:PLAIN long:\0guest\0guest short:en_US` sends a method on a channel;
//!   the words after it are its arguments: `u8:` `u16:` `u32:` `u64:` `short:` `long:` and an empty
//!   `table`
//! - `expect 0 10.10` waits for a method on a channel
//! - `expect 0 10.50 403 ACCESS_REFUSED` also looks at the reply code and the beginning of its text
//! - `expect-raw "HTTP/1.1 400"` waits for octets
//! - `expect-close` waits for the end of the connection

use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
const FRAME_METHOD: u8 = 1;
const FRAME_HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;

/// Plays a script; panics with the line that did not go as it says.
pub(crate) async fn play<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, script: &str) {
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("line {}: {line}", number + 1);
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "send-raw" => stream.write_all(&octets(unquoted(rest))).await.expect(&at),
            "send" => stream.write_all(&method_frame(rest)).await.expect(&at),
            "expect-raw" => {
                let expected = octets(unquoted(rest));
                let mut found = vec![0; expected.len()];
                let read = timeout(PATIENCE, stream.read_exact(&mut found)).await;
                read.expect(&at).expect(&at);
                assert_eq!(found, expected, "{at}");
            }
            "expect" => {
                let found = timeout(PATIENCE, next_method(stream)).await.expect(&at);
                let Some(found) = found else { panic!("{at}: the connection ended") };
                check_method(&found, rest, &at);
            }
            "expect-close" => {
                let mut rest = Vec::new();
                // A reset is an end too.
                timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect(&at).ok();
                assert_eq!(rest, b"", "{at}");
            }
            _ => panic!("{at}: no such step"),
        }
    }
}

struct Found {
    channel: u16,
    ids: String,
    arguments: Vec<u8>,
}

fn check_method(found: &Found, expected: &str, at: &str) {
    let mut words = expected.splitn(4, ' ');
    let seen = format!("{} {}", found.channel, found.ids);
    let wanted = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
    assert_eq!(seen, wanted, "{at}: {}", found.arguments.escape_ascii());
    if let Some(code) = words.next() {
        let found_code = u16::from_be_bytes([found.arguments[0], found.arguments[1]]);
        let text_end = 3 + usize::from(found.arguments[2]);
        let text = String::from_utf8_lossy(&found.arguments[3..text_end]);
        assert_eq!(found_code.to_string(), code, "{at}: {text}");
        let beginning = words.next().unwrap_or_default();
        assert!(text.starts_with(beginning), "{at}: {text}");
    }
}

/// The next frame with a method; heartbeats are passed over. `None` at the end of the connection.
async fn next_method<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Found> {
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; length as usize + 1];
        stream.read_exact(&mut payload).await.ok()?;
        assert_eq!(payload.pop(), Some(FRAME_END), "a frame ends as it should");
        if head[0] == FRAME_HEARTBEAT {
            continue;
        }
        assert_eq!(head[0], FRAME_METHOD, "a method comes");
        let ids = [&payload[0..2], &payload[2..4]].map(|it| u16::from_be_bytes([it[0], it[1]]));
        return Some(Found {
            channel: u16::from_be_bytes([head[1], head[2]]),
            ids: format!("{}.{}", ids[0], ids[1]),
            arguments: payload[4..].to_vec(),
        });
    }
}

fn method_frame(text: &str) -> Vec<u8> {
    let mut words = text.split(' ');
    let channel: u16 = words.next().unwrap().parse().unwrap();
    let (class, method) = words.next().unwrap().split_once('.').unwrap();
    let mut payload = Vec::new();
    for id in [class, method] {
        payload.extend(id.parse::<u16>().unwrap().to_be_bytes());
    }
    for word in words {
        let (kind, value) = word.split_once(':').unwrap_or((word, ""));
        match kind {
            "u8" => payload.push(value.parse().unwrap()),
            "u16" => payload.extend(value.parse::<u16>().unwrap().to_be_bytes()),
            "u32" => payload.extend(value.parse::<u32>().unwrap().to_be_bytes()),
            "u64" => payload.extend(value.parse::<u64>().unwrap().to_be_bytes()),
            "short" => {
                let value = octets(value);
                payload.push(u8::try_from(value.len()).unwrap());
                payload.extend(value);
            }
            "long" => {
                let value = octets(value);
                payload.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                payload.extend(value);
            }
            "table" => payload.extend([0; 4]),
            _ => panic!("no such argument: {word}"),
        }
    }
    let mut frame = vec![FRAME_METHOD];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    frame
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text)
}

/// Takes `\0`, `\r`, `\n`, `\s` (a blank) and `\xHH` for what they stand for.
fn octets(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            octets.extend(letter.to_string().as_bytes());
            continue;
        }
        match letters.next() {
            Some('0') => octets.push(0),
            Some('r') => octets.push(b'\r'),
            Some('n') => octets.push(b'\n'),
            Some('s') => octets.push(b' '),
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                octets.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            other => panic!("no such escape: {other:?}"),
        }
    }
    octets
}
