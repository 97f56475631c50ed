//! What reclaim remembers between two looks.

use model::LogPosition;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(crate) struct Reclaim(pub(crate) Mutex<Progress>);

#[derive(Default)]
pub(crate) struct Progress {
    /// Segments that go as soon as this position is durable.
    pub(crate) condemned: BTreeMap<u32, LogPosition>,
    /// Segments whose live content has been written again.
    pub(crate) evacuated: BTreeSet<u32>,
}
