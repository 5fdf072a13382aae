//! Rules on margins and limits: a bad canary must be able to exceed them, and a healthy one to stay within them.

use serin_kinds::{Kind as _, Metric as _, Range};
use serin_schemas::records::Role;
use serin_spec::{Direction, Limit, Margin, MetricSpec, Require, RolloutSpec, Severity};

use super::{Found, values};

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    match (metric.margin, metric.limit) {
        (Some(_), Some(_)) => found.error(
            format!("{path}.limit"),
            "the metric has a margin and a limit: a margin compares with control, a limit with fixed numbers",
            "keep one of them; to compare with both, write two metrics",
        ),
        (None, Some(limit)) => lint_limit(spec, metric, limit, &format!("{path}.limit"), found),
        (Some(_), None) if metric.kind.is_paired() => found.error(
            format!("{path}.margin"),
            "two answers to one call are compared with each other, so there is no control",
            "use `limit: {fail: SHARE}`: the share of calls that may differ",
        ),
        (None, None) if metric.kind.is_paired() => {
            found.error(
                format!("{path}.limit"),
                NOTHING,
                "set the share of calls that may differ: `limit: {fail: SHARE}`",
            );
        }
        _ => lint_margin(spec, metric, &format!("{path}.margin"), found),
    }
}

const NOTHING: &str = "the metric does not define how much harm is acceptable";

fn lint_margin(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let margin = metric.margin_or_default();
    let given: Vec<f64> = [margin.absolute, margin.relative].into_iter().flatten().collect();
    if given.is_empty() {
        found.error(path, NOTHING, "set absolute, relative or both, or a limit");
        return;
    }
    if given.iter().any(|value| !value.is_finite() || *value < 0.0) {
        found.error(path, "a margin is a finite number of at least 0", "write how much worse the canary may be");
        return;
    }
    if let Some(refusal) = metric.kind.unsuitable_margin(metric.direction, margin) {
        found.refuse(path, refusal);
    } else if margin.absolute.unwrap_or(0.0) == 0.0
        && margin.relative.is_some()
        && values::range(spec, metric).min < 0.0
    {
        found.error(
            path,
            "values can be negative, and a relative margin on a negative value is negative: a canary equal to stable would exceed it",
            "use `absolute`, or shift the values to be positive",
        );
    } else if let Some(why) = can_never_fail(spec, metric, margin) {
        found.error(path, format!("this check can never fail: {why}"), "choose a margin that harm can exceed");
    } else if given.iter().all(|value| *value == 0.0) && metric.role == Role::Gate && requires_pass(spec) {
        found.add(
            Severity::Error,
            path,
            "with margin 0 a canary equal to stable can never pass, but a step requires a pass",
            "allow some harm, or set `role: watch`",
            &["steps"],
        );
    }
}

/// A relative margin of this or more was probably meant in percent.
const MEANT_IN_PERCENT: f64 = 10.0;

/// Why no harm can exceed the margin. Harm must exceed both parts of a margin, so one impossible part is enough.
fn can_never_fail(spec: &RolloutSpec, metric: &MetricSpec, margin: Margin) -> Option<String> {
    let range = values::range(spec, metric);
    let Range { min, max } = range;
    if let Some(absolute) = margin.absolute.filter(|absolute| *absolute >= max - min) {
        return Some(format!("no value between {min} and {max} can change by {absolute} or more"));
    }
    let relative = margin.relative.unwrap_or(0.0);
    if metric.direction == Direction::HigherIsBetter && relative >= 1.0 && min >= 0.0 {
        return Some(format!("a value that is never negative cannot fall by {:.0} %", relative * 100.0));
    }
    if relative >= MEANT_IN_PERCENT {
        let (times, share) = (relative + 1.0, relative / 100.0);
        return Some(format!("it allows {times} times stable's value; {relative} % is written {share}"));
    }
    if metric.kind.can_fail(range, metric.direction, margin) {
        return None;
    }
    Some(metric.kind.why_it_cannot_fail(range))
}

fn requires_pass(spec: &RolloutSpec) -> bool {
    (0..spec.steps.len()).any(|step| spec.require(step) != Require::NoFail)
}

fn lint_limit(spec: &RolloutSpec, metric: &MetricSpec, limit: Limit, path: &str, found: &mut Found) {
    if metric.kind.has_many_parts() {
        let message = "a distribution or a mix of classes cannot have a limit";
        found.error(path, message, "use a margin, or put a limit on a quantile or on one class");
        return;
    }
    let Some((pass, fail)) = limit.both() else {
        found.error(path, NOTHING, "set fail, or pass and fail");
        return;
    };
    if !(pass.is_finite() && fail.is_finite()) {
        found.error(path, "a limit must be a finite number", "use a finite number");
        return;
    }
    let lower = metric.direction == Direction::LowerIsBetter;
    let stricter = if lower { pass <= fail } else { pass >= fail };
    if !stricter {
        let (beyond, is) = if lower { ("above", "lower_is_better") } else { ("below", "higher_is_better") };
        let message = format!("pass ({pass}) is {beyond} fail ({fail}): a canary could both pass and fail");
        found.error(path, message, format!("swap them; this metric is {is}"));
        return;
    }
    let Range { min, max } = values::range(spec, metric);
    for value in [pass, fail] {
        if !(value > min && value < max) {
            let bounds = if max.is_finite() { format!("between {min} and {max}") } else { format!("above {min}") };
            found.error(
                path,
                format!("no value, or every value, is within a limit of {value}"),
                format!("use a number {bounds}"),
            );
            return;
        }
    }
}
