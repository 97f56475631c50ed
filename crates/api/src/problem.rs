//! Why a request is not answered as wished, as problem documents (RFC 9457).

use serde_json::{Map, Value};

type Text = Option<Box<str>>;

/// Where the types of problems are explained.
const BASE: &str = "https://ferrymq.dev/problems/";

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

macro_rules! problem_types {
    ($($(#[$meta:meta])* $name:ident $slug:literal $status:literal $title:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemType {
            $($(#[$meta])* $name,)*
        }

        impl ProblemType {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The end of its address.
            pub fn slug(self) -> &'static str {
                match self {
                    $(Self::$name => $slug,)*
                }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }

            /// What it is called where nothing more is known.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

problem_types! {
    /// The worker has refused the job for good.
    WorkerRejected "worker-rejected" 502 "The worker rejected the job";
    AttemptsExhausted "attempts-exhausted" 502 "Gave up after all attempts";
    /// All attempts are used up, and the last one ended without a word.
    LeaseLost "lease-lost" 504 "The worker was lost";
    Expired "expired" 504 "The job was not started in time";
    Cancelled "cancelled" 409 "The job was cancelled";
    ParentFailed "parent-failed" 409 "A job that this one comes after was rejected";
    Forgotten "forgotten" 410 "The job was there and is forgotten";
    QueueNotFound "queue-not-found" 404 "There is no such queue";
    NotAJobQueue "not-a-job-queue" 409 "The queue does not hold jobs";
    UnknownJob "unknown-job" 404 "There is no such job";
    AmbiguousId "ambiguous-id" 409 "Several queues have a job of this id";
    AlreadySettled "already-settled" 409 "The job is settled already";
    /// What is asked for needs another state of the job.
    WrongState "wrong-state" 409 "The job is not in a state for this";
    UnknownParent "unknown-parent" 422 "A job that this one comes after does not exist";
    IdempotencyKeyReused "idempotency-key-reused" 422 "The key was used for another request";
    IdempotencyInProgress "idempotency-in-progress" 409 "The first request is not done yet";
    RateLimited "rate-limited" 429 "Too many requests";
    Overloaded "overloaded" 503 "The server has too much to do";
    MalformedRequest "malformed-request" 400 "The request cannot be understood";
    Unauthorized "unauthorized" 401 "Who asks is not known";
    Forbidden "forbidden" 403 "The user may not do this";
    VhostNotFound "vhost-not-found" 404 "There is no such virtual host";
    NoSuchResource "no-such-resource" 404 "There is nothing at this address";
    MethodNotAllowed "method-not-allowed" 405 "The address does not know this method";
    RequestTimeout "request-timeout" 408 "The request took too long to arrive";
    PayloadTooLarge "payload-too-large" 413 "The body is too large";
    UnsupportedMediaType "unsupported-media-type" 415 "The body is of no type that is understood";
    Internal "internal" 500 "The server has failed";
    /// The broker refuses for a reason that has no type of its own.
    Refused "refused" 409 "The broker refuses";
}

impl ProblemType {
    /// Its whole address.
    pub fn address(self) -> String {
        format!("{BASE}{}", self.slug())
    }

    /// The type whose address this is.
    pub fn of_address(address: &str) -> Option<Self> {
        let slug = address.strip_prefix(BASE)?;
        Self::ALL.iter().copied().find(|it| it.slug() == slug)
    }
}

/// One problem document.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: ProblemType,
    /// In place of the type's own status, where one type has two sides.
    pub other_status: Option<u16>,
    /// In place of the type's own title.
    pub title: Text,
    /// What is wrong this time, for people.
    pub detail: Text,
    /// What would help.
    pub hint: Text,
    /// What it is about, as an address.
    pub instance: Text,
    /// For `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// Further members, of this type.
    pub members: Vec<(&'static str, Value)>,
}

impl Problem {
    pub fn new(kind: ProblemType) -> Self {
        Self {
            kind,
            other_status: None,
            title: None,
            detail: None,
            hint: None,
            instance: None,
            retry_after_s: None,
            members: Vec::new(),
        }
    }

    pub fn detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn instance(mut self, address: impl Into<Box<str>>) -> Self {
        self.instance = Some(address.into());
        self
    }

    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// A value of the request that cannot be understood, and what would be.
    pub fn malformed(field: &str, cure: impl std::fmt::Display) -> Self {
        let problem = Self::new(ProblemType::MalformedRequest);
        problem.detail(format!("{field}: {cure}")).member("field", field)
    }

    /// What a worker hears whose lease has ended: nothing it says changes anything.
    pub fn stale_lease() -> Self {
        let problem = Self::new(ProblemType::LeaseLost);
        let title = Some("The lease has ended".into());
        Self { other_status: Some(410), title, ..problem }
    }

    pub fn status(&self) -> u16 {
        self.other_status.unwrap_or_else(|| self.kind.status())
    }

    /// The seconds of `Retry-After`. Who may come again is always told when.
    pub fn retry_after(&self) -> Option<u32> {
        let comes_again = matches!(self.kind, ProblemType::RateLimited | ProblemType::Overloaded);
        self.retry_after_s.or_else(|| comes_again.then_some(1))
    }

    /// The document. The members of RFC 9457 cannot be overwritten by others.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("type".to_owned(), self.kind.address().into());
        let title = self.title.as_deref().unwrap_or_else(|| self.kind.title());
        object.insert("title".to_owned(), title.into());
        object.insert("status".to_owned(), self.status().into());
        let texts = [("detail", &self.detail), ("hint", &self.hint), ("instance", &self.instance)];
        for (name, text) in texts {
            if let Some(text) = text {
                object.insert(name.to_owned(), (**text).into());
            }
        }
        for (name, value) in &self.members {
            object.entry(*name).or_insert_with(|| value.clone());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_type_has_an_address_of_its_own_and_an_error_status() {
        let addresses: HashSet<String> = ProblemType::ALL.iter().map(|it| it.address()).collect();
        assert_eq!(addresses.len(), ProblemType::ALL.len());
        for kind in ProblemType::ALL {
            assert!((400..=599).contains(&kind.status()), "{kind:?}");
            assert!(!kind.title().is_empty());
            let is_slug = |it: char| it.is_ascii_lowercase() || it == '-';
            assert!(kind.slug().chars().all(is_slug), "{kind:?}");
            assert_eq!(ProblemType::of_address(&kind.address()), Some(*kind));
        }
        assert_eq!(ProblemType::of_address("about:blank"), None);
    }

    /// The statuses that the public model lays down.
    #[test]
    fn types_have_the_statuses_of_the_public_model() {
        for (slug, status) in [
            ("worker-rejected", 502),
            ("attempts-exhausted", 502),
            ("lease-lost", 504),
            ("expired", 504),
            ("cancelled", 409),
            ("parent-failed", 409),
            ("forgotten", 410),
            ("queue-not-found", 404),
            ("not-a-job-queue", 409),
            ("unknown-job", 404),
            ("ambiguous-id", 409),
            ("already-settled", 409),
            ("unknown-parent", 422),
            ("idempotency-key-reused", 422),
            ("idempotency-in-progress", 409),
            ("rate-limited", 429),
            ("overloaded", 503),
        ] {
            let kind = ProblemType::of_address(&format!("{BASE}{slug}"));
            assert_eq!(kind.map(ProblemType::status), Some(status), "{slug}");
        }
    }

    #[test]
    fn a_document_has_the_members_of_the_standard_first() {
        let problem = Problem::new(ProblemType::AmbiguousId)
            .detail("in 2 queues")
            .instance("/v1/jobs/a")
            .member("queues", vec!["p", "q"])
            .member("status", 200);
        assert_eq!(
            problem.json().to_string(),
            r#"{"type":"https://ferrymq.dev/problems/ambiguous-id","title":"Several queues have a job of this id","status":409,"detail":"in 2 queues","instance":"/v1/jobs/a","queues":["p","q"]}"#
        );
    }

    #[test]
    fn who_may_come_again_is_told_when() {
        assert_eq!(Problem::new(ProblemType::RateLimited).retry_after(), Some(1));
        assert_eq!(Problem::new(ProblemType::Overloaded).retry_after_s(7).retry_after(), Some(7));
        assert_eq!(Problem::new(ProblemType::UnknownJob).retry_after(), None);
    }

    #[test]
    fn a_lease_that_has_ended_is_gone() {
        let problem = Problem::stale_lease();
        assert_eq!(problem.status(), 410);
        assert_eq!(problem.json()["type"], "https://ferrymq.dev/problems/lease-lost");
        assert_eq!(problem.json()["status"], 410);
    }

    #[test]
    fn a_malformed_value_is_named_with_its_cure() {
        let problem = Problem::malformed("Job-Priority", "a whole number from 0 to 255");
        let json = problem.json();
        assert_eq!(json["detail"], "Job-Priority: a whole number from 0 to 255");
        assert_eq!(json["field"], "Job-Priority");
    }
}
