//! What a client answers to be let in: the responses of the mechanisms, taken apart. Whether they
//! are right is decided elsewhere.

use crate::{config::Mechanism, secret::Secret};
use bytes::BufMut;
use model::{Name, Table, Value, limits, value::TableError};

/// A user and what proves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    /// May be empty: with a token as the password the name means nothing.
    pub user: Name,
    /// Never empty.
    pub password: Secret,
}

/// Why a response holds no credentials. Nothing of the response is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("response does not consist of two parts, each behind a NUL")]
    Parts,
    #[error("response is no table: {0}")]
    Table(#[from] TableError),
    #[error("response lacks {0}, or it is no long string")]
    Missing(&'static str),
    #[error("user name is not UTF-8 or longer than {} octets", limits::NAME_BYTES_MAX)]
    User,
    /// Well-formed, but to be refused like a wrong password: no user has an empty one.
    #[error("password is empty")]
    EmptyPassword,
}

/// Takes a response apart. `None` when the mechanism does not name a user: the certificate does,
/// and what the response says is ignored, because some clients fill it.
///
/// # Errors
/// [`AuthError`], when the response is not what the mechanism asks for.
pub fn credentials(
    mechanism: Mechanism,
    response: &[u8],
) -> Result<Option<Credentials>, AuthError> {
    match mechanism {
        Mechanism::Plain => plain(response).map(Some),
        Mechanism::Amqplain => amqplain(response).map(Some),
        Mechanism::External => Ok(None),
    }
}

/// `NUL user NUL password`. A third identity in front, on whose behalf to act, is not supported and
/// therefore must be empty; neither part can hold a NUL.
fn plain(response: &[u8]) -> Result<Credentials, AuthError> {
    let mut parts = response.split(|&it| it == 0);
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some([]), Some(user), Some(password), None] => checked(user, password),
        _ => Err(AuthError::Parts),
    }
}

/// A table without its length in front.
fn amqplain(response: &[u8]) -> Result<Credentials, AuthError> {
    let length = u32::try_from(response.len()).map_err(|_| TableError::Truncated)?;
    let mut octets = Vec::with_capacity(4 + response.len());
    octets.put_u32(length);
    octets.put_slice(response);
    let (table, _) = Table::decode(&octets)?;
    // The copy holds the password.
    octets.fill(0);
    let part = |key| match table.get(key) {
        Some(Value::LongString(octets)) => Ok(octets),
        _ => Err(AuthError::Missing(key)),
    };
    checked(part("LOGIN")?, part("PASSWORD")?)
}

fn checked(user: &[u8], password: &[u8]) -> Result<Credentials, AuthError> {
    let user = std::str::from_utf8(user).map_err(|_| AuthError::User)?;
    if limits::NAME_BYTES_MAX < user.len() {
        return Err(AuthError::User);
    }
    if password.is_empty() {
        return Err(AuthError::EmptyPassword);
    }
    Ok(Credentials { user: Name::new(user), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(user: &str, password: &str) -> Result<Option<Credentials>, AuthError> {
        Ok(Some(Credentials { user: user.into(), password: Secret::new(password.as_bytes()) }))
    }

    fn table(entries: &[(&str, Value)]) -> Vec<u8> {
        let entries = entries.iter().map(|(key, value)| (Name::new(key), value.clone())).collect();
        let mut octets = Vec::new();
        Table(entries).encode(&mut octets);
        octets.split_off(4)
    }

    #[test]
    fn plain_has_two_parts_each_behind_a_nul() {
        let long = format!("\0{}\0p", "u".repeat(256));
        for (response, expected) in [
            (&b"\0guest\0secret"[..], pair("guest", "secret")),
            ("\0né\0pässword".as_bytes(), pair("né", "pässword")),
            (b"\0\0token", pair("", "token")),
            (b"\0guest\0", Err(AuthError::EmptyPassword)),
            (b"\0\0", Err(AuthError::EmptyPassword)),
            (b"", Err(AuthError::Parts)),
            (b"abc", Err(AuthError::Parts)),
            (b"\0guest", Err(AuthError::Parts)),
            (b"guest\0secret", Err(AuthError::Parts)),
            (b"admin\0guest\0secret", Err(AuthError::Parts)),
            (b"\0guest\0sec\0ret", Err(AuthError::Parts)),
            (b"\0guest\0secret\0", Err(AuthError::Parts)),
            (b"\0\xff\0secret", Err(AuthError::User)),
            (long.as_bytes(), Err(AuthError::User)),
        ] {
            assert_eq!(credentials(Mechanism::Plain, response), expected, "{response:?}");
        }
    }

    #[test]
    fn a_password_of_any_octets_is_kept() {
        let found = credentials(Mechanism::Plain, b"\0u\0\xff\xfe").expect("well-formed");
        assert_eq!(found.map(|it| it.password), Some(Secret::new(b"\xff\xfe")));
    }

    #[test]
    fn amqplain_is_a_table_with_two_long_strings() {
        let (login, password) = (Value::text("guest"), Value::text("secret"));
        let both = table(&[("LOGIN", login.clone()), ("PASSWORD", password.clone())]);
        assert_eq!(credentials(Mechanism::Amqplain, &both), pair("guest", "secret"));
        let swapped = table(&[
            ("PASSWORD", password.clone()),
            ("more", Value::Void),
            ("LOGIN", login.clone()),
        ]);
        assert_eq!(credentials(Mechanism::Amqplain, &swapped), pair("guest", "secret"));
        for (entries, expected) in [
            (table(&[]), AuthError::Missing("LOGIN")),
            (table(&[("LOGIN", login.clone())]), AuthError::Missing("PASSWORD")),
            (
                table(&[("LOGIN", Value::I32(1)), ("PASSWORD", password)]),
                AuthError::Missing("LOGIN"),
            ),
            (table(&[("LOGIN", login), ("PASSWORD", Value::text(""))]), AuthError::EmptyPassword),
            (b"\0guest\0secret".to_vec(), AuthError::Table(TableError::UnknownType(b'g'))),
        ] {
            assert_eq!(credentials(Mechanism::Amqplain, &entries), Err(expected));
        }
        for length in 1..both.len() {
            assert!(credentials(Mechanism::Amqplain, &both[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn external_names_no_user_whatever_it_says() {
        for response in [&b""[..], b"\0*\0*", b"guest"] {
            assert_eq!(credentials(Mechanism::External, response), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_taken_apart_or_refused(
            octets in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..40),
        ) {
            for mechanism in [Mechanism::Plain, Mechanism::Amqplain, Mechanism::External] {
                if let Ok(Some(found)) = credentials(mechanism, &octets) {
                    prop_assert!(!found.password.is_empty());
                }
            }
        }
    }
}
