//! What neither the standard library nor a well-kept crate has; no word of the domain.

pub mod seeded;
