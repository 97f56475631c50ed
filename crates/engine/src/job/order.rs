//! The orders in which ready jobs start. Each is the order of a number that does not change while a
//! job waits: all waiting jobs age at the same rate, so aging needs no re-sorting.

use model::{EntryId, Name, Timestamp};

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

/// A job that may start, and what an order may look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyJob {
    pub id: EntryId,
    /// Whose it is; all jobs without a key share the empty one.
    pub key: Name,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Expected work in microseconds.
    pub cost_us: u64,
    pub deadline: Option<Timestamp>,
    /// When it last became ready.
    pub ready_at: Timestamp,
}

/// Where a job stands: by rank, then by when it became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    pub(super) rank: i128,
    pub(super) sequence: u64,
}

impl Scheduling {
    /// The least comes first. In `Fair` it orders the jobs of one key only.
    pub(super) fn standing(self, job: &ReadyJob, sequence: u64) -> Standing {
        let ready_at = i128::from(job.ready_at.0);
        // Thousandths of a millionth: exact, whatever the rate of aging.
        let rank = match self {
            Self::Fifo | Self::Fair => 0,
            Self::Lifo => -i128::from(sequence),
            Self::Priority(Aging(aging)) => {
                i128::from(aging) * ready_at - i128::from(job.priority) * 1_000_000_000
            }
            Self::Sjf(Aging(aging)) => {
                i128::from(aging) * ready_at + i128::from(job.cost_us) * 1_000
            }
            Self::Edf => job.deadline.map_or(i128::MAX, |it| i128::from(it.0)),
        };
        Standing { rank, sequence }
    }
}
