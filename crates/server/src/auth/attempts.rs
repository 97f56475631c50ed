//! How many passwords a peer may guess per minute.

use super::address::AddressKey;
use model::Timestamp;
use std::{collections::HashMap, hash::Hash};

const WINDOW_MS: u64 = 60_000;
/// Peers that are counted one by one; further ones of the same minute share one count.
const COUNTED_MAX: usize = 65_536;

/// Failed logins per minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptsMax {
    /// Of one user from one address.
    pub(super) per_user: u64,
    /// From one address.
    pub(super) per_address: u64,
}

/// Counts logins that failed or are being looked at.
pub(super) struct Attempts {
    max: AttemptsMax,
    begin: Option<Timestamp>,
    per_user: Counts<(String, AddressKey)>,
    per_address: Counts<AddressKey>,
}

impl Attempts {
    pub(super) fn new(max: AttemptsMax) -> Self {
        Self { max, begin: None, per_user: Counts::default(), per_address: Counts::default() }
    }

    /// Counts a login that is to be looked at, as if it had failed. False: it must not be.
    pub(super) fn begin(&mut self, user: &str, address: AddressKey, now: Timestamp) -> bool {
        if self.begin.is_none_or(|it| it.plus_ms(WINDOW_MS) <= now) {
            self.begin = Some(now);
            self.per_user = Counts::default();
            self.per_address = Counts::default();
        }
        let of_address = self.per_address.count(address);
        if self.max.per_address <= *of_address {
            return false;
        }
        let of_user = self.per_user.count((user.to_owned(), address));
        if self.max.per_user <= *of_user {
            return false;
        }
        *of_user += 1;
        *of_address += 1;
        true
    }

    /// Takes a login back that turned out right.
    pub(super) fn succeeded(&mut self, user: &str, address: AddressKey) {
        let of_user = self.per_user.count((user.to_owned(), address));
        *of_user = of_user.saturating_sub(1);
        let of_address = self.per_address.count(address);
        *of_address = of_address.saturating_sub(1);
    }
}

struct Counts<K> {
    each: HashMap<K, u64>,
    others: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { each: HashMap::new(), others: 0 }
    }
}

impl<K: Eq + Hash> Counts<K> {
    fn count(&mut self, key: K) -> &mut u64 {
        if COUNTED_MAX <= self.each.len() && !self.each.contains_key(&key) {
            return &mut self.others;
        }
        self.each.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const NOW: Timestamp = Timestamp(1_000_000);
    const MAX: AttemptsMax = AttemptsMax { per_user: 2, per_address: 5 };

    fn address(last: u8) -> AddressKey {
        AddressKey::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn a_user_is_limited_per_address() {
        let (mut attempts, now) = (Attempts::new(MAX), NOW);
        let mut try_as = |user, from| attempts.begin(user, address(from), now);
        assert!(try_as("a", 1) && try_as("a", 1));
        assert!(!try_as("a", 1));
        assert!(try_as("a", 2));
        assert!(try_as("b", 1));
    }

    #[test]
    fn an_address_is_limited_over_all_users() {
        let (mut attempts, now) = (Attempts::new(MAX), NOW);
        let tried = (0..10).filter(|it| attempts.begin(&format!("user{it}"), address(1), now));
        assert_eq!(tried.count(), 5);
        assert!(attempts.begin("user0", address(2), now));
    }

    #[test]
    fn a_success_is_not_counted() {
        let (mut attempts, now) = (Attempts::new(MAX), NOW);
        for _ in 0..100 {
            assert!(attempts.begin("a", address(1), now));
            attempts.succeeded("a", address(1));
        }
    }

    #[test]
    fn the_next_minute_begins_anew() {
        let (mut attempts, now) = (Attempts::new(MAX), NOW);
        while attempts.begin("a", address(1), now) {}
        assert!(!attempts.begin("a", address(1), now.plus_ms(WINDOW_MS - 1)));
        assert!(attempts.begin("a", address(1), now.plus_ms(WINDOW_MS)));
    }

    #[test]
    fn counting_takes_bounded_memory() {
        let (mut attempts, now) = (Attempts::new(MAX), NOW);
        for index in 0..(COUNTED_MAX as u32 + 100) {
            let from = AddressKey::of(IpAddr::V4(Ipv4Addr::from_bits(index)));
            attempts.begin("a", from, now);
        }
        assert_eq!(attempts.per_address.each.len(), COUNTED_MAX);
        assert!(attempts.per_user.each.len() <= COUNTED_MAX);
    }
}
