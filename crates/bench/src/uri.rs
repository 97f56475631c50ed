//! Where the broker is and who we are there: `amqp://user:password@host:port/vhost`.

use crate::error::BenchError;

pub(crate) const DEFAULT: &str = "amqp://guest:guest@localhost:5672/";

const PORT: u16 = 5672;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
}

impl Uri {
    pub(crate) fn parse(text: &str) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Usage(format!("the broker's URI {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("has the form amqp://user:password@host:port/vhost"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "amqp" => {}
            "amqps" => {
                return Err(wrong(
                    "asks for TLS, which this benchmark does not speak: use a listener without \
                     TLS, as for a figure of the broker itself",
                ));
            }
            other => return Err(wrong(&format!("begins with amqp://, not {other}://"))),
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("has parameters behind the virtual host; none is known"));
        }
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = host_and_port(place).ok_or_else(|| wrong("has no valid host:port"))?;
        let decoded = |part: &str| {
            decoded(part).ok_or_else(|| wrong("has a percent sign that encodes no UTF-8 text"))
        };
        let vhost = if vhost.is_empty() { "/".to_owned() } else { decoded(vhost)? };
        if vhost.len() > usize::from(u8::MAX) {
            return Err(wrong("names a virtual host longer than 255 octets"));
        }
        Ok(Self { user: decoded(user)?, password: decoded(password)?, host, port, vhost })
    }

    /// The first user at a port of this machine.
    pub(crate) fn loopback(port: u16) -> Self {
        let [user, password, host, vhost] = ["guest", "guest", "127.0.0.1", "/"].map(str::to_owned);
        Self { user, password, host, port, vhost }
    }

    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn host_and_port(place: &str) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']')?;
            let port = if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) };
            (host, port)
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = match port {
        None | Some("") => PORT,
        Some(port) => port.parse().ok()?,
    };
    Some((decoded(host)?, port))
}

/// `None` when a percent sign is not followed by two hexadecimal digits, or no UTF-8 comes out.
fn decoded(part: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
            octets.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
            rest = &behind[2..];
        } else {
            octets.push(first);
            rest = behind;
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, String) {
        let uri = Uri::parse(text).unwrap();
        (uri.user.clone(), uri.password.clone(), uri.address(), uri.vhost)
    }

    fn expected(user: &str, password: &str, address: &str, vhost: &str) -> [String; 4] {
        [user, password, address, vhost].map(str::to_owned)
    }

    #[test]
    fn every_part_may_be_left_out() {
        for (text, [user, password, address, vhost]) in [
            (DEFAULT, expected("guest", "guest", "localhost:5672", "/")),
            ("amqp://", expected("guest", "guest", "localhost:5672", "/")),
            ("AMQP://h", expected("guest", "guest", "h:5672", "/")),
            ("amqp://h:1", expected("guest", "guest", "h:1", "/")),
            ("amqp://me@h/v", expected("me", "", "h:5672", "v")),
            ("amqp://me:pw@[::1]:7/v", expected("me", "pw", "[::1]:7", "v")),
            ("amqp://[::1]", expected("guest", "guest", "[::1]:5672", "/")),
        ] {
            assert_eq!(parts(text), (user, password, address, vhost), "{text}");
        }
    }

    #[test]
    fn what_is_percent_encoded_is_decoded_in_every_part() {
        let [user, password, address, vhost] = expected("a@b", "p:/%", "h:5672", "/orders/\u{e9}");
        let text = "amqp://a%40b:p%3a%2F%25@h/%2forders%2F%c3%A9";
        assert_eq!(parts(text), (user, password, address, vhost));
    }

    #[test]
    fn what_is_no_uri_is_refused_with_the_reason() {
        for (text, reason) in [
            ("localhost:5672", "has the form amqp://"),
            ("amqps://localhost", "asks for TLS"),
            ("http://localhost", "not http://"),
            ("amqp://h:port/", "no valid host:port"),
            ("amqp://h:70000/", "no valid host:port"),
            ("amqp://[::1/", "no valid host:port"),
            ("amqp://h/%2", "percent sign"),
            ("amqp://h/%zz", "percent sign"),
            ("amqp://h/%+1", "percent sign"),
            ("amqp://h/%ff", "percent sign"),
            ("amqp://h/v?heartbeat=1", "parameters"),
        ] {
            let error = Uri::parse(text).err().unwrap().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
