//! Which margins the traffic can resolve.
//!
//! `serin_statistics::planning` computes how many of the canary's answers show that a version equal to stable is within the margin,
//! with 80 % power at 5 %, and a look at every window.

use std::collections::BTreeMap;

use serin_kinds::{Kind as _, Metric as _, count, significant};
use serin_schemas::records::Role;
use serin_spec::{MetricSpec, RolloutSpec, units::Duration};
use serin_statistics::planning::n_for_every_window;

use super::Found;

/// Known traffic of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Requests per second, over all arms.
    pub per_second: f64,
    /// Stable's rates by metric name, as far as they are known. For other metrics, the usual value of the source is assumed, as
    /// `plan` and `simulate` do.
    pub rates: BTreeMap<String, f64>,
}

pub(super) fn lint(spec: &RolloutSpec, traffic: &Traffic, found: &mut Found) {
    let all = spec.normalized();
    let gates: Vec<(usize, &MetricSpec)> =
        all.metrics.iter().enumerate().filter(|(_, metric)| metric.role == Role::Gate).collect();
    let there = answers(spec, traffic);
    let short: Vec<(usize, &MetricSpec, f64)> = gates
        .iter()
        .filter_map(|&(index, metric)| needed(spec, metric, traffic).map(|n| (index, metric, n)))
        .filter(|&(.., n)| n > there)
        .collect();
    planned_looks(spec, traffic, found);
    for &(index, metric) in &gates {
        if let Some(why) = metric.cannot_fail_at(stable(metric, traffic)) {
            found.warn(margin_path(spec, index), why, "narrow the margin, or set `role: watch`");
        }
    }
    if !gates.is_empty() && short.len() == gates.len() {
        let message = format!(
            "{} requests/s are too few for any gate: the step with the most traffic brings {} canary answers",
            significant(traffic.per_second, 3),
            count(there)
        );
        found.warn("steps", message, "use shadow or blue-green, wider margins, larger weights or a longer bake.max");
        return;
    }
    few_answers(spec, traffic, found);
    for (index, metric, n) in short {
        let path = margin_path(spec, index);
        let longer = Duration::from_secs((longest_bake(spec) * n / there.max(1.0)).min(1e9) as i64);
        let message = format!(
            "{} needs about {} canary answers, but bake.max brings only {}: the metric will end as marginal",
            metric.name,
            count(n),
            count(there)
        );
        found.warn(path, message, format!("bake for about {longer}, raise the weight or widen the margin"));
    }
}

/// Built-in gates have no path in the spec.
fn margin_path(spec: &RolloutSpec, index: usize) -> String {
    if index < spec.metrics.len() { format!("metrics[{index}].margin") } else { "metrics".to_owned() }
}

/// Warns about steps that bring too few answers for any check to count.
fn few_answers(spec: &RolloutSpec, traffic: &Traffic, found: &mut Found) {
    let least = spec.decision.min_answers;
    for (index, step) in spec.steps.iter().enumerate() {
        let there = of_step(spec, step, traffic);
        if there < least as f64 {
            let message = format!(
                "bake.max brings {} canary answers, but a check counts from {least} of each arm: the step will end as marginal",
                count(there)
            );
            let fix = "bake for longer, raise the weight or lower decision.minAnswers";
            found.warn(format!("steps[{index}].bake"), message, fix);
        }
    }
}

/// Warns about planned looks that the traffic does not reach.
fn planned_looks(spec: &RolloutSpec, traffic: &Traffic, found: &mut Found) {
    let Some((index, planned)) = spec.planned_looks() else { return };
    let step = &spec.steps[index];
    let there = of_step(spec, step, traffic);
    if there < planned.answers as f64 {
        let message =
            format!("bake.max brings only {} of the planned answers: the last look is never reached", count(there));
        let fix = "plan fewer answers, raise the weight or bake for longer";
        found.warn(format!("steps[{index}].groupSequential.answers"), message, fix);
    }
}

/// Number of canary answers in a step that are compared.
fn of_step(spec: &RolloutSpec, step: &serin_spec::Step, traffic: &Traffic) -> f64 {
    let compared = (step.bake.max.0.as_secs_f64() - spec.settles_for().0.as_secs_f64()).max(0.0);
    traffic.per_second * step.share().fraction() * compared
}

/// Number of canary answers in the step that brings most of them.
fn answers(spec: &RolloutSpec, traffic: &Traffic) -> f64 {
    spec.steps.iter().map(|step| of_step(spec, step, traffic)).fold(0.0, f64::max)
}

fn longest_bake(spec: &RolloutSpec) -> f64 {
    spec.steps.iter().map(|step| step.bake.max.0.as_secs_f64()).fold(0.0, f64::max)
}

/// The assumed value of stable.
fn stable(metric: &MetricSpec, traffic: &Traffic) -> f64 {
    traffic.rates.get(&metric.name).copied().unwrap_or_else(|| metric.default_value())
}

/// Number of canary answers that the metric needs; `None` if it has no margin to resolve.
fn needed(spec: &RolloutSpec, metric: &MetricSpec, traffic: &Traffic) -> Option<f64> {
    let value = stable(metric, traffic);
    let (spread, margin) = metric.kind.default_resolution(value, metric.direction, metric.margin?)?;
    let kappa = control_ratio(spec, traffic);
    (spread > 0.0 && margin > 0.0).then(|| n_for_every_window(spread, margin, kappa).unwrap_or(f64::INFINITY))
}

/// Control answers per canary answer in the step that brings most canary answers: `controlRatio`, or less if there is less traffic.
fn control_ratio(spec: &RolloutSpec, traffic: &Traffic) -> f64 {
    let most = spec.steps.iter().max_by(|a, b| of_step(spec, a, traffic).total_cmp(&of_step(spec, b, traffic)));
    let weight = most.filter(|step| step.mirror.is_none()).map_or(0.0, |step| step.share().fraction());
    let there = if weight > 0.0 { (1.0 - weight) / weight } else { f64::INFINITY };
    spec.control_ratio.min(there).max(1e-6)
}
