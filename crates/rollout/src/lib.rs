//! The rollout: its spec, its lint, its state machine. Pure: time, ids and verdicts are arguments.

pub mod address;
pub mod lint;
mod normalise;
pub mod planner;
mod problem;
pub mod rules;
mod schema;
pub mod spec;
mod suggest;
#[cfg(test)]
mod testing;
pub mod units;
pub mod yaml;

pub use address::{Address, AddressError};
pub use lint::{Traffic, lint};
pub use normalise::built_in_name;
pub use planner::{Effects, Input, ModelState, Outcome, Planner, RolloutState};
pub use problem::{Problem, Severity};
pub use rules::Rules;
pub use schema::json_schema;
pub use spec::*;
pub use units::Share;
pub use yaml::{Checked, Configuration, check, parse_yaml};
