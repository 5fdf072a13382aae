//! Metrics: what is judged, and how much harm is acceptable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::records::Role;

use super::defaults;
use crate::units::Duration;

/// What is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricSpec {
    /// Its name.
    pub name: String,
    /// What kind of quantity it is.
    pub kind: MetricKind,
    /// What is measured.
    pub source: MetricSource,
    /// Which way is worse. Default `lower_is_better`.
    #[serde(default)]
    pub direction: Direction,
    /// How much worse is still acceptable.
    pub margin: Margin,
    /// What it does to the decision. Default `gate`.
    #[serde(default = "defaults::role")]
    pub role: Role,
    /// Names of the segment dimensions in which it is judged too. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// How long after the prediction its label is waited for. Needed for label metrics.
    #[serde(default)]
    pub maturity: Duration,
    /// What a missing label means. Default `exclude`.
    #[serde(default)]
    pub when_missing: WhenMissing,
    /// Weight in the score. Default 1.
    #[serde(default = "defaults::one")]
    pub score_weight: f64,
}

/// What kind of quantity a metric is, and so which test judges it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum MetricKind {
    /// Share of answers for which something is true (test `b2`).
    Rate,
    /// Mean of a quantity with a known range (test `m2`); values outside are clamped to it.
    Mean {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Quantile of a positive quantity (test `q2`).
    Quantile {
        /// Level, such as 0.99.
        level: f64,
    },
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum MetricSource {
    /// 1 for an answer with status 500 or above, or none at all.
    Error,
    /// 1 for an answer nobody can use.
    InvalidOutput,
    /// Latency in milliseconds.
    Latency,
    /// A numeric output.
    Output(String),
    /// 1 when a categorical output has this value.
    Class {
        /// The output.
        output: String,
        /// The value.
        is: String,
    },
    /// A numeric truth from feedback.
    Feedback(String),
    /// 1 when the output, cut at `threshold`, differs from the yes/no label.
    Wrong {
        /// Numeric output.
        output: String,
        /// Label, 0 or 1.
        label: String,
        /// From here on the output means yes. Default 0.5.
        #[serde(default = "defaults::half")]
        threshold: f64,
    },
    /// Squared difference of an output and a label.
    SquaredError {
        /// Numeric output.
        output: String,
        /// Numeric label.
        label: String,
    },
    /// Absolute difference of an output and a label.
    AbsoluteError {
        /// Numeric output.
        output: String,
        /// Numeric label.
        label: String,
    },
}

impl MetricSource {
    /// Whether it needs feedback, and so matures later than the prediction.
    pub fn needs_label(&self) -> bool {
        matches!(self, Self::Feedback(_) | Self::Wrong { .. } | Self::SquaredError { .. } | Self::AbsoluteError { .. })
    }
}

/// Which way is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A higher value is worse.
    #[default]
    LowerIsBetter,
    /// A lower value is worse.
    HigherIsBetter,
}

/// How much worse than control is still acceptable. With both, harm must exceed both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Margin {
    /// In the metric's unit (a share for a rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// As a share of control's value, such as 0.2 for 20 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
}

/// What a missing label means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenMissing {
    /// The truth is unknown: leave the prediction out.
    #[default]
    Exclude,
    /// It did not happen: a click that never came counts as 0.
    Zero,
}
