//! The queue from outside: its contract case by case, and against a model of it.

mod case;
mod contract;
mod reference;
mod random;
