//! Forecasts which regressions a rollout can detect, how long it takes and what it costs, before it starts.
//!
//! Forecasts use the formulas of `serin_statistics::planning`, with the same assumptions about the distribution of answers as
//! [`crate::simulate`]. Tests compare them with simulated runs.

mod advice;
mod cheapest;
mod course;
mod forecast;
mod metric;
mod proof;
mod request;
mod text;

pub(crate) use cheapest::{cheapest, print_cheapest};
pub(crate) use forecast::forecast;
pub(crate) use proof::{proof, under_limits};
pub(crate) use request::Request;
pub(crate) use text::print;

#[cfg(test)]
mod against_simulation;
#[cfg(test)]
mod ends_tests;
#[cfg(test)]
mod tests;
