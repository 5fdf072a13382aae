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

    /// What stable's number is expected to be where nothing is known of it.
    pub fn usual_value(&self) -> f64 {
        self.kind.usual_value(&self.source, self.maturity.0.as_secs_f64())
    }

    /// Why no canary can fail it while stable's number is `stable`, if so. It then passes once stable's answers show that.
    pub fn cannot_fail_at(&self, stable: f64) -> Option<String> {
        let can = self.limit.is_some() || self.kind.can_fail_at(self.direction, self.margin_or_default(), stable);
        let name = &self.name;
        (!can).then(|| {
            format!("the margin of {name} reaches beyond its range: while stable is at {stable}, no canary can fail it")
        })
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
