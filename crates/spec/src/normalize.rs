//! Fills in the built-in gates and other values that a spec may leave out.

use serin_schemas::records::Role;

use crate::{
    Direction, Margin, MetricKind, MetricSource, MetricSpec, RolloutSpec, WhenMissing, units::Duration, units::Share,
};

/// A gate that every rollout has, unless the rollout has its own metric of the same source.
struct BuiltIn {
    name: &'static str,
    /// Name of the gate in older files. A metric with this name replaces the gate, whatever its source is.
    old_name: Option<&'static str>,
    source: MetricSource,
    /// Largest acceptable difference from control, as a share of the calls.
    margin: f64,
}

/// The built-in gates. Both versions refuse callers' mistakes alike, so the margin of `refused` can be as small as that of `failed`.
const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn { name: "failed", old_name: Some("error_rate"), source: MetricSource::Failed, margin: 0.01 },
    BuiltIn { name: "refused", old_name: None, source: MetricSource::Refused, margin: 0.01 },
    BuiltIn { name: "unusable", old_name: Some("invalid_output"), source: MetricSource::Unusable, margin: 0.005 },
];
/// Share of the traffic that stays on the previous version while the promoted version is monitored.
const HOLDBACK: Share = Share(500);

impl RolloutSpec {
    /// The spec as it is in commands and controls: with the gates `failed`, `refused` and `unusable`, with the holdback of a
    /// monitored promotion, and with `require` in each step. It has the steps of its schedule, but not the schedule's name, which
    /// older versions of Serin cannot read.
    ///
    /// A gate is not added if the [`door`](RolloutSpec::door) of the calls cannot feed it: it would pass without data.
    ///
    /// A metric on the share of the same outcome replaces a built-in gate. If a metric of another source already has the gate's name,
    /// the gate gets a longer one. The operation is idempotent.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut spec = self.clone();
        spec.schedule = None;
        for gate in BUILT_IN {
            let replaces = |metric: &MetricSpec| {
                let is_share = !matches!(metric.kind, MetricKind::Classes | MetricKind::Disagreement);
                metric.source == gate.source && metric.filters.is_empty() && is_share
                    || gate.old_name.is_some_and(|name| metric.name == name)
            };
            let is_blind = spec.door.is_some_and(|door| door.lacks(&gate.source).is_some());
            if is_blind || spec.metrics.iter().any(replaces) {
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

    /// Resolves a metric name: a metric with this name or, if there is none, the built-in gate that had this name in older files.
    pub fn metric_name<'a>(&self, name: &'a str) -> &'a str {
        let known = self.metrics.iter().any(|metric| metric.name == name);
        if known { name } else { built_in_name(name) }
    }
}

/// The current name of a built-in gate whose name in older files was `name`: `error_rate` is now `failed`.
pub fn built_in_name(name: &str) -> &str {
    BUILT_IN.iter().find(|gate| gate.old_name == Some(name)).map_or(name, |gate| gate.name)
}

fn built_in(name: String, source: MetricSource, margin: f64) -> MetricSpec {
    MetricSpec {
        name,
        kind: MetricKind::Rate,
        source,
        filters: Vec::new(),
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
    use crate::{MetricKind, MetricSource, RolloutSpec, TrafficDoor, testing::spec};

    fn names(spec: &RolloutSpec) -> Vec<String> {
        spec.normalized().metrics.into_iter().map(|metric| metric.name).collect()
    }

    #[test]
    fn built_in_gates_are_added_once_and_replaced_by_metrics_of_the_same_source() {
        let once = spec().normalized();
        assert_eq!(names(&spec()), ["wrong", "latency_p99", "failed", "refused", "unusable"]);
        assert_eq!(once.normalized(), once);

        let mut own = spec();
        own.metrics[0].name = "crashes".into();
        own.metrics[0].source = MetricSource::Failed;
        assert_eq!(names(&own), ["crashes", "latency_p99", "refused", "unusable"]);

        // The mix of failure causes does not measure how often calls fail.
        own.metrics[0].kind = MetricKind::Classes;
        assert_eq!(names(&own), ["crashes", "latency_p99", "failed", "refused", "unusable"]);
    }

    #[test]
    fn old_names_of_sources_and_gates_still_replace_built_in_gates() {
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
    fn gates_that_the_door_cannot_feed_are_not_added() {
        let gates = |door: TrafficDoor| names(&RolloutSpec { door: Some(door), ..spec() })[2..].join(" ");
        assert_eq!(gates(TrafficDoor::Events), "failed refused unusable");
        assert_eq!((gates(TrafficDoor::Kserve), gates(TrafficDoor::Seldon)), ("unusable".into(), "unusable".into()));
        assert_eq!(gates(TrafficDoor::KserveAllResponses), "failed refused unusable");
        assert_eq!(gates(TrafficDoor::Envoy), "failed refused");
        assert_eq!(gates(TrafficDoor::Otlp), "failed refused");
    }

    #[test]
    fn a_built_in_gate_is_renamed_if_another_metric_has_its_name() {
        let mut own = spec();
        own.metrics[0].name = "failed".into();
        own.metrics[1].name = "refused".into();
        assert_eq!(names(&own), ["failed", "refused", "failed_calls", "refused_calls", "unusable"]);
        let once = own.normalized();
        assert_eq!(once.normalized(), once);
    }
}
