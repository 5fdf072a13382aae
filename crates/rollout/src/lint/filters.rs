//! Rules on the conditions of a metric (`where`): each must name something that exists, be decidable, and leave answers to count.

use serin_kinds::{Kind as _, Range};
use serin_spec::{
    Filter, FilterSubject, FilterTest, FilterValue, MetricSource, MetricSpec, OutputKind, RolloutSpec, Severity,
};

use super::{Found, left::contradicting, named, values};

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    if metric.filters.is_empty() {
        return;
    }
    kind(metric, path, found);
    for (index, filter) in metric.filters.iter().enumerate() {
        let path = format!("{path}.where[{index}]");
        match filter.subject() {
            None => {
                let message = "a condition names one of `output`, `label` and `segment`";
                found.error(&path, message, "write one condition for each, such as `{output: score, above: 0.5}`");
            }
            Some(subject) => {
                references(spec, subject, filter, &path, found);
                source(metric, subject, &path, found);
            }
        }
        test(spec, filter, &path, found);
    }
    contradictions(metric, path, found);
}

/// Reports conditions that exclude each other. A condition that no value meets alone has its own error.
fn contradictions(metric: &MetricSpec, path: &str, found: &mut Found) {
    let single = |index: usize| format!("{path}.where[{index}]");
    if (0..metric.filters.len()).any(|index| found.has_error_in(&single(index))) {
        return;
    }
    if let Some(filter) = contradicting(metric) {
        let name =
            filter.output.as_deref().or(filter.label.as_deref()).or(filter.segment.as_deref()).unwrap_or_default();
        never(&format!("{path}.where"), &format!("the conditions on {name:?} exclude each other"), found);
    }
}

fn kind(metric: &MetricSpec, path: &str, found: &mut Found) {
    let by_label = metric.filters.iter().any(|filter| matches!(filter.subject(), Some(FilterSubject::Label(_))));
    if metric.kind.is_paired() {
        let message = "two answers to one call may meet a condition differently, so a disagreement has no conditions";
        found.error(format!("{path}.where"), message, "leave it out, or use another kind");
    } else if metric.kind.takes_classes() && by_label {
        let message = "the mix of classes is known with the answer, and a condition on a label only later";
        let fix = "use a `rate` of one class, such as `source: {class: {output: decision, is: block}}`";
        found.error(format!("{path}.where"), message, fix);
    }
}

/// Reports a condition that reads an undefined output or segment.
fn references(spec: &RolloutSpec, subject: FilterSubject<'_>, filter: &Filter, path: &str, found: &mut Found) {
    match subject {
        FilterSubject::Output(name) => {
            let wanted = match filter.test() {
                Some(FilterTest::Class(_)) => OutputKind::Class,
                _ => OutputKind::Number,
            };
            named::output(spec, name, wanted, format!("{path}.output"), found);
        }
        FilterSubject::Label(name) if name.trim().is_empty() => {
            found.error(format!("{path}.label"), "the name is empty", "name a label of the feedback");
        }
        FilterSubject::Label(_) => {}
        FilterSubject::Segment(name) => {
            named::segment(spec, name, format!("{path}.segment"), found);
            if !matches!(filter.is, Some(FilterValue::Text(_))) || filter.above.is_some() || filter.below.is_some() {
                let message = "the values of a segment are strings";
                found.error(path, message, format!("write for example `{{segment: {name}, is: \"DE\"}}`"));
            }
        }
    }
}

/// Reports a condition on an output or label of calls that have none, because it would leave out everything that the metric counts.
fn source(metric: &MetricSpec, subject: FilterSubject<'_>, path: &str, found: &mut Found) {
    let of_bad = matches!(
        metric.source,
        MetricSource::Failed
            | MetricSource::Refused
            | MetricSource::Unusable
            | MetricSource::Cancelled
            | MetricSource::Outcome
            | MetricSource::Status
    );
    if of_bad && matches!(subject, FilterSubject::Output(_)) {
        let message = "calls that fail or are refused have no outputs, so the condition leaves them out";
        found.error(path, message, "use a condition on a segment, or another source");
    } else if metric.source == MetricSource::Cancelled && matches!(subject, FilterSubject::Label(_)) {
        let message = "a call that its caller left waits for no label, so the metric never has data";
        found.error(path, message, "use a condition on a segment, or another source");
    }
}

/// Reports a condition without a test, or with a test that no value meets.
fn test(spec: &RolloutSpec, filter: &Filter, path: &str, found: &mut Found) {
    let Some(test) = filter.test() else {
        let message = "a condition has either `is`, or `above`, `below` or both";
        found.error(path, message, "write for example `is: true`, `is: fraud` or `above: 0.5`");
        return;
    };
    let numbers = [filter.above, filter.below, number(filter)];
    if let Some(number) = numbers.into_iter().flatten().find(|number| !number.is_finite()) {
        found.error(path, format!("{number} is not a number to compare with"), "use a finite number");
        return;
    }
    let range = match filter.subject() {
        Some(FilterSubject::Output(name)) => values::of_output(spec, name),
        _ => Range::ALL,
    };
    let FilterTest::Range { at_least, below } = test else {
        if let FilterTest::Number(number) = test
            && (number < range.min || number > range.max)
        {
            never(path, &format!("{number} is outside of the range of the output"), found);
        }
        return;
    };
    if at_least >= below {
        never(path, &format!("no number is at least {at_least} and below {below}"), found);
    } else if range.min < range.max && (at_least > range.max || below <= range.min) {
        never(path, "the output is never in this range", found);
    } else if range.min < range.max && at_least <= range.min && below > range.max {
        found.add(Severity::Warning, path, "every answer meets this condition", "leave it out", &["outputs"]);
    }
}

fn number(filter: &Filter) -> Option<f64> {
    match filter.is {
        Some(FilterValue::Number(number)) => Some(number),
        Some(FilterValue::Truth(_) | FilterValue::Text(_)) | None => None,
    }
}

fn never(path: &str, why: &str, found: &mut Found) {
    let message = format!("{why}, so the metric never has data");
    found.add(Severity::Error, path, message, "choose a condition that some answers meet", &["outputs"]);
}

#[cfg(test)]
mod tests {
    use serin_spec::{Filter, MetricKind, MetricSource, units::Duration};

    use crate::{lint, testing::spec};

    /// What lint reports of a rate with this source and these conditions.
    fn reported(source: MetricSource, kind: MetricKind, maturity: &str, filters: &[&str]) -> Vec<String> {
        let mut spec = spec();
        let metric = &mut spec.metrics[1];
        (metric.kind, metric.source, metric.name) = (kind, source, "filtered".into());
        metric.margin = Some(serin_spec::Margin { absolute: Some(0.02), relative: None });
        metric.maturity = Duration::parse(maturity).unwrap();
        metric.filters = filters.iter().map(|text| serde_json::from_str::<Filter>(text).unwrap()).collect();
        let of_filter = |problem: &serin_spec::Problem| problem.path.starts_with("metrics[1].where");
        lint(&spec, None).iter().filter(|problem| of_filter(problem)).map(ToString::to_string).collect()
    }

    fn wrong() -> MetricSource {
        MetricSource::Wrong { output: "late".into(), label: "late".into(), threshold: 0.5 }
    }

    #[test]
    fn conditions_that_can_be_decided_are_taken() {
        for filter in [
            r#"{"label": "late", "is": true}"#,
            r#"{"label": "reason", "is": "weather"}"#,
            r#"{"label": "grade", "is": 3}"#,
            r#"{"label": "delay", "above": 10, "below": 20}"#,
            r#"{"output": "late", "above": 0.7}"#,
            r#"{"segment": "origin", "is": "LGA"}"#,
        ] {
            assert_eq!(reported(wrong(), MetricKind::Rate, "6h", &[filter]), [""; 0], "{filter}");
        }
        assert_eq!(
            reported(MetricSource::Failed, MetricKind::Rate, "0s", &[r#"{"segment": "origin", "is": "LGA"}"#]),
            [""; 0]
        );
    }

    #[test]
    fn conditions_that_exclude_each_other_are_refused() {
        let above = r#"{"output": "late", "above": 0.5}"#;
        let delayed = r#"{"label": "delay", "above": 10}"#;
        for filters in [
            [r#"{"output": "late", "above": 0.9}"#, r#"{"output": "late", "below": 0.1}"#],
            [above, r#"{"output": "late", "is": false}"#],
            [above, r#"{"output": "late", "is": 0.4}"#],
            [r#"{"label": "grade", "is": 3}"#, r#"{"label": "grade", "is": 4}"#],
            [delayed, r#"{"label": "delay", "below": 10}"#],
            [r#"{"label": "reason", "is": "weather"}"#, r#"{"label": "reason", "is": "crew"}"#],
            [r#"{"segment": "origin", "is": "LGA"}"#, r#"{"segment": "origin", "is": "JFK"}"#],
        ] {
            let problems = reported(wrong(), MetricKind::Rate, "6h", &filters);
            assert!(problems.len() == 1 && problems[0].contains("exclude each other"), "{filters:?}: {problems:#?}");
        }
        for filters in [
            [above, r#"{"output": "late", "below": 0.9}"#],
            [above, r#"{"label": "late", "below": 0.9}"#],
            [delayed, r#"{"label": "delay", "is": 10}"#],
            [r#"{"label": "reason", "is": "weather"}"#, r#"{"label": "reason", "is": "weather"}"#],
        ] {
            assert_eq!(reported(wrong(), MetricKind::Rate, "6h", &filters), [""; 0], "{filters:?}");
        }
    }

    #[test]
    fn conditions_that_decide_the_value_are_refused() {
        let mean = || MetricKind::Mean { min: 0.0, max: 1.0 };
        let output = || MetricSource::Output("late".into());
        let label = || MetricSource::Feedback("late".into());
        let (yes, no) = (r#"{"label": "late", "is": true}"#, r#"{"label": "late", "is": false}"#);
        let high = r#"{"output": "late", "above": 0.5}"#;
        for (source, kind, filters) in [
            (label(), MetricKind::Rate, vec![yes]),
            (label(), MetricKind::Rate, vec![no]),
            (label(), MetricKind::Rate, vec![r#"{"label": "late", "above": 2}"#]),
            (output(), MetricKind::Rate, vec![high]),
            (label(), mean(), vec![r#"{"label": "late", "is": 0.3}"#]),
            (output(), MetricKind::Distribution, vec![r#"{"output": "late", "is": 0.3}"#]),
            (output(), mean(), vec![r#"{"output": "late", "above": 1}"#]),
            (wrong(), MetricKind::Rate, vec![high, yes]),
            (wrong(), MetricKind::Rate, vec![r#"{"output": "late", "below": 0.5}"#, yes]),
        ] {
            let problems = reported(source, kind, "6h", &filters);
            let found = problems.iter().any(|line| line.contains("this check can never fail: every answer that meets"));
            assert!(found, "{filters:?}: {problems:#?}");
        }
        for (source, kind, filters) in [
            (label(), MetricKind::Rate, vec![r#"{"label": "late", "above": 0.2}"#]),
            (label(), MetricKind::Rate, vec![r#"{"label": "other", "is": true}"#]),
            (output(), mean(), vec![yes]),
            (wrong(), MetricKind::Rate, vec![high]),
            (wrong(), MetricKind::Rate, vec![yes]),
        ] {
            assert_eq!(reported(source, kind, "6h", &filters), [""; 0], "{filters:?}");
        }
    }

    /// The class of an answer, which a condition names too.
    #[test]
    fn a_condition_on_the_same_class_decides_it() {
        let of = |source: MetricSource, kind: MetricKind, filters: &[&str]| {
            let mut spec = spec();
            spec.outputs.push(
                serde_json::from_value(
                    serde_json::json!({"name": "gate", "source": {"tensor": "gate"}, "kind": "class"}),
                )
                .unwrap(),
            );
            let metric = &mut spec.metrics[0];
            (metric.kind, metric.source) = (kind, source);
            metric.filters = filters.iter().map(|text| serde_json::from_str::<Filter>(text).unwrap()).collect();
            let problems = lint(&spec, None).iter().map(ToString::to_string).collect::<Vec<_>>();
            problems.into_iter().filter(|line| line.contains("can never fail")).count()
        };
        let class = |is: Option<&str>| MetricSource::Class { output: "gate".into(), is: is.map(Into::into) };
        let (a, truth) = (r#"{"output": "gate", "is": "A"}"#, r#"{"label": "gate", "is": "A"}"#);
        let wrong_class = || MetricSource::WrongClass { output: "gate".into(), label: "gate".into() };
        assert_eq!(of(class(Some("A")), MetricKind::Rate, &[a]), 1);
        assert_eq!(of(class(Some("B")), MetricKind::Rate, &[a]), 1);
        assert_eq!(of(class(None), MetricKind::Classes, &[a]), 1);
        assert_eq!(of(wrong_class(), MetricKind::Rate, &[a, truth]), 1);
        assert_eq!(of(wrong_class(), MetricKind::Rate, &[a]), 0);
        assert_eq!(of(class(Some("A")), MetricKind::Rate, &[truth]), 0);
    }

    /// The range of a mean is that of the values that the conditions leave.
    #[test]
    fn conditions_narrow_the_range_of_the_source() {
        let problems = |kind: MetricKind, margin: f64, source: MetricSource, filter: &str| {
            let mut spec = spec();
            let metric = &mut spec.metrics[1];
            (metric.kind, metric.source) = (kind, source);
            metric.maturity = Duration::parse("20m").unwrap();
            metric.margin = Some(serin_spec::Margin { absolute: Some(margin), relative: None });
            metric.filters = vec![serde_json::from_str::<Filter>(filter).unwrap()];
            let lines = lint(&spec, None).iter().map(ToString::to_string).collect::<Vec<_>>();
            lines.into_iter().filter(|line| line.starts_with("error")).collect::<Vec<_>>()
        };
        let mean = |max: f64| MetricKind::Mean { min: 0.0, max };
        let output = || MetricSource::Output("late".into());
        let high = r#"{"output": "late", "above": 0.5}"#;
        let refused = |lines: Vec<String>, words: &str| {
            assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:#?}");
        };
        refused(problems(mean(0.5), 0.1, output(), high), "the source gives 0.5 to 1, but the kind takes 0 to 0.5");
        refused(problems(mean(1.0), 0.6, output(), high), "no value between 0.5 and 1 can change by 0.6 or more");
        let low = r#"{"label": "late", "below": 0.5}"#;
        refused(problems(mean(1.0), 0.6, MetricSource::Feedback("late".into()), low), "between 0 and 0.5");
        assert_eq!(problems(mean(1.0), 0.4, output(), high), [""; 0]);
        assert_eq!(problems(mean(1.0), 0.6, output(), r#"{"label": "late", "above": 0.5}"#), [""; 0]);
    }

    #[test]
    fn conditions_that_cannot_be_decided_are_refused() {
        let rate = |source, filter: &str| reported(source, MetricKind::Rate, "6h", &[filter]).join("\n");
        let mut all = Vec::new();
        for filter in [
            r#"{"is": true}"#,
            r#"{"output": "late", "label": "late", "is": true}"#,
            r#"{"output": "late"}"#,
            r#"{"output": "late", "is": true, "above": 0.5}"#,
            r#"{"output": "lat", "is": true}"#,
            r#"{"output": "late", "is": "yes"}"#,
            r#"{"label": " ", "is": true}"#,
            r#"{"segment": "orign", "is": "LGA"}"#,
            r#"{"segment": "origin", "is": 3}"#,
            r#"{"segment": "origin", "above": 3}"#,
            r#"{"label": "delay", "above": 20, "below": 10}"#,
            r#"{"output": "late", "above": 1.5}"#,
            r#"{"output": "late", "is": 7}"#,
            r#"{"output": "late", "below": 2}"#,
        ] {
            all.push(rate(wrong(), filter));
        }
        all.push(rate(MetricSource::Failed, r#"{"output": "late", "above": 0.5}"#));
        all.push(rate(MetricSource::Cancelled, r#"{"label": "late", "is": true}"#));
        all.push(
            reported(MetricSource::Status, MetricKind::Classes, "6h", &[r#"{"label": "late", "is": true}"#]).join("\n"),
        );
        all.push(
            reported(MetricSource::Latency, MetricKind::Disagreement, "0s", &[r#"{"segment": "origin", "is": "LGA"}"#])
                .join("\n"),
        );
        assert!(all.iter().all(|text| !text.is_empty()), "{all:#?}");
        insta::assert_snapshot!(all.join("\n"));
    }
}
