//! Octets that must not be seen in a log: passwords and tokens.

use std::{fmt, hint::black_box};

/// Secret octets. Shown as stars, compared in time that does not depend on where they differ, and
/// overwritten when they go.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Copies `octets`; the original remains the caller's matter.
    pub fn new(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }

    /// The octets themselves, for the one place that checks them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may leave the overwriting out.
        black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let differences =
            self.0.iter().zip(&other.0).fold(0, |seen, (left, right)| seen | (left ^ right));
        black_box(differences) == 0 && self.0.len() == other.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2")), "***");
    }

    #[test]
    fn equal_are_only_the_same_octets() {
        assert_eq!(Secret::new(b"abc"), Secret::new(b"abc"));
        assert_ne!(Secret::new(b"abc"), Secret::new(b"abd"));
        assert_ne!(Secret::new(b"abc"), Secret::new(b"ab"));
    }
}
