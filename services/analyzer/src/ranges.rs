//! Checks that no canary can fail with stable's values in warm-up: the actual values are not those that the file was written for.
//!
//! Applies since rules version 2.

use serin_kinds::{Kind as _, Metric as _, Range};
use serin_schemas::records::{NoDataReason, Role, Segment};
use serin_sketches::Summary;
use serin_spec::{MetricSource, MetricSpec};

use crate::{evidence::Evidence, plan::Plan, standing::Issue, warmup::WarmUp};

/// The issues that warm-up shows with the ranges of the deciding metrics.
pub(crate) fn issues(plan: &Plan, warm: &WarmUp) -> Vec<Issue> {
    let least = plan.spec.decision.min_answers.max(1);
    let of = |(index, metric): (usize, &MetricSpec)| {
        let seen = warm.get(&(index, Segment::all())).filter(|seen| seen.n() >= least)?;
        let why = why(plan, metric, seen)?;
        Some(Issue::new(NoDataReason::CannotFail, plan.spec.no_data.cannot_fail, why).of(index))
    };
    let decides = |(index, metric): &(usize, &MetricSpec)| metric.role != Role::Watch && !plan.metrics[*index].paired;
    plan.spec.metrics.iter().enumerate().filter(decides).filter_map(of).collect()
}

fn why(plan: &Plan, metric: &MetricSpec, seen: &Summary) -> Option<String> {
    let test = Evidence::new(metric, plan.rules, plan.horizon(), plan.spec.decision.false_promotion).ok()?.test;
    let stable = test.effect_of(seen, seen).control.value?;
    // The end of the range that all values are at. Values beyond the range count as its end.
    if let Some(Range { min, max }) = metric.kind.clamps_to() {
        let (low, high) = beyond(plan, metric, (min, max));
        let at = |end: f64| (stable - end).abs() <= 1e-9 * (max - min);
        let side = match (at(min) && low, at(max) && high) {
            (true, _) => Some(("below", min)),
            (_, true) => Some(("above", max)),
            _ => None,
        };
        if let Some((side, end)) = side {
            return Some(format!(
                "{}: all {} values of stable are at {end} or {side}, the end of its range from {min} to {max}, and count as {end}, so no \
                 difference between them can be seen; choose a range in `kind` that contains the actual values",
                metric.name,
                seen.n()
            ));
        }
    }
    metric.cannot_fail_at(stable)
}

/// Whether values may be below and above a range, according to the file.
fn beyond(plan: &Plan, metric: &MetricSpec, (min, max): (f64, f64)) -> (bool, bool) {
    let MetricSource::Output(name) = &metric.source else { return (true, true) };
    let Some(rule) = plan.spec.outputs.iter().find(|rule| rule.name == *name) else { return (true, true) };
    (rule.min.is_none_or(|least| least < min), rule.max.is_none_or(|most| most > max))
}

#[cfg(test)]
mod tests {
    use serin_sketches::LinHist;
    use serin_spec::Rules;

    use super::*;

    /// The issues of a mean over 5 to 10 whose values are at this place of the range, with this output rule of the file.
    fn issues_of(place: f64, direction: &str, rule: &str, role: &str) -> Vec<String> {
        let text = format!(
            "{{apiVersion: serin.dev/v1, kind: Rollout, model: m, stable: {{version: '1'}}, canary: {{version: '2'}}, \
             outputs: [{{name: score, source: {{tensor: s}}{rule}}}], steps: [{{weight: 5%, bake: {{min: 1m, max: 1h}}}}], \
             metrics: [{{name: score, kind: {{mean: {{min: 5, max: 10}}}}, source: {{output: score}}, direction: {direction}, \
             margin: {{absolute: 0.5}}, role: {role}}}]}}"
        );
        let spec = serin_rollout::parse_yaml(&text).unwrap_or_else(|error| panic!("{error:?}"));
        let plan = Plan::new(spec, Rules::CURRENT);
        let mut hist = LinHist::new();
        for index in 0..1000 {
            hist.insert(place, index).unwrap_or_else(|error| panic!("{error}"));
        }
        let mut warm = WarmUp::default();
        warm.add(0, Segment::all(), &Summary::Lin(hist));
        issues(&plan, &warm).into_iter().map(|issue| issue.sentence).collect()
    }

    #[test]
    fn values_beyond_the_range_are_distinguished_from_those_at_its_end() {
        for (place, direction) in [(0.0, "lower_is_better"), (0.0, "higher_is_better"), (1.0, "lower_is_better")] {
            let issues = issues_of(place, direction, "", "gate");
            assert!(issues[0].starts_with("score: all 1000 values of stable are at "), "{issues:?}");
        }
        // The output rule says that no values are beyond the range.
        let within = ", min: 5, max: 10";
        assert!(issues_of(0.0, "lower_is_better", within, "gate").is_empty());
        assert!(issues_of(0.0, "higher_is_better", within, "gate")[0].contains("no canary can fail it"));
        // Values in the middle are fine, and a watched metric decides nothing.
        assert!(issues_of(0.5, "lower_is_better", "", "gate").is_empty());
        assert!(issues_of(0.0, "lower_is_better", "", "watch").is_empty());
    }
}
