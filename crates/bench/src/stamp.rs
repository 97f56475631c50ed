//! What a body says about its message: who published it, the how manyth it was, and when it was
//! due. A body that is too small carries less of it.

use crate::clock::Nanos;

const WORD: usize = 8;
const SEQUENCE_BITS: u32 = 48;
pub(crate) const PUBLISHERS_MAX: u64 = 1 << (u64::BITS - SEQUENCE_BITS);
/// Instead of a time, in a message of the warm-up.
pub(crate) const UNMEASURED: Nanos = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) publisher: usize,
    pub(crate) sequence: u64,
}

/// Which of the two fit in bodies of this size: the identity is the first eight octets, the time
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    pub(crate) has_identity: bool,
    pub(crate) has_time: bool,
}

impl Stamps {
    pub(crate) fn of_size(body_size: usize) -> Self {
        Self { has_identity: WORD <= body_size, has_time: 2 * WORD <= body_size }
    }

    /// Writes what fits to the beginning of a body.
    #[inline]
    pub(crate) fn write(self, body: &mut [u8], identity: Identity, due_at: Nanos) {
        if self.has_identity {
            let word = (identity.publisher as u64) << SEQUENCE_BITS | identity.sequence;
            body[..WORD].copy_from_slice(&word.to_be_bytes());
        }
        if self.has_time {
            body[WORD..2 * WORD].copy_from_slice(&due_at.to_be_bytes());
        }
    }

    #[inline]
    pub(crate) fn identity(self, body: &[u8]) -> Option<Identity> {
        let word = u64::from_be_bytes(*body.first_chunk().filter(|_| self.has_identity)?);
        let sequence = word & ((1 << SEQUENCE_BITS) - 1);
        Some(Identity { publisher: (word >> SEQUENCE_BITS) as usize, sequence })
    }

    #[inline]
    pub(crate) fn due_at(self, body: &[u8]) -> Option<Nanos> {
        let time = body.get(WORD..)?.first_chunk().filter(|_| self.has_time)?;
        Some(Nanos::from_be_bytes(*time)).filter(|it| *it != UNMEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_read_back_and_the_rest_of_the_body_stays() {
        let identity = Identity { publisher: 65_535, sequence: (1 << SEQUENCE_BITS) - 1 };
        for size in 0..=20 {
            let mut body = vec![b'x'; size];
            let stamps = Stamps::of_size(size);
            stamps.write(&mut body, identity, 77);
            assert_eq!(stamps.identity(&body), (size >= 8).then_some(identity));
            assert_eq!(stamps.due_at(&body), (size >= 16).then_some(77));
            stamps.write(&mut body, identity, UNMEASURED);
            assert_eq!(stamps.due_at(&body), None);
            assert!(body.iter().skip(16).all(|it| *it == b'x'));
        }
    }
}
