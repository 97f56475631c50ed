//! What the hot paths cost, in instructions and allocations: pieces of the broker driven by one
//! thread over fixed input, so that a count is the same on every run and a change of it is a change
//! of the program. `cargo xtask counts` measures, `benches/budget.toml` says what is allowed.

pub mod client;
pub mod wire;
pub mod sessions;
pub mod routes;
pub mod queues;
pub mod host;
pub mod records;
pub mod batches;
pub mod peer;
pub mod whole;
pub mod cases;
