//! What the analyzer found (topic `verdicts`, key = model): one record per step of `as_of`, with all its evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arm, Segment};
use crate::ids::{EventTime, Generation, ModelName, RolloutId, Version};

/// What to do with the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The evidence allows the next step.
    Promote,
    /// The evidence is against the canary.
    Rollback,
    /// Keep baking.
    Continue,
    /// Something is wrong with the evidence itself: stay and tell.
    Hold,
}

/// What a metric does to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its failure rolls back.
    Gate,
    /// Weighs into the score.
    Score,
    /// Reported, never decides.
    Watch,
}

/// What is known of one metric in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricResult {
    /// Shown to be within the margin.
    Pass,
    /// Shown to be beyond the margin; stays for the whole rollout.
    Fail,
    /// Not known yet.
    Undecided,
    /// Not judged, for the reason given.
    NoData,
}

/// Why a metric was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoDataReason {
    /// No answers of the canary.
    NoCanaryTraffic,
    /// No answers of the control arm.
    NoControlTraffic,
    /// Labels have not matured yet.
    LabelsPending,
    /// Labels should be there and are not.
    LabelsMissing,
    /// No output or feedback carried the value.
    ValueMissing,
    /// A writer lost events of one arm.
    EventsLost,
    /// One arm's events come late more often than the other's.
    LateShareDiffers,
    /// The arms do not hold the shares that were configured.
    SampleRatio,
    /// The arms see different populations.
    SegmentMix,
    /// No mirrored call has both answers.
    NoShadowTraffic,
    /// One arm's answers go unread more often than the other's.
    UnreadShareDiffers,
    /// One arm's answers carry the value less often than the other's.
    ValueShareDiffers,
    /// Callers leave one arm more often than the other.
    CancelledShareDiffers,
    /// The difference rests on too few units.
    FewUnits,
    /// A writer has not been heard for the time in question.
    NotHeard,
    /// Fewer answers than a check counts with.
    FewAnswers,
    /// Most answers of warm-up are bad.
    NoBaseline,
    /// Stable itself is failing.
    Outage,
    /// One arm's labels come later than the other's.
    LabelDelay,
    /// Events of the rollout's arms name another version.
    ForeignVersion,
    /// No canary can fail the check while stable is as it is.
    CannotFail,
}

impl NoDataReason {
    /// Whether it is a finding about the evidence that stays until somebody acknowledges it. The others are states: they end by
    /// themselves, or are each time about something new.
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
            | Self::Outage => false,
        }
    }
}

/// How the corrected p-value of a failure was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// For all hypotheses of the rollout, by their shares of the budget.
    #[default]
    WeightedHolm,
    /// Not at all: the metric is only watched.
    None,
}

/// The value of a metric in one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Number of answers (or labels) behind it.
    pub n: i64,
    /// The estimate: a share, a mean or a quantile in the metric's unit.
    pub value: Option<f64>,
}

/// The latest windows in which the canary was worst: a failure of a canary that turned bad late is about them, while its
/// estimates are about the whole rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// Begin of the first of them.
    pub from: EventTime,
    /// End of the last of them.
    pub through: EventTime,
    /// Begin of the first window behind the estimates beside it.
    pub since: EventTime,
    /// The canary's estimate in them.
    pub canary: Estimate,
    /// The control arm's estimate in them.
    pub control: Estimate,
    /// Difference canary - control in them.
    pub difference: Option<f64>,
}

/// How many answers of stable carried the value of a metric in warm-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Name of the metric.
    pub metric: String,
    /// Answers that could.
    pub answers: i64,
    /// Answers that did.
    pub values: i64,
}

/// The evidence on one metric in one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricVerdict {
    /// Name of the metric.
    pub metric: String,
    /// The segment.
    pub segment: Segment,
    /// Its role.
    pub role: Role,
    /// What is known.
    pub result: MetricResult,
    /// Why it was not judged, when `result` is `no_data`.
    pub no_data: Option<NoDataReason>,
    /// The canary's estimate since the rollout began.
    pub canary: Estimate,
    /// The control arm's estimate over the same windows.
    pub control: Estimate,
    /// Difference canary - control, stratified by window and generation.
    pub effect: Option<f64>,
    /// Lower end of the always-valid interval of the effect.
    pub effect_low: Option<f64>,
    /// Upper end of it.
    pub effect_high: Option<f64>,
    /// The margin in the unit of the effect, at the control's estimate.
    pub margin: Option<f64>,
    /// Where the metric is held against numbers: what the canary must be shown to keep to pass.
    #[serde(default)]
    pub limit_pass: Option<f64>,
    /// The number beyond which it fails; the effect is the difference from it.
    #[serde(default)]
    pub limit_fail: Option<f64>,
    /// Whether the interval of the effect excludes zero on the good side.
    #[serde(default)]
    pub better: bool,
    /// Of a capped mean: the share of the canary's values at the cap, whose size the mean does not see.
    #[serde(default)]
    pub at_cap: Option<f64>,
    /// What the evidence is about where a metric has parts: a class, or a level of the distribution such as `p95`.
    #[serde(default)]
    pub culprit: Option<String>,
    /// Whether the culprit is a class that control never showed.
    #[serde(default)]
    pub culprit_is_new: bool,
    /// Where units rather than requests are assigned: how many answers count as one independent answer.
    #[serde(default)]
    pub design_effect: Option<f64>,
    /// Where units rather than requests are assigned: the effective number of the canary's units behind it.
    #[serde(default)]
    pub units: Option<f64>,
    /// ln of the e-value against "not worse than the margin".
    pub ln_e_fail: f64,
    /// ln of the e-value against "worse by at least the margin", since the step began.
    pub ln_e_pass: f64,
    /// Anytime-valid p of the failure of this hypothesis alone, before any correction.
    #[serde(default = "certain")]
    pub p_anytime: f64,
    /// How `p_fail` was made from it.
    #[serde(default)]
    pub correction: Correction,
    /// Anytime-valid p of the failure, after the correction for all hypotheses.
    pub p_fail: f64,
    /// Share of the false-rollback budget.
    pub weight: f64,
    /// End of the window in which it failed.
    pub failed_at: Option<EventTime>,
    /// End of the last window that entered.
    pub evidence_through: Option<EventTime>,
    /// Of a failure: the windows in which it showed.
    #[serde(default)]
    pub harm: Option<Harm>,
    /// One plain sentence.
    pub sentence: String,
}

fn certain() -> f64 {
    1.0
}

/// What is known of a group of metrics; it counts once in the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupVerdict {
    /// Its name.
    pub group: String,
    /// What is known.
    pub result: MetricResult,
    /// Its weight in the score.
    pub score_weight: f64,
    /// Share of the false-rollback budget of its members over all traffic.
    pub weight: f64,
    /// ln of its e-value: the weighted average of its members' over all traffic.
    pub ln_e_fail: f64,
    /// End of the window in which it failed.
    pub failed_at: Option<EventTime>,
}

/// Totals of one arm since the rollout's canary began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The arm.
    pub arm: Arm,
    /// The version that plays it.
    pub version: Version,
    /// Answers compared.
    pub predictions: i64,
    /// Answers left out.
    pub excluded: i64,
    /// Outcome `failed` among the compared (rules 1: any error).
    pub errors: i64,
    /// Outcome `unusable` among the compared.
    pub invalid: i64,
    /// Late events.
    pub late: i64,
    /// Lost events.
    pub lost: i64,
    /// Outcome `refused` among the compared.
    #[serde(default)]
    pub refused: i64,
    /// Outcome `redirected` among the compared.
    #[serde(default)]
    pub redirected: i64,
    /// Outcome `unread` among the compared.
    #[serde(default)]
    pub unread: i64,
    /// Outcome `cancelled`: the caller left. Not among the compared.
    #[serde(default)]
    pub cancelled: i64,
    /// Of `cancelled`: the caller left after the head of the answer had reached it, so it could know the version.
    #[serde(default)]
    pub left: i64,
}

/// Something wrong with the evidence itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthIssue {
    /// What it is.
    pub reason: NoDataReason,
    /// What the policy says to do about it: `hold`, `rollback`, `warn` or `proceed`.
    pub policy: String,
    /// One plain sentence.
    pub sentence: String,
}

/// What tipped a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The metric.
    pub metric: String,
    /// The segment.
    pub segment: Segment,
    /// The sentence of its verdict.
    pub sentence: String,
}

/// The analyzer's finding at one point of event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// A hash of (rollout, `as_of`, policy): the same evidence has the same id.
    pub id: String,
    /// The model.
    pub model: ModelName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The generation in force at `as_of`.
    pub generation: Generation,
    /// The step in force at `as_of`; -1 while warming.
    pub step: i32,
    /// All complete windows of maturity 0 up to here are in.
    pub as_of: EventTime,
    /// What to do.
    pub decision: Decision,
    /// What tipped it: at a rollback the metrics that failed, worst first.
    pub reasons: Vec<Reason>,
    /// Score if all that is undecided failed, 0 to 100.
    pub score_low: f64,
    /// Score if all that is undecided passed, 0 to 100.
    pub score_high: f64,
    /// ln of the weighted average of all failure e-processes; a rollback needs `ln(1/false_rollback)`.
    pub ln_e_rollback: f64,
    /// Per metric and segment.
    pub metrics: Vec<MetricVerdict>,
    /// Per group of metrics.
    #[serde(default)]
    pub groups: Vec<GroupVerdict>,
    /// Whether the canary is better in at least half of the judged metrics, and in two or more.
    #[serde(default)]
    pub stable_is_out_of_date: bool,
    /// Per arm.
    pub arms: Vec<ArmSummary>,
    /// What is wrong with the evidence.
    pub health: Vec<HealthIssue>,
    /// While warming: stable events seen so far.
    pub warmup_events: Option<i64>,
    /// At the end of warm-up: what was frozen, as JSON (`serin_spec::Frozen`).
    pub frozen: Option<String>,
    /// One sentence for people.
    pub sentence: String,
    /// Version of the program that wrote it.
    #[serde(default)]
    pub build: String,
    /// While warming: which metrics have seen anything.
    #[serde(default)]
    pub seen: Vec<Seen>,
    /// Number of the rules under which the rollout began, see [`RULES`](super::RULES).
    #[serde(default = "super::control::first_rules")]
    pub rules: i32,
}

impl Verdict {
    /// Whether the analyzer cannot judge the rollout at all: it holds without evidence, and nothing is wrong with any.
    pub fn refuses(&self) -> bool {
        let empty = self.metrics.is_empty() && self.arms.is_empty();
        self.decision == Decision::Hold && empty && self.health.is_empty() && self.reasons.is_empty()
    }
}
