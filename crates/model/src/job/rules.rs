//! What a queue lays down for all its jobs.

use super::{Backoff, Limits, Scheduling, Weights};

/// Times in milliseconds, by the policy of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// An id counts as the same so long after its job was settled.
    pub dedupe_ms: u64,
    /// A forgotten id is remembered so long.
    pub tombstone_ms: u64,
    /// A pending job keeps others with its uniqueness away so long; `None`: until it is settled.
    pub unique_ms: Option<u64>,
}

/// What a queue lays down for all its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRules {
    pub scheduling: Scheduling,
    pub weights: Weights,
    pub limits: Limits,
    /// The first attempt included, at least 1.
    pub attempts: u32,
    pub backoff: Backoff,
    /// A worker without a connection of its own must speak up so often. Milliseconds.
    pub lease_ms: u64,
    /// What has succeeded is kept so long, and what has not. Milliseconds.
    pub result_ttl_ms: u64,
    pub failed_ttl_ms: u64,
    pub lifetimes: Lifetimes,
}

impl Default for JobRules {
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        const DAY_MS: u64 = 24 * HOUR_MS;
        Self {
            scheduling: Scheduling::default(),
            weights: Weights::default(),
            limits: Limits::default(),
            attempts: 5,
            backoff: Backoff::default(),
            lease_ms: 300_000,
            result_ttl_ms: DAY_MS,
            failed_ttl_ms: 14 * DAY_MS,
            lifetimes: Lifetimes { dedupe_ms: DAY_MS, tombstone_ms: 7 * DAY_MS, unique_ms: None },
        }
    }
}
