//! How evidence becomes a decision, and what to do without evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use crate::units::Duration;

/// Error rates, score thresholds, ways out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DecisionSpec {
    /// Chance that a version equal to stable is ever rolled back on evidence. Default 1 %.
    #[serde(default = "defaults::false_rollback")]
    pub false_rollback: f64,
    /// Chance that a gate at its margin passes. Default 5 %.
    #[serde(default = "defaults::false_promotion")]
    pub false_promotion: f64,
    /// Pessimistic score needed where a step requires `pass`. Default 95.
    #[serde(default = "defaults::promote_score")]
    pub promote_score: f64,
    /// Optimistic score at which latched failures roll back. Default 60.
    #[serde(default = "defaults::rollback_score")]
    pub rollback_score: f64,
    /// How long a marginal rollout is held before `on_inconclusive`. Default 24 h.
    #[serde(default = "defaults::hold_max")]
    pub hold_max: Duration,
    /// The way out of a hold that no evidence ends. Default `rollback`.
    #[serde(default)]
    pub on_inconclusive: WayOut,
}

impl Default for DecisionSpec {
    fn default() -> Self {
        Self {
            false_rollback: defaults::false_rollback(),
            false_promotion: defaults::false_promotion(),
            promote_score: defaults::promote_score(),
            rollback_score: defaults::rollback_score(),
            hold_max: defaults::hold_max(),
            on_inconclusive: WayOut::default(),
        }
    }
}

/// The way out of a hold that no evidence ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WayOut {
    /// Back to stable, as "inconclusive": not a finding against the version.
    #[default]
    Rollback,
    /// To the next step.
    Promote,
    /// Wait for a person.
    Hold,
}

/// What to do when something cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Stay at the weight and tell.
    Hold,
    /// Back to stable.
    Rollback,
    /// Tell.
    Warn,
}

/// Per cause, what to do when something cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NoDataPolicies {
    /// An arm has no traffic for longer than a window. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub no_traffic: Policy,
    /// Windows or labels stopped coming. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub stale: Policy,
    /// Writers lost events. Default `warn`.
    #[serde(default = "defaults::warn")]
    pub events_lost: Policy,
    /// The arms do not hold their shares. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub sample_ratio: Policy,
    /// One arm's events come later than the other's. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub late_share: Policy,
    /// Labels should be there and are not, or one arm gets more of them. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub labels_missing: Policy,
    /// The arms see different populations: their shares of some segment value differ. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub segment_mix: Policy,
    /// The router looked into one arm's answers less often than into the other's. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub unread_share: Policy,
    /// One arm's answers carry a metric's value less often than the other's. Default `hold`; of a metric that is only watched
    /// it is told.
    #[serde(default = "defaults::hold")]
    pub value_share: Policy,
    /// Callers leave one arm's calls before the head of the answer more often than the other's. Default `hold`. Of callers who
    /// leave after the head it is only reported.
    #[serde(default = "defaults::hold")]
    pub cancelled_share: Policy,
}

impl Default for NoDataPolicies {
    fn default() -> Self {
        Self {
            no_traffic: Policy::Hold,
            stale: Policy::Hold,
            events_lost: Policy::Warn,
            sample_ratio: Policy::Hold,
            late_share: Policy::Hold,
            labels_missing: Policy::Hold,
            segment_mix: Policy::Hold,
            unread_share: Policy::Hold,
            value_share: Policy::Hold,
            cancelled_share: Policy::Hold,
        }
    }
}
