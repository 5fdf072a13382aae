//! The names of metrics in sentences.

use serin_spec::{MetricKind, MetricSource, MetricSpec};

use crate::Kind as _;

/// What a metric measures, in words: `error rate`, `p99 latency`.
pub fn noun(metric: &MetricSpec) -> String {
    let kind = metric.kind.noun();
    let what = match &metric.source {
        MetricSource::Failed if metric.kind == MetricKind::Rate => return "error rate".to_owned(),
        MetricSource::Failed => "errors",
        MetricSource::Refused => "refused calls",
        MetricSource::Unusable => "unusable answers",
        MetricSource::Cancelled => "cancelled calls",
        MetricSource::Outcome => "outcomes",
        MetricSource::Latency => "latency",
        MetricSource::LabelDelay(_) => "label delay",
        MetricSource::Output(name) | MetricSource::Feedback(name) => name,
        MetricSource::Class { output, is: Some(is) } => return format!("{kind} {output}={is}"),
        MetricSource::Class { output, is: None } => output,
        MetricSource::Status => "statuses",
        MetricSource::Wrong { .. } | MetricSource::WrongClass { .. } => "wrong answers",
        MetricSource::LogLoss { .. } => "log loss",
        MetricSource::SquaredError { .. } => "squared error",
        MetricSource::AbsoluteError { .. } => "absolute error",
        MetricSource::Ranking { measure, at, .. } => return format!("{kind} {} at {at}", measure.noun()),
    };
    format!("{kind} {what}")
}
