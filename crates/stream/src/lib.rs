//! How a stage runs: the log, the task, the state.
//!
//! A stage's logic is a [`fold::Fold`]. A [`log::Log`] carries its input, its output and its changelog.
//!
//! Features: none gives the traits, the log in memory and the test harness, all pure Rust. `embedded` and `kafka` add the
//! logs for production, `store` the persistent rows, `conformance` the tools of tests: the suite of logs and the simulation.

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
pub mod metrics;
#[cfg(any(feature = "embedded", feature = "store"))]
pub mod native;
mod partition;
pub mod record;
pub mod rows;
pub mod seldom;
pub mod sim;
#[cfg(feature = "conformance")]
pub mod simulation;
pub mod stage;
pub mod store;
pub mod task;
pub mod testing;

pub use partition::partition_of;
