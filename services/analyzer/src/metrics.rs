//! What the analyzer counts about itself.
//!
//! Counters of a rollout exist, at 0, from its first record on. Gauges of a verdict are removed when the rollout has ended.

use std::{collections::BTreeMap, sync::LazyLock};

use opentelemetry::{KeyValue, metrics::Counter};
use serin_schemas::{
    ids::RolloutId,
    records::{Decision, MetricResult, MetricVerdict, Verdict},
};
use serin_spec::{Direction, RolloutSpec};
use serin_stream::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    metric::{METRIC, MODEL, PARTITION, words},
};

use crate::rollout::{Refusal, Rollout};

declare_metrics! {
    pub METRICS {
        /// Windows that were judged, merged from all partitions of `events`.
        WINDOWS = Counter "serin_analyzer_windows_total" in "{window}" [PARTITION];
        /// Windows of a partition that were not used.
        REFUSED = Counter "serin_analyzer_windows_refused_total" in "{window}"
            [words("reason", &["repeated", "late", "unknown_generation", "other_rules", "unknown_rollout"])];
        /// Verdicts.
        DECISIONS = Counter "serin_verdicts_total" in "{verdict}"
            [MODEL, words("decision", &["promote", "rollback", "continue", "hold"])];
        /// Findings on all traffic (not on segments), one per metric of each verdict.
        FINDINGS = Counter "serin_findings_total" in "{finding}"
            [MODEL, METRIC, words("verdict", &["pass", "fail", "undecided", "no_data"])];
        /// Canary minus control over all traffic in the newest verdict, in the metric's unit.
        EFFECT = Gauge "serin_verdict_effect" in "1" [MODEL, METRIC];
        /// The effect as a share of the margin: above 0 the canary is worse than control, above 1 it is beyond the margin. Absent
        /// for a metric that has a limit or no margin.
        EFFECT_OF_MARGIN = Gauge "serin_verdict_effect_margin_ratio" in "1" [MODEL, METRIC];
        /// Active rollouts that the process analyzes.
        ROLLOUTS = Gauge "serin_analyzer_rollouts" in "{rollout}" [PARTITION];
    }
}

/// The reason for a window whose rollout is unknown.
pub(crate) const UNKNOWN_ROLLOUT: &str = "unknown_rollout";

static EFFECTS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&EFFECT));
static EFFECTS_OF_MARGIN: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&EFFECT_OF_MARGIN));
static ACTIVE: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&ROLLOUTS));

/// The instruments. They never affect a verdict.
pub(crate) struct Metrics {
    windows: Counter<u64>,
    refused: Counter<u64>,
    decisions: Counter<u64>,
    findings: Counter<u64>,
    rollouts: Series,
    /// The gauges of the newest verdict on each active rollout.
    effects: BTreeMap<RolloutId, Vec<Series>>,
    partition: KeyValue,
}

impl Metrics {
    pub(crate) fn new(partition: i32) -> Self {
        let partition = KeyValue::new("partition", i64::from(partition));
        let metrics = Self {
            windows: WINDOWS.counter(),
            refused: REFUSED.counter(),
            decisions: DECISIONS.counter(),
            findings: FINDINGS.counter(),
            rollouts: ACTIVE.hold(vec![partition.clone()], 0.0),
            effects: BTreeMap::new(),
            partition,
        };
        metrics.windows(0);
        for reason in Refusal::ALL.map(Refusal::name).into_iter().chain([UNKNOWN_ROLLOUT]) {
            metrics.refused.add(0, &[KeyValue::new("reason", reason)]);
        }
        metrics
    }

    pub(crate) fn windows(&self, count: usize) {
        self.windows.add(count as u64, std::slice::from_ref(&self.partition));
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Takes the active rollouts after a change.
    pub(crate) fn rollouts(&mut self, active: &BTreeMap<RolloutId, Rollout>) {
        self.rollouts.set(active.len() as f64);
        self.effects.retain(|id, _| active.contains_key(id));
        for (id, rollout) in active {
            if !self.effects.contains_key(id) {
                self.begin(rollout);
                self.effects.insert(id.clone(), Vec::new());
            }
        }
    }

    /// Creates the counters of a rollout, at 0.
    fn begin(&self, rollout: &Rollout) {
        let model = KeyValue::new("model", rollout.head().model.as_str().to_owned());
        for decision in [Decision::Promote, Decision::Rollback, Decision::Continue, Decision::Hold] {
            self.decisions.add(0, &[model.clone(), decision_label(decision)]);
        }
        for metric in &rollout.plan().spec.metrics {
            for result in [MetricResult::Pass, MetricResult::Fail, MetricResult::Undecided, MetricResult::NoData] {
                self.findings.add(0, &[model.clone(), metric_label(&metric.name), result_label(result)]);
            }
        }
    }

    /// Counts a verdict, and shows its effects until the next one.
    pub(crate) fn verdict(&mut self, verdict: &Verdict, spec: &RolloutSpec) {
        let model = KeyValue::new("model", verdict.model.as_str().to_owned());
        self.decisions.add(1, &[model.clone(), decision_label(verdict.decision)]);
        let mut shown = Vec::new();
        for metric in verdict.metrics.iter().filter(|metric| metric.segment.is_all()) {
            let name = metric_label(&metric.metric);
            self.findings.add(1, &[model.clone(), name.clone(), result_label(metric.result)]);
            let labels = vec![model.clone(), name];
            shown.extend(metric.effect.map(|effect| EFFECTS.hold(labels.clone(), effect)));
            shown.extend(of_margin(metric, spec).map(|share| EFFECTS_OF_MARGIN.hold(labels, share)));
        }
        self.effects.insert(verdict.rollout.clone(), shown);
    }
}

/// How much worse the canary is, as a share of the margin.
fn of_margin(metric: &MetricVerdict, spec: &RolloutSpec) -> Option<f64> {
    let margin = metric.margin.filter(|margin| *margin > 0.0 && metric.limit_fail.is_none())?;
    let direction = spec.metrics.iter().find(|known| known.name == metric.metric)?.direction;
    let effect = metric.effect?;
    Some(match direction {
        Direction::LowerIsBetter => effect / margin,
        Direction::HigherIsBetter => -effect / margin,
    })
}

fn metric_label(name: &str) -> KeyValue {
    KeyValue::new("metric", name.to_owned())
}

fn decision_label(decision: Decision) -> KeyValue {
    let name = match decision {
        Decision::Promote => "promote",
        Decision::Rollback => "rollback",
        Decision::Continue => "continue",
        Decision::Hold => "hold",
    };
    KeyValue::new("decision", name)
}

fn result_label(result: MetricResult) -> KeyValue {
    let name = match result {
        MetricResult::Pass => "pass",
        MetricResult::Fail => "fail",
        MetricResult::Undecided => "undecided",
        MetricResult::NoData => "no_data",
    };
    KeyValue::new("verdict", name)
}
