//! The configured user. A good hash of its password costs more than all the rest of a start, so
//! nobody waits for it: an empty folder gets the user at once and the hash a moment later, and on
//! a known folder the password is compared while messages are put back.

use broker::{Administration, AdministrationError, Broker, PasswordHash};
use model::Name;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

/// The first user of an empty folder.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub name: Name,
    pub password: NewPassword,
    pub vhost: Name,
}

/// A password, hashed or to be hashed.
#[derive(Clone)]
pub struct NewPassword(Form);

#[derive(Clone)]
enum Form {
    Hashed(PasswordHash),
    Plain(Arc<dyn PlainPassword>),
}

/// A password whose text is known to who implements this.
pub trait PlainPassword: Send + Sync {
    /// Hashes it; called at most once in a start, on a thread of its own.
    fn hash(&self) -> PasswordHash;

    /// Whether this is a hash of it; called at most once in a start, on a thread of its own.
    fn fits(&self, record: &PasswordHash) -> bool;
}

impl NewPassword {
    /// A password that is yet to be hashed.
    pub fn plain(password: impl PlainPassword + 'static) -> Self {
        Self(Form::Plain(Arc::new(password)))
    }
}

impl From<PasswordHash> for NewPassword {
    fn from(hash: PasswordHash) -> Self {
        Self(Form::Hashed(hash))
    }
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewPassword")
    }
}

/// Why there is no first user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error(transparent)]
    Refused(#[from] AdministrationError),
    #[error("no thread to hash a password: {0}")]
    Thread(#[from] std::io::Error),
}

/// What is done about the configured user beside a start.
#[derive(Default)]
pub(crate) struct FirstUser {
    /// The record that the plain password is known to fit; taken by whoever remembers it.
    known: Arc<Mutex<Option<PasswordHash>>>,
    hashing: Mutex<Option<JoinHandle<()>>>,
    comparing: Mutex<Option<JoinHandle<()>>>,
}

impl FirstUser {
    /// Begins to compare the password with the record that a folder has of the user.
    pub(crate) fn compare(&self, user: &NewUser, record: PasswordHash) {
        let Form::Plain(plain) = &user.password.0 else { return };
        if record.is_awaited() {
            return;
        }
        let (plain, known) = (Arc::clone(plain), Arc::clone(&self.known));
        let compare = move || {
            if plain.fits(&record) {
                *known.lock() = Some(record);
            }
        };
        // Without it the first login compares.
        let thread = thread::Builder::new().name("password".to_owned()).spawn(compare);
        *self.comparing.lock() = thread.ok();
    }

    /// Makes the user if the folder is new; whether it has. The user is to be durable before
    /// anything follows, the hash comes later. A start that ended before the hash was durable left
    /// the user without; this one makes up for it.
    pub(crate) fn make(&self, user: &NewUser, broker: &Broker) -> Result<bool, MakeError> {
        let is_new = broker.is_new();
        if is_new {
            let password = match &user.password.0 {
                Form::Hashed(hash) => hash.clone(),
                Form::Plain(_) => PasswordHash::awaited(),
            };
            let (name, vhost) = (user.name.clone(), user.vhost.clone());
            broker.administer(Administration::First { user: name, password, vhost })?;
        }
        let is_awaited = broker.user(&user.name).is_some_and(|it| it.password.is_awaited());
        if let Form::Plain(plain) = &user.password.0
            && is_awaited
        {
            *self.known.lock() = Some(PasswordHash::awaited());
            let (plain, known) = (Arc::clone(plain), Arc::clone(&self.known));
            let (broker, user) = (broker.clone(), user.name.clone());
            let hash = move || {
                let password = plain.hash();
                let act = Administration::SetAwaited { user, password: password.clone() };
                match broker.administer(act) {
                    Ok(_) => *known.lock() = Some(password),
                    // The next start makes up for it.
                    Err(error) => tracing::warn!(%error, "the first password is not hashed yet"),
                }
            };
            let thread = thread::Builder::new().name("password".to_owned()).spawn(hash)?;
            *self.hashing.lock() = Some(thread);
        }
        Ok(is_new)
    }

    pub(crate) fn take_comparison(&self) -> Option<JoinHandle<()>> {
        self.comparing.lock().take().filter(|it| !it.is_finished())
    }

    pub(crate) fn take_known(&self) -> Option<PasswordHash> {
        self.known.lock().take()
    }

    /// Waits until the hash is in the log.
    pub(crate) fn join(&self) {
        let hashing = self.hashing.lock().take();
        hashing.and_then(|it| it.join().ok());
    }
}
