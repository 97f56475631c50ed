//! What the broker refuses, as problems.

use crate::{
    address::JobAddress,
    door::Denied,
    problem::{Problem, ProblemType},
};
use model::{Refusal, RefusalKind, job::JobRefusal};

/// A login that failed. Whether there is such a user is not told.
pub fn of_login(denied: Denied) -> Problem {
    match denied {
        Denied::Wrong => {
            Problem::new(ProblemType::Unauthorized).detail("unknown user or wrong password")
        }
        Denied::TooMany => Problem::new(ProblemType::RateLimited)
            .detail("too many failed logins; the password was not looked at")
            .retry_after_s(60),
        Denied::Stopping => stopping(),
    }
}

fn stopping() -> Problem {
    Problem::new(ProblemType::Overloaded).detail("the server is stopping")
}

/// A session that was not opened, or has ended.
pub fn of_session(refusal: &Refusal) -> Problem {
    let kind = match refusal {
        Refusal::NoVhost(_) => ProblemType::VhostNotFound,
        Refusal::VhostAccess { .. } => ProblemType::Forbidden,
        Refusal::VhostConnectionLimit { .. }
        | Refusal::UserConnectionLimit { .. }
        | Refusal::NodeConnectionLimit(_) => ProblemType::RateLimited,
        other => match other.kind() {
            RefusalKind::AccessRefused | RefusalKind::NotAllowed => ProblemType::Forbidden,
            RefusalKind::ResourceError | RefusalKind::Forced => ProblemType::Overloaded,
            RefusalKind::NotFound => ProblemType::NoSuchResource,
            RefusalKind::Internal => ProblemType::Internal,
            RefusalKind::Locked | RefusalKind::PreconditionFailed | RefusalKind::NotImplemented => {
                ProblemType::Refused
            }
        },
    };
    Problem::new(kind).detail(refusal.to_string())
}

/// A question about jobs that was refused.
pub fn of_job(refusal: &JobRefusal, vhost: &str) -> Problem {
    let (kind, view) = match refusal {
        JobRefusal::UnknownQueue(_) => (ProblemType::QueueNotFound, None),
        JobRefusal::NotJobQueue(_) => (ProblemType::NotAJobQueue, None),
        JobRefusal::UnknownJob => (ProblemType::UnknownJob, None),
        JobRefusal::Forgotten => (ProblemType::Forgotten, None),
        JobRefusal::Ambiguous(queues) => {
            let names: Vec<&str> = queues.iter().map(|it| &**it).collect();
            let problem = Problem::new(ProblemType::AmbiguousId).member("queues", names);
            return problem.detail(refusal.to_string()).hint("say which one with ?queue=");
        }
        JobRefusal::StaleToken => return Problem::stale_lease().detail(refusal.to_string()),
        JobRefusal::Settled(view) => (ProblemType::AlreadySettled, Some(view)),
        JobRefusal::Pending(view) => (ProblemType::WrongState, Some(view)),
        JobRefusal::Access(_) => (ProblemType::Forbidden, None),
        JobRefusal::Invalid(_) => (ProblemType::MalformedRequest, None),
        JobRefusal::Resource(_) => (ProblemType::Overloaded, None),
    };
    let problem = Problem::new(kind).detail(refusal.to_string());
    match view {
        Some(it) => {
            let address = JobAddress { vhost, queue: None, id: &it.id };
            problem.instance(address.of("")).member("state", it.state.name())
        }
        None if kind == ProblemType::NotAJobQueue => {
            problem.hint("declare it with the argument x-jobs, or set the policy key jobs")
        }
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_statuses_of_the_public_model() {
        let status = |it: &JobRefusal| of_job(it, "/").status();
        for (refusal, expected) in [
            (JobRefusal::UnknownQueue("q".into()), 404),
            (JobRefusal::NotJobQueue("q".into()), 409),
            (JobRefusal::UnknownJob, 404),
            (JobRefusal::Forgotten, 410),
            (JobRefusal::Ambiguous(vec!["p".into(), "q".into()]), 409),
            (JobRefusal::StaleToken, 410),
            (JobRefusal::Access("no".to_owned()), 403),
            (JobRefusal::Invalid("no".to_owned()), 400),
            (JobRefusal::Resource("full".to_owned()), 503),
        ] {
            assert_eq!(status(&refusal), expected, "{refusal:?}");
        }
        let ambiguous = of_job(&JobRefusal::Ambiguous(vec!["p".into(), "q".into()]), "/").json();
        assert_eq!(ambiguous["queues"], serde_json::json!(["p", "q"]));
    }

    #[test]
    fn sessions_and_logins_that_fail_say_why() {
        let of = |it: Refusal| of_session(&it).status();
        assert_eq!(of(Refusal::NoVhost("x".into())), 404);
        assert_eq!(of(Refusal::VhostAccess { vhost: "x".into(), user: "u".into() }), 403);
        assert_eq!(of(Refusal::NodeConnectionLimit(1)), 429);
        assert_eq!(of(Refusal::Forced("shutdown".to_owned())), 503);
        assert_eq!(of(Refusal::Internal("x".to_owned())), 500);
        assert_eq!(of_login(Denied::Wrong).status(), 401);
        assert_eq!(of_login(Denied::TooMany).status(), 429);
        assert_eq!(of_login(Denied::Stopping).status(), 503);
    }
}
