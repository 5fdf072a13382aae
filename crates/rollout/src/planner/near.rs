//! Names that were probably meant: a missing value may arrive under another name. Routers report the names that they see.

use std::collections::BTreeSet;

use serin_schemas::records::{MetricVerdict, NoDataReason, Verdict};

use super::Turn;
use serin_spec::{MetricSource, MetricSpec, OutputSource, RolloutSpec, suggest::nearest};

/// Maximum number of names that are listed when no similar name is found.
const LISTED: usize = 5;

/// The metrics that had no value in any answer so far, according to a verdict.
pub(super) fn without_values(verdict: &Verdict) -> impl Fn(&MetricSpec) -> bool + '_ {
    let none = |metric: &MetricVerdict| metric.no_data == Some(NoDataReason::ValueMissing);
    move |spec| {
        let seen = verdict.seen.iter().any(|seen| seen.metric == spec.name && seen.values == 0 && seen.answers > 0);
        seen || verdict.metrics.iter().any(|metric| metric.metric == spec.name && none(metric))
    }
}

/// What answers and feedback carry instead of the values these metrics need, as clauses; empty if nothing is known.
pub(super) fn suggestions(spec: &RolloutSpec, lacks: impl Fn(&MetricSpec) -> bool, turn: &Turn<'_>) -> String {
    let outputs: BTreeSet<&str> =
        turn.live().filter_map(|(_, seen)| seen.outputs.get(&spec.model)).flatten().map(String::as_str).collect();
    let labels: BTreeSet<&str> = turn.live().flat_map(|(_, seen)| &seen.labels).map(String::as_str).collect();
    let mut clauses = BTreeSet::new();
    for metric in spec.metrics.iter().filter(|metric| lacks(metric)) {
        let output = output_of(&metric.source).and_then(|name| spec.outputs.iter().find(|rule| rule.name == name));
        match output.map(|rule| &rule.source) {
            Some(OutputSource::Tensor(name) | OutputSource::Json(name)) => {
                clauses.extend(clause("answers carry", name, &outputs));
            }
            Some(OutputSource::Header(_)) | None => {}
        }
        clauses.extend(metric.labels().filter_map(|label| clause("feedback carries", label, &labels)));
    }
    clauses.into_iter().flat_map(|clause| ["; ".to_owned(), clause]).collect()
}

fn output_of(source: &MetricSource) -> Option<&str> {
    match source {
        MetricSource::Output(output)
        | MetricSource::Class { output, .. }
        | MetricSource::Wrong { output, .. }
        | MetricSource::WrongClass { output, .. }
        | MetricSource::LogLoss { output, .. }
        | MetricSource::SquaredError { output, .. }
        | MetricSource::AbsoluteError { output, .. }
        | MetricSource::Ranking { output, .. } => Some(output),
        _ => None,
    }
}

fn clause(carry: &str, wanted: &str, seen: &BTreeSet<&str>) -> Option<String> {
    if seen.is_empty() || seen.contains(wanted) {
        return None;
    }
    if let Some(near) = nearest(wanted, seen.iter().copied()) {
        return Some(format!("{carry} {near:?}: did you mean that instead of {wanted:?}?"));
    }
    let names: Vec<String> = seen.iter().take(LISTED).map(|name| format!("{name:?}")).collect();
    Some(format!("{carry} {}, but no {wanted:?}", names.join(", ")))
}
