//! Addresses of jobs and leases under `/v1`.

use std::fmt::{self, Write as _};

/// The virtual host that need not be named.
pub const DEFAULT_VHOST: &str = "/";

/// Which job, in which virtual host, and of which queue if that had to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobAddress<'a> {
    pub vhost: &'a str,
    pub queue: Option<&'a str>,
    pub id: &'a str,
}

/// Text as one segment of a path or one value of a query.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a>(pub &'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0.bytes() {
            match octet {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    f.write_char(octet.into())?;
                }
                _ => write!(f, "%{octet:02X}")?,
            }
        }
        Ok(())
    }
}

impl JobAddress<'_> {
    /// The address of the job, or of a part of it such as `/result`.
    pub fn of(self, part: &str) -> String {
        let mut address = format!("/v1/jobs/{}{part}", Segment(self.id));
        let vhost = Some(self.vhost).filter(|it| *it != DEFAULT_VHOST);
        let named = [("vhost", vhost), ("queue", self.queue)];
        let mut separator = '?';
        for (name, value) in named {
            if let Some(value) = value {
                write!(address, "{separator}{name}={}", Segment(value)).expect("a string takes it");
                separator = '&';
            }
        }
        address
    }
}

/// The address of a lease.
pub fn lease(token: &str) -> String {
    format!("/v1/leases/{}", Segment(token))
}

/// The name of a queue as events give their source.
pub fn source(vhost: &str, queue: &str) -> String {
    format!("/vhosts/{}/queues/{}", Segment(vhost), Segment(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_no_more_than_it_must() {
        let plain = JobAddress { vhost: "/", queue: None, id: "0192f0c1" };
        assert_eq!(plain.of(""), "/v1/jobs/0192f0c1");
        assert_eq!(plain.of("/result"), "/v1/jobs/0192f0c1/result");
        let exact = JobAddress { vhost: "a b", queue: Some("q/1"), id: "nightly@02:00 ü" };
        let expected = "/v1/jobs/nightly%4002%3A00%20%C3%BC/result?vhost=a%20b&queue=q%2F1";
        assert_eq!(exact.of("/result"), expected);
        assert_eq!(lease("a-b_c"), "/v1/leases/a-b_c");
        assert_eq!(source("/", "emails"), "/vhosts/%2F/queues/emails");
    }

    #[test]
    fn any_text_comes_back_from_its_segment() {
        let all: String = (0..=0x300).filter_map(char::from_u32).collect();
        let written = Segment(&all).to_string();
        assert!(written.bytes().all(|it| it.is_ascii_graphic() && !b"/?#&=".contains(&it)));
        assert_eq!(crate::cloud_event::percent_decoded(&written), Some(all));
    }
}
