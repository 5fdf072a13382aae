//! What a rollout can see, how long it takes and what it costs, told before it starts.
//!
//! Forecasts from the formulas of `serin_statistics::planning`; the same assumptions on how answers are distributed as in
//! [`crate::simulate`], whose runs they are tested against.

mod advice;
mod forecast;
mod metric;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serin_rollout::{MetricSpec, Require, RolloutSpec};
use serin_schemas::records::Role;
use serin_statistics::{Scope, rollback_weights};

pub(crate) use forecast::forecast;
pub(crate) use text::print;

use crate::{simulate::Regression, time::span};

/// What is planned.
pub(crate) struct Request {
    /// Normalised.
    pub(crate) spec: RolloutSpec,
    /// Requests per second, all versions together.
    pub(crate) per_second: f64,
    /// Stable's numbers, where they are not the defaults.
    pub(crate) base: BTreeMap<String, f64>,
    /// Regressions to tell the time to `fail` for, one per metric at most.
    pub(crate) regressions: Vec<Regression>,
    /// From the close of a window to the canary's last request.
    pub(crate) react_seconds: f64,
}

/// The whole forecast.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Forecast {
    pub(crate) requests_per_second: f64,
    pub(crate) hypotheses: usize,
    pub(crate) steps: Vec<StepForecast>,
    /// A canary equal to stable.
    pub(crate) healthy: Course,
    /// One regression each, from the canary's first request on.
    pub(crate) regressions: Vec<Regressed>,
    pub(crate) cost: Cost,
    pub(crate) advice: Vec<String>,
}

/// One step of the ramp.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StepForecast {
    /// From 0.
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
    /// The value nearest to the border that is expected to fail within `bake.min`, and within `bake.max`.
    pub(crate) seen_by_min: Option<f64>,
    pub(crate) seen_by_max: Option<f64>,
    /// The regression that the rest is told for.
    pub(crate) regressed: f64,
    /// Until it fails, if the regression is there from the begin of the step.
    pub(crate) fail: Option<Reach>,
    /// The same for nine of ten such canaries.
    pub(crate) fail_most: Option<Reach>,
    /// Until it passes, if the canary equals stable.
    pub(crate) pass: Option<Reach>,
    /// The same for nine of ten such canaries; `None` where it passes by planned looks.
    pub(crate) pass_most: Option<Reach>,
    /// Share of canaries equal to stable for which it has passed by `bake.max`.
    pub(crate) passed_by_max: f64,
    /// Requests that the canary answers until it is rolled back.
    pub(crate) requests_at_risk: Option<f64>,
    /// For rates and counts: events beyond what stable would have had on them.
    pub(crate) extra_events: Option<f64>,
}

/// When something is expected to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Reach {
    /// Canary answers.
    pub(crate) answers: f64,
    /// From the begin of the step, whole windows; labels' wait and what is left out at its begin included.
    pub(crate) seconds: f64,
}

/// How a rollout goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Course {
    /// `promoted`, `rolled_back` or `held`.
    pub(crate) end: &'static str,
    /// The step it ends in, from 0.
    pub(crate) step: usize,
    /// From the canary's first request.
    pub(crate) seconds: f64,
    /// Seconds spent in each step.
    pub(crate) steps: Vec<f64>,
    /// Requests that the canary answers.
    pub(crate) canary_requests: f64,
    /// What it waits for, step by step, beyond `bake.min`: metrics.
    pub(crate) waits: Vec<Option<String>>,
    /// Of canaries equal to stable: the share that is promoted without a person. Of a regression: the share that is rolled back
    /// before the rollout ends. Metrics count as independent.
    pub(crate) share: f64,
}

/// How a rollout goes with a regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Regressed {
    pub(crate) metric: String,
    pub(crate) stable: f64,
    pub(crate) canary: f64,
    pub(crate) course: Course,
    /// For rates and counts: events beyond what stable would have had.
    pub(crate) extra_events: Option<f64>,
    /// The same times `plan.costPerBadOutcome`.
    pub(crate) harm_cost: Option<f64>,
}

/// What a healthy rollout costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the terms of the report")]
pub(crate) struct Cost {
    pub(crate) currency: Option<String>,
    /// Per step, of the second version; `None`: the file says nothing of its replicas.
    pub(crate) steps: Option<Vec<StepCost>>,
    /// Of all steps.
    pub(crate) replicas_cost: Option<f64>,
    /// Calls that are made twice.
    pub(crate) mirrored_calls: f64,
}

/// What the second version needs in a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct StepCost {
    pub(crate) replicas: u64,
    pub(crate) gpus: u64,
    pub(crate) hours: f64,
    pub(crate) cost: f64,
}

/// How long the last step that asks for a pass takes until a canary equal to stable has passed, in words; `None`: no step asks for
/// one, or it cannot be said.
pub(crate) fn proof(spec: &RolloutSpec, per_second: f64) -> Option<String> {
    let step = (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail)?;
    let request =
        Request { spec: spec.clone(), per_second, base: BTreeMap::new(), regressions: Vec::new(), react_seconds: 0.0 };
    let forecast = forecast(&request).ok()?;
    let gates = forecast.steps[step].metrics.iter().filter(|metric| metric.role == Role::Gate);
    let slowest = gates.map(|metric| (metric.pass.map_or(f64::INFINITY, |pass| pass.seconds), &metric.metric));
    let (seconds, metric) = slowest.max_by(|one, two| one.0.total_cmp(&two.0))?;
    let max = spec.steps[step].bake.max;
    let number = step + 1;
    Some(if !seconds.is_finite() {
        format!("{metric} never passes in step {number}")
    } else if seconds > max.0.as_secs_f64() {
        let needs = span(seconds);
        format!("step {number} needs about {needs} to pass ({metric}), and its bake.max is {max}: it is held then")
    } else {
        format!("step {number} passes after about {} ({metric})", span(seconds))
    })
}

/// Each metric's share of the rollback budget over all traffic, and the number of all hypotheses: as the analyzer gives them out.
fn budget(spec: &RolloutSpec) -> (Vec<f64>, usize) {
    let share = |metric: &MetricSpec| match metric.role {
        Role::Gate => 2.0,
        Role::Score => 1.0,
        Role::Watch => 0.0,
    };
    let mut all: Vec<(Scope, f64)> = spec.metrics.iter().map(|metric| (Scope::Overall, share(metric))).collect();
    for metric in &spec.metrics {
        let own = spec.segments.iter().filter(|dimension| metric.segments.contains(&dimension.name));
        // The values judged alone, and the rest.
        let values: usize = own.map(|dimension| dimension.top + 1).sum();
        all.extend(std::iter::repeat_n((Scope::Segment, share(metric)), values));
    }
    let mut weights = rollback_weights(&all);
    let count = weights.len();
    weights.truncate(spec.metrics.len());
    (weights, count)
}

#[cfg(test)]
mod against_simulation;
#[cfg(test)]
mod ends_tests;
#[cfg(test)]
mod tests;
