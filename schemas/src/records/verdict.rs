//! Verdicts of the analyzer (topic `verdicts`, key = model): one record per step of `as_of`, with all its evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arm, Segment};
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Version};

/// The analyzer's decision on a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The evidence allows the next step.
    Promote,
    /// The evidence is against the canary.
    Rollback,
    /// The rollout continues to bake.
    Continue,
    /// Something is wrong with the evidence itself. The rollout stays at its weight and reports it.
    Hold,
}

/// How a metric takes part in the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The rollout is rolled back if the metric fails.
    Gate,
    /// The metric only counts in the score.
    Score,
    /// The metric is only reported and does not affect the decision.
    Watch,
}

/// Result of one metric in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricResult {
    /// The canary is shown to be within the margin.
    Pass,
    /// The canary is shown to be beyond the margin. This result is kept for the whole rollout.
    Fail,
    /// The evidence is not sufficient yet.
    Undecided,
    /// The metric is not judged, for the reason in `no_data`.
    NoData,
}

/// Why a metric was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoDataReason {
    /// The canary has no answers.
    NoCanaryTraffic,
    /// The control arm has no answers.
    NoControlTraffic,
    /// Labels have not matured yet.
    LabelsPending,
    /// Labels are missing although they should have arrived.
    LabelsMissing,
    /// No output or feedback had the value.
    ValueMissing,
    /// A writer lost events of one arm.
    EventsLost,
    /// One arm's events are late more often than the other's.
    LateShareDiffers,
    /// The arms' shares of the traffic differ from the configured split.
    SampleRatio,
    /// The arms see different populations.
    SegmentMix,
    /// No mirrored call has both answers.
    NoShadowTraffic,
    /// One arm's answers are unread more often than the other's.
    UnreadShareDiffers,
    /// One arm's answers have the value less often than the other's.
    ValueShareDiffers,
    /// Callers cancel one arm's calls more often than the other's.
    CancelledShareDiffers,
    /// The difference rests on too few units.
    FewUnits,
    /// A writer has sent no heartbeat for the time in question.
    NotHeard,
    /// There are fewer answers than a check needs.
    FewAnswers,
    /// Most answers in warm-up are bad.
    NoBaseline,
    /// Stable itself is failing.
    Outage,
    /// One arm's labels arrive later than the other's.
    LabelDelay,
    /// Events of the rollout's arms name another version.
    ForeignVersion,
    /// No canary can fail the check while stable stays as it is.
    CannotFail,
    /// Labels name another value than an earlier label of the same prediction.
    LabelContradictions,
}

impl NoDataReason {
    /// Whether the reason is a finding about the evidence that stays until an operator acknowledges it. The others are states: they
    /// end by themselves, or are about something new each time.
    pub fn is_finding(self) -> bool {
        match self {
            Self::LabelsMissing
            | Self::ValueMissing
            | Self::LateShareDiffers
            | Self::SampleRatio
            | Self::SegmentMix
            | Self::NoShadowTraffic
            | Self::UnreadShareDiffers
            | Self::ValueShareDiffers
            | Self::CancelledShareDiffers
            | Self::FewUnits
            | Self::NoBaseline
            | Self::LabelDelay
            | Self::ForeignVersion
            | Self::CannotFail => true,
            Self::NoCanaryTraffic
            | Self::NoControlTraffic
            | Self::LabelsPending
            | Self::EventsLost
            | Self::NotHeard
            | Self::FewAnswers
            | Self::Outage
            | Self::LabelContradictions => false,
        }
    }
}

/// How the p-value of a failure was corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Corrected for all hypotheses of the rollout, by their shares of the budget.
    #[default]
    WeightedHolm,
    /// Not corrected, because the metric is only watched.
    None,
}

/// The value of a metric in one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Number of answers (or labels) in the estimate.
    pub n: i64,
    /// A share, a mean or a quantile, in the metric's unit.
    pub value: Option<f64>,
}

/// The latest windows in which the canary was worst. The failure of a canary that became bad late is about these windows, while its
/// estimates cover the whole rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// Start of the first of these windows.
    pub from: EventTime,
    /// End of the last of these windows.
    pub through: EventTime,
    /// Start of the first window in the estimates of the whole rollout.
    pub since: EventTime,
    /// The canary's estimate in these windows.
    pub canary: Estimate,
    /// The control arm's estimate in these windows.
    pub control: Estimate,
    /// Difference canary - control in these windows.
    pub difference: Option<f64>,
}

/// Number of stable's answers in warm-up that had the value of a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Name of the metric.
    pub metric: String,
    /// Number of answers that could have the value.
    pub answers: i64,
    /// Number of answers that had the value.
    pub values: i64,
}

/// The evidence on one metric in one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricVerdict {
    /// Name of the metric.
    pub metric: String,
    /// The segment in which the metric was judged.
    pub segment: Segment,
    /// Role of the metric.
    pub role: Role,
    /// Result of the metric.
    pub result: MetricResult,
    /// Why the metric was not judged, if `result` is `no_data`.
    pub no_data: Option<NoDataReason>,
    /// The canary's estimate since the start of the rollout.
    pub canary: Estimate,
    /// The control arm's estimate over the same windows.
    pub control: Estimate,
    /// Difference canary - control, stratified by window and generation.
    pub effect: Option<f64>,
    /// Lower end of the always-valid interval of the effect.
    pub effect_low: Option<f64>,
    /// Upper end of the always-valid interval of the effect.
    pub effect_high: Option<f64>,
    /// The margin in the unit of the effect, at the control's estimate.
    pub margin: Option<f64>,
    /// For a metric with a limit: the number that the canary must be shown to stay within to pass.
    #[serde(default)]
    pub limit_pass: Option<f64>,
    /// For a metric with a limit: the number beyond which the canary fails. The effect is the difference from this number.
    #[serde(default)]
    pub limit_fail: Option<f64>,
    /// Whether the interval of the effect excludes zero on the good side.
    #[serde(default)]
    pub better: bool,
    /// For a capped mean: the share of the canary's values at the cap. The mean does not contain their actual size.
    #[serde(default)]
    pub at_cap: Option<f64>,
    /// For a metric with parts: the part that the evidence is about, which is a class or a level of the distribution such as `p95`.
    #[serde(default)]
    pub culprit: Option<String>,
    /// Whether the culprit is a class that control never showed.
    #[serde(default)]
    pub culprit_is_new: bool,
    /// If units rather than requests are assigned: the number of answers that count as one independent answer.
    #[serde(default)]
    pub design_effect: Option<f64>,
    /// If units rather than requests are assigned: the effective number of the canary's units in the evidence.
    #[serde(default)]
    pub units: Option<f64>,
    /// ln of the e-value against "not worse than the margin".
    pub ln_e_fail: f64,
    /// ln of the e-value against "worse by at least the margin", since the start of the step.
    pub ln_e_pass: f64,
    /// Anytime-valid p of the failure of this hypothesis alone, before any correction.
    #[serde(default = "certain")]
    pub p_anytime: f64,
    /// How `p_fail` was computed from `p_anytime`.
    #[serde(default)]
    pub correction: Correction,
    /// Anytime-valid p of the failure, after the correction for all hypotheses.
    pub p_fail: f64,
    /// The hypothesis' share of the false-rollback budget.
    pub weight: f64,
    /// End of the window in which the metric failed.
    pub failed_at: Option<EventTime>,
    /// End of the last window in the evidence.
    pub evidence_through: Option<EventTime>,
    /// For a failure: the windows in which the canary was worst.
    #[serde(default)]
    pub harm: Option<Harm>,
    /// One plain sentence.
    pub sentence: String,
}

fn certain() -> f64 {
    1.0
}

/// The evidence on a group of metrics. A group counts once in the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupVerdict {
    /// Name of the group.
    pub group: String,
    /// Result of the group.
    pub result: MetricResult,
    /// Weight of the group in the score.
    pub score_weight: f64,
    /// Share of the false-rollback budget of the group's metrics over all traffic.
    pub weight: f64,
    /// ln of the group's e-value, which is the weighted average of its metrics' e-values over all traffic.
    pub ln_e_fail: f64,
    /// End of the window in which the group failed.
    pub failed_at: Option<EventTime>,
}

/// Totals of one arm since the canary got its first traffic in the rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The arm that is summarized.
    pub arm: Arm,
    /// Version of the arm.
    pub version: Version,
    /// Number of compared answers.
    pub predictions: i64,
    /// Number of answers that are left out of the comparison.
    pub excluded: i64,
    /// Number of compared answers with outcome `failed` (rules version 1: any error).
    pub errors: i64,
    /// Number of compared answers with outcome `unusable`.
    pub invalid: i64,
    /// Number of late events.
    pub late: i64,
    /// Number of lost events.
    pub lost: i64,
    /// Number of compared answers with outcome `refused`.
    #[serde(default)]
    pub refused: i64,
    /// Number of compared answers with outcome `redirected`.
    #[serde(default)]
    pub redirected: i64,
    /// Number of compared answers with outcome `unread`.
    #[serde(default)]
    pub unread: i64,
    /// Number of calls with outcome `cancelled`. They are not compared.
    #[serde(default)]
    pub cancelled: i64,
    /// Number of `cancelled` calls that were cancelled after the head of the answer had reached the caller, which could then know the
    /// version.
    #[serde(default)]
    pub left: i64,
}

/// Something wrong with the evidence itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthIssue {
    /// Kind of the issue.
    pub reason: NoDataReason,
    /// Policy for the issue: `hold`, `rollback`, `warn` or `proceed`.
    pub policy: String,
    /// One plain sentence.
    pub sentence: String,
}

/// A reason for a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The metric.
    pub metric: String,
    /// The segment in which the metric was judged.
    pub segment: Segment,
    /// The sentence of the metric's verdict.
    pub sentence: String,
}

/// The analyzer's verdict at one point in event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// A hash of (rollout, `as_of`, policy), so that the same evidence has the same id.
    pub id: String,
    /// The model of the rollout.
    pub model: ModelName,
    /// Id of the rollout.
    pub rollout: RolloutId,
    /// The generation in force at `as_of`.
    pub generation: Generation,
    /// The step in force at `as_of`; -1 while warming.
    pub step: i32,
    /// The verdict includes all complete windows of maturity 0 up to this time.
    pub as_of: EventTime,
    /// The decision.
    pub decision: Decision,
    /// Reasons for the decision. For a rollback these are the metrics that failed, worst first.
    pub reasons: Vec<Reason>,
    /// Score from 0 to 100 if all undecided metrics fail.
    pub score_low: f64,
    /// Score from 0 to 100 if all undecided metrics pass.
    pub score_high: f64,
    /// ln of the weighted average of all failure e-processes. A rollback needs `ln(1/false_rollback)`.
    pub ln_e_rollback: f64,
    /// Evidence by metric and segment.
    pub metrics: Vec<MetricVerdict>,
    /// Evidence by group of metrics.
    #[serde(default)]
    pub groups: Vec<GroupVerdict>,
    /// Whether the canary is better in at least half of the judged metrics, and in two or more.
    #[serde(default)]
    pub stable_is_out_of_date: bool,
    /// Totals by arm.
    pub arms: Vec<ArmSummary>,
    /// Issues with the evidence.
    pub health: Vec<HealthIssue>,
    /// During warm-up: number of stable's events so far.
    pub warmup_events: Option<i64>,
    /// At the end of warm-up: what was frozen, as JSON (`serin_spec::Frozen`).
    pub frozen: Option<String>,
    /// One sentence for display.
    pub sentence: String,
    /// Version of the program that wrote the verdict.
    #[serde(default)]
    pub build: String,
    /// During warm-up: how many answers had a value for each metric.
    #[serde(default)]
    pub seen: Vec<Seen>,
    /// Version of the rules under which the rollout started, see [`RULES`](super::RULES).
    #[serde(default = "super::control::first_rules")]
    pub rules: i32,
}

impl Verdict {
    /// Whether the analyzer cannot judge the rollout at all: it holds although there is no evidence and no issue with evidence.
    pub fn refuses(&self) -> bool {
        let empty = self.metrics.is_empty() && self.arms.is_empty();
        self.decision == Decision::Hold && empty && self.health.is_empty() && self.reasons.is_empty()
    }
}
