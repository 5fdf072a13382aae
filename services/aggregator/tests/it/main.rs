//! The aggregator from records in to records out.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod common;
mod credentials;
mod delays;
mod intake;
mod kinds;
mod labels;
mod laws;
mod outcomes;
mod rows;
mod windows;
