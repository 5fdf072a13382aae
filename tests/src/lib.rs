//! What the tests share: a real Apache Kafka ([`kafka`]), a network that can be cut ([`link`]), clocks that are
//! off ([`clock`]), and the benchmarks' figures ([`figures`]).
//!
//! The tests themselves are in `tests/*.rs` of this package and beside the code they test.

pub mod clock;
pub mod figures;
pub mod kafka;
pub mod link;
