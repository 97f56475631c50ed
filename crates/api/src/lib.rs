//! Jobs over HTTP: what a request under `/v1` means, and how an answer is written.

pub mod moment;
pub mod prefer;
pub mod problem;
pub mod destination;
pub mod signature;
