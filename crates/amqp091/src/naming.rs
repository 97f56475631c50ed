//! Names that the broker makes up for a client: unique, not secret.

use model::Name;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Letters of a made-up part: 132 bits.
const UNIQUE_LEN: usize = 22;

/// A sequence of texts, other ones for each seed.
#[derive(Debug)]
pub(crate) struct Naming {
    state: u64,
}

impl Naming {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number of the sequence that is known as SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `prefix` and 22 letters of base64url.
    pub(crate) fn unique(&mut self, prefix: &str) -> Name {
        let mut name = String::with_capacity(prefix.len() + UNIQUE_LEN);
        name.push_str(prefix);
        let mut bits = [self.next(), self.next(), self.next()];
        for at in 0..UNIQUE_LEN {
            let word = &mut bits[at / 10];
            name.push(char::from(LETTERS[(*word % 64) as usize]));
            *word /= 64;
        }
        Name::from(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_have_22_letters_and_do_not_repeat() {
        let (mut one, mut other) = (Naming::new(1), Naming::new(2));
        let names: BTreeSet<_> =
            (0..1_000).flat_map(|_| [one.unique("p-"), other.unique("p-")]).collect();
        assert_eq!(names.len(), 2_000);
        for name in names {
            let unique = name.strip_prefix("p-").expect("the prefix");
            assert_eq!(unique.len(), 22);
            assert!(unique.bytes().all(|it| LETTERS.contains(&it)));
        }
    }
}
