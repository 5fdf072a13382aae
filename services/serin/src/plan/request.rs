//! What is forecast: a rollout, its traffic, and what is known of stable.

use std::collections::BTreeMap;

use serin_kinds::Unit;
use serin_spec::RolloutSpec;

use crate::simulate::Regression;

/// What to forecast.
#[derive(Clone)]
pub(crate) struct Request {
    /// The normalized spec.
    pub(crate) spec: RolloutSpec,
    /// Requests per second, all versions together.
    pub(crate) per_second: f64,
    /// Stable's values, if they are not the defaults.
    pub(crate) base: BTreeMap<String, f64>,
    /// Share of the answers that a metric with conditions counts.
    pub(crate) counted: BTreeMap<String, f64>,
    /// Regressions to forecast the time to `fail` for, at most one per metric.
    pub(crate) regressions: Vec<Regression>,
    /// Seconds from the close of a window to the canary's last request.
    pub(crate) react_seconds: f64,
}

/// The unit of a metric's values.
pub(super) fn unit(spec: &RolloutSpec, name: &str) -> Unit {
    let metric = spec.metrics.iter().find(|metric| metric.name == name);
    metric.map_or(Unit::Plain, |metric| Unit::of(&metric.kind, &metric.source))
}
