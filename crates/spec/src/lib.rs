//! The rollout file as types: what a person writes in `rollout.yaml`, and the words around it.
//!
//! Router, aggregator, analyzer and controller share these types without knowing how a file is read, checked or judged. Unknown
//! keys are errors everywhere. Spans are written `10s`, `5m`, `6h`, `2d`; shares `5%` or `0.25%` ([`units`]). What a file may leave
//! out is filled in by [`RolloutSpec::normalised`]. What records of a rollout mean is numbered by [`Rules`].
//!
//! Pure: no clock, I/O or random source.

pub mod address;
mod bounds;
mod decision;
mod defaults;
mod kind;
mod metric;
mod normalise;
mod problem;
mod ramp;
mod rollout;
mod rules;
mod source;
mod sources;
pub mod suggest;
#[cfg(test)]
mod testing;
mod traffic;
pub mod units;

pub use address::{Address, AddressError};
pub use bounds::{Direction, Limit, Margin};
pub use decision::{Ceiling, DecisionSpec, NoDataPolicies, Policy, WayOut};
pub use kind::MetricKind;
pub use metric::{MetricSpec, WhenMissing};
pub use normalise::built_in_name;
pub use problem::{Problem, Severity};
pub use ramp::{AssignmentSpec, Bake, GroupSequential, Require, Step, StickyKey, Warmup};
pub use rollout::{
    Concurrency, Frozen, GroupSpec, Mode, PlanSpec, PromotionSpec, Replica, RolloutSpec, TrafficSource, VersionSpec,
};
pub use rules::Rules;
pub use source::MetricSource;
pub use sources::{MAX_SEGMENT_VALUE_BYTES, OutputKind, OutputRule, OutputSource, SegmentSource, SegmentSpec};
pub use traffic::{
    BUILT_IN_OUTPUTS, CaptureSpec, FeatureSpec, MirrorSpec, RequestSource, ServerPolicy, ShadowSpec, TargetArm,
    TargetSpec, TrafficPolicy,
};
pub use units::Share;
