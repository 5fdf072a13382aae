//! What kinds need to know about the values of a source.

use serin_spec::{MetricSource, RankingMeasure};

/// The type of values that a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// 0 or 1.
    YesNo,
    /// 0 or 1, or the reason as a class.
    Reason,
    /// A class.
    Class,
    /// A number that is neither 0 or 1 nor a count.
    Quantity,
    /// A number; the rollout file does not say which type.
    Number,
}

impl SourceType {
    /// The type of values that this source gives.
    pub fn of(source: &MetricSource) -> Self {
        match source {
            MetricSource::Failed | MetricSource::Refused | MetricSource::Unusable => Self::Reason,
            MetricSource::Outcome | MetricSource::Status | MetricSource::Class { is: None, .. } => Self::Class,
            MetricSource::Cancelled
            | MetricSource::Class { is: Some(_), .. }
            | MetricSource::Wrong { .. }
            | MetricSource::WrongClass { .. }
            | MetricSource::Ranking { measure: RankingMeasure::Hit, .. } => Self::YesNo,
            MetricSource::Latency
            | MetricSource::LabelDelay(_)
            | MetricSource::LogLoss { .. }
            | MetricSource::SquaredError { .. }
            | MetricSource::AbsoluteError { .. }
            | MetricSource::Ranking { .. } => Self::Quantity,
            MetricSource::Output(_) | MetricSource::Feedback(_) => Self::Number,
        }
    }
}
