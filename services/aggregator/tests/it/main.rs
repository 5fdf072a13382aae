//! Tests of the aggregator from input records to output records.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod batches;
mod common;
mod credentials;
mod delays;
mod filters;
mod kinds;
mod labels;
mod laws;
mod outcomes;
mod rankings;
mod relayed;
mod rows;
mod windows;
