//! The orders in which ready jobs start. Each is the order of a number that does not change while a
//! job waits: all waiting jobs age at the same rate, so aging needs no re-sorting.

use model::{
    EntryId, Name, Timestamp,
    job::{Aging, Scheduling},
};

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

/// The least comes first. In `Fair` it orders the jobs of one key only.
pub(super) fn standing(scheduling: Scheduling, job: &ReadyJob, sequence: u64) -> Standing {
    let ready_at = i128::from(job.ready_at.0);
    // Thousandths of a millionth: exact, whatever the rate of aging.
    let rank = match scheduling {
        Scheduling::Fifo | Scheduling::Fair => 0,
        Scheduling::Lifo => -i128::from(sequence),
        Scheduling::Priority(Aging(aging)) => {
            i128::from(aging) * ready_at - i128::from(job.priority) * 1_000_000_000
        }
        Scheduling::Sjf(Aging(aging)) => {
            i128::from(aging) * ready_at + i128::from(job.cost_us) * 1_000
        }
        Scheduling::Edf => job.deadline.map_or(i128::MAX, |it| i128::from(it.0)),
    };
    Standing { rank, sequence }
}
