//! The catalog from outside: what it answers to declarations, bindings and publishes, by tables of
//! observed answers, and that its changes rebuild it.

mod world;

mod changes;
mod corpus;
mod exchanges;
mod permissions;
mod queues;
mod routes;
