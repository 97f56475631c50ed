//! Who may log in: passwords, checked beside the network's threads, and the limits on guessing.

mod address;
mod attempts;
mod cache;
pub mod password;
mod pool;

pub(crate) use address::AddressKey;

use crate::config::Config;
use attempts::{Attempts, AttemptsMax};
use broker::PasswordHash;
use cache::LoginCache;
use model::Timestamp;
use parking_lot::Mutex;
use pool::Pool;
use std::{collections::HashSet, net::IpAddr, time::Duration};

/// Before a login that is not looked at is answered.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// Why somebody is not let in. The client never learns which of them it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("unknown user or wrong password")]
    Wrong,
    #[error(
        "this user may log in from this machine only; change `loopback_users` to allow it from \
         elsewhere"
    )]
    LoopbackOnly,
    #[error("too many failed logins; the password was not looked at")]
    TooManyFailures,
    #[error("the client's certificate names no user")]
    NoCertificate,
    #[error("the server is stopping")]
    Stopping,
}

/// A login with a password.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a [u8],
    pub address: IpAddr,
    pub now: Timestamp,
}

/// Checks logins. Holds the threads that hash, so there is one in a process.
pub struct Authenticator {
    pool: Pool,
    cache: LoginCache,
    attempts: Mutex<Attempts>,
    loopback_users: HashSet<String>,
    refusal_delay: Duration,
}

impl Authenticator {
    pub fn new(config: &Config) -> Self {
        let attempts_max = AttemptsMax {
            per_user: config.failed_logins_max,
            per_address: config.failed_logins_per_address_max,
        };
        Self {
            pool: Pool::start(),
            cache: LoginCache::new(),
            attempts: Mutex::new(Attempts::new(attempts_max)),
            loopback_users: config.loopback_users.iter().cloned().collect(),
            refusal_delay: REFUSAL_DELAY,
        }
    }

    /// Checks a password against the user's record; `None`: there is no such user.
    ///
    /// # Errors
    /// [`Denied`], after as much work for an unknown user as for a wrong password.
    pub async fn login(
        &self,
        login: Login<'_>,
        record: Option<&PasswordHash>,
    ) -> Result<(), Denied> {
        self.check_loopback(login.user, login.address)?;
        let now = login.now;
        let key = record.map(|it| self.cache.key(login.user, it, login.password));
        if key.is_some_and(|key| self.cache.knows(&key, now)) {
            return Ok(());
        }
        let address = AddressKey::of(login.address);
        if !self.attempts.lock().begin(login.user, address, now) {
            tokio::time::sleep(self.refusal_delay).await;
            return Err(Denied::TooManyFailures);
        }
        let record = record.unwrap_or(&PasswordHash::None).clone();
        let right = self.pool.verify(record, login.password.to_vec()).await;
        match (right, key) {
            (Some(true), Some(key)) => {
                self.attempts.lock().succeeded(login.user, address);
                self.cache.remember(key, now);
                Ok(())
            }
            (Some(_), _) => Err(Denied::Wrong),
            (None, _) => Err(Denied::Stopping),
        }
    }

    /// This process has made the record from this password itself: that shows as much as a login.
    pub fn remember(&self, user: &str, password: &[u8], record: &PasswordHash, now: Timestamp) {
        self.cache.remember(self.cache.key(user, record, password), now);
    }

    /// Checks whether this user may come from this address. A certificate needs nothing else.
    ///
    /// # Errors
    /// [`Denied::LoopbackOnly`]
    pub fn check_loopback(&self, user: &str, address: IpAddr) -> Result<(), Denied> {
        if !address.to_canonical().is_loopback() && self.loopback_users.contains(user) {
            return Err(Denied::LoopbackOnly);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn authenticator() -> Authenticator {
        let config = load(&Sources::default()).unwrap().config;
        Authenticator { refusal_delay: Duration::ZERO, ..Authenticator::new(&config) }
    }

    fn login<'a>(user: &'a str, password: &'a str, address: IpAddr) -> Login<'a> {
        Login { user, password: password.as_bytes(), address, now: Timestamp(1) }
    }

    #[tokio::test]
    async fn the_right_password_is_let_in_and_known_the_next_time() {
        let authenticator = authenticator();
        let record = password::hash(b"right");
        let right = login("app", "right", THERE);
        assert_eq!(authenticator.login(right, Some(&record)).await, Ok(()));
        let wrong = login("app", "wrong", THERE);
        for _ in 0..20 {
            assert_eq!(authenticator.login(wrong, Some(&record)).await, Err(Denied::Wrong));
        }
        assert_eq!(authenticator.login(wrong, Some(&record)).await, Err(Denied::TooManyFailures));
        assert_eq!(authenticator.login(right, Some(&record)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_changed_record_forgets_the_old_password_at_once() {
        let authenticator = authenticator();
        let old = password::hash(b"old");
        assert_eq!(authenticator.login(login("app", "old", HERE), Some(&old)).await, Ok(()));
        let new = password::hash(b"new");
        let result = authenticator.login(login("app", "old", HERE), Some(&new)).await;
        assert_eq!(result, Err(Denied::Wrong));
        assert_eq!(authenticator.login(login("app", "new", HERE), Some(&new)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_password_that_was_hashed_here_is_known_while_its_record_stands() {
        let authenticator = authenticator();
        // No password fits this one, so whoever is let in was known.
        let record = PasswordHash::Argon2id("made here".into());
        authenticator.remember("app", b"right", &record, Timestamp(1));
        assert_eq!(authenticator.login(login("app", "right", THERE), Some(&record)).await, Ok(()));
        for (user, password, record) in [
            ("app", "wrong", Some(&record)),
            ("other", "right", Some(&record)),
            ("app", "right", Some(&PasswordHash::Argon2id("another".into()))),
            ("app", "right", None),
        ] {
            let result = authenticator.login(login(user, password, THERE), record).await;
            assert_eq!(result, Err(Denied::Wrong));
        }
    }

    #[tokio::test]
    async fn an_unknown_user_and_one_without_password_are_refused() {
        let authenticator = authenticator();
        let result = authenticator.login(login("nobody", "x", HERE), None).await;
        assert_eq!(result, Err(Denied::Wrong));
        let result = authenticator.login(login("cert", "x", HERE), Some(&PasswordHash::None)).await;
        assert_eq!(result, Err(Denied::Wrong));
    }

    #[tokio::test]
    async fn guest_comes_from_loopback_only_however_the_address_is_written() {
        let authenticator = authenticator();
        let record = password::hash(b"guest");
        for (address, expected) in [
            ("127.0.0.1", Ok(())),
            ("127.8.9.1", Ok(())),
            ("::1", Ok(())),
            ("::ffff:127.0.0.1", Ok(())),
            ("192.0.2.1", Err(Denied::LoopbackOnly)),
            ("::ffff:192.0.2.1", Err(Denied::LoopbackOnly)),
            ("2001:db8::1", Err(Denied::LoopbackOnly)),
        ] {
            let login = login("guest", "guest", address.parse().unwrap());
            assert_eq!(authenticator.login(login, Some(&record)).await, expected, "{address}");
        }
    }
}
