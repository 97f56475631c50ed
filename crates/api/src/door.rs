//! What the HTTP door needs of the house behind it: logins and sessions.

use model::{
    Refusal, Timestamp,
    job::{JobAnswer, JobAsk},
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

/// An answer to come.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who asks. The password is not shown by anything.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    Wrong,
    /// Too many have failed; the password was not looked at.
    TooMany,
    Stopping,
}

/// The way into the broker.
pub trait Door: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Checks a password, by the rules and limits of every other way in.
    fn log_in(&self, credentials: Credentials, from: IpAddr) -> Pending<Result<(), Denied>>;

    /// A session of a user who has logged in.
    ///
    /// # Errors
    /// The broker's refusal.
    fn enter(
        &self,
        user: &str,
        vhost: &str,
        from: SocketAddr,
    ) -> Result<Box<dyn JobSession>, Refusal>;
}

/// A session of one user in one virtual host.
pub trait JobSession: Send + Sync {
    /// Asks at once; the future is the answer. Who drops it before has changed his mind: a job that
    /// was leased by it comes back. `Err`: the session has ended.
    fn ask(&self, ask: JobAsk) -> Pending<Result<JobAnswer, Refusal>>;
}
