//! Types of the rollout file `rollout.yaml`.
//!
//! Router, aggregator, analyzer and controller share these types. Parsing, linting and judging are in other crates. Unknown keys
//! are errors everywhere. Time spans are written `10s`, `5m`, `6h`, `2d`, and shares `5%` or `0.25%` ([`units`]).
//! [`RolloutSpec::normalized`] fills in what a file leaves out. [`Rules`] numbers the meaning of a rollout's records.
//!
//! Pure: no clock, I/O or random source.

pub mod address;
mod bounds;
mod decision;
mod defaults;
mod door;
mod filter;
mod kind;
mod metric;
mod normalize;
mod problem;
mod ramp;
mod rollout;
mod rules;
mod schedule;
mod source;
mod sources;
pub mod suggest;
#[cfg(test)]
mod testing;
mod traffic;
pub mod units;

pub use address::{Address, AddressError};
pub use bounds::{Direction, Limit, Margin};
pub use decision::{Ceiling, DecisionSpec, NoDataPolicies, OnInconclusive, Policy};
pub use door::TrafficDoor;
pub use filter::{Filter, FilterSubject, FilterTest, FilterValue};
pub use kind::MetricKind;
pub use metric::{MetricSpec, WhenMissing};
pub use normalize::built_in_name;
pub use problem::{Problem, Severity};
pub use ramp::{
    Approval, Approver, AssignmentSpec, Bake, GroupSequential, Otherwise, Require, Step, StickyKey, Warmup,
};
pub use rollout::{
    Concurrency, Frozen, GroupSpec, Mode, PlanSpec, PromotionSpec, Replica, RolloutSpec, TrafficSource, VersionSpec,
};
pub use rules::Rules;
pub use schedule::{Linear, MAX_LINEAR_STEPS, Schedule};
pub use source::{MAX_RANKED, MetricSource, RankingMeasure};
pub use sources::{
    BatchRows, MAX_SEGMENT_VALUE_BYTES, OutputKind, OutputRule, OutputSource, SegmentSource, SegmentSpec,
};
pub use traffic::{
    BUILT_IN_OUTPUTS, CaptureSpec, FeatureSpec, MirrorSpec, RequestSource, ServerPolicy, ShadowSpec, TargetArm,
    TargetSpec, TrafficPolicy,
};
pub use units::Share;
