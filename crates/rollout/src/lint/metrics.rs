//! Rules on metrics: each check must be able to fail, and to pass where a step requires it.

use serin_schemas::records::Role;

use super::Found;
use crate::{Direction, MetricKind, MetricSource, MetricSpec, OutputKind, Require, RolloutSpec, Severity};

/// With more gates than this, each gets little of the false-rollback budget, and all have to pass.
const GATES_MAX: usize = 5;

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    found.names("metrics", spec.metrics.iter().map(|metric| metric.name.as_str()));
    for (index, metric) in spec.metrics.iter().enumerate() {
        let path = format!("metrics[{index}]");
        kind(metric, &path, found);
        references(spec, metric, &path, found);
        margin(spec, metric, &path, found);
        maturity(spec, metric, &path, found);
        if !(metric.score_weight.is_finite() && metric.score_weight >= 0.0) {
            let message = format!("{} is no weight", metric.score_weight);
            found.error(format!("{path}.scoreWeight"), message, "use a number from 0; 1 is the default");
        }
    }
    together(spec, found);
}

/// Whether a value of the source is 0 or 1; `None`: the spec does not say.
fn is_binary(source: &MetricSource) -> Option<bool> {
    match source {
        MetricSource::Error | MetricSource::InvalidOutput | MetricSource::Class { .. } | MetricSource::Wrong { .. } => {
            Some(true)
        }
        MetricSource::Latency | MetricSource::SquaredError { .. } | MetricSource::AbsoluteError { .. } => Some(false),
        MetricSource::Output(_) | MetricSource::Feedback(_) => None,
    }
}

fn kind(metric: &MetricSpec, path: &str, found: &mut Found) {
    let path = format!("{path}.kind");
    match metric.kind {
        MetricKind::Rate if is_binary(&metric.source) == Some(false) => {
            found.error(
                path,
                "its source is a quantity, not a yes or no",
                "use `mean: {min, max}` or `quantile: {level}`",
            );
        }
        MetricKind::Mean { min, max } if !(min.is_finite() && max.is_finite() && min < max) => {
            found.error(path, format!("no value is in the range {min} to {max}"), "set min below max");
        }
        MetricKind::Quantile { level } if !(level > 0.0 && level < 1.0) => {
            found.error(path, format!("{level} is no quantile level"), "use a number between 0 and 1, such as 0.99");
        }
        MetricKind::Quantile { .. } if is_binary(&metric.source) == Some(true) => {
            found.error(path, "a yes or no has no quantile", "use `rate`");
        }
        _ => {}
    }
}

fn references(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    for (index, name) in metric.segments.iter().enumerate() {
        if !spec.segments.iter().any(|segment| segment.name == *name) {
            let known = spec.segments.iter().map(|segment| segment.name.as_str());
            found.add(
                Severity::Error,
                format!("{path}.segments[{index}]"),
                format!("no segment is named {name:?}"),
                crate::suggest::way_out(name, known, "define it under `segments` with a source"),
                &["segments[].name"],
            );
        }
    }
    let (name, kind) = match &metric.source {
        MetricSource::Output(output)
        | MetricSource::Wrong { output, .. }
        | MetricSource::SquaredError { output, .. }
        | MetricSource::AbsoluteError { output, .. } => (output, OutputKind::Number),
        MetricSource::Class { output, .. } => (output, OutputKind::Class),
        MetricSource::Error | MetricSource::InvalidOutput | MetricSource::Latency | MetricSource::Feedback(_) => return,
    };
    let path = format!("{path}.source");
    match spec.outputs.iter().find(|rule| rule.name == *name) {
        None => {
            let known = spec.outputs.iter().map(|output| output.name.as_str());
            let way_out =
                crate::suggest::way_out(name, known, "define it under `outputs`, so that routers find it in answers");
            let message = format!("no output rule is named {name:?}, so the metric never has data");
            found.add(Severity::Error, path, message, way_out, &["outputs[].name"]);
        }
        Some(rule) if rule.kind != kind => {
            let (is, needed) = if kind == OutputKind::Number { ("a class", "number") } else { ("a number", "class") };
            let message = format!("output {name:?} is {is}");
            found.add(Severity::Error, path, message, format!("set `kind: {needed}` on the output"), &["outputs"]);
        }
        Some(_) => {}
    }
}

fn margin(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let path = format!("{path}.margin");
    let margin = metric.margin;
    let given: Vec<f64> = [margin.absolute, margin.relative].into_iter().flatten().collect();
    if given.is_empty() {
        found.error(path, "it says nothing of how much harm is acceptable", "set absolute, relative or both");
        return;
    }
    if given.iter().any(|value| !value.is_finite() || *value < 0.0) {
        found.error(path, "a margin is a finite number from 0", "write how much worse is still acceptable");
        return;
    }
    if let Some(why) = can_never_fail(metric) {
        found.error(path, format!("this check can never fail: {why}"), "choose a margin that harm can exceed");
    } else if given.iter().all(|value| *value == 0.0) && metric.role == Role::Gate && requires_pass(spec) {
        found.add(
            Severity::Error,
            path,
            "with margin 0 a canary that is equal to stable can never pass, and a step requires a pass",
            "allow some harm, or set `role: watch`",
            &["steps"],
        );
    }
}

/// Why no harm can exceed the margin. With both margins it must exceed both, so one is enough.
fn can_never_fail(metric: &MetricSpec) -> Option<String> {
    let range = match metric.kind {
        MetricKind::Rate => Some((0.0, 1.0)),
        MetricKind::Mean { min, max } => Some((min, max)),
        MetricKind::Quantile { .. } => None,
    };
    if let (Some((min, max)), Some(absolute)) = (range, metric.margin.absolute)
        && absolute >= max - min
    {
        return Some(format!("no value changes by {absolute} or more within {min} to {max}"));
    }
    let never_negative = range.is_none_or(|(min, _)| min >= 0.0);
    let relative = metric.margin.relative.filter(|relative| *relative >= 1.0)?;
    if metric.direction == Direction::HigherIsBetter && never_negative {
        return Some(format!("a value that is never negative cannot fall by {:.0} %", relative * 100.0));
    }
    None
}

fn requires_pass(spec: &RolloutSpec) -> bool {
    spec.steps.iter().any(|step| step.require != Require::NoFail)
}

fn maturity(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let path = format!("{path}.maturity");
    if !metric.source.needs_label() {
        if !metric.maturity.is_zero() {
            found.warn(path, "it needs no label, so the maturity is ignored", "leave it out");
        }
        return;
    }
    if metric.maturity.is_zero() {
        found.error(
            path,
            "it needs labels, which come later than answers",
            "set how long to wait for them, such as 24h",
        );
        return;
    }
    let longest = spec.steps.iter().map(|step| step.bake.max).max().unwrap_or_default();
    if metric.maturity > longest {
        let message = format!("its labels mature after {}, but no step bakes longer than {longest}", metric.maturity);
        let way_out = "let one step bake longer, or shorten the maturity";
        found.add(Severity::Warning, path, message, way_out, &["steps"]);
    }
}

fn together(spec: &RolloutSpec, found: &mut Found) {
    let gates = |spec: &RolloutSpec| spec.metrics.iter().filter(|metric| metric.role == Role::Gate).count();
    let named = gates(spec);
    if gates(&spec.normalised()) == 0 {
        found.error("metrics", "no metric is a gate: this rollout can never fail", "set `role: gate` on at least one");
    } else if named == 0 {
        found.warn(
            "metrics",
            "only the built-in gates error_rate and invalid_output decide",
            "set `role: gate` on what matters",
        );
    } else if named > GATES_MAX {
        let message = format!("{named} gates: each gets little of the error budget, and all have to pass");
        found.warn("metrics", message, format!("keep the {GATES_MAX} that matter; make others `score` or `watch`"));
    }
    let looks_deep = |source: &MetricSource| {
        !matches!(source, MetricSource::Error | MetricSource::InvalidOutput | MetricSource::Latency)
    };
    if !spec.metrics.iter().any(|metric| looks_deep(&metric.source)) {
        found.warn(
            "metrics",
            "no metric looks at outputs or feedback: a model that answers fast and wrong is promoted",
            "add a metric on an output, or on feedback",
        );
    }
    if spec.metrics.iter().all(|metric| metric.score_weight == 0.0) && !spec.metrics.is_empty() {
        found.error("metrics", "all score weights are 0, so there is no score", "leave scoreWeight out where in doubt");
    }
}
