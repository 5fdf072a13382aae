//! Rules on groups of metrics: every name must be defined, and every gate must count.

use serin_schemas::records::Role;

use super::Found;
use serin_spec::{RolloutSpec, Severity, suggest};

pub(super) fn lint(spec: &RolloutSpec, found: &mut Found) {
    found.names("groups", spec.groups.iter().map(|group| group.name.as_str()));
    for (index, group) in spec.groups.iter().enumerate() {
        let path = format!("groups[{index}]");
        if !(group.weight >= 0.0 && group.weight.is_finite()) {
            found.error(
                format!("{path}.weight"),
                "a weight is a finite number of at least 0",
                "leave it out if in doubt",
            );
        }
        let decides = |metric: &&serin_spec::MetricSpec| {
            metric.group.as_deref() == Some(group.name.as_str()) && metric.role != Role::Watch
        };
        if !spec.metrics.iter().any(|metric| decides(&metric)) {
            let message = format!("group {:?} has no gate and no score metric, so it is never judged", group.name);
            found.add(Severity::Warning, path, message, "add a metric to it with `group`, or remove it", &["metrics"]);
        }
    }
    for (index, metric) in spec.metrics.iter().enumerate() {
        let Some(name) = &metric.group else { continue };
        let known = || spec.groups.iter().map(|group| group.name.as_str());
        let path = format!("metrics[{index}]");
        if !known().any(|group| group == name) {
            let fix = suggest::fix(name, known(), "define it under `groups`");
            let message = format!("no group is named {name:?}");
            found.add(Severity::Error, format!("{path}.group"), message, fix, &["groups[].name"]);
        } else if metric.role == Role::Gate && metric.score_weight == 0.0 {
            found.error(
                format!("{path}.scoreWeight"),
                "with weight 0 in its group, this gate has no share of the false-rollback budget and can never fail",
                "give it a weight, or set `role: watch`",
            );
        }
    }
}
