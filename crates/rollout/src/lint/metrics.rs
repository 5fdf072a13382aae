//! Rules on metrics: each check must be able to fail, and to pass if a step requires it.

use serin_kinds::{Kind as _, Metric as _, horizon};
use serin_schemas::records::Role;
use serin_spec::{
    DecisionSpec, MAX_RANKED, MetricSource, MetricSpec, OutputKind, Policy, Require, RolloutSpec, Severity,
    TrafficSource, WhenMissing,
};
use serin_statistics::Hypothesis;

use super::{Found, bounds, filters, measure, named, values};

/// With more gates than this, each gate gets only a small part of the false-rollback budget, and all have to pass.
const GATES_MAX: usize = 5;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    found.names("metrics", spec.metrics.iter().map(|metric| metric.name.as_str()));
    for (index, metric) in spec.metrics.iter().enumerate() {
        let path = format!("metrics[{index}]");
        measure::lint(spec, metric, &path, found);
        values::lint(spec, metric, &path, found);
        references(spec, metric, &path, found);
        filters::lint(spec, metric, &path, found);
        strata(metric, &path, found);
        bounds::lint(spec, metric, &path, found);
        maturity(spec, metric, &path, found);
        delay(spec, metric, &path, found);
        pairs(spec, metric, &path, found);
        testable(spec, metric, &path, found);
        proper(spec, metric, &path, found);
        if !(metric.score_weight.is_finite() && metric.score_weight >= 0.0) {
            let message = format!("{} is not a valid weight", metric.score_weight);
            found.error(format!("{path}.scoreWeight"), message, "use a number of at least 0; 1 is the default");
        }
    }
    together(spec, found);
}

/// Metrics without other errors that the analyzer could not test.
fn testable(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    if found.has_error_in(path) {
        return;
    }
    let hypothesis = metric.hypothesis(true, horizon(spec), DecisionSpec::default().false_promotion);
    if let Err(error) = Hypothesis::new(hypothesis) {
        let bound = if metric.limit.is_some() { "limit" } else { "margin" };
        found.error(format!("{path}.{bound}"), format!("the metric cannot be tested: {error}"), "use another number");
    }
}

fn references(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    for (index, name) in metric.segments.iter().enumerate() {
        named::segment(spec, name, format!("{path}.segments[{index}]"), found);
    }
    let (name, kind) = match &metric.source {
        MetricSource::Output(output)
        | MetricSource::Wrong { output, .. }
        | MetricSource::LogLoss { output, .. }
        | MetricSource::SquaredError { output, .. }
        | MetricSource::AbsoluteError { output, .. } => (output, OutputKind::Number),
        MetricSource::Class { output, .. } | MetricSource::WrongClass { output, .. } => (output, OutputKind::Class),
        MetricSource::Ranking { output, at, .. } => {
            if !(1..=MAX_RANKED).contains(at) {
                let message = format!("{at} items cannot be ranked: routers report up to {MAX_RANKED}");
                found.error(format!("{path}.source.ranking.at"), message, format!("use 1 to {MAX_RANKED}"));
            }
            (output, OutputKind::Ranking)
        }
        MetricSource::Failed
        | MetricSource::Refused
        | MetricSource::Unusable
        | MetricSource::Cancelled
        | MetricSource::Outcome
        | MetricSource::Status
        | MetricSource::Latency
        | MetricSource::Feedback(_)
        | MetricSource::LabelDelay(_) => return,
    };
    named::output(spec, name, kind, format!("{path}.source"), found);
}

fn strata(metric: &MetricSpec, path: &str, found: &mut Found) {
    let Some(dimension) = &metric.stratify_by else { return };
    let path = format!("{path}.stratifyBy");
    if !metric.kind.is_one_mean() || metric.limit.is_some() {
        let message = "only rates, means and capped means against control can be stratified";
        found.error(path, message, "leave it out: the metric is still judged in each of its segments");
    } else if !metric.segments.contains(dimension) {
        let message = format!("the metric is not judged in segment {dimension:?}, so it has no data per value");
        let known = metric.segments.iter().map(String::as_str);
        let fix = serin_spec::suggest::fix(dimension, known, "add it to the metric's `segments`");
        found.error(path, message, fix);
    }
}

fn maturity(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let path = format!("{path}.maturity");
    if !metric.needs_label() {
        if !metric.maturity.is_zero() {
            found.warn(path, "the metric needs no label, so the maturity is ignored", "leave it out");
        }
        return;
    }
    if metric.maturity.is_zero() {
        found.error(
            path,
            "the metric needs labels, which arrive later than answers",
            "set how long to wait for them, such as 24h",
        );
        return;
    }
    let longest = spec.steps.iter().map(|step| step.bake.max).max().unwrap_or_default();
    if metric.maturity > longest {
        let message = format!(
            "the labels of the metric mature after {}, but no step bakes longer than {longest}",
            metric.maturity
        );
        let fix = "let a step bake longer, or shorten the maturity";
        found.add(Severity::Warning, path, message, fix, &["steps"]);
    }
}

/// Reports a delay of a label that no other metric waits for. Only labels that arrived have a delay.
fn delay(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let MetricSource::LabelDelay(label) = &metric.source else { return };
    if metric.when_missing == WhenMissing::Zero {
        let message = "a label that never came has no delay";
        found.error(format!("{path}.whenMissing"), message, "leave it out: only labels that arrived have a delay");
    }
    let others = || spec.metrics.iter().filter(|other| !other.source.is_delay());
    let same = |other: &&MetricSpec| other.source.label() == Some(label);
    if !others().any(|other| same(&other)) {
        let message = format!("no other metric uses label {label:?}, so a wrong name would not be noticed");
        let known = others().filter_map(|other| other.source.label());
        let fix = serin_spec::suggest::fix(label, known, "check that feedback uses this name");
        found.add(Severity::Warning, format!("{path}.source"), message, fix, &["metrics[].source"]);
    } else if !metric.maturity.is_zero() && !others().filter(same).any(|other| other.maturity == metric.maturity) {
        let message = format!("no other metric waits for label {label:?} for {}", metric.maturity);
        let fix = "give it the maturity of the metric whose labels it watches";
        found.add(Severity::Warning, format!("{path}.maturity"), message, fix, &["metrics[].maturity"]);
    }
}

/// Two answers to one call exist only while calls are mirrored to the canary. A foreign router may mirror calls by itself.
fn pairs(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let mirrors = spec.traffic == TrafficSource::External || spec.steps.iter().any(|step| step.mirror.is_some());
    if !metric.kind.is_paired() || mirrors {
        return;
    }
    let waits = (0..spec.steps.len()).any(|step| spec.require(step) != Require::NoFail);
    let follows = match (metric.role, spec.no_data.value_missing) {
        (Role::Gate, Policy::Hold) => "the gate never has data, and the rollout is held (noData.valueMissing)",
        (Role::Gate, Policy::Rollback) => {
            "the gate never has data, and the rollout is rolled back (noData.valueMissing)"
        }
        (Role::Gate, Policy::Warn) if waits => "the gate never has data, and a step waits for it to pass",
        (Role::Gate, Policy::Warn | Policy::Proceed) => "the gate never has data, and decides nothing",
        (Role::Score | Role::Watch, _) => "the metric never has data",
    };
    let message = format!("no step mirrors calls to the canary, so {follows}");
    let fix = "start the ramp with `- mirror: 10%`";
    found.add(Severity::Warning, format!("{path}.kind"), message, fix, &["steps", "traffic"]);
}

/// For a probability and a yes/no label, a constant 0 or 1, whichever is more frequent, minimizes the absolute error. Whether the label is
/// a yes/no label is only known from its events.
fn proper(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let MetricSource::AbsoluteError { output, label } = &metric.source else { return };
    let range = |rule: &serin_spec::OutputRule| rule.name == *output && rule.min == Some(0.0) && rule.max == Some(1.0);
    if spec.outputs.iter().any(range) {
        let message = format!(
            "if label {label:?} is binary (yes/no), the absolute error of a probability is not a proper score: for rare events, a \
             constant 0 scores better than an honest forecast"
        );
        let fix = "use `squared_error` (the Brier score); for amounts from 0 to 1 the absolute error is fine";
        found.add(Severity::Warning, format!("{path}.source"), message, fix, &["outputs"]);
    }
}

fn together(spec: &RolloutSpec, found: &mut Found) {
    let gates = |spec: &RolloutSpec| spec.metrics.iter().filter(|metric| metric.role == Role::Gate).count();
    let named = gates(spec);
    if gates(&spec.normalized()) == 0 {
        found.error(
            "metrics",
            "no metric is a gate, so this rollout can never fail",
            "set `role: gate` on at least one",
        );
    } else if named == 0 {
        found.warn(
            "metrics",
            "no metric has `role: gate`, so only the built-in gates (`failed`, `refused`, `unusable`) decide",
            "set `role: gate` on the metrics that matter",
        );
    } else if named > GATES_MAX {
        let message =
            format!("{named} gates: each gets a small part of the false-rollback budget, and all have to pass");
        found.warn("metrics", message, format!("keep the {GATES_MAX} that matter; make others `score` or `watch`"));
    }
    let looks_deep = |source: &MetricSource| {
        !matches!(
            source,
            MetricSource::Failed
                | MetricSource::Refused
                | MetricSource::Unusable
                | MetricSource::Cancelled
                | MetricSource::Outcome
                | MetricSource::Status
                | MetricSource::Latency
                | MetricSource::LabelDelay(_)
        )
    };
    if !spec.metrics.iter().any(|metric| looks_deep(&metric.source)) {
        found.warn(
            "metrics",
            "no metric looks at outputs or feedback: a model that answers fast and wrong is promoted",
            "add a metric on an output, or on feedback",
        );
    }
    if spec.metrics.iter().all(|metric| metric.score_weight == 0.0) && !spec.metrics.is_empty() {
        found.error("metrics", "all score weights are 0, so there is no score", "leave scoreWeight out if in doubt");
    }
}

#[cfg(test)]
mod tests {
    use crate::{lint, testing::spec};
    use serin_spec::MetricSource;

    #[test]
    fn an_improper_score_of_a_probability_is_warned_about() {
        let (output, label) = ("late".to_owned(), "late".to_owned());
        let is_warned = |source: MetricSource, max: f64| {
            let mut spec = spec();
            spec.outputs[0].max = Some(max);
            spec.metrics[1].source = source;
            lint(&spec, None).iter().any(|problem| problem.message.contains("is not a proper score"))
        };
        let absolute = || MetricSource::AbsoluteError { output: output.clone(), label: label.clone() };
        assert!(is_warned(absolute(), 1.0) && !is_warned(absolute(), 100.0));
        assert!(!is_warned(MetricSource::SquaredError { output: output.clone(), label: label.clone() }, 1.0));
    }
}
