//! Metrics: what is judged, and how much harm is acceptable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::records::Role;

use super::{MetricSource, defaults};
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
    /// kind's own margin holds ([`MetricSpec::margin_or_default`]), if it has one.
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

impl MetricSpec {
    /// The margin against control: as written, else that of the kind, else none. Not for a metric with a limit.
    pub fn margin_or_default(&self) -> Margin {
        self.margin.or(self.kind.default_margin()).unwrap_or_default()
    }

    /// Whether it can pass at planned looks ([`super::GroupSequential`]): its effect is one difference that is normal in the large,
    /// and each answer counts in it, so that the planned answers come. All others keep their e-process, and so does `refused`: files
    /// that plan looks were written without it, and its margin may need more answers than they plan.
    pub fn passes_by_looks(&self) -> bool {
        let margin = self.margin_or_default();
        let one_line = self.limit.is_none() && (margin.absolute.is_some() != margin.relative.is_some());
        let normal = matches!(self.kind, MetricKind::Rate | MetricKind::Mean { .. } | MetricKind::CappedMean { .. });
        let complete = !self.source.needs_label() || self.when_missing == WhenMissing::Zero;
        one_line && normal && complete && self.source != MetricSource::Refused
    }

    /// How long after its end a window of this metric is complete: what it needs of a request comes within that. Labels come
    /// within their maturity, the other answer to a mirrored call within one more window.
    pub fn settles_after(&self, window: Duration) -> Duration {
        match self.kind {
            _ if self.source.needs_label() => self.maturity,
            MetricKind::Disagreement => window,
            _ => Duration::default(),
        }
    }
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
    /// Mean of a quantity from 0 without a known upper end (test `m2w`): what lies above the cap counts as the cap.
    CappedMean {
        /// The cap, such as the largest of a thousand of yesterday's values.
        cap: f64,
    },
    /// Quantile of a positive quantity (test `q2`).
    Quantile {
        /// Level, such as 0.99.
        level: f64,
    },
    /// The whole distribution of a positive quantity (test `d2`): `margin.absolute` is the largest difference of the
    /// distribution functions that is acceptable. Default 0.1.
    Distribution,
    /// The mix of classes (test `c2`): `margin.absolute` is by how much the share of any class may change. Default 0.02.
    /// A class that control never showed is judged alone.
    Classes,
    /// Events per answer, where an answer can bring several (test `p2`).
    Count,
    /// Share of mirrored calls whose two answers differ (test `pair`), against a limit.
    Disagreement,
}

impl MetricKind {
    /// What is acceptable when nothing is written.
    pub fn default_margin(&self) -> Option<Margin> {
        let absolute = match self {
            Self::Distribution => Some(0.1),
            Self::Classes => Some(0.02),
            _ => None,
        };
        absolute.map(|absolute| Margin { absolute: Some(absolute), relative: None })
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

/// Numbers that the canary is held against, in the metric's unit (a share for a rate). One given counts for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limit {
    /// To pass, the canary must be shown to be on the good side of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<f64>,
    /// It fails when it is shown to be on the bad side of this; laxer than `pass`, or equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<f64>,
}

impl Limit {
    /// Both numbers, `(pass, fail)`; `None` when nothing is given.
    pub fn both(self) -> Option<(f64, f64)> {
        Some((self.pass.or(self.fail)?, self.fail.or(self.pass)?))
    }
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
