//! Bodies of requests: never more than a limit, never more of all together than a budget, and none
//! that does not get on.

use crate::problem::{Problem, ProblemType};
use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A client may stay silent so long within a body.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// However slowly it comes, it has to have come after this.
const WHOLE_MAX: Duration = Duration::from_secs(300);
/// Octets that one permit of the budget stands for.
const UNIT_BYTES: u64 = 1_024;

/// Memory for bodies that are being received.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0).try_acquire_many_owned(units);
        let full = "too many bodies are being received at the same time";
        taken.map_err(|_| Problem::new(ProblemType::Overloaded).detail(full))
    }
}

/// A whole body, and what it takes of the budget as long as this lives.
#[derive(Debug)]
pub struct Received {
    pub octets: Bytes,
    _taken: OwnedSemaphorePermit,
}

fn too_large(max: u64) -> Problem {
    Problem::new(ProblemType::PayloadTooLarge)
        .detail(format!("at most {max} octets"))
        .member("max_bytes", max)
}

/// Reads a body of at most `max` octets.
///
/// # Errors
/// A problem: it is too large, comes too slowly, or not whole, or there is no room for it now.
pub async fn receive(body: Body, max: u64, budget: &Budget) -> Result<Received, Problem> {
    let whole = timeout(WHOLE_MAX, read(body, max, budget)).await;
    whole.unwrap_or_else(|_| Err(Problem::new(ProblemType::RequestTimeout)))
}

async fn read(mut body: Body, max: u64, budget: &Budget) -> Result<Received, Problem> {
    let announced = body.size_hint().lower();
    if max < announced {
        return Err(too_large(max));
    }
    let mut taken = budget.take(announced)?;
    let mut octets = BytesMut::new();
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await;
        let frame = frame.map_err(|_| Problem::new(ProblemType::RequestTimeout))?;
        let Some(frame) = frame else { break };
        let broken = |_| Problem::malformed("body", "the connection broke off within it");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let length = octets.len() as u64 + data.len() as u64;
        if max < length {
            return Err(too_large(max));
        }
        let missing = length.div_ceil(UNIT_BYTES).saturating_sub(taken.num_permits() as u64);
        if 0 < missing {
            taken.merge(budget.take(missing * UNIT_BYTES)?);
        }
        octets.extend_from_slice(&data);
    }
    Ok(Received { octets: octets.freeze(), _taken: taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        let budget = Budget::new(64 * 1_024);
        for length in [0, 1, 9_999, 10_000] {
            let received = receive(Body::from(vec![7; length]), 10_000, &budget).await;
            assert_eq!(received.expect("fits").octets.len(), length);
        }
        let problem = receive(Body::from(vec![7; 10_001]), 10_000, &budget).await;
        assert_eq!(problem.expect_err("too large").status(), 413);
        assert_eq!(budget.0.available_permits(), 64, "everything came back");
    }

    #[tokio::test]
    async fn bodies_together_stay_within_the_budget() {
        let budget = Budget::new(10 * 1_024);
        let first = receive(Body::from(vec![7; 8_000]), 10_000, &budget).await.expect("fits");
        let second = receive(Body::from(vec![7; 8_000]), 10_000, &budget).await;
        let problem = second.expect_err("no room");
        assert_eq!((problem.status(), problem.retry_after()), (503, Some(1)));
        drop(first);
        assert!(receive(Body::from(vec![7; 8_000]), 10_000, &budget).await.is_ok());
    }
}
