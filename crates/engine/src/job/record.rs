//! What the log says of a job beside its message: one record holds all of its state, and its result
//! once it has one. The newest record of a job counts. `docs/disk-format.md` draws it.

use crate::record::{Reader, RecordError, put};
use model::{
    LogPosition, Name, QueueId, Timestamp,
    job::{JobProblem, JobResult, ProblemKind, State},
};
use std::sync::Arc;

const VERSION: u8 = 1;

const HAS_ID: u64 = 1;
const HAS_DUE: u64 = 1 << 1;
const HAS_FIRST_READY: u64 = 1 << 2;
const HAS_STARTED: u64 = 1 << 3;
const HAS_SERVED: u64 = 1 << 4;
const CANCEL_REQUESTED: u64 = 1 << 5;
const HAS_LEASE: u64 = 1 << 6;
const HAS_PROBLEM: u64 = 1 << 7;
const HAS_RESULT: u64 = 1 << 8;
const HAS_START_BEFORE: u64 = 1 << 9;
const KNOWN: u64 = (1 << 10) - 1;

/// A lease that outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    pub secret: u128,
    pub end: Timestamp,
    pub worker: Name,
}

/// The state of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    pub queue: QueueId,
    /// The position under which its message first arrived: copies of it keep that.
    pub origin: LogPosition,
    pub state: State,
    pub generation: u32,
    pub attempt: u32,
    pub priority: u8,
    pub cancel_requested: bool,
    /// Since when it has been in its state.
    pub since: Timestamp,
    pub waited_ms: u64,
    /// Its id, where the message has none.
    pub id: Option<Name>,
    pub due: Option<Timestamp>,
    pub first_ready: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub served_ms: Option<u64>,
    pub start_before: Option<Timestamp>,
    pub lease: Option<LeaseRecord>,
    pub problem: Option<JobProblem>,
    pub result: Option<JobResult>,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn octets<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], RecordError> {
    let length = usize::try_from(reader.number()?).map_err(|_| RecordError::Truncated)?;
    let (octets, rest) = reader.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
    reader.0 = rest;
    Ok(octets)
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, RecordError> {
    std::str::from_utf8(octets(reader)?).map_err(|_| RecordError::Job)
}

/// An empty text stands for none.
fn name(reader: &mut Reader<'_>) -> Result<Option<Name>, RecordError> {
    let text = text(reader)?;
    Ok((!text.is_empty()).then(|| Name::new(text)))
}

fn narrow(reader: &mut Reader<'_>) -> Result<u32, RecordError> {
    u32::try_from(reader.number()?).map_err(|_| RecordError::Job)
}

fn state_of(octet: u8) -> Result<State, RecordError> {
    State::ALL.get(usize::from(octet)).copied().ok_or(RecordError::Job)
}

fn octet_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let at = all.iter().position(|it| it == one);
    at.and_then(|it| u8::try_from(it).ok()).expect("all are in the list of all")
}

impl JobRecord {
    fn flags(&self) -> u64 {
        let flags = [
            (HAS_ID, self.id.is_some()),
            (HAS_DUE, self.due.is_some()),
            (HAS_FIRST_READY, self.first_ready.is_some()),
            (HAS_STARTED, self.started.is_some()),
            (HAS_SERVED, self.served_ms.is_some()),
            (CANCEL_REQUESTED, self.cancel_requested),
            (HAS_LEASE, self.lease.is_some()),
            (HAS_PROBLEM, self.problem.is_some()),
            (HAS_RESULT, self.result.is_some()),
            (HAS_START_BEFORE, self.start_before.is_some()),
        ];
        flags.into_iter().filter(|it| it.1).fold(0, |sum, it| sum | it.0)
    }

    /// Appends the payload of a record of kind [`crate::record::kind::JOB`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put(out, self.queue.0);
        put(out, self.origin.0);
        put(out, self.flags());
        out.push(octet_of(&State::ALL, &self.state));
        out.push(self.priority);
        put(out, self.generation.into());
        put(out, self.attempt.into());
        put(out, self.since.0);
        put(out, self.waited_ms);
        if let Some(id) = &self.id {
            put_text(out, id);
        }
        let times = [self.due, self.first_ready, self.started].map(|it| it.map(|it| it.0));
        let rest = [self.served_ms, self.start_before.map(|it| it.0)];
        times.into_iter().chain(rest).flatten().for_each(|it| put(out, it));
        if let Some(lease) = &self.lease {
            out.extend_from_slice(&lease.secret.to_le_bytes());
            put(out, lease.end.0);
            put_text(out, &lease.worker);
        }
        if let Some(problem) = &self.problem {
            out.push(octet_of(&ProblemKind::ALL, &problem.kind));
            put_text(out, problem.detail.as_deref().unwrap_or(""));
        }
        if let Some(result) = &self.result {
            put_text(out, result.content_type.as_deref().unwrap_or(""));
            put_text(out, result.content_encoding.as_deref().unwrap_or(""));
            out.extend_from_slice(&result.body);
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`RecordError`], when it is of another version or does not decode.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(payload);
        match reader.octet()? {
            VERSION => {}
            newer => return Err(RecordError::Newer(newer)),
        }
        let queue = QueueId(reader.number()?);
        let origin = LogPosition(reader.number()?);
        let flags = reader.number()?;
        if flags & !KNOWN != 0 {
            return Err(RecordError::Job);
        }
        let has = |flag| flags & flag != 0;
        let state = state_of(reader.octet()?)?;
        let priority = reader.octet()?;
        let (generation, attempt) = (narrow(&mut reader)?, narrow(&mut reader)?);
        let since = Timestamp(reader.number()?);
        let waited_ms = reader.number()?;
        let id = if has(HAS_ID) { Some(Name::new(text(&mut reader)?)) } else { None };
        let mut number = |flag| if has(flag) { reader.number().map(Some) } else { Ok(None) };
        let due = number(HAS_DUE)?.map(Timestamp);
        let first_ready = number(HAS_FIRST_READY)?.map(Timestamp);
        let started = number(HAS_STARTED)?.map(Timestamp);
        let served_ms = number(HAS_SERVED)?;
        let start_before = number(HAS_START_BEFORE)?.map(Timestamp);
        let lease = if has(HAS_LEASE) { Some(lease(&mut reader)?) } else { None };
        let problem = if has(HAS_PROBLEM) { Some(problem(&mut reader)?) } else { None };
        let result = if has(HAS_RESULT) { Some(result(&mut reader)?) } else { None };
        Ok(Self {
            queue,
            origin,
            state,
            generation,
            attempt,
            priority,
            cancel_requested: has(CANCEL_REQUESTED),
            since,
            waited_ms,
            id,
            due,
            first_ready,
            started,
            served_ms,
            start_before,
            lease,
            problem,
            result,
        })
    }
}

fn lease(reader: &mut Reader<'_>) -> Result<LeaseRecord, RecordError> {
    let (secret, rest) = reader.0.split_first_chunk().ok_or(RecordError::Truncated)?;
    reader.0 = rest;
    let end = Timestamp(reader.number()?);
    Ok(LeaseRecord { secret: u128::from_le_bytes(*secret), end, worker: text(reader)?.into() })
}

fn problem(reader: &mut Reader<'_>) -> Result<JobProblem, RecordError> {
    let at = usize::from(reader.octet()?);
    let kind = *ProblemKind::ALL.get(at).ok_or(RecordError::Job)?;
    let detail = text(reader)?;
    Ok(JobProblem { kind, detail: (!detail.is_empty()).then(|| Arc::from(detail)) })
}

fn result(reader: &mut Reader<'_>) -> Result<JobResult, RecordError> {
    let (content_type, content_encoding) = (name(reader)?, name(reader)?);
    let body = bytes::Bytes::copy_from_slice(std::mem::take(&mut reader.0));
    Ok(JobResult { content_type, content_encoding, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse() -> JobRecord {
        JobRecord {
            queue: QueueId(3),
            origin: LogPosition(1 << 40),
            state: State::Ready,
            generation: 1,
            attempt: 0,
            priority: 0,
            cancel_requested: false,
            since: Timestamp(1_700_000_000_000),
            waited_ms: 0,
            id: None,
            due: None,
            first_ready: None,
            started: None,
            served_ms: None,
            start_before: None,
            lease: None,
            problem: None,
            result: None,
        }
    }

    fn full() -> JobRecord {
        let at = |ms: u64| Some(Timestamp(1_700_000_000_000 + ms));
        JobRecord {
            state: State::Expired,
            generation: 7,
            attempt: 300,
            priority: 9,
            cancel_requested: true,
            waited_ms: 512,
            id: Some("job-1".into()),
            due: at(1),
            first_ready: at(2),
            started: at(3),
            served_ms: Some(4),
            start_before: at(5),
            lease: Some(LeaseRecord {
                secret: u128::MAX - 7,
                end: Timestamp(6),
                worker: "w".into(),
            }),
            problem: Some(JobProblem {
                kind: ProblemKind::Refused,
                detail: Some(Arc::from("why")),
            }),
            result: Some(JobResult {
                content_type: Some("text/plain".into()),
                content_encoding: None,
                body: bytes::Bytes::from_static(b"done"),
            }),
            ..sparse()
        }
    }

    #[test]
    fn every_field_comes_back_as_it_was() {
        for record in [sparse(), full(), JobRecord { result: None, ..full() }] {
            let mut payload = Vec::new();
            record.encode(&mut payload);
            assert_eq!(JobRecord::decode(&payload), Ok(record));
        }
    }

    #[test]
    fn every_cut_before_the_body_is_refused() {
        let mut payload = Vec::new();
        full().encode(&mut payload);
        for length in 0..payload.len() - b"done".len() {
            assert!(JobRecord::decode(&payload[..length]).is_err(), "{length} octets");
        }
        payload[0] = 2;
        assert_eq!(JobRecord::decode(&payload), Err(RecordError::Newer(2)));
    }
}
