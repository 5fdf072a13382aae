//! Shared parts of the tests: a real Apache Kafka ([`kafka`]), a network that can be cut ([`link`]), wrong clocks
//! ([`clock`]), and the benchmarks' figures ([`figures`]).
//!
//! The tests themselves are in `tests/*.rs` of this package and next to the code that they test.

pub mod clock;
pub mod figures;
pub mod kafka;
pub mod link;
