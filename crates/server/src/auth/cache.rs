//! Logins that were right a short while ago, so that a client that reconnects costs no hashing.

use crate::random;
use aws_lc_rs::{digest, hmac};
use broker::PasswordHash;
use model::Timestamp;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};

const ENTRIES_MAX: usize = 10_000;
const KEPT_MS: u64 = 15 * 60 * 1_000;

/// Stands for one user, record and password. Without the key of this process it tells nothing.
pub(super) type CacheKey = [u8; digest::SHA256_OUTPUT_LEN];

pub(super) struct LoginCache {
    secret: hmac::Key,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    known: HashSet<CacheKey>,
    /// The same, oldest first.
    by_age: VecDeque<(Timestamp, CacheKey)>,
}

impl LoginCache {
    pub(super) fn new() -> Self {
        let mut secret = [0; digest::SHA256_OUTPUT_LEN];
        random::fill(&mut secret);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { secret, entries: Mutex::default() }
    }

    /// A changed record has another key: what was remembered of the old one is worth nothing.
    pub(super) fn key(&self, user: &str, record: &PasswordHash, password: &[u8]) -> CacheKey {
        let mut context = hmac::Context::with_key(&self.secret);
        let mut part = |octets: &[u8]| {
            context.update(&(octets.len() as u64).to_le_bytes());
            context.update(octets);
        };
        part(user.as_bytes());
        match record {
            PasswordHash::None => part(b"none"),
            PasswordHash::Argon2id(phc) => part(phc.as_bytes()),
            PasswordHash::Sha256 { salt, hash } => [&salt[..], hash].into_iter().for_each(part),
            PasswordHash::Sha512 { salt, hash } => [&salt[..], hash].into_iter().for_each(part),
            PasswordHash::Md5 { salt, hash } => [&salt[..], hash].into_iter().for_each(part),
        }
        context.update(password);
        let mut key = CacheKey::default();
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    pub(super) fn knows(&self, key: &CacheKey, now: Timestamp) -> bool {
        let mut entries = self.entries.lock();
        entries.forget_old(now);
        entries.known.contains(key)
    }

    pub(super) fn remember(&self, key: CacheKey, now: Timestamp) {
        let mut entries = self.entries.lock();
        entries.forget_old(now);
        if entries.known.insert(key) {
            entries.by_age.push_back((now, key));
        }
        if ENTRIES_MAX < entries.by_age.len() {
            entries.forget_first();
        }
    }
}

impl Entries {
    fn forget_old(&mut self, now: Timestamp) {
        while self.by_age.front().is_some_and(|it| it.0.plus_ms(KEPT_MS) <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.by_age.pop_front() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn record(text: &str) -> PasswordHash {
        PasswordHash::Argon2id(text.into())
    }

    #[test]
    fn a_key_depends_on_user_record_password_and_process() {
        let cache = LoginCache::new();
        let key = cache.key("user", &record("r"), b"password");
        assert_eq!(key, cache.key("user", &record("r"), b"password"));
        for other in [
            cache.key("user2", &record("r"), b"password"),
            cache.key("user", &record("s"), b"password"),
            cache.key("user", &record("r"), b"passworf"),
            cache.key("userr", &record(""), b"password"),
            cache.key("user", &PasswordHash::None, b"password"),
            LoginCache::new().key("user", &record("r"), b"password"),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn a_login_is_forgotten_after_a_quarter_of_an_hour() {
        let (cache, now) = (LoginCache::new(), NOW);
        let key = cache.key("user", &record("r"), b"p");
        assert!(!cache.knows(&key, now));
        cache.remember(key, now);
        assert!(cache.knows(&key, now.plus_ms(KEPT_MS - 1)));
        assert!(!cache.knows(&key, now.plus_ms(KEPT_MS)));
    }

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let (cache, now) = (LoginCache::new(), NOW);
        let keys: Vec<_> = (0..=ENTRIES_MAX as u64)
            .map(|it| cache.key("user", &record("r"), &it.to_le_bytes()))
            .collect();
        keys.iter().for_each(|key| cache.remember(*key, now));
        assert!(!cache.knows(&keys[0], now));
        assert!(cache.knows(&keys[1], now) && cache.knows(&keys[ENTRIES_MAX], now));
        assert_eq!(cache.entries.lock().known.len(), ENTRIES_MAX);
    }
}
