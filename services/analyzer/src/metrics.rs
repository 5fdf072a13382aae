//! What the analyzer counts about itself.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};
use serin_schemas::records::{Decision, MetricResult, Verdict};

/// Windows that were judged, merged from all partitions.
pub const WINDOWS: &str = "serin_analyzer_windows_total";
/// Partial windows that were not taken, by reason.
pub const REFUSED: &str = "serin_analyzer_windows_refused_total";
/// Verdicts by model and decision.
pub const DECISIONS: &str = "serin_verdicts_total";
/// Findings by model, metric and result, of all traffic (not of segments).
pub const FINDINGS: &str = "serin_verdict_total";
/// Difference canary - control by model and metric, of all traffic.
pub const EFFECT: &str = "serin_verdict_effect";
/// Active rollouts that this process analyses.
pub const ROLLOUTS: &str = "serin_analyzer_rollouts";

/// The instruments. They never influence a verdict.
pub(crate) struct Metrics {
    windows: Counter<u64>,
    refused: Counter<u64>,
    decisions: Counter<u64>,
    findings: Counter<u64>,
    effect: Gauge<f64>,
    rollouts: Gauge<u64>,
    partition: KeyValue,
}

impl Metrics {
    pub(crate) fn new(partition: i32) -> Self {
        let meter = global::meter("serin");
        let counter = |name, text: &'static str| meter.u64_counter(name).with_description(text).build();
        Self {
            windows: counter(WINDOWS, "Windows that were judged, merged from all partitions"),
            refused: counter(REFUSED, "Partial windows that were not taken, by reason"),
            decisions: counter(DECISIONS, "Verdicts by model and decision"),
            findings: counter(FINDINGS, "Findings by model, metric and result, of all traffic"),
            effect: meter
                .f64_gauge(EFFECT)
                .with_description("Difference canary - control by model and metric, of all traffic")
                .build(),
            rollouts: meter.u64_gauge(ROLLOUTS).with_description("Active rollouts that are analysed").build(),
            partition: KeyValue::new("partition", i64::from(partition)),
        }
    }

    pub(crate) fn windows(&self, count: usize) {
        self.windows.add(count as u64, std::slice::from_ref(&self.partition));
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn rollouts(&self, count: usize) {
        self.rollouts.record(count as u64, std::slice::from_ref(&self.partition));
    }

    pub(crate) fn verdict(&self, verdict: &Verdict) {
        let model = KeyValue::new("model", verdict.model.as_str().to_owned());
        let decision = match verdict.decision {
            Decision::Promote => "promote",
            Decision::Rollback => "rollback",
            Decision::Continue => "continue",
            Decision::Hold => "hold",
        };
        self.decisions.add(1, &[model.clone(), KeyValue::new("decision", decision)]);
        for metric in verdict.metrics.iter().filter(|metric| metric.segment.is_all()) {
            let name = KeyValue::new("metric", metric.metric.clone());
            let result = match metric.result {
                MetricResult::Pass => "pass",
                MetricResult::Fail => "fail",
                MetricResult::Undecided => "undecided",
                MetricResult::NoData => "no_data",
            };
            self.findings.add(1, &[model.clone(), name.clone(), KeyValue::new("verdict", result)]);
            if let Some(effect) = metric.effect {
                self.effect.record(effect, &[model.clone(), name]);
            }
        }
    }
}
