//! How evidence becomes a decision, and what to do without evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use crate::units::{Duration, Share};

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
    /// A check counts for a step only with this many answers of each arm in it. A failure counts always. Default 30.
    #[serde(default = "defaults::min_answers")]
    pub min_answers: u64,
    /// The share of calls that fail, or are refused, above which no step is taken.
    #[serde(default)]
    pub ceiling: Ceiling,
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
            min_answers: defaults::min_answers(),
            ceiling: Ceiling::default(),
            promote_score: defaults::promote_score(),
            rollback_score: defaults::rollback_score(),
            hold_max: defaults::hold_max(),
            on_inconclusive: WayOut::default(),
        }
    }
}

/// The share of an arm's calls that fail, or are refused, above which no step is taken: who compares two versions that both
/// fail learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ceiling {
    /// As a multiple of the share in warm-up, which leaves at least half of what was good then. Default 10.
    #[serde(default = "defaults::ceiling_times")]
    pub times: f64,
    /// The ceiling is at least this. Default 20 %.
    #[serde(default = "defaults::ceiling_at_least")]
    pub at_least: Share,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { times: defaults::ceiling_times(), at_least: defaults::ceiling_at_least() }
    }
}

impl Ceiling {
    /// The ceiling where the share was so large in warm-up.
    pub fn over(&self, in_warmup: f64) -> f64 {
        let times = (self.times * in_warmup).min(f64::midpoint(1.0, in_warmup));
        times.max(self.at_least.fraction())
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
    /// Tell, and let no step wait for what cannot be judged.
    Proceed,
}

impl Policy {
    /// Its name in files and verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Rollback => "rollback",
            Self::Warn => "warn",
            Self::Proceed => "proceed",
        }
    }
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
    /// A gate without data: there are answers, and none carries its value. In warm-up `hold` keeps the canary from starting.
    /// Default `hold`; of a metric that is no gate it is told.
    #[serde(default = "defaults::hold")]
    pub value_missing: Policy,
    /// Most answers of warm-up are failed, refused, redirected or unusable: there is nothing to compare with. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub baseline: Policy,
    /// Stable itself is failing, or so much of either arm that no step may be taken (`decision.ceiling`). Default `hold`.
    #[serde(default = "defaults::hold")]
    pub outage: Policy,
    /// One arm's labels come later than the other's, as a `label_delay` metric shows. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub label_delay: Policy,
    /// Warm-up shows that no canary can fail a check while stable is as it is: its margin reaches beyond its range there, or all values of
    /// stable lie at the end of the range. Default `warn`.
    #[serde(default = "defaults::warn")]
    pub cannot_fail: Policy,
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
            value_missing: Policy::Hold,
            baseline: Policy::Hold,
            outage: Policy::Hold,
            label_delay: Policy::Hold,
            cannot_fail: Policy::Warn,
            segment_mix: Policy::Hold,
            unread_share: Policy::Hold,
            value_share: Policy::Hold,
            cancelled_share: Policy::Hold,
        }
    }
}
