//! Attempts end: by what a worker says, by what it does not say, and by its end.

use super::{JobQueue, Run, Worker, changes::Cause};
use crate::{
    effect::Effect,
    job::{Verdict, is_problem, members, short},
};
use model::{
    EntryId, Message, Outcome, SessionId, Timestamp, Value,
    job::{JobResult, Progress},
    properties::Properties,
};
use std::sync::Arc;

/// The type of a message that tells progress.
const PROGRESS: &str = "progress";
const MILLIS_PER_SECOND: u64 = 1_000;

/// What a worker's answer says.
pub(super) struct Read {
    pub(super) result: JobResult,
    pub(super) is_problem: bool,
    pub(super) retryable: bool,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) detail: Option<Arc<str>>,
}

/// What a problem document says about itself.
pub(super) fn detail_of(result: &JobResult) -> Option<Arc<str>> {
    let is_one = result.content_type.as_deref().is_some_and(is_problem);
    let found = is_one.then(|| members(&result.body)).flatten()?;
    found.detail.or(found.title).map(Arc::from)
}

fn read(message: &Message) -> Read {
    let properties = Properties::decode(message.properties()).unwrap_or_default();
    let is_problem = properties.content_type.as_deref().is_some_and(is_problem);
    let result = JobResult {
        content_type: properties.content_type,
        content_encoding: properties.content_encoding,
        body: message.body().into(),
    };
    let retry_after = properties.headers.as_ref().and_then(|it| it.get("retry-after"));
    let seconds = retry_after.and_then(|it| match it {
        Value::LongString(_) => it.as_text().and_then(|it| it.trim().parse().ok()),
        other => other.as_integer().and_then(|it| u64::try_from(it).ok()),
    });
    let found = is_problem.then(|| members(&result.body)).flatten().unwrap_or_default();
    Read {
        is_problem,
        retryable: found.retryable == Some(true) || seconds.is_some(),
        retry_after_ms: seconds.map(|it: u64| it.saturating_mul(MILLIS_PER_SECOND)),
        detail: detail_of(&result),
        result,
    }
}

fn progress(message: &Message) -> Progress {
    let body = message.body();
    match members(&body) {
        Some(it) => Progress { percent: it.percent, note: it.note.map(Arc::from) },
        None => {
            let note = std::str::from_utf8(&body).ok().filter(|it| !it.is_empty());
            Progress { percent: None, note: note.map(|it| Arc::from(short(it))) }
        }
    }
}

impl JobQueue {
    /// Settles those of the deliveries that the session holds. Others were settled or lost already.
    pub(super) fn settle(
        &mut self,
        session: SessionId,
        deliveries: &[EntryId],
        outcome: Outcome,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for number in deliveries {
            let Some(held) = self.held.get(number).filter(|it| it.session == session).copied()
            else {
                continue;
            };
            self.release_held(*number);
            let is_current = |it: &&Run| it.delivery == Some(*number);
            let Some(run) = self.runs.get(&held.job).filter(is_current) else { continue };
            let entry = held.job;
            match outcome {
                Outcome::Accept => {
                    let candidate = run.candidate.clone();
                    self.accept(entry, candidate.as_deref(), now, effects);
                }
                Outcome::Requeue { .. } => {
                    let verdict = Verdict::Failed { retry_after_ms: None };
                    let cause = Cause::Rejected { is_final: false, result: None, detail: None };
                    self.end(entry, verdict, &cause, now, effects);
                }
                Outcome::Release { .. } => self.release(entry, now, effects),
                Outcome::Reject { .. } => {
                    let cause = Cause::Rejected { is_final: true, result: None, detail: None };
                    self.end(entry, Verdict::Rejected, &cause, now, effects);
                }
            }
        }
    }

    /// The worker is done, and this is what it has answered.
    fn accept(
        &mut self,
        entry: EntryId,
        candidate: Option<&Message>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(candidate) = candidate else {
            return self.end(entry, Verdict::Succeeded, &Cause::Fulfilled(None), now, effects);
        };
        let Read { result, is_problem, retryable, retry_after_ms, detail } = read(candidate);
        if !is_problem {
            let cause = Cause::Fulfilled(Some(result));
            return self.end(entry, Verdict::Succeeded, &cause, now, effects);
        }
        let cause = Cause::Rejected { is_final: !retryable, result: Some(result), detail };
        let verdict =
            if retryable { Verdict::Failed { retry_after_ms } } else { Verdict::Rejected };
        self.end(entry, verdict, &cause, now, effects);
    }

    pub(super) fn end(
        &mut self,
        entry: EntryId,
        verdict: Verdict,
        cause: &Cause,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(fence) = self.runs.get(&entry).map(|it| it.fence) else { return };
        let chance = self.chance.number();
        let mut out = std::mem::take(&mut self.transitions);
        let ended = self.book.end(entry, fence, verdict, (now, chance), &mut out);
        debug_assert!(ended.is_ok(), "the run of {entry} is the book's: {ended:?}");
        self.transitions = out;
        self.follow(cause, now, effects);
        if self.items.get(&entry).is_some_and(|it| it.entry.is_fleeting()) {
            self.let_body_go(entry);
        }
    }

    pub(super) fn end_lost(&mut self, entry: EntryId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.end(entry, Verdict::Lost, &Cause::Lost, now, effects);
    }

    /// Somebody has answered on the address of an attempt.
    pub(super) fn on_answer(
        &mut self,
        secret: u128,
        message: Arc<Message>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.tokens.get(&secret).copied() else {
            if let Some(late) = self.late.get(&secret) {
                let (reply_to, correlation) = (&late.reply_to, late.correlation_id.as_ref());
                effects.push(forwarded(&message, reply_to, correlation));
            }
            return;
        };
        if let Some(item) = self.items.get(&entry)
            && let Some(reply_to) = &item.traits.reply_to
        {
            effects.push(forwarded(&message, reply_to, item.traits.correlation_id.as_ref()));
        }
        let kind = Properties::decode(message.properties()).ok().and_then(|it| it.kind);
        if kind.as_deref() == Some(PROGRESS) {
            let progress = Some(progress(&message));
            self.go_on(entry, None, progress, now, effects);
            return;
        }
        let Some(run) = self.runs.get_mut(&entry) else { return };
        match run.worker {
            // Its delivery was the ack.
            Worker::Connected { automatic: true, .. } => {
                self.accept(entry, Some(&message), now, effects);
            }
            _ => {
                self.resident += message.size();
                if let Some(before) = run.candidate.replace(message) {
                    self.resident -= before.size();
                }
            }
        }
    }

    /// The worker goes on, and has so much time again.
    pub(super) fn go_on(
        &mut self,
        entry: EntryId,
        by_ms: Option<u64>,
        progress: Option<Progress>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let lease_ms = self.policy.jobs.as_ref().map_or(0, |it| it.lease_ms);
        let Some(run) = self.runs.get_mut(&entry) else { return };
        let extended = self.book.extend(entry, run.fence, by_ms.unwrap_or(lease_ms), now);
        if let Worker::Leasing { end, .. } = &mut run.worker
            && let Ok((Some(until), _)) = extended
        {
            *end = until;
            self.mark(entry, effects);
        }
        if let Some(run) = self.runs.get_mut(&entry)
            && let (Some(timeout_ms), Some(before)) = (run.timeout_ms, run.overdue)
        {
            self.overdue.remove(&(before, entry));
            let at = now.plus_ms(timeout_ms);
            run.overdue = Some(at);
            self.overdue.insert((at, entry));
        }
        if let Some(progress) = progress
            && let Some(item) = self.items.get_mut(&entry)
        {
            item.progress = Some(progress);
        }
        self.tell_waiting(entry, now, effects);
    }

    /// The session holds this delivery no longer.
    pub(super) fn release_held(&mut self, number: EntryId) {
        let Some(held) = self.held.remove(&number) else { return };
        self.held_by.remove(&(held.session, held.consumer, number));
        let is_automatic = self.runs.get(&held.job).is_some_and(Run::is_automatic);
        if let Some(slot) = self.consumers.find(held.session, held.consumer)
            && !self.consumers.get(slot).automatic
            && !is_automatic
        {
            self.consumers.on_settled(slot);
        }
    }
}

impl Run {
    pub(super) fn is_automatic(&self) -> bool {
        matches!(self.worker, Worker::Connected { automatic: true, .. })
    }
}

/// The copy of an answer for the submitter.
fn forwarded(message: &Message, reply_to: &str, correlation_id: Option<&model::Name>) -> Effect {
    let mut properties = Properties::decode(message.properties()).unwrap_or_default();
    if let Some(id) = correlation_id {
        properties.correlation_id = Some(id.clone());
    }
    let message = message.readdressed("", reply_to, &properties.encoded());
    Effect::Forward { message: Arc::new(message) }
}
