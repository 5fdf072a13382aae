//! Simulates many rollouts in process, with random traffic and a virtual clock: how often and when they promote, roll back or hold.
//!
//! Real: the analyzer's fold, the planner, the controller's fold, and the spec with all its rules. Random: the summaries that
//! aggregators would have written, drawn from one binomial or one table of values per metric, arm and window. Ten thousand
//! requests per minute for an hour are 600,000 events. Two thousand such rollouts are too expensive event by event, and the
//! drawn counts have the same distribution.

mod dice;
mod law;
mod regression;
mod report;
mod run;
mod scenario;
mod text;
mod world;

pub(crate) use law::impossible;
pub(crate) use regression::{Regression, number};
pub(crate) use report::Report;
pub(crate) use run::Experiment;
#[cfg(test)]
pub(crate) use run::Run;
pub(crate) use scenario::{Case, Compared, find, names};
pub(crate) use text::print;
pub(crate) use world::{Setup, World, counted};
