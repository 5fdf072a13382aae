//! What the tests share: a real Apache Kafka ([`kafka`]), and a network that can be cut ([`link`]).
//!
//! The tests themselves are in `tests/*.rs` of this package and beside the code they test.

pub mod kafka;
pub mod link;
