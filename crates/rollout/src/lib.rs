//! Parsing and linting of the rollout file, and the state machine of a rollout. The file's types are in `serin-spec`.
//!
//! Pure: time, ids and verdicts are arguments.

pub mod lint;
pub mod planner;
mod schema;
#[cfg(test)]
mod testing;
pub mod yaml;

pub use lint::{Traffic, lint};
pub use planner::{Effects, Input, ModelState, Outcome, Planner, RolloutState};
pub use schema::json_schema;
pub use yaml::{Checked, Configuration, check, parse_yaml};
