//! Configuration: one table of keys (`keys`), from which the file, the environment, the flags, the
//! help and the reference page are read or written. Nothing here opens a socket or a data folder.

pub mod value;
pub mod keys;
pub mod error;
pub mod file;
pub mod environment;
pub mod load;
pub mod reference;

pub use error::{ConfigError, ConfigErrors};
pub use keys::{Config, KEYS, Key};
pub use load::{Loaded, Origin, Sources, load};
pub use value::{
    ClientVerify, Identity, Kind, ListenAddress, LogFormat, LogLevel, LoginFrom, Secret,
};
