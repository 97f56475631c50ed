//! The FerryMQ server binary.

fn main() {}
