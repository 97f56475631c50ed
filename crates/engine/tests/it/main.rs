//! The queue from outside: its contract case by case, and against a model of it.

mod chance;
mod advisor;
mod waits;
mod book;
mod case;
mod contract;
mod corpus;
mod reference;
mod jobs;
mod job_queue;
mod random;
