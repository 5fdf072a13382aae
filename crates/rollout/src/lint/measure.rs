//! Rules on what a metric measures: the kind must be able to take what its source gives.

use serin_sketches::CappedHist;

use super::Found;
use serin_spec::{MetricKind, MetricSource, MetricSpec, RolloutSpec, Severity};

/// What a source gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    /// 0 or 1.
    YesNo,
    /// 0 or 1, or as a class the reason.
    Reason,
    /// A class.
    Class,
    /// A number that is no 0 or 1, nor a count.
    Quantity,
    /// Some number: the spec does not say more.
    Number,
}

fn gives(source: &MetricSource) -> Gives {
    match source {
        MetricSource::Failed | MetricSource::Refused | MetricSource::Unusable => Gives::Reason,
        MetricSource::Outcome | MetricSource::Status | MetricSource::Class { is: None, .. } => Gives::Class,
        MetricSource::Cancelled
        | MetricSource::Class { is: Some(_), .. }
        | MetricSource::Wrong { .. }
        | MetricSource::WrongClass { .. } => Gives::YesNo,
        MetricSource::Latency
        | MetricSource::LabelDelay(_)
        | MetricSource::SquaredError { .. }
        | MetricSource::AbsoluteError { .. } => Gives::Quantity,
        MetricSource::Output(_) | MetricSource::Feedback(_) => Gives::Number,
    }
}

pub(super) fn lint(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let kind = format!("{path}.kind");
    if let Some((message, way_out)) = misfit(metric) {
        found.error(kind, message, way_out);
        return;
    }
    match metric.kind {
        MetricKind::Mean { min, max } if !((max - min).is_finite() && min < max) => {
            found.error(kind, format!("no value is in the range {min} to {max}"), "set min below max");
        }
        MetricKind::CappedMean { cap } if CappedHist::new(cap).is_none_or(|hist| !hist.cap().is_finite()) => {
            found.error(kind, format!("{cap} caps everything"), "use a number above 0 that few values exceed");
        }
        MetricKind::Quantile { level } if !(level > 0.0 && level < 1.0) => {
            found.error(kind, format!("{level} is no quantile level"), "use a number between 0 and 1, such as 0.99");
        }
        _ => {}
    }
    negative(spec, metric, path, found);
    tolerance(metric, path, found);
}

/// Why the kind cannot take what the source gives, and the way out.
fn misfit(metric: &MetricSpec) -> Option<(&'static str, &'static str)> {
    use Gives::{Class, Number, Quantity, Reason, YesNo};
    let quantity = "its source is a quantity, not a yes or no";
    let class = "its source is a class, not a number";
    let rate = "use `rate`";
    match (&metric.kind, gives(&metric.source)) {
        (MetricKind::Rate, Quantity) => Some((quantity, "use `mean: {min, max}` or `quantile: {level}`")),
        (MetricKind::Classes | MetricKind::Disagreement, Reason | Class) => None,
        (_, Class) => Some((class, "use `classes`, or name one class with `is`")),
        (MetricKind::Quantile { .. } | MetricKind::Distribution, YesNo | Reason) => {
            Some(("a yes or no has no quantile", rate))
        }
        (MetricKind::CappedMean { .. }, YesNo | Reason) => Some(("a yes or no needs no cap", rate)),
        (MetricKind::Count, YesNo | Reason) => Some(("a yes or no happens at most once per answer", rate)),
        (MetricKind::Count, Quantity) => Some(("its source is a quantity, not a number of events", "use `mean`")),
        (MetricKind::Classes, YesNo) => Some(("a yes or no has no classes", rate)),
        (MetricKind::Classes, Quantity | Number) => {
            Some(("its source is a number, not a class", "use `distribution`, or a source such as `class: {output}`"))
        }
        (MetricKind::Disagreement, _) if metric.source.needs_label() => Some((
            "two answers to one call are compared when they come, not when a label does",
            "compare an output, class, status or latency",
        )),
        _ => None,
    }
}

/// Histograms of positive quantities have no place for what is below 0.
fn negative(spec: &RolloutSpec, metric: &MetricSpec, path: &str, found: &mut Found) {
    let positive = matches!(
        metric.kind,
        MetricKind::CappedMean { .. } | MetricKind::Quantile { .. } | MetricKind::Distribution | MetricKind::Count
    );
    let MetricSource::Output(name) = &metric.source else { return };
    let lowest = spec.outputs.iter().find(|rule| rule.name == *name).and_then(|rule| rule.min);
    if positive && let Some(min) = lowest.filter(|min| *min < 0.0) {
        let message = format!("output {name:?} may be as low as {min}, and values below 0 are left out of this kind");
        let way_out = "use `mean: {min, max}`, or shift the output";
        found.add(Severity::Warning, format!("{path}.kind"), message, way_out, &["outputs"]);
    }
}

fn tolerance(metric: &MetricSpec, path: &str, found: &mut Found) {
    let Some(tolerance) = metric.tolerance else { return };
    let path = format!("{path}.tolerance");
    if metric.kind != MetricKind::Disagreement {
        found.error(path, "only `disagreement` has a tolerance", "leave it out; a margin or limit says what is harm");
    } else if !matches!(gives(&metric.source), Gives::Number | Gives::Quantity) {
        found.error(path, "classes agree or differ", "leave it out");
    } else if !(tolerance >= 0.0 && tolerance.is_finite()) {
        found.error(path, "a tolerance is a finite number from 0", "write up to which difference two numbers agree");
    }
}
