//! Many rollouts in process, with drawn traffic and a virtual clock: how often and when they promote, roll back or hold.
//!
//! Real: the analyzer's fold, the planner and the controller's fold around it, the spec with all its rules. Drawn: the summaries
//! that aggregators would have written, one binomial or one table of values per metric, arm and window. Ten thousand requests a
//! minute for an hour are 600,000 events; two thousand such rollouts are not affordable event by event, and their counts have
//! the same law.

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
pub(crate) use world::{Setup, World};
