//! Exit statuses of the process, as `sysexits.h` numbers them.

/// A question was answered "no", such as by a check.
pub const NO: u8 = 1;
/// Wrong arguments.
pub const USAGE: u8 = 64;
/// What was given does not fit what is there, such as a user that exists already.
pub const DATA: u8 = 65;
/// The data folder or an address is taken by another process, or a server is not ready.
pub const UNAVAILABLE: u8 = 69;
/// A bug.
pub const INTERNAL: u8 = 70;
/// The data folder cannot be read or written, or the log has failed.
pub const IO: u8 = 74;
/// Not permitted.
pub const PERMISSION: u8 = 77;
/// The configuration is wrong, or the data folder is of a newer version.
pub const CONFIGURATION: u8 = 78;
