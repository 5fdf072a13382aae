//! How evidence becomes a decision, and what happens without evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use crate::units::{Duration, Share};

/// How evidence becomes a decision: error rates, score thresholds, and what ends an inconclusive rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DecisionSpec {
    /// Probability that a canary equal to stable is ever rolled back on evidence. Default 1 %.
    #[serde(default = "defaults::false_rollback")]
    pub false_rollback: f64,
    /// Probability that a gate passes although the canary is exactly at its margin. Default 5 %.
    #[serde(default = "defaults::false_promotion")]
    pub false_promotion: f64,
    /// Minimum number of answers of each arm in a step before a check counts for the step. A failure always counts. Default 30.
    #[serde(default = "defaults::min_answers")]
    pub min_answers: u64,
    /// The rollout takes no step while an arm's share of failed calls, or of refused calls, is above this ceiling.
    #[serde(default)]
    pub ceiling: Ceiling,
    /// Minimum pessimistic score in a step that requires `pass`. Default 95.
    #[serde(default = "defaults::promote_score")]
    pub promote_score: f64,
    /// Latched failures roll the canary back when the optimistic score is at or below this. Default 60.
    #[serde(default = "defaults::rollback_score")]
    pub rollback_score: f64,
    /// How long a marginal rollout is held before `onInconclusive` applies. Default 24 h.
    #[serde(default = "defaults::hold_max")]
    pub hold_max: Duration,
    /// What happens when the evidence does not end a hold within `holdMax`. Default `rollback`.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
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
            on_inconclusive: OnInconclusive::default(),
        }
    }
}

/// The rollout takes no step while an arm's share of failed calls, or of refused calls, is above this ceiling, because
/// comparing two failing versions shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ceiling {
    /// The ceiling as a multiple of the share in warm-up. It always leaves at least half of the calls that were good in warm-up.
    /// Default 10.
    #[serde(default = "defaults::ceiling_times")]
    pub times: f64,
    /// Lowest possible ceiling. Default 20 %.
    #[serde(default = "defaults::ceiling_at_least")]
    pub at_least: Share,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { times: defaults::ceiling_times(), at_least: defaults::ceiling_at_least() }
    }
}

impl Ceiling {
    /// The ceiling for a share of `in_warmup` in warm-up.
    pub fn over(&self, in_warmup: f64) -> f64 {
        let times = (self.times * in_warmup).min(f64::midpoint(1.0, in_warmup));
        times.max(self.at_least.fraction())
    }
}

/// What happens when the evidence does not end a hold within `decision.holdMax`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Roll back to stable as "inconclusive". This is not a finding against the canary.
    #[default]
    Rollback,
    /// Go to the next step.
    Promote,
    /// Wait for an operator.
    Hold,
}

/// What happens when something cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Stay at the current weight and report it.
    Hold,
    /// Roll back to stable.
    Rollback,
    /// Only report it.
    Warn,
    /// Report it, and do not let a step wait for what cannot be judged.
    Proceed,
}

impl Policy {
    /// Name of the policy in rollout files and verdicts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Rollback => "rollback",
            Self::Warn => "warn",
            Self::Proceed => "proceed",
        }
    }
}

/// What happens when something cannot be judged, for each cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NoDataPolicies {
    /// An arm has no traffic for longer than a window. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub no_traffic: Policy,
    /// Windows or labels have stopped arriving. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub stale: Policy,
    /// Writers lost events. Default `warn`.
    #[serde(default = "defaults::warn")]
    pub events_lost: Policy,
    /// The arms' shares of the traffic differ from the configured split. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub sample_ratio: Policy,
    /// One arm's events arrive later than the other's. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub late_share: Policy,
    /// Labels are missing although they should have arrived, or one arm gets more labels than the other. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub labels_missing: Policy,
    /// There are answers, but none has the value that a gate needs. In warm-up, `hold` keeps the canary from starting. Default
    /// `hold`. For a metric that is not a gate, this is only reported.
    #[serde(default = "defaults::hold")]
    pub value_missing: Policy,
    /// Most answers in warm-up are failed, refused, redirected or unusable, so there is nothing to compare with. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub baseline: Policy,
    /// Stable itself is failing, or one of the arms is above `decision.ceiling`. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub outage: Policy,
    /// One arm's labels arrive later than the other's, as a `label_delay` metric shows. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub label_delay: Policy,
    /// Warm-up shows that no canary can fail a check while stable stays as it is: its margin reaches beyond the metric's range, or
    /// all values of stable are at the end of that range. Default `warn`.
    #[serde(default = "defaults::warn")]
    pub cannot_fail: Policy,
    /// The arms see different populations: their shares of some segment value differ. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub segment_mix: Policy,
    /// The router read the bodies of one arm's answers less often than those of the other arm. Default `hold`.
    #[serde(default = "defaults::hold")]
    pub unread_share: Policy,
    /// One arm's answers have a metric's value less often than the other's. Default `hold`. For a metric that is only watched, this
    /// is only reported.
    #[serde(default = "defaults::hold")]
    pub value_share: Policy,
    /// Callers cancel one arm's calls before the head of the answer more often than the other's. Default `hold`. For calls that are
    /// cancelled after the head, this is only reported.
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
