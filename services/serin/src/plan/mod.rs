//! Forecasts which regressions a rollout can detect, how long it takes and what it costs, before it starts.
//!
//! Forecasts use the formulas of `serin_statistics::planning`, with the same assumptions about the distribution of answers as
//! [`crate::simulate`]. Tests compare them with simulated runs.

mod advice;
mod cheapest;
mod forecast;
mod metric;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serin_kinds::{Unit, budget};
use serin_schemas::records::Role;
use serin_spec::{Direction, MetricSpec, Require, RolloutSpec};

pub(crate) use cheapest::{cheapest, print_cheapest};
pub(crate) use forecast::forecast;
use forecast::needs;
use metric::Metric;
pub(crate) use text::print;

use crate::{simulate::Regression, time::span};

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

/// The whole forecast.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Forecast {
    pub(crate) requests_per_second: f64,
    pub(crate) hypotheses: usize,
    pub(crate) steps: Vec<StepForecast>,
    /// The course of a canary equal to stable.
    pub(crate) healthy: Course,
    /// The course for each regression, if it is there from the canary's first request on.
    pub(crate) regressions: Vec<Regressed>,
    pub(crate) cost: Cost,
    pub(crate) advice: Vec<String>,
}

/// One step of the ramp.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StepForecast {
    /// Index of the step, from 0.
    pub(crate) step: usize,
    pub(crate) weight: f64,
    pub(crate) canary_per_second: f64,
    /// Control answers per canary answer.
    pub(crate) control_ratio: f64,
    pub(crate) metrics: Vec<MetricStep>,
}

/// One metric in one step, over all traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MetricStep {
    pub(crate) metric: String,
    pub(crate) role: Role,
    /// Stable's expected value.
    pub(crate) stable: f64,
    /// The value beyond which it can fail.
    pub(crate) border: Option<f64>,
    /// The value nearest to the border that is expected to fail within `bake.min`.
    pub(crate) seen_by_min: Option<f64>,
    /// The value nearest to the border that is expected to fail within `bake.max`.
    pub(crate) seen_by_max: Option<f64>,
    /// The regressed value that the following fields refer to.
    pub(crate) regressed: f64,
    /// Time until it fails, if the regression is there from the start of the step.
    pub(crate) fail: Option<Reach>,
    /// Time until nine of ten such canaries have failed.
    pub(crate) fail_most: Option<Reach>,
    /// Time until it passes, if the canary is equal to stable.
    pub(crate) pass: Option<Reach>,
    /// Time until nine of ten such canaries have passed; `None` if it passes at planned looks.
    pub(crate) pass_most: Option<Reach>,
    /// Share of canaries equal to stable for which it has passed by `bake.max`.
    pub(crate) passed_by_max: f64,
    /// Requests that the canary answers until it is rolled back.
    pub(crate) requests_at_risk: Option<f64>,
    /// For rates and counts: events on these requests beyond those that stable would have had.
    pub(crate) extra_events: Option<f64>,
}

/// When a result is expected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Reach {
    /// Number of canary answers.
    pub(crate) answers: f64,
    /// Seconds from the start of the step, in whole windows. Includes the wait for labels and the windows that are left out at the start.
    pub(crate) seconds: f64,
}

/// The course of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Course {
    /// `promoted`, `rolled_back` or `held`.
    pub(crate) end: &'static str,
    /// The step it ends in, from 0.
    pub(crate) step: usize,
    /// Seconds from the canary's first request.
    pub(crate) seconds: f64,
    /// Seconds spent in each step.
    pub(crate) steps: Vec<f64>,
    /// Requests that the canary answers.
    pub(crate) canary_requests: f64,
    /// For each step, what it waits for beyond `bake.min`, such as a metric.
    pub(crate) waits: Vec<Option<String>>,
    /// For a canary equal to stable: the share that is promoted without an operator. For a regression: the share that is rolled
    /// back before the rollout ends. Metrics are taken as independent.
    pub(crate) share: f64,
}

/// The course of a rollout with a regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Regressed {
    pub(crate) metric: String,
    pub(crate) stable: f64,
    pub(crate) canary: f64,
    pub(crate) course: Course,
    /// For rates and counts: events beyond what stable would have had.
    pub(crate) extra_events: Option<f64>,
    /// Cost of the extra events, with `plan.costPerBadOutcome`.
    pub(crate) harm_cost: Option<f64>,
}

/// The cost of a rollout whose canary is equal to stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the terms of the report")]
pub(crate) struct Cost {
    pub(crate) currency: Option<String>,
    /// Cost of the second version per step; `None`: the file does not describe its replicas.
    pub(crate) steps: Option<Vec<StepCost>>,
    /// Cost of the replicas in all steps.
    pub(crate) replicas_cost: Option<f64>,
    /// Number of mirrored calls.
    pub(crate) mirrored_calls: f64,
}

/// The resources of the second version in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct StepCost {
    pub(crate) replicas: u64,
    pub(crate) gpus: u64,
    pub(crate) hours: f64,
    pub(crate) cost: f64,
}

/// A sentence about the time that the last step with a required pass takes with a canary equal to stable. `None`: no step requires
/// one, or the time is unknown. `measured`: stable's measured values by metric, or the canary's for metrics with a limit. Other
/// metrics get usual values.
pub(crate) fn proof(spec: &RolloutSpec, per_second: f64, measured: &BTreeMap<String, f64>) -> Option<String> {
    let step = (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail)?;
    let mut request = Request {
        spec: spec.clone(),
        per_second,
        base: BTreeMap::new(),
        counted: BTreeMap::new(),
        regressions: Vec::new(),
        react_seconds: 0.0,
    };
    for metric in &spec.metrics {
        if let Some(value) = measured.get(&metric.name).and_then(|&value| Metric::plannable(metric, value)) {
            request.base.insert(metric.name.clone(), value);
        }
    }
    // A metric with a limit does not depend on stable. With a usual value, it would be a guess whether it passes at all.
    let guessed = unmeasured_limits(spec, &request.base);
    for metric in request.spec.metrics.iter_mut().filter(|metric| guessed.contains(&metric.name)) {
        metric.role = Role::Watch;
    }
    let needs = needs(&request, step).ok()?;
    let number = step + 1;
    let max = spec.steps[step].bake.max;
    let (seconds, cause) = (needs.seconds, needs.waits_for.as_deref().unwrap_or("bake.min"));
    Some(if seconds.is_finite() {
        let needed = span(seconds);
        if seconds > max.0.as_secs_f64() {
            format!(
                "step {number} needs about {needed} to pass ({cause}), but its bake.max is {max}, so it will be held"
            )
        } else {
            format!("step {number} passes after about {needed} ({cause})")
        }
    } else {
        never(&request, number, cause)
    })
}

/// The unit of a metric's values.
fn unit(spec: &RolloutSpec, name: &str) -> Unit {
    let metric = spec.metrics.iter().find(|metric| metric.name == name);
    metric.map_or(Unit::Plain, |metric| Unit::of(&metric.kind, &metric.source))
}

/// Why a metric does not pass in a step, as far as known.
fn never(request: &Request, number: usize, metric: &str) -> String {
    let limit = request.spec.metrics.iter().find(|known| known.name == metric).and_then(|metric| metric.limit);
    match (request.base.get(metric), limit.and_then(serin_spec::Limit::both)) {
        (Some(value), Some((pass, _))) => {
            let [value, pass] = [*value, pass].map(|value| unit(&request.spec, metric).precise(value));
            format!(
                "{metric} does not pass in step {number} with its present value {value}, because its limit is {pass}"
            )
        }
        (Some(value), None) => {
            let value = unit(&request.spec, metric).precise(*value);
            format!("{metric} never passes in step {number} while stable's value is {value}, as now")
        }
        (None, _) => format!(
            "{metric} would never pass in step {number} with the usual value of such a metric; set its value with `serin plan --base \
             {metric}=VALUE`"
        ),
    }
}

/// A condition for gates with a limit and no measured value. Whether they pass depends on their value, not on the traffic.
pub(crate) fn under_limits(spec: &RolloutSpec, measured: &BTreeMap<String, f64>) -> Option<String> {
    (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail)?;
    let unmeasured = unmeasured_limits(spec, measured);
    let of = |metric: &MetricSpec| {
        let (pass, _) = metric.limit.and_then(serin_spec::Limit::both)?;
        let side = if metric.direction == Direction::HigherIsBetter { "above" } else { "below" };
        let gate = metric.role == Role::Gate && unmeasured.contains(&metric.name);
        gate.then(|| format!("{} is {side} {}", metric.name, Unit::of(&metric.kind, &metric.source).precise(pass)))
    };
    let all: Vec<String> = spec.metrics.iter().filter_map(of).collect();
    (!all.is_empty()).then(|| format!("provided that the canary's {}", all.join(" and ")))
}

fn unmeasured_limits(spec: &RolloutSpec, measured: &BTreeMap<String, f64>) -> BTreeSet<String> {
    let open = |metric: &&MetricSpec| metric.limit.is_some() && !measured.contains_key(&metric.name);
    spec.metrics.iter().filter(open).map(|metric| metric.name.clone()).collect()
}

/// Each metric's share of the rollback budget over all traffic, and the number of hypotheses, as in the analyzer.
fn budget(spec: &RolloutSpec) -> (Vec<f64>, usize) {
    let mut shares = budget::shares(spec, &budget::expected(spec));
    let count = shares.len();
    shares.truncate(spec.metrics.len());
    (shares, count)
}

#[cfg(test)]
mod against_simulation;
#[cfg(test)]
mod ends_tests;
#[cfg(test)]
mod tests;
