//! Plain sentences about evidence, for the console, the chat and the on-call engineer.

use serin_rollout::{MetricKind, MetricSource, MetricSpec, RolloutSpec};
use serin_schemas::records::{MetricResult, NoDataReason, Segment};
use serin_statistics::Effect;

/// What a metric measures, in words: `error rate`, `p99 latency`.
pub(crate) fn noun(metric: &MetricSpec) -> String {
    let kind = match metric.kind {
        MetricKind::Rate => "rate of".to_owned(),
        MetricKind::Mean { .. } => "mean".to_owned(),
        MetricKind::CappedMean { .. } => "capped mean".to_owned(),
        MetricKind::Quantile { level } => format!("p{}", significant(100.0 * level, 4)),
        MetricKind::Distribution => "distribution of".to_owned(),
        MetricKind::Classes => "mix of".to_owned(),
        MetricKind::Count => "number of".to_owned(),
        MetricKind::Disagreement => "disagreement on".to_owned(),
    };
    let what = match &metric.source {
        MetricSource::Error if metric.kind == MetricKind::Rate => return "error rate".to_owned(),
        MetricSource::Error => "errors",
        MetricSource::InvalidOutput => "unusable answers",
        MetricSource::Latency => "latency",
        MetricSource::Output(name) | MetricSource::Feedback(name) => name,
        MetricSource::Class { output, is: Some(is) } => return format!("{kind} {output}={is}"),
        MetricSource::Class { output, is: None } => output,
        MetricSource::Status => "statuses",
        MetricSource::Wrong { .. } | MetricSource::WrongClass { .. } => "wrong answers",
        MetricSource::SquaredError { .. } => "squared error",
        MetricSource::AbsoluteError { .. } => "absolute error",
    };
    format!("{kind} {what}")
}

/// How values of a metric are written.
#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Milliseconds,
    Plain,
}

fn unit(metric: &MetricSpec) -> Unit {
    match (&metric.kind, &metric.source) {
        (MetricKind::Rate, _) => Unit::Percent,
        (_, MetricSource::Latency) => Unit::Milliseconds,
        _ => Unit::Plain,
    }
}

impl Unit {
    fn value(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{} %", decimals(100.0 * value)),
            Self::Milliseconds => format!("{} ms", significant(value, 3)),
            Self::Plain => significant(value, 3),
        }
    }

    /// A difference or margin, without its sign.
    fn distance(self, value: f64) -> String {
        let value = value.abs();
        match self {
            Self::Percent => match significant(100.0 * value, 2).as_str() {
                "1" => "1 point".to_owned(),
                points => format!("{points} points"),
            },
            Self::Milliseconds => format!("{} ms", significant(value, 2)),
            Self::Plain => significant(value, 2),
        }
    }
}

/// Percentages: one decimal from 1 on, else two significant digits.
fn decimals(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1.0 { format!("{value:.1}") } else { significant(value, 2) }
}

/// A number with so many significant digits, without an exponent and without trailing zeros.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let magnitude = libm::floor(libm::log10(value.abs())) as i32;
    let places = (digits - 1 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn confidence(alpha: f64) -> String {
    format!("{} % confidence", significant(100.0 * (1.0 - alpha), 4))
}

/// The sentence of one metric in one segment.
pub(crate) fn of_metric(
    spec: &RolloutSpec,
    metric: &MetricSpec,
    segment: &Segment,
    result: (MetricResult, Option<NoDataReason>),
    effect: &Effect,
) -> String {
    let place = if segment.is_all() { String::new() } else { format!("for {segment} ") };
    let noun = noun(metric);
    let (Some(canary), Some(control)) = (effect.canary.value, effect.control.value) else {
        let why = result.1.map_or("the evidence is not enough to judge yet", no_data);
        return format!("{place}canary's {noun} is not judged: {why}");
    };
    let unit = unit(metric);
    let both = format!("{place}canary's {noun} is {} against {}", unit.value(canary), unit.value(control));
    let margin = effect.margin.unwrap_or(0.0);
    let tolerance = unit.distance(margin);
    let rest = match result.0 {
        MetricResult::Fail if margin > 0.0 => {
            let sure = confidence(spec.decision.false_rollback);
            format!("at least {tolerance} worse with {sure} at every look")
        }
        MetricResult::Fail => format!("worse with {} at every look", confidence(spec.decision.false_rollback)),
        MetricResult::Pass => {
            format!("at most {tolerance} worse with {}", confidence(spec.decision.false_promotion))
        }
        MetricResult::Undecided if margin > 0.0 => format!("not yet known to be within or beyond {tolerance}"),
        MetricResult::Undecided => "not known to be worse".to_owned(),
        MetricResult::NoData => format!("not judged now: {}", result.1.map_or("no data", no_data)),
    };
    format!("{both}, {rest}")
}

/// Why a metric is not judged.
pub(crate) fn no_data(reason: NoDataReason) -> &'static str {
    match reason {
        NoDataReason::NoCanaryTraffic => "there are no answers of the canary",
        NoDataReason::NoControlTraffic => "there are no answers of the control arm",
        NoDataReason::LabelsPending => "its labels have not matured yet",
        NoDataReason::LabelsMissing => "its labels should be there and are not",
        NoDataReason::ValueMissing => "no answer carried the value",
        NoDataReason::EventsLost => "writers lost events",
        NoDataReason::LateShareDiffers => "one arm's events come late more often than the other's",
        NoDataReason::SampleRatio => "the arms do not hold the configured shares",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1.0, 12.345, 1234.5, 0.012_34, 100.0, 99.99].map(|value| significant(value, 3));
        assert_eq!(texts, ["0", "1", "12.3", "1234", "0.0123", "100", "100"]);
        assert_eq!([0.0, 0.052, 1.0, 23.456].map(decimals), ["0.0", "0.052", "1.0", "23.5"]);
        assert_eq!(confidence(0.01), "99 % confidence");
        assert_eq!(confidence(0.001), "99.9 % confidence");
    }
}
