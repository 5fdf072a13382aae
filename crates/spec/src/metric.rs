//! Metrics: what a rollout judges, and how much harm is acceptable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::records::Role;

use super::{Direction, Filter, FilterSubject, Limit, Margin, MetricKind, MetricSource, defaults};
use crate::units::Duration;

/// A metric: what is measured, how it is judged, and how much harm is acceptable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MetricSpec {
    /// Name of the metric.
    pub name: String,
    /// Kind of quantity that the metric is.
    pub kind: MetricKind,
    /// What the metric measures.
    pub source: MetricSource,
    /// Conditions that an answer must meet to count: `[{label: fraud, is: true}]` turns the rate of blocked payments into recall. An
    /// answer does not count if a condition cannot be decided because the output or label is missing. Default: all answers count.
    #[serde(default, rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Whether lower or higher values are better. Default `lower_is_better`.
    #[serde(default)]
    pub direction: Direction,
    /// How much worse than control the canary may be. A metric has a margin or a limit, never both. If it has neither, the
    /// default margin of its kind applies, if the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
    /// Fixed numbers that the canary is compared with, instead of control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Two numbers agree if they differ by at most this (kind `disagreement`). Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// How the metric takes part in the decision. Default `gate`.
    #[serde(default = "defaults::role")]
    pub role: Role,
    /// Names of the segment dimensions in which the metric is also judged. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// One of the metric's `segments`. Over all traffic, the arms are then compared within each value of this dimension, so that a
    /// different mix of values in the arms is not taken for a difference between the versions. Only for rates, means and capped means
    /// against control. Default: all answers are compared together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stratify_by: Option<String>,
    /// How long to wait for the label after the prediction. Required for metrics that need a label.
    #[serde(default)]
    pub maturity: Duration,
    /// What a missing label means. Default `exclude`.
    #[serde(default)]
    pub when_missing: WhenMissing,
    /// Weight of the metric in the score, or in its group. Default 1.
    #[serde(default = "defaults::one")]
    pub score_weight: f64,
    /// Name of the metric's group. Default: the metric is in no group and counts separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl MetricSpec {
    /// Whether the metric needs feedback, and so matures later than the answer.
    pub fn needs_label(&self) -> bool {
        self.labels().next().is_some()
    }

    /// The labels in feedback that it needs: that of its source first, then those of its filters.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let of_filters = self.filters.iter().filter_map(|filter| match filter.subject() {
            Some(FilterSubject::Label(label)) => Some(label),
            Some(FilterSubject::Output(_) | FilterSubject::Segment(_)) | None => None,
        });
        self.source.label().into_iter().chain(of_filters)
    }
}

/// What a missing label means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenMissing {
    /// The true value is unknown, so the prediction is left out.
    #[default]
    Exclude,
    /// The event did not happen: a click that never came counts as 0.
    Zero,
}
