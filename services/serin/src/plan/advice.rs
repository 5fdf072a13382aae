//! Advice about a ramp that wastes time or cannot work.

use std::collections::BTreeSet;

use serin_kinds::{Metric as _, Unit};
use serin_schemas::records::Role;
use serin_spec::{MetricSource, MetricSpec, Require, units::Duration};

use super::{
    course::{Forecast, MetricStep, StepForecast},
    request::{Request, unit},
};
use crate::time::span;

/// A bake time is wasted if it is this many times as long as the evidence needs.
const LONG: f64 = 5.0;
/// Smallest share of healthy canaries that should be promoted. With less, an operator is needed too often.
const OFTEN: f64 = 0.9;
/// Shorter waits get no advice.
const WORTH_SECONDS: f64 = 600.0;

/// The advice, most serious first.
pub(super) fn advice(request: &Request, forecast: &Forecast) -> Vec<String> {
    let mut all = Vec::new();
    held(request, forecast, &mut all);
    often_held(request, forecast, &mut all);
    beyond(request, forecast, &mut all);
    share_of_zero(request, forecast, &mut all);
    blind(request, forecast, &mut all);
    for step in &forecast.steps {
        too_light(request, step, &mut all);
        too_long(request, step, &mut all);
    }
    labels_after_the_ramp(request, forecast, &mut all);
    unwatched_labels(request, &mut all);
    clustered(request, &mut all);
    one_host(request, forecast, &mut all);
    all
}

/// With sticky assignment, the answers of one user are not independent.
fn clustered(request: &Request, all: &mut Vec<String>) {
    if request.spec.assignment.sticky.is_some() {
        all.push(
            "assignment.sticky: the times above count each answer as a separate user; if users differ, all times are longer by the \
             design effect, which each verdict contains"
                .to_owned(),
        );
    }
}

/// With one server, a slow host cannot be distinguished from a slow version.
fn one_host(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let is_latency = |metric: &&MetricSpec| metric.source == MetricSource::Latency && metric.role != Role::Watch;
    let alone = forecast.cost.steps.iter().flatten().any(|step| step.replicas == 1);
    if let Some(metric) = request.spec.metrics.iter().find(is_latency).filter(|_| alone) {
        all.push(format!(
            "{}: with one replica of the canary, a slow host cannot be distinguished from a slow version; run two or more",
            metric.name
        ));
    }
}

/// Gates whose first label is judged long after the ramp has reached its largest weight.
fn labels_after_the_ramp(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let Some(last) = forecast.steps.last().filter(|_| forecast.steps.len() > 1) else { return };
    // Seconds from the canary's first request until a healthy ramp is at its last weight.
    let full = forecast.healthy.steps.iter().take(forecast.steps.len() - 1).sum::<f64>();
    for metric in request.spec.metrics.iter().filter(|metric| metric.role != Role::Watch) {
        let maturity = metric.settles_after(request.spec.window).0.as_secs_f64();
        if maturity > full + WORTH_SECONDS {
            all.push(format!(
                "{}: its labels take {}, but the ramp is at {} after {}: for {} the metric is unknown at that weight; keep a \
                 low weight for as long as the labels take",
                metric.name,
                span(maturity),
                Unit::Percent.precise(last.weight),
                span(full),
                span(maturity - full),
            ));
        }
    }
}

/// Too many healthy canaries wait for an operator.
fn often_held(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let healthy = &forecast.healthy;
    if healthy.end == "held" || healthy.share >= OFTEN {
        return;
    }
    let required = |step: &&StepForecast| request.spec.require(step.step) != Require::NoFail;
    let gates =
        forecast.steps.iter().filter(required).flat_map(|step| step.metrics.iter().map(move |metric| (step, metric)));
    let gates = gates.filter(|(_, metric)| metric.role == Role::Gate);
    if let Some((step, metric)) = gates.min_by(|a, b| a.1.passed_by_max.total_cmp(&b.1.passed_by_max)) {
        let most =
            metric.pass_most.map_or_else(String::new, |most| format!(", and nine of ten need {}", span(most.seconds)));
        all.push(format!(
            "step {}: {:.0} % of canaries equal to stable are held: {} passes in time for {:.0} % of them{most}; bake.max is {}; bake \
             longer, raise the weight or widen its margin",
            step.step + 1,
            100.0 * (1.0 - healthy.share),
            metric.metric,
            100.0 * metric.passed_by_max,
            request.spec.steps[step.step].bake.max
        ));
    }
}

/// Labels whose delay no metric watches. If the canary's labels arrive later, the matured ones are biased.
fn unwatched_labels(request: &Request, all: &mut Vec<String>) {
    let metrics = &request.spec.metrics;
    let watched = |label: &str| metrics.iter().any(|m| m.source.is_delay() && m.source.label() == Some(label));
    let labels: BTreeSet<&str> = metrics.iter().flat_map(MetricSpec::labels).collect();
    for label in labels.into_iter().filter(|label| !watched(label)) {
        all.push(format!(
            "label {label}: if the canary's labels arrive later than stable's, more of them miss the maturity and its metrics \
             are biased; a metric of kind distribution with the source {{label_delay: {label}}} detects this"
        ));
    }
}

/// Steps in which a healthy canary is held.
fn held(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let healthy = &forecast.healthy;
    if healthy.end != "held" {
        return;
    }
    let (step, waits) = (&request.spec.steps[healthy.step], healthy.waits.last().cloned().flatten());
    let waits = waits.unwrap_or_default();
    let pass = forecast.steps[healthy.step].metrics.iter().find(|metric| metric.metric == waits).and_then(|m| m.pass);
    let in_segments = request.spec.require(healthy.step) == Require::PassInSegments;
    all.push(match pass {
        Some(pass) => format!(
            "step {}: a healthy canary is held: {waits} needs {} to pass{}, but bake.max is {}; bake longer, raise the weight or \
             widen its margin",
            healthy.step + 1,
            span(pass.seconds),
            if in_segments { " over all traffic, and longer in its segments" } else { "" },
            step.bake.max
        ),
        None if waits == "bake.minEvents" => format!(
            "step {}: the canary does not get {} answers within bake.max ({}); lower bake.minEvents or raise the weight",
            healthy.step + 1,
            step.bake.min_events,
            step.bake.max
        ),
        None if waits == "decision.minAnswers" => format!(
            "step {}: the arms do not get the {} answers each that a check needs within bake.max ({}); bake longer or raise \
             the weight",
            healthy.step + 1,
            request.spec.decision.min_answers,
            step.bake.max
        ),
        None => format!(
            "step {}: {waits} can never pass, because it accepts no difference; give it a margin, or require no_fail",
            healthy.step + 1
        ),
    });
}

/// Margins that exceed the range of a metric.
fn beyond(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let metrics = forecast.steps.first().into_iter().flat_map(|step| &step.metrics);
    let decides = request.spec.metrics.iter().zip(metrics).filter(|(spec, _)| spec.role != Role::Watch);
    all.extend(decides.filter_map(|(spec, metric)| spec.cannot_fail_at(metric.stable)));
}

/// Relative margins of metrics whose value of stable is 0: any share of 0 is 0.
fn share_of_zero(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let metrics = forecast.steps.first().into_iter().flat_map(|step| &step.metrics);
    for (spec, metric) in request.spec.metrics.iter().zip(metrics).filter(|(spec, _)| spec.role != Role::Watch) {
        let margin = spec.margin_or_default();
        if metric.stable == 0.0 && spec.limit.is_none() && margin.absolute.is_none() && margin.relative.is_some() {
            all.push(format!(
                "{}: stable is at 0 and the margin is only relative, so it accepts no difference and cannot pass; give it an absolute \
                 part (for events per answer, use the kind `mean` or `rate`)",
                spec.name
            ));
        }
    }
}

/// Gates that do not detect the regression in any step.
fn blind(request: &Request, forecast: &Forecast, all: &mut Vec<String>) {
    let gates = request.spec.metrics.iter().enumerate().filter(|(_, metric)| metric.role != Role::Watch);
    for (place, metric) in gates {
        let Some(regressed) = forecast.regressions.iter().find(|regressed| regressed.metric == metric.name) else {
            continue;
        };
        if regressed.course.end == "rolled_back" {
            continue;
        }
        let best = forecast.steps.iter().rev().find_map(|step| step.metrics[place].seen_by_max);
        let unit = unit(&request.spec, &metric.name);
        let best = best.map_or_else(
            || "no value of it can be detected".to_owned(),
            |best| format!("the last step detects it from {} on", unit.precise(best)),
        );
        all.push(format!(
            "{}: {} instead of {} is not rolled back before the ramp's end ({}); {best}; bake longer, or do not rely on this gate",
            metric.name,
            unit.precise(regressed.canary),
            unit.precise(regressed.stable),
            regressed.course.end,
        ));
    }
}

/// Weights that are so low that detection is slow and no request is protected.
fn too_light(request: &Request, step: &StepForecast, all: &mut Vec<String>) {
    let gates = || step.metrics.iter().filter(|metric| metric.role == Role::Gate);
    let slowest =
        gates().filter_map(|metric| Some((metric, metric.fail?))).max_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
    let Some((metric, fail)) = slowest.filter(|(_, fail)| fail.seconds > WORTH_SECONDS) else { return };
    // Detection needs the same number of answers at any weight, so only the time differs, not the harm.
    let weight = (step.weight * fail.seconds / WORTH_SECONDS).min(0.5);
    if weight > 1.5 * step.weight {
        all.push(format!(
            "step {}: at {}, {} takes {} to detect {}, with as many requests as at any weight; {:.0} % would take {}",
            step.step + 1,
            Unit::Percent.precise(step.weight),
            metric.metric,
            span(fail.seconds),
            unit(&request.spec, &metric.metric).precise(metric.regressed),
            (100.0 * weight).ceil(),
            span(fail.seconds * step.weight / weight),
        ));
    }
}

/// Bake times in which no more is learned.
fn too_long(request: &Request, step: &StepForecast, all: &mut Vec<String>) {
    let bake = &request.spec.steps[step.step].bake;
    let needs = |metric: &MetricStep| {
        let pass = request.spec.require(step.step) != Require::NoFail;
        let fail = metric.fail.map_or(f64::INFINITY, |fail| fail.seconds);
        if pass { fail.max(metric.pass.map_or(f64::INFINITY, |pass| pass.seconds)) } else { fail }
    };
    let gates = step.metrics.iter().filter(|metric| metric.role == Role::Gate);
    let slowest = gates.map(needs).fold(0.0, f64::max);
    let min = bake.min.0.as_secs_f64();
    if slowest.is_finite() && min > WORTH_SECONDS && min > LONG * slowest {
        let enough = Duration::from_secs((2.0 * slowest / 60.0).ceil() as i64 * 60);
        all.push(format!(
            "step {}: bake.min is {}, but all gates can decide after {}; {enough} would be enough, unless you wait for \
             something that no metric measures",
            step.step + 1,
            bake.min,
            span(slowest),
        ));
    }
}
