//! The states of a job, as the public interfaces know them. What leads from one to another is the
//! engine's.

/// What is known of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Pending,
    Fulfilled,
    Rejected,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// For jobs that it comes after.
    Waiting,
    /// For its time: a delay, or a rest before it is tried again.
    Scheduled,
    /// For a worker.
    Ready,
    /// Delivered or leased.
    Running,
    Succeeded,
    /// Rejected for good, or out of attempts.
    Failed,
    /// By request, or because one that it comes after was rejected.
    Cancelled,
    /// It was not started in time.
    Expired,
}

impl State {
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    pub fn promise(self) -> Promise {
        match self {
            Self::Waiting | Self::Scheduled | Self::Ready | Self::Running => Promise::Pending,
            Self::Succeeded => Promise::Fulfilled,
            Self::Failed | Self::Cancelled | Self::Expired => Promise::Rejected,
        }
    }

    pub fn is_settled(self) -> bool {
        self.promise() != Promise::Pending
    }

    /// As the public interfaces spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}
