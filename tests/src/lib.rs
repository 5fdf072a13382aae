//! What the tests share: a real Apache Kafka ([`kafka`]).
//!
//! The tests themselves are in `tests/*.rs` of this package and beside the code they test.

pub mod kafka;
