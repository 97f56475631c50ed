//! Parts of a queue that many queues never need: there may be very many quiet ones, and an empty
//! part costs as much as a full one.

use std::ops::Deref;

/// What has an empty value to stand in for one that is not there.
pub(crate) trait Absent: 'static {
    fn absent() -> &'static Self;
}

/// A part that is made when something is first put into it. It reads as an empty one before, and
/// stays from then on.
#[derive(Debug)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

impl<T> Seldom<T> {
    pub(crate) const NONE: Self = Self(None);

    /// The part, if it is there.
    #[inline]
    pub(crate) fn look(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The part, to change it; only what is there can change.
    #[inline]
    pub(crate) fn there(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// The part, made now if it is not there.
    #[inline]
    pub(crate) fn made(&mut self, make: impl FnOnce() -> T) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(make()))
    }
}

impl<T: Absent> Deref for Seldom<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(it) => it,
            None => T::absent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Absent for Vec<u8> {
        fn absent() -> &'static Self {
            static NONE: Vec<u8> = Vec::new();
            &NONE
        }
    }

    #[test]
    fn absent_part_reads_as_empty_and_is_made_once() {
        let mut part = Seldom::<Vec<u8>>::NONE;
        assert!(part.is_empty() && part.there().is_none());
        part.made(Vec::new).push(1);
        part.made(|| vec![9]).push(2);
        assert_eq!(*part, [1, 2]);
        assert!(part.there().is_some());
    }
}
