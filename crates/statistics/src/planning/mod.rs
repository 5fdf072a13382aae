//! Planning: what a rollout can detect, how long it takes and what it costs, before it starts.
//!
//! Purpose: per hypothesis, how many canary answers it takes to prove a given regression (FAIL) or a healthy canary (PASS),
//! which effect a step can detect at all, and how many requests are at risk until then.
//!
//! - [`Planned`] is a hypothesis with the expected values of control. It gives numbers of canary answers, for the sequential
//!   tests that Serin runs and for a fixed-horizon test as a comparison.
//! - [`Canary`] converts numbers of answers to time, requests at risk and bad outcomes.
//! - [`n_for_mean`] and [`n_for_rates`] are the classical sample sizes; [`group_sequential_bounds`] gives the bounds of
//!   classical interim looks.
//!
//! Invariants: pure; invalid input is a [`PlanError`] when a [`Planned`] is created, and `None` ("not reachable") later. All numbers are
//! forecasts: they hold on average and decide nothing, except for [`next_bound`], which [`crate::PlannedLooks`] uses.

mod group_sequential;
mod growth;
mod hypothesis;
mod passage;
mod risk;
mod sample_size;

pub use group_sequential::{GroupSequentialError, MAX_LOOKS, Spending, group_sequential_bounds, next_bound};
pub use hypothesis::{Expected, FAIL_OVERHEAD, PASS_OVERHEAD, PlanError, Planned, log_sd};
pub use risk::{AtRisk, Canary};
pub use sample_size::{n_for_every_window, n_for_mean, n_for_rates};
