//! Users and their permissions in a data folder that no server has open.

use crate::{auth::password, exit, run::open_exit_code};
use broker::{Administration, AdministrationError, User};
use model::{Name, limits};
use node::{Node, NodeOptions, OpenError};
use std::sync::Arc;

/// Why users cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a user name has 1 to {} octets", limits::NAME_BYTES_MAX)]
    Name,
    #[error("a password has at least one octet")]
    Password,
    #[error("there is a user '{0}' already; change the password with `user set-password`")]
    Exists(Name),
    #[error("there is no user '{0}'")]
    Missing(Name),
    #[error("{0}")]
    Refused(AdministrationError),
    #[error("the data folder could not be closed: {0}")]
    Close(String),
}

impl UsersError {
    /// Status that the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open(error) => open_exit_code(error),
            Self::Name | Self::Password => exit::USAGE,
            Self::Exists(_) | Self::Missing(_) | Self::Refused(_) => exit::DATA,
            Self::Close(_) => exit::IO,
        }
    }
}

/// Who may configure, write and read what: regular expressions over names.
#[derive(Clone, Debug)]
pub struct Rights {
    pub vhost: String,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// An opened data folder.
pub struct Users(Node);

impl Users {
    /// Opens the folder; a new one gets its administrator first, as it would from a server.
    ///
    /// # Errors
    /// [`OpenError`], such as when a server has it open.
    pub fn open(options: NodeOptions) -> Result<Self, UsersError> {
        Ok(Self(Node::open(options)?))
    }

    /// Names and tags, in order.
    pub fn list(&self) -> Vec<(Name, Vec<Name>)> {
        self.0.broker().list_users()
    }

    /// # Errors
    /// [`UsersError::Exists`], or an unusable name or password.
    pub fn add(&self, name: &str, secret: &[u8], tags: &[String]) -> Result<(), UsersError> {
        let name = checked_name(name)?;
        if self.0.broker().user(&name).is_some() {
            return Err(UsersError::Exists(name));
        }
        let tags = tags.iter().map(|it| Name::new(it)).collect();
        self.set(name, secret, tags)
    }

    /// # Errors
    /// [`UsersError::Missing`], or an unusable password.
    pub fn set_password(&self, name: &str, secret: &[u8]) -> Result<(), UsersError> {
        let user = self.existing(name)?;
        self.set(user.name.clone(), secret, user.tags.clone())
    }

    /// # Errors
    /// [`UsersError::Missing`]
    pub fn delete(&self, name: &str) -> Result<(), UsersError> {
        let user = self.existing(name)?.name.clone();
        self.administer(Administration::RemoveUser { user })
    }

    /// # Errors
    /// [`UsersError::Missing`], no such virtual host, or not a regular expression.
    pub fn set_permissions(&self, name: &str, rights: Rights) -> Result<(), UsersError> {
        let user = self.existing(name)?.name.clone();
        let Rights { vhost, configure, write, read } = rights;
        let vhost = Name::from(vhost);
        self.administer(Administration::SetPermissions { user, vhost, configure, write, read })
    }

    /// Makes what was changed durable.
    ///
    /// # Errors
    /// [`UsersError::Close`]
    pub fn close(self) -> Result<(), UsersError> {
        self.0.close().map_err(|error| UsersError::Close(error.to_string()))
    }

    fn existing(&self, name: &str) -> Result<Arc<User>, UsersError> {
        let user = self.0.broker().user(name);
        user.ok_or_else(|| UsersError::Missing(Name::new(name)))
    }

    fn set(&self, user: Name, secret: &[u8], tags: Vec<Name>) -> Result<(), UsersError> {
        if secret.is_empty() {
            return Err(UsersError::Password);
        }
        let password = password::hash(secret);
        self.administer(Administration::SetUser { user, password, tags })
    }

    fn administer(&self, act: Administration) -> Result<(), UsersError> {
        self.0.broker().administer(act).map(drop).map_err(UsersError::Refused)
    }
}

fn checked_name(name: &str) -> Result<Name, UsersError> {
    let fits = !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX;
    if fits { Ok(Name::new(name)) } else { Err(UsersError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authenticator, Login};
    use crate::config::{Sources, load};
    use std::net::Ipv4Addr;

    fn options(folder: &tempfile::TempDir) -> NodeOptions {
        let config = load(&Sources::default()).unwrap().config;
        crate::run::node_options(&config, folder.path())
    }

    #[tokio::test]
    async fn a_user_that_was_added_logs_in_after_the_folder_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(options(&folder)).unwrap();
        users.add("app", b"secret", &["monitoring".into()]).unwrap();
        let all = || ".*".to_owned();
        let rights =
            Rights { vhost: "/".into(), configure: all(), write: all(), read: String::new() };
        users.set_permissions("app", rights).unwrap();
        users.close().unwrap();
        let users = Users::open(options(&folder)).unwrap();
        let names: Vec<String> = users.list().into_iter().map(|it| it.0.to_string()).collect();
        assert_eq!(names, ["app", "guest"]);
        let record = users.existing("app").unwrap();
        assert_eq!(record.tags, [Name::new("monitoring")]);
        let authenticator = Authenticator::new(&load(&Sources::default()).unwrap().config);
        let (address, now) = (Ipv4Addr::LOCALHOST.into(), users.0.now());
        let login = Login { user: "app", password: b"secret", address, now };
        assert_eq!(authenticator.login(login, Some(&record.password)).await, Ok(()));
        users.close().unwrap();
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(options(&folder)).unwrap();
        let told = |result: Result<(), UsersError>| {
            let error = result.unwrap_err();
            (error.to_string(), error.exit_code())
        };
        let exists = "there is a user 'guest' already; change the password with \
             `user set-password`";
        assert_eq!(told(users.add("guest", b"x", &[])), (exists.to_owned(), 65));
        assert_eq!(told(users.add("", b"x", &[])).1, 64);
        assert_eq!(told(users.add("a", b"", &[])).1, 64);
        let missing = ("there is no user 'nobody'".to_owned(), 65);
        assert_eq!(told(users.delete("nobody")), missing);
        assert_eq!(told(users.set_password("nobody", b"x")), missing);
        let (text, code) = {
            let Err(error) = Users::open(options(&folder)) else { panic!("opened twice") };
            (error.to_string(), error.exit_code())
        };
        assert!(text.contains("in use by another FerryMQ"), "{text}");
        assert_eq!(code, 69);
        users.close().unwrap();
    }
}
