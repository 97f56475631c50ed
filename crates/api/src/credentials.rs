//! Who asks (Basic), and whether a web page of others makes a browser ask.

use crate::{
    door::Credentials,
    problem::{Problem, ProblemType},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};

/// What an answer of status 401 says about logging in.
pub const CHALLENGE: &str = "Basic realm=\"FerryMQ\", charset=\"UTF-8\"";

/// User and password of a request.
///
/// # Errors
/// [`ProblemType::Unauthorized`], when there are none or they cannot be read.
pub fn basic(headers: &HeaderMap) -> Result<Credentials, Problem> {
    let unauthorized = |detail: &str| Problem::new(ProblemType::Unauthorized).detail(detail);
    let field = headers.get(header::AUTHORIZATION);
    let field = field.ok_or_else(|| unauthorized("log in with user and password (Basic)"))?;
    let wrong = || unauthorized("Authorization: Basic and user:password in base64");
    let (scheme, value) =
        field.to_str().ok().and_then(|it| it.split_once(' ')).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let mut octets = BASE64_STANDARD.decode(value.trim()).map_err(|_| wrong())?;
    let colon = octets.iter().position(|it| *it == b':').ok_or_else(wrong)?;
    let password = octets.split_off(colon + 1);
    octets.truncate(colon);
    let user = String::from_utf8(octets).map_err(|_| wrong())?;
    Ok(Credentials { user, password })
}

/// A browser tells from which page a request comes: only those of this server may make it.
///
/// # Errors
/// [`ProblemType::Forbidden`]
pub fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or(""));
    let is_same = match (text("origin"), text("host")) {
        (None, _) => text("sec-fetch-site").is_none_or(|it| matches!(it, "same-origin" | "none")),
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|it| it.1.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
    };
    let problem = || Problem::new(ProblemType::Forbidden).detail("a page of others asks for this");
    is_same.then_some(()).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let value = |it: &str| HeaderValue::from_bytes(it.as_bytes()).expect("a value");
        fields.iter().map(|it| (it.0.parse().expect("a name"), value(it.1))).collect()
    }

    fn read(value: &str) -> Option<(String, Vec<u8>)> {
        let found = basic(&headers(&[("authorization", value)])).ok()?;
        Some((found.user, found.password))
    }

    #[test]
    fn user_and_password_are_read() {
        let expected = Some(("guest".to_owned(), b"guest".to_vec()));
        assert_eq!(read("Basic Z3Vlc3Q6Z3Vlc3Q="), expected);
        assert_eq!(read("basic  Z3Vlc3Q6Z3Vlc3Q="), expected);
        let colons = BASE64_STANDARD.encode("a:b:\u{fc}");
        let expected = ("a".to_owned(), "b:\u{fc}".as_bytes().to_vec());
        assert_eq!(read(&format!("Basic {colons}")), Some(expected));
        assert_eq!(read("Basic Og=="), Some((String::new(), Vec::new())));
    }

    #[test]
    fn anything_else_is_nobody() {
        for value in ["", "Basic", "Basic ", "Basic !", "Basic Z3Vlc3Q=", "Bearer Z3Vlc3Q6Z3Vlc3Q="]
        {
            assert_eq!(read(value), None, "{value}");
        }
        let nobody = basic(&HeaderMap::new()).expect_err("no header");
        assert_eq!(nobody.status(), 401);
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", basic(&headers(&[("authorization", "Basic YTpzZWNyZXQ=")])));
        assert!(shown.contains('a') && !shown.contains("secret") && !shown.contains("115"));
    }

    #[test]
    fn pages_of_others_are_refused() {
        let check = |fields: &[(&'static str, &str)]| check_origin(&headers(fields)).is_ok();
        assert!(check(&[("host", "mq:15672")]));
        assert!(check(&[("host", "mq:15672"), ("origin", "http://mq:15672")]));
        assert!(check(&[("host", "mq"), ("sec-fetch-site", "same-origin")]));
        for fields in [
            &[("host", "mq:15672"), ("origin", "http://evil.example")][..],
            &[("host", "mq:15672"), ("origin", "http://mq:8080")],
            &[("host", "mq:15672"), ("origin", "null")],
            &[("origin", "http://mq")],
            &[("host", "mq"), ("sec-fetch-site", "cross-site")],
            &[("host", "mq"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(!check(fields), "{fields:?}");
        }
    }
}
