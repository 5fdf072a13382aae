//! Rules on what a metric measures: the kind must be able to take what its source gives.

use serin_kinds::{Gives, Kind as _};
use serin_spec::{MetricSource, MetricSpec, RolloutSpec, Severity};

use super::Found;

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let kind = format!("{path}.kind");
    if let Some(refusal) = metric.kind.misfit(&metric.source, Gives::of(&metric.source)) {
        found.refuse(kind, refusal);
        return;
    }
    if let Some(refusal) = metric.kind.fault() {
        found.refuse(kind, refusal);
    }
    negative(spec, metric, path, found);
    tolerance(metric, path, found);
}

/// Histograms of positive quantities have no place for what is below 0.
fn negative(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let MetricSource::Output(name) = &metric.source else { return };
    let lowest = spec.outputs.iter().find(|rule| rule.name == *name).and_then(|rule| rule.min);
    if metric.kind.is_positive()
        && let Some(min) = lowest.filter(|min| *min < 0.0)
    {
        let message = format!("output {name:?} may be as low as {min}, and values below 0 are left out of this kind");
        let way_out = "use `mean: {min, max}`, or shift the output";
        found.add(Severity::Warning, format!("{path}.kind"), message, way_out, &["outputs"]);
    }
}

fn tolerance(metric: &MetricSpec, path: &str, found: &mut Found) {
    let Some(tolerance) = metric.tolerance else { return };
    let path = format!("{path}.tolerance");
    if !metric.kind.is_paired() {
        found.error(path, "only `disagreement` has a tolerance", "leave it out; a margin or limit says what is harm");
    } else if !matches!(Gives::of(&metric.source), Gives::Number | Gives::Quantity) {
        found.error(path, "classes agree or differ", "leave it out");
    } else if !(tolerance >= 0.0 && tolerance.is_finite()) {
        found.error(path, "a tolerance is a finite number from 0", "write up to which difference two numbers agree");
    }
}
