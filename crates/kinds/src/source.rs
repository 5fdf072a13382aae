//! What a source gives, as far as kinds ask.

use serin_spec::MetricSource;

/// What a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// 0 or 1.
    YesNo,
    /// 0 or 1, or as a class the reason.
    Reason,
    /// A class.
    Class,
    /// A number that is no 0 or 1, nor a count.
    Quantity,
    /// Some number: the file does not say more.
    Number,
}

impl Gives {
    /// What this source gives.
    pub fn of(source: &MetricSource) -> Self {
        match source {
            MetricSource::Failed | MetricSource::Refused | MetricSource::Unusable => Self::Reason,
            MetricSource::Outcome | MetricSource::Status | MetricSource::Class { is: None, .. } => Self::Class,
            MetricSource::Cancelled
            | MetricSource::Class { is: Some(_), .. }
            | MetricSource::Wrong { .. }
            | MetricSource::WrongClass { .. } => Self::YesNo,
            MetricSource::Latency
            | MetricSource::LabelDelay(_)
            | MetricSource::SquaredError { .. }
            | MetricSource::AbsoluteError { .. } => Self::Quantity,
            MetricSource::Output(_) | MetricSource::Feedback(_) => Self::Number,
        }
    }
}
