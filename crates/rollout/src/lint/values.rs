//! Rules on values: a check must use values that its source can produce.

use serin_kinds::{Kind as _, Range};

use super::{
    Found,
    left::{Left, contradicting},
};
use serin_spec::{BUILT_IN_OUTPUTS, FilterSubject, MetricKind, MetricSource, MetricSpec, RolloutSpec, Severity};

/// Longest possible call, in milliseconds.
const LONGEST_CALL: f64 = 86_400_000.0;

/// The first number that means yes, in a label and in the values of a rate.
const YES: f64 = 0.5;

/// The log loss of a probability of 1e-15 for what happened: `-ln 1e-15`.
const LARGEST_LOG_LOSS: f64 = 34.538_776_394_910_684;

/// Range of the numbers that a metric's source can produce.
fn of_source(spec: &RolloutSpec, metric: &MetricSpec) -> Range {
    match &metric.source {
        MetricSource::Failed
        | MetricSource::Refused
        | MetricSource::Unusable
        | MetricSource::Cancelled
        | MetricSource::Outcome
        | MetricSource::Status
        | MetricSource::Class { .. }
        | MetricSource::Wrong { .. }
        | MetricSource::WrongClass { .. }
        | MetricSource::Ranking { .. } => Range::SHARES,
        MetricSource::Latency => Range { min: 0.0, max: LONGEST_CALL },
        MetricSource::LabelDelay(_) if !metric.maturity.is_zero() => {
            Range { min: 0.0, max: metric.maturity.0.as_secs_f64() }
        }
        MetricSource::LogLoss { .. } => Range { min: 0.0, max: LARGEST_LOG_LOSS },
        MetricSource::LabelDelay(_) | MetricSource::SquaredError { .. } | MetricSource::AbsoluteError { .. } => {
            Range::POSITIVE
        }
        MetricSource::Output(name) => {
            let left = Left::of(metric, FilterSubject::Output(name)).range();
            let range = of_output(spec, name);
            if is_sensible(range) { common(range, left) } else { range }
        }
        MetricSource::Feedback(name) => Left::of(metric, FilterSubject::Label(name)).range(),
    }
}

/// The values in both ranges, which may be none or one.
fn common(one: Range, two: Range) -> Range {
    Range { min: one.min.max(two.min), max: one.max.min(two.max) }
}

/// The value of every answer that the conditions of a metric leave, if they leave only one.
fn constant(spec: &RolloutSpec, metric: &MetricSpec) -> Option<String> {
    if metric.filters.is_empty() || contradicting(metric).is_some() {
        return None;
    }
    let output = |name| Left::of(metric, FilterSubject::Output(name));
    let label = |name| Left::of(metric, FilterSubject::Label(name));
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let single = |Range { min, max }: Range, left: Left<'_>| (min >= max && left.takes(min)).then(|| min.to_string());
    match &metric.source {
        MetricSource::Output(name) if metric.kind == MetricKind::Rate => {
            output(name).reach(YES, of_output(spec, name)).map(yes_no)
        }
        MetricSource::Feedback(name) if metric.kind == MetricKind::Rate => {
            label(name).reach(YES, Range::ALL).map(yes_no)
        }
        MetricSource::Output(name) => single(of_source(spec, metric), output(name)),
        MetricSource::Feedback(name) => single(of_source(spec, metric), label(name)),
        MetricSource::Class { output: name, is } => {
            let class = output(name).class?;
            Some(is.as_ref().map_or_else(|| format!("{class:?}"), |is| yes_no(is == class)))
        }
        MetricSource::Wrong { output: name, label: truth, threshold } => {
            let means_yes = output(name).reach(*threshold, of_output(spec, name))?;
            Some(yes_no(means_yes != label(truth).reach(YES, Range::ALL)?))
        }
        MetricSource::WrongClass { output: name, label: truth } => {
            Some(yes_no(output(name).class? != label(truth).class?))
        }
        _ => None,
    }
}

pub(super) fn of_output(spec: &RolloutSpec, name: &str) -> Range {
    if let Some(rule) = spec.outputs.iter().find(|rule| rule.name == name) {
        return Range { min: rule.min.unwrap_or(f64::NEG_INFINITY), max: rule.max.unwrap_or(f64::INFINITY) };
    }
    let built_in = BUILT_IN_OUTPUTS.iter().any(|(known, _)| *known == name);
    if built_in { Range::POSITIVE } else { Range::ALL }
}

/// Smallest and largest value that a metric can have: the values that both the kind and the source allow.
pub(super) fn range(spec: &RolloutSpec, metric: &MetricSpec) -> Range {
    let of_kind = metric.kind.range();
    if !is_sensible(of_kind) {
        return of_kind;
    }
    let both = of_kind.within(of_source(spec, metric)).filter(|_| metric.kind.is_of_values());
    both.unwrap_or(of_kind)
}

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let (of_kind, of_source) = (metric.kind.range(), of_source(spec, metric));
    if let Some(value) = constant(spec, metric) {
        let message =
            format!("this check can never fail: every answer that meets the conditions has the value {value}");
        let fix = "leave out the condition that decides the value, or measure something else";
        found.add(Severity::Error, format!("{path}.where"), message, fix, &["outputs"]);
    } else if metric.kind.is_of_values() && is_sensible(of_kind) && is_sensible(of_source) {
        let kind = format!("{path}.kind");
        if of_kind.within(of_source).is_none() {
            let message = format!(
                "this check can never fail: the source gives {}, but the kind takes {}, so all values count the same",
                in_words(of_source),
                in_words(of_kind)
            );
            found.add(Severity::Error, kind, message, "set the range of the kind to that of the source", &["outputs"]);
        } else if let (Some(Range { min, max }), MetricSource::Output(name)) = (metric.kind.clamps_to(), &metric.source)
            && spec.outputs.iter().any(|rule| rule.name == *name)
            && (of_source.min.is_finite() && of_source.min < min || of_source.max.is_finite() && of_source.max > max)
        {
            let message = format!(
                "output {name:?} is {}, and values outside {min} to {max} count as the nearest end",
                in_words(of_source)
            );
            found.add(
                Severity::Warning,
                kind,
                message,
                "set the range of the kind to that of the source",
                &["outputs"],
            );
        }
    }
    threshold(spec, metric, &format!("{path}.source"), found);
    tolerance(spec, metric, &format!("{path}.tolerance"), found);
}

/// Whether the range is not empty. An empty range has its own error.
fn is_sensible(range: Range) -> bool {
    range.min < range.max
}

fn in_words(Range { min, max }: Range) -> String {
    match (min.is_finite(), max.is_finite()) {
        (true, true) => format!("{min} to {max}"),
        (true, false) => format!("{min} or more"),
        (false, true) => format!("{max} or less"),
        (false, false) => "any number".to_owned(),
    }
}

/// Reports a threshold that the output always or never reaches.
fn threshold(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let MetricSource::Wrong { output, threshold, .. } = &metric.source else { return };
    let Range { min, max } = Some(of_output(spec, output)).filter(|range| is_sensible(*range)).unwrap_or(Range::ALL);
    let message = if !threshold.is_finite() {
        format!("{threshold} is not a valid threshold")
    } else if *threshold <= min {
        format!("output {output:?} is never below the threshold of {threshold}, so every answer means yes")
    } else if *threshold > max {
        format!("output {output:?} never reaches the threshold of {threshold}, so every answer means no")
    } else {
        return;
    };
    let fix = if min.is_finite() && max.is_finite() {
        format!("use a number above {min}, up to {max}")
    } else {
        "use a number that some answers reach; 0.5 is the default".to_owned()
    };
    found.add(Severity::Error, path, message, fix, &["outputs"]);
}

/// Refuses a tolerance that no two answers can exceed.
fn tolerance(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let Some(tolerance) = metric.tolerance.filter(|_| metric.kind.is_paired()) else { return };
    if !matches!(metric.source, MetricSource::Output(_) | MetricSource::Latency) {
        return;
    }
    let Range { min, max } = of_source(spec, metric);
    if tolerance.is_finite() && tolerance >= max - min {
        let message =
            format!("this check can never fail: no two values from {min} to {max} differ by more than {tolerance}");
        found.add(Severity::Error, path, message, "use a smaller tolerance", &["outputs"]);
    }
}
