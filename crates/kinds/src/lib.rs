//! What a kind of metric is. A file names the kinds ([`MetricKind`](serin_spec::MetricKind)); here each has a file of its own that says
//! what lint, plan, simulate, aggregator and analyzer must agree on.
//!
//! - [`Kind`]: what a window keeps of the answers and how a value enters it, which values its number can have, what it is expected to
//!   show where nothing is known, what it refuses of a file, and its words.
//! - [`Tested`] (feature `statistics`): the hypothesis that it becomes, and the law that its values are taken to follow.
//! - [`Metric`]: the same of a metric as a file has it: a kind with source, margin or limit.
//! - [`budget`] (feature `statistics`): the one rule for shares of the false-rollback budget.
//!
//! Laws: what lint accepts, the analyzer can begin; plan and analyzer give a metric the same share of the budget; a kind has one empty
//! summary.
//!
//! To add a kind: name it in `crates/spec/src/kind.rs`, give it a file here, and add it to the list in `kind.rs`.
//!
//! Pure: no clock, I/O or random source.

#[cfg(feature = "statistics")]
pub mod budget;
mod capped_mean;
mod classes;
mod count;
mod disagreement;
mod distribution;
#[cfg(feature = "statistics")]
mod hypothesis;
mod kind;
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
pub use source::Gives;
pub use unit::{Unit, significant};
pub use words::noun;
