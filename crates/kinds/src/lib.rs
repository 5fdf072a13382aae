//! The kinds of metrics. A rollout file names kinds ([`MetricKind`](serin_spec::MetricKind)). Each kind has its own file
//! here, which defines everything that lint, plan, simulate, aggregator and analyzer must agree on.
//!
//! - [`Kind`]: what a window keeps of the answers, how a value enters it, the range of the metric's value, the value to
//!   assume when nothing is known, what the kind refuses of a rollout file, and its name.
//! - [`Tested`] (feature `statistics`): the hypothesis of the kind, and the distribution that its values are assumed to follow.
//! - [`Metric`]: the same for a metric of a rollout file, which is a kind with a source and a margin or limit.
//! - [`budget`] (feature `statistics`): the single rule that divides the false-rollback budget.
//!
//! Laws: the analyzer can start whatever lint accepts; plan and analyzer give a metric the same share of the budget; a kind
//! has exactly one empty summary.
//!
//! To add a kind: name it in `crates/spec/src/kind.rs`, give it a file here, and add it to the list in `kind.rs`.
//!
//! This crate is pure: no clock, no I/O, no random source.

#[cfg(feature = "statistics")]
pub mod budget;
#[cfg(all(test, feature = "statistics"))]
mod can_fail_tests;
mod capped_mean;
mod classes;
mod count;
mod disagreement;
mod distribution;
#[cfg(feature = "statistics")]
mod hypothesis;
mod kind;
#[cfg(test)]
mod kinds_tests;
#[cfg(feature = "statistics")]
mod law;
mod mean;
mod metric;
mod quantile;
mod range;
mod rate;
mod source;
mod unit;
mod usual;
mod words;

pub use classes::CLASS_COUNT;
pub use count::MOST_EVENTS;
#[cfg(feature = "statistics")]
pub use hypothesis::{direction, horizon, margin};
#[cfg(feature = "statistics")]
pub use kind::Tested;
pub use kind::{Kind, Refusal};
#[cfg(feature = "statistics")]
pub use law::Law;
pub use metric::Metric;
pub use range::Range;
pub use source::SourceType;
pub use unit::{Unit, count, significant};
pub use words::noun;
