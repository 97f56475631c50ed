//! Tokens: who knows one speaks for an attempt. They name the shard and the queue that gave them,
//! and 128 bits that nobody can guess.

use model::{Name, QueueId, ShardId};
#[expect(
    deprecated,
    reason = "the one keyed hash of the standard library; it will not change"
)]
use std::hash::SipHasher;
use std::{fmt, hash::Hasher};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub shard: ShardId,
    pub queue: QueueId,
    pub secret: u128,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:032x}", self.shard.0, self.queue.0, self.secret)
    }
}

impl Token {
    /// The token that is written so, and in no other way.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (shard, queue, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let token = Self {
            shard: ShardId(u16::from_str_radix(shard, 16).ok()?),
            queue: QueueId(u64::from_str_radix(queue, 16).ok()?),
            secret: u128::from_str_radix(secret, 16).ok()?,
        };
        (token.to_string() == text).then_some(token)
    }

    pub fn name(&self) -> Name {
        Name::from(self.to_string())
    }
}

/// Numbers that nobody can guess who does not know the key: SipHash of a count.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    key: [u64; 2],
    queue: QueueId,
    count: u64,
}

impl Chance {
    /// `key`: secret, and another one in every process.
    pub fn new(key: [u64; 2], queue: QueueId) -> Self {
        Self { key, queue, count: 0 }
    }

    /// Each number as likely as the others.
    #[expect(deprecated, reason = "the one keyed hash of the standard library")]
    pub fn number(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = SipHasher::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(self.queue.0);
        hasher.write_u64(self.count);
        hasher.finish()
    }

    pub fn secret(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    /// An id in the form of a UUID of version 7.
    pub fn id(&mut self, now_ms: u64) -> Name {
        const VERSION: u128 = 7 << 76;
        const VARIANT: u128 = 2 << 62;
        let chance = self.secret() & !(0xffff_ffff_ffff << 80) & !(0xf << 76) & !(3 << 62);
        let id = u128::from(now_ms & 0xffff_ffff_ffff) << 80 | VERSION | VARIANT | chance;
        let digits = format!("{id:032x}");
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Name::from(parts.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_read_as_it_was_written_and_in_no_other_form() {
        let token = Token { shard: ShardId(11), queue: QueueId(1 << 40), secret: 7 };
        let text = token.to_string();
        assert_eq!(Token::parse(&text), Some(token));
        for odd in ["", "b", "b.1.7", &format!("{text}.1"), &format!("0{text}"), &text[1..]] {
            assert_eq!(Token::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn numbers_differ_by_key_queue_and_count() {
        let mut chances = [([1, 2], 1), ([1, 3], 1), ([1, 2], 2)]
            .map(|(key, queue)| Chance::new(key, QueueId(queue)));
        let mut seen = std::collections::BTreeSet::new();
        for chance in &mut chances {
            (0..1_000).for_each(|_| assert!(seen.insert(chance.secret())));
        }
    }

    #[test]
    fn id_tells_its_time_version_and_variant() {
        let id = Chance::new([3, 4], QueueId(1)).id(0x0192_f0c1_7a00);
        assert!(id.starts_with("0192f0c1-7a00-7"), "{id}");
        assert!(matches!(id.as_bytes()[19], b'8'..=b'b'), "{id}");
        assert_eq!(id.len(), 36);
    }
}
