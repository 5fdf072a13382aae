//! How long a rollout needs to pass, as one sentence.

use std::collections::{BTreeMap, BTreeSet};

use serin_kinds::Unit;
use serin_schemas::records::Role;
use serin_spec::{Direction, MetricSpec, Require, RolloutSpec};

use super::{
    forecast::needs,
    metric::Metric,
    request::{Request, unit},
};
use crate::time::span;

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
