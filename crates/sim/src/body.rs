//! Bodies that tell which message they are of: a function of number and size, so that a delivery is
//! judged octet by octet.

use crate::random::Random;
use model::{Message, properties::Properties};

/// Octets that carry the number; no body is smaller.
pub const SIZE_MIN: usize = 8;

/// The body of a message.
pub fn body(number: u64, size: usize) -> Vec<u8> {
    let mut octets = number.to_be_bytes().to_vec();
    let mut random = Random::new(number);
    while octets.len() < size {
        octets.extend_from_slice(&random.number().to_be_bytes());
    }
    octets.truncate(size.max(SIZE_MIN));
    octets
}

/// The number in a body, if it is one of ours and whole.
pub fn number_of(octets: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*octets.first_chunk()?);
    (body(number, octets.len()) == octets).then_some(number)
}

/// A message with such a body.
pub fn message(exchange: &str, key: &str, number: u64, size: usize, persistent: bool) -> Message {
    let delivery_mode = Some(if persistent { 2 } else { 1 });
    let properties = Properties { delivery_mode, ..Properties::default() };
    Message::new(exchange, key, &properties.encoded(), &body(number, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_body_is_nobodys() {
        for size in [0, 8, 9, 16, 700] {
            let octets = body(77, size);
            assert_eq!(number_of(&octets), Some(77));
            for at in 8..octets.len() {
                let mut changed = octets.clone();
                changed[at] ^= 1;
                assert_eq!(number_of(&changed), None);
            }
        }
    }
}
