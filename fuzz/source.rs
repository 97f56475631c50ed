//! The input of a fuzz target, taken piece by piece: tests and targets include this file.

/// What is left of the input.
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

impl<'a> Source<'a> {
    /// The next octet.
    pub(crate) fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// As many octets as the next one says, or all there are.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.octet()?).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(taken)
    }
}
