//! The built-in gates and other values that a spec may leave out, written out.

use serin_schemas::records::Role;

use crate::{
    Direction, Margin, MetricKind, MetricSource, MetricSpec, RolloutSpec, WhenMissing, units::Duration, units::Share,
};

/// Margin of the built-in gate `error_rate`: one more error in a hundred answers.
const ERROR_MARGIN: f64 = 0.01;
/// Margin of the built-in gate `invalid_output`: one more unusable answer in two hundred.
const INVALID_MARGIN: f64 = 0.005;
/// Share that stays on the previous version while a promoted one is monitored.
const HOLDBACK: Share = Share(500);

impl RolloutSpec {
    /// The spec as commands and controls carry it: the gates `error_rate` and `invalid_output` are there (a metric of that
    /// name or source replaces them), and so is the holdback of a monitored promotion. Doing it twice changes nothing.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut spec = self.clone();
        for (name, source, margin) in [
            ("error_rate", MetricSource::Error, ERROR_MARGIN),
            ("invalid_output", MetricSource::InvalidOutput, INVALID_MARGIN),
        ] {
            if !spec.metrics.iter().any(|metric| metric.name == name || metric.source == source) {
                spec.metrics.push(built_in(name, source, margin));
            }
        }
        if !spec.promotion.monitor.is_zero() {
            spec.promotion.holdback.get_or_insert(HOLDBACK);
        }
        spec
    }
}

fn built_in(name: &str, source: MetricSource, margin: f64) -> MetricSpec {
    MetricSpec {
        name: name.to_owned(),
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
    use crate::{MetricSource, testing::spec};

    #[test]
    fn built_in_gates_are_added_once_and_give_way_to_the_users_own() {
        let once = spec().normalised();
        let names: Vec<_> = once.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["wrong", "latency_p99", "error_rate", "invalid_output"]);
        assert_eq!(once.normalised(), once);

        let mut own = spec();
        own.metrics[0].name = "crashes".into();
        own.metrics[0].source = MetricSource::Error;
        let sources = own.normalised().metrics.iter().filter(|metric| metric.source == MetricSource::Error).count();
        assert_eq!(sources, 1);
    }
}
