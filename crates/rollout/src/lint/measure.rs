//! Rules on what a metric measures: its kind must accept the values of its source.

use serin_kinds::{Kind as _, SourceType};
use serin_spec::{MetricSource, MetricSpec, RolloutSpec, Severity};

use super::Found;

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let kind = format!("{path}.kind");
    if let Some(refusal) = metric.kind.unsuitable_source(&metric.source, SourceType::of(&metric.source)) {
        found.refuse(kind, refusal);
        return;
    }
    if let Some(refusal) = metric.kind.invalid_parameters() {
        found.refuse(kind, refusal);
    }
    negative(spec, metric, path, found);
    tolerance(metric, path, found);
}

/// Histograms of positive quantities cannot hold values below 0.
fn negative(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let MetricSource::Output(name) = &metric.source else { return };
    let lowest = spec.outputs.iter().find(|rule| rule.name == *name).and_then(|rule| rule.min);
    if metric.kind.is_positive()
        && let Some(min) = lowest.filter(|min| *min < 0.0)
    {
        let message = format!("output {name:?} can be as low as {min}, and this kind leaves out values below 0");
        let fix = "use `mean: {min, max}`, or shift the output to be positive";
        found.add(Severity::Warning, format!("{path}.kind"), message, fix, &["outputs"]);
    }
}

fn tolerance(metric: &MetricSpec, path: &str, found: &mut Found) {
    let Some(tolerance) = metric.tolerance else { return };
    let path = format!("{path}.tolerance");
    if !metric.kind.is_paired() {
        found.error(path, "only `disagreement` has a tolerance", "leave it out; a margin or a limit defines harm");
    } else if !matches!(SourceType::of(&metric.source), SourceType::Number | SourceType::Quantity) {
        found.error(path, "classes are equal or not, so there is no tolerance", "leave it out");
    } else if !(tolerance >= 0.0 && tolerance.is_finite()) {
        found.error(
            path,
            "a tolerance is a finite number of at least 0",
            "write the largest difference at which two numbers agree",
        );
    }
}
