//! What a rollout can see, how long it takes and what it costs, told before it starts.
//!
//! Forecasts from the formulas of `serin_statistics::planning`; the same assumptions on how answers are distributed as in
//! [`crate::simulate`], whose runs they are tested against.

mod advice;
mod forecast;
mod metric;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serin_kinds::budget;
use serin_schemas::records::Role;
use serin_spec::{Direction, MetricSpec, Require, RolloutSpec};

pub(crate) use forecast::forecast;
use forecast::needs;
use metric::Metric;
pub(crate) use text::print;

use crate::{evidence::short, simulate::Regression, time::span};

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
/// one, or it cannot be said. `measured`: what stable was seen to do, by metric, and of metrics with a limit what the canary was;
/// other metrics are taken to be as such metrics usually are.
pub(crate) fn proof(spec: &RolloutSpec, per_second: f64, measured: &BTreeMap<String, f64>) -> Option<String> {
    let step = (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail)?;
    let mut request =
        Request { spec: spec.clone(), per_second, base: BTreeMap::new(), regressions: Vec::new(), react_seconds: 0.0 };
    for metric in &spec.metrics {
        if let Some(value) = measured.get(&metric.name).and_then(|&value| Metric::plannable(metric, value)) {
            request.base.insert(metric.name.clone(), value);
        }
    }
    // What a metric with a limit shows does not depend on stable: a usual value would be a guess on whether it passes at all.
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
            format!("step {number} needs about {needed} to pass ({cause}), and its bake.max is {max}: it is held then")
        } else {
            format!("step {number} passes after about {needed} ({cause})")
        }
    } else {
        never(&request, number, cause)
    })
}

/// Why a metric does not pass in a step, as far as is known.
fn never(request: &Request, number: usize, metric: &str) -> String {
    let limit = request.spec.metrics.iter().find(|known| known.name == metric).and_then(|metric| metric.limit);
    match (request.base.get(metric), limit.and_then(serin_spec::Limit::both)) {
        (Some(value), Some((pass, _))) => {
            let (value, pass) = (short(*value), short(pass));
            format!("{metric} does not pass in step {number} as it is now: it is {value}, and its limit is {pass}")
        }
        (Some(value), None) => {
            let value = short(*value);
            format!("{metric} never passes in step {number} while stable's is {value}, as it is now")
        }
        (None, _) => format!(
            "{metric} would never pass in step {number} if it is as such metrics usually are; say how it is with `serin plan --base \
             {metric}=VALUE`"
        ),
    }
}

/// Gates with a limit of which nothing was measured yet, in words: no traffic makes them pass, their values do.
pub(crate) fn under_limits(spec: &RolloutSpec, measured: &BTreeMap<String, f64>) -> Option<String> {
    (0..spec.steps.len()).rfind(|&step| spec.require(step) != Require::NoFail)?;
    let unmeasured = unmeasured_limits(spec, measured);
    let of = |metric: &MetricSpec| {
        let (pass, _) = metric.limit.and_then(serin_spec::Limit::both)?;
        let side = if metric.direction == Direction::HigherIsBetter { "above" } else { "below" };
        let gate = metric.role == Role::Gate && unmeasured.contains(&metric.name);
        gate.then(|| format!("{} is {side} {}", metric.name, short(pass)))
    };
    let all: Vec<String> = spec.metrics.iter().filter_map(of).collect();
    (!all.is_empty()).then(|| format!("provided that the canary's {}", all.join(" and ")))
}

fn unmeasured_limits(spec: &RolloutSpec, measured: &BTreeMap<String, f64>) -> BTreeSet<String> {
    let open = |metric: &&MetricSpec| metric.limit.is_some() && !measured.contains_key(&metric.name);
    spec.metrics.iter().filter(open).map(|metric| metric.name.clone()).collect()
}

/// Each metric's share of the rollback budget over all traffic, and the number of all hypotheses: as the analyzer gives them out.
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
