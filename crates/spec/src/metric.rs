//! Metrics: what is judged, and how much harm is acceptable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::records::Role;

use super::{Direction, Limit, Margin, MetricKind, MetricSource, defaults};
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
    /// How much worse than control is still acceptable. A metric has a margin or a limit, never both; without either the
    /// kind's own margin holds, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
    /// Numbers that the canary is held against instead of control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Two numbers that differ by at most this agree (kind `disagreement`). Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// What it does to the decision. Default `gate`.
    #[serde(default = "defaults::role")]
    pub role: Role,
    /// Names of the segment dimensions in which it is judged too. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// One of its `segments`: over all traffic it compares the arms within each value of it, so that arms with other shares of the
    /// values do not differ for that. For rates, means and capped means against control. Left out: all answers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stratify_by: Option<String>,
    /// How long after the prediction its label is waited for. Needed for label metrics.
    #[serde(default)]
    pub maturity: Duration,
    /// What a missing label means. Default `exclude`.
    #[serde(default)]
    pub when_missing: WhenMissing,
    /// Weight in the score, or in its group. Default 1.
    #[serde(default = "defaults::one")]
    pub score_weight: f64,
    /// Name of the group it belongs to. Left out: it stands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
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
