//! The orders in which ready jobs start. What each means for a job is the engine's.

use crate::names::Name;
use std::collections::HashMap;

/// What a second of waiting is worth, in millionths: of a point of priority, or of a second of
/// work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aging(pub u32);

impl Default for Aging {
    /// A tenth for each second.
    fn default() -> Self {
        Self(100_000)
    }
}

/// Which ready job starts when a worker is free. Ties go to the one that became ready first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// First to become ready.
    #[default]
    Fifo,
    /// Last to become ready.
    Lifo,
    /// Greatest priority, and what waiting adds to it.
    Priority(Aging),
    /// Least expected work, less what waiting takes off.
    Sjf(Aging),
    /// Earliest deadline; jobs without one come after all others.
    Edf,
    /// Equal service for each key, in proportion to its weight; first come first served inside.
    Fair,
}

/// Shares of the keys in thousandths; a key that is not listed has 1,000.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(pub HashMap<Name, u32>);
