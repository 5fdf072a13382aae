//! The words and numbers of a report, the same in all of its forms.

use serin_kinds::Unit;
use serin_rollout::Outcome;
use serin_schemas::{
    ids::EventTime,
    records::{ArmSummary, MetricResult, MetricVerdict, NoDataReason, Phase},
};
use serin_spec::{Direction, RolloutSpec, Share};

use super::Report;

/// A time to the second, UTC: `2013-06-12 18:00:05`; `?` outside of the calendar.
pub(super) fn utc(at: EventTime) -> String {
    let text = at.to_rfc3339().and_then(|text| Some(text.get(..19)?.replace('T', " ")));
    text.unwrap_or_else(|| "?".to_owned())
}

/// A share in 1/10000 as a percentage.
pub(super) fn share(share: i32) -> String {
    Share(share).to_string()
}

/// How a rollout ended, or its phase, in a word or two.
pub(super) fn outcome(report: &Report) -> &'static str {
    match (report.outcome, report.phase) {
        (Some(Outcome::Promoted), _) => "Promoted",
        (Some(Outcome::Evidence), _) => "Rolled back on evidence",
        (Some(Outcome::NoData), _) => "Rolled back: could not be judged",
        (Some(Outcome::Inconclusive), _) => "Rolled back: time ran out, without a finding",
        (Some(Outcome::Aborted), _) => "Ended by a person",
        (Some(Outcome::Superseded), _) => "Ended by a newer rollout",
        (None, Phase::Pending) => "Waits for another rollout",
        (None, Phase::Warming) => "Warming up",
        (None, Phase::Held) => "Held",
        (None, Phase::Paused) => "Paused",
        (None, Phase::Promoted) => "Promoted, monitored",
        (None, _) => "Running",
    }
}

/// Whether the outcome is good, bad, or neither.
pub(super) fn tone(report: &Report) -> &'static str {
    match report.outcome {
        Some(Outcome::Promoted) => "good",
        Some(Outcome::Evidence | Outcome::NoData | Outcome::Inconclusive) => "bad",
        _ => "open",
    }
}

/// The unit of a metric's values and of their difference.
pub(super) fn units(metric: &str, spec: &RolloutSpec) -> (Unit, Unit) {
    let found = spec.metrics.iter().find(|known| known.name == metric);
    found.map_or((Unit::Plain, Unit::Plain), |known| {
        (Unit::of(&known.kind, &known.source), Unit::of_difference(&known.kind, &known.source))
    })
}

/// 1 if a higher value is worse, -1 if a lower one is.
pub(super) fn sign(metric: &str, spec: &RolloutSpec) -> f64 {
    let found = spec.metrics.iter().find(|known| known.name == metric);
    if found.is_some_and(|known| known.direction == Direction::HigherIsBetter) { -1.0 } else { 1.0 }
}

/// The effect that is shown next to an interval.
///
/// The recorded effect weighs each window by its information. With few answers it can be outside the interval, which is then that of
/// both arms over all windows. The difference of the two shown values belongs to that interval.
pub fn effect_within(
    recorded: Option<f64>,
    (low, high): (Option<f64>, Option<f64>),
    canary: Option<f64>,
    control: Option<f64>,
) -> Option<f64> {
    let recorded = recorded?;
    let (low, high) = (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
    let is_within = |effect: &f64| (low..=high).contains(effect);
    let shown = canary.zip(control).map(|(canary, control)| canary - control);
    Some(if is_within(&recorded) {
        recorded
    } else {
        shown.filter(is_within).unwrap_or(recorded.clamp(low, high.max(low)))
    })
}

/// One metric of a verdict, as the cells of a table: metric, segment, canary, control, answers, effect, interval, margin or limit, result.
pub(super) fn row(metric: &MetricVerdict, spec: &RolloutSpec) -> [String; 9] {
    let (unit, difference) = units(&metric.metric, spec);
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| unit.value(value));
    let ends = (metric.effect_low, metric.effect_high);
    let effect = effect_within(metric.effect, ends, metric.canary.value, metric.control.value);
    let interval = match (ends, effect) {
        ((None, None), None) => "-".to_owned(),
        ((low, high), _) => difference.interval(low, high),
    };
    let bound = match (metric.limit_fail, metric.margin) {
        (Some(limit), _) => format!("limit {}", unit.value(limit)),
        (None, Some(margin)) => difference.distance(margin),
        (None, None) => "-".to_owned(),
    };
    [
        metric.metric.clone(),
        metric.segment.to_string(),
        value(metric.canary.value),
        value(metric.control.value),
        format!("{} / {}", metric.canary.n, metric.control.n),
        effect.map_or_else(|| "-".to_owned(), |effect| difference.difference(effect)),
        interval,
        bound,
        result(metric.result, metric.no_data),
    ]
}

/// The head of the table of [`row`].
pub(super) const ROW: [&str; 9] = [
    "metric",
    "segment",
    "canary",
    "control",
    "answers (canary / control)",
    "effect",
    "interval of the effect",
    "margin or limit",
    "result",
];

/// What the effect is, in a sentence.
pub(super) const EFFECT: &str = "The effect is canary - control, each window weighed by its information. So it can differ from the \
     difference of the two values, which are those of all windows together. For a metric with a limit, it is the distance from the limit.";

/// A result in words.
pub(super) fn result(result: MetricResult, no_data: Option<NoDataReason>) -> String {
    match result {
        MetricResult::Pass => "pass".to_owned(),
        MetricResult::Fail => "FAIL".to_owned(),
        MetricResult::Undecided => "undecided".to_owned(),
        // The reason has the name of the record.
        MetricResult::NoData => {
            let reason = no_data.and_then(|reason| serde_json::to_value(reason).ok());
            let reason = reason.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown").replace('_', " ");
            format!("not judged: {reason}")
        }
    }
}

/// The metrics to show of a verdict: those over all traffic, and those that failed in a segment. Failed ones come first.
pub(super) fn shown(metrics: &[MetricVerdict]) -> Vec<&MetricVerdict> {
    let is_shown = |metric: &&MetricVerdict| metric.segment.is_all() || metric.result == MetricResult::Fail;
    let mut shown: Vec<&MetricVerdict> = metrics.iter().filter(is_shown).collect();
    shown.sort_by_key(|metric| metric.result != MetricResult::Fail);
    shown
}

/// The answers of an arm by outcome.
pub(super) fn outcomes(arm: &ArmSummary) -> String {
    let bad = [
        (arm.errors, "failed"),
        (arm.invalid, "unusable"),
        (arm.refused, "refused"),
        (arm.redirected, "redirected"),
        (arm.unread, "unread"),
    ];
    let ok = arm.predictions - bad.iter().map(|(count, _)| count).sum::<i64>();
    let others = bad.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!(", {count} {name}"));
    format!("{} compared: {ok} ok{}", arm.predictions, others.collect::<String>())
}

/// The harm in a sentence.
pub(super) fn harmed(report: &Report) -> Vec<String> {
    let calls = report.calls.iter().flat_map(|calls| &calls.harmed);
    calls
        .map(|harmed| {
            let place = if harmed.segment.is_all() { String::new() } else { format!(" for {}", harmed.segment) };
            format!(
                "{}{place}: about {:.0} of {} answers of {} were bad that would not have been with {} (estimate: answers times the \
                 difference of the rates)",
                harmed.metric, harmed.calls, harmed.answers, report.canary, report.stable
            )
        })
        .collect()
}

/// What the chain of the report means, in two sentences.
pub(super) const CHAIN: &str = "The head is a fingerprint of all events of the rollout. If it was kept elsewhere, it shows that they are still the same.";

/// The command that compares the report with the log. It is also the line by which `--verify` finds the chain in a text.
pub(super) fn chain_line(report: &Report) -> String {
    let chain = &report.chain;
    format!("{} {} {} {}", chain.format, report.rollout, chain.events, chain.head)
}
