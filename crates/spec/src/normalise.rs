//! The built-in gates and other values that a spec may leave out, written out.

use serin_schemas::records::Role;

use crate::{
    Direction, Margin, MetricKind, MetricSource, MetricSpec, RolloutSpec, WhenMissing, units::Duration, units::Share,
};

/// A gate that every rollout has unless it names another metric of the same source.
struct BuiltIn {
    name: &'static str,
    /// Name of the gate in older files: a metric of this name replaces it, whatever its source.
    old_name: Option<&'static str>,
    source: MetricSource,
    /// Largest difference from control that is acceptable, as a share of the calls.
    margin: f64,
}

/// The built-in gates. Callers' mistakes are refused by both versions alike, so the margin of `refused` may be as small as that of
/// `failed`.
const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn { name: "failed", old_name: Some("error_rate"), source: MetricSource::Failed, margin: 0.01 },
    BuiltIn { name: "refused", old_name: None, source: MetricSource::Refused, margin: 0.01 },
    BuiltIn { name: "unusable", old_name: Some("invalid_output"), source: MetricSource::Unusable, margin: 0.005 },
];
/// Share that stays on the previous version while a promoted one is monitored.
const HOLDBACK: Share = Share(500);

impl RolloutSpec {
    /// The spec as commands and controls carry it: the gates `failed`, `refused` and `unusable` are there, and so is the holdback
    /// of a monitored promotion; each step says what it requires. A metric on the share of the same outcome replaces a built-in gate. A gate whose name is taken by a metric of
    /// another source gets a longer one. Doing it twice changes nothing.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut spec = self.clone();
        for gate in BUILT_IN {
            let replaces = |metric: &MetricSpec| {
                let is_share = !matches!(metric.kind, MetricKind::Classes | MetricKind::Disagreement);
                metric.source == gate.source && is_share || gate.old_name.is_some_and(|name| metric.name == name)
            };
            if spec.metrics.iter().any(replaces) {
                continue;
            }
            let mut name = gate.name.to_owned();
            while spec.metrics.iter().any(|metric| metric.name == name) {
                name.push_str("_calls");
            }
            spec.metrics.push(built_in(name, gate.source, gate.margin));
        }
        for step in 0..spec.steps.len() {
            spec.steps[step].require = Some(spec.require(step));
        }
        if !spec.promotion.monitor.is_zero() {
            spec.promotion.holdback.get_or_insert(HOLDBACK);
        }
        spec
    }

    /// The metric that a person means by this name: the one of this name, else the built-in gate that older files call so.
    pub fn metric_name<'a>(&self, name: &'a str) -> &'a str {
        let known = self.metrics.iter().any(|metric| metric.name == name);
        if known { name } else { built_in_name(name) }
    }
}

/// The name that a built-in gate has now, where `name` is the one of older files: `error_rate` is `failed`.
pub fn built_in_name(name: &str) -> &str {
    BUILT_IN.iter().find(|gate| gate.old_name == Some(name)).map_or(name, |gate| gate.name)
}

fn built_in(name: String, source: MetricSource, margin: f64) -> MetricSpec {
    MetricSpec {
        name,
        kind: MetricKind::Rate,
        source,
        direction: Direction::LowerIsBetter,
        margin: Some(Margin { absolute: Some(margin), relative: None }),
        limit: None,
        tolerance: None,
        role: Role::Gate,
        segments: Vec::new(),
        stratify_by: None,
        maturity: Duration::default(),
        when_missing: WhenMissing::default(),
        score_weight: 1.0,
        group: None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{MetricKind, MetricSource, RolloutSpec, testing::spec};

    fn names(spec: &RolloutSpec) -> Vec<String> {
        spec.normalised().metrics.into_iter().map(|metric| metric.name).collect()
    }

    #[test]
    fn built_in_gates_are_added_once_and_give_way_to_the_users_own() {
        let once = spec().normalised();
        assert_eq!(names(&spec()), ["wrong", "latency_p99", "failed", "refused", "unusable"]);
        assert_eq!(once.normalised(), once);

        let mut own = spec();
        own.metrics[0].name = "crashes".into();
        own.metrics[0].source = MetricSource::Failed;
        assert_eq!(names(&own), ["crashes", "latency_p99", "refused", "unusable"]);

        // The mix of what went wrong says nothing of how often something does.
        own.metrics[0].kind = MetricKind::Classes;
        assert_eq!(names(&own), ["crashes", "latency_p99", "failed", "refused", "unusable"]);
    }

    #[test]
    fn files_that_use_the_old_words_keep_their_gates() {
        for (source, gates) in [("error", ["refused", "unusable"]), ("invalid_output", ["failed", "refused"])] {
            let text = crate::testing::SPEC
                .replace(r#"{"wrong": {"output": "late", "label": "late"}}"#, &format!("{source:?}"));
            let own = serde_json::from_str(&text).unwrap();
            assert_eq!(names(&own)[2..], gates, "{source}");
        }
        for (name, gates) in [("error_rate", ["refused", "unusable"]), ("invalid_output", ["failed", "refused"])] {
            let mut own = spec();
            own.metrics[0].name = name.into();
            assert_eq!(names(&own)[2..], gates, "{name}");
        }
        let old = ["error_rate", "invalid_output", "wrong"].map(super::built_in_name);
        assert_eq!(old, ["failed", "unusable", "wrong"]);
    }

    #[test]
    fn a_gate_is_there_even_if_a_metric_of_another_source_has_its_name() {
        let mut own = spec();
        own.metrics[0].name = "failed".into();
        own.metrics[1].name = "refused".into();
        assert_eq!(names(&own), ["failed", "refused", "failed_calls", "refused_calls", "unusable"]);
        let once = own.normalised();
        assert_eq!(once.normalised(), once);
    }
}
