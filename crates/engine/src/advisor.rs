//! What queueing theory says of a queue: how long a message waits, how much more it could carry,
//! how many workers it needs. Formulas only; the figures they take are measured elsewhere.

mod moments;
mod capacity;
mod erlang;
mod staffing;
mod arrivals;
mod advice;
mod what_if;

pub use advice::{Advice, Confidence, Doubt, Measured, Predicted, Wish, advise};
pub use arrivals::{Arrivals, WINDOWS_S};
pub use capacity::{Capacity, Certainty, Flight, Watch};
pub use erlang::{Load, busy_probability};
pub use moments::{Moments, Recent};
pub use staffing::{Target, attempts_per_job, drain_s, slots_for, start_in};
pub use what_if::wait_if_shortest_first;
