//! Reports that are computed on request from what the log holds. Nothing here takes part in a decision.
//!
//! - [`profile`]: the distribution of each metric's values per arm, from the records of `windows`.
//! - [`contrast`]: the dimension, or pair of dimensions, in which the arms differ most.
//! - [`examples`]: which captured calls show a finding.
//! - [`exposure`]: which version each unit saw, from the predictions of `events`.
//!
//! This crate is pure: no clock, no I/O, no random source. The caller reads the log and bounds the records and the time. Each report
//! bounds its own memory and counts what it left out.

mod cells;
pub mod contrast;
pub mod examples;
pub mod exposure;
mod fields;
pub mod profile;
