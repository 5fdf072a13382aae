//! The stream processing runtime of a stage: log, task and state.
//!
//! A stage's logic is a [`fold::Fold`]. A [`log::Log`] stores its input, its output and its changelog.
//!
//! Features: without features the crate contains the traits, the in-memory log and the test harness, all in pure
//! Rust. `embedded` and `kafka` add the production logs, `store` adds persistent rows, and `conformance` adds the
//! test tools: the conformance suite for logs, and the simulation.

pub mod checkpoint;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod driver;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod fold;
pub mod gauge;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod local;
pub mod log;
pub mod log_limit;
pub mod metric;
pub mod metrics;
#[cfg(any(feature = "embedded", feature = "store"))]
pub mod native;
mod partition;
pub mod record;
pub mod rows;
pub mod sim;
#[cfg(feature = "conformance")]
pub mod simulation;
pub mod stage;
pub mod store;
pub mod task;
pub mod testing;
pub mod trace;

pub use partition::partition_of;
