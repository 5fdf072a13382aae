//! The rollout spec as a whole: the content of `rollout.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::ids::{ModelName, Span, Version};

use crate::{
    AssignmentSpec, CaptureSpec, DecisionSpec, FeatureSpec, GroupSequential, MetricSpec, MirrorSpec, NoDataPolicies,
    OutputRule, Require, Schedule, SegmentSpec, ShadowSpec, Step, TrafficDoor, Warmup, defaults,
    units::{Duration, Share},
};

/// A rollout of a model from its stable version to a canary version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Always `serin.dev/v1`.
    pub api_version: String,
    /// Always `Rollout`.
    pub kind: String,
    /// Name of the model in callers' requests.
    #[schemars(with = "String")]
    pub model: ModelName,
    /// The version that serves traffic now.
    pub stable: VersionSpec,
    /// The version under test.
    pub canary: VersionSpec,
    /// Whether verdicts change the traffic split.
    #[serde(default)]
    pub mode: Mode,
    /// What splits the traffic and reports the calls.
    #[serde(default)]
    pub traffic: TrafficSource,
    /// The door through which the calls arrive with `traffic: external`. Metrics that the door cannot feed are refused, and built-in gates
    /// that it cannot feed are not added. Default: the door is not known, and nothing is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<TrafficDoor>,
    /// Length of a window of event time. Default 10 s.
    #[serde(default = "defaults::window")]
    pub window: Duration,
    /// How long a window waits for late events after its end. Default 0, because writers' heartbeats already allow for delays.
    #[serde(default)]
    pub grace: Duration,
    /// Number of windows after each change of the traffic that are left out of the comparison of the arms. In these windows the
    /// canary's servers may still be cold, and one arm's slow answers fall into later windows than the other's. Limits apply in
    /// these windows too. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub settle: u32,
    /// How requests are assigned to arms.
    #[serde(default)]
    pub assignment: AssignmentSpec,
    /// Share of the control arm as a multiple of the canary's share, as far as there is traffic. Default 10.
    #[serde(default = "defaults::control_ratio")]
    pub control_ratio: f64,
    /// Warm-up: what is learned from stable traffic before the first canary request.
    #[serde(default)]
    pub warmup: Warmup,
    /// A named ramp instead of `steps`: `standard`, `conservative`, `aggressive` or `linear`. Default without `steps`: `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Steps of the ramp. Weights must not decrease. Default: the steps of `schedule`.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Segment dimensions in which metrics can be judged, such as a region.
    #[serde(default)]
    pub segments: Vec<SegmentSpec>,
    /// How outputs are found in answers.
    #[serde(default)]
    pub outputs: Vec<OutputRule>,
    /// Values that are read from requests and reported like outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureSpec>,
    /// Metrics that are judged. The gates `failed`, `refused` and `unusable` are added unless a metric in this list has their source.
    pub metrics: Vec<MetricSpec>,
    /// Groups of metrics. A group counts once in the score, and its metrics share one part of the false-rollback budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupSpec>,
    /// How evidence becomes a decision: error rates, score thresholds, and what ends an inconclusive rollout.
    #[serde(default)]
    pub decision: DecisionSpec,
    /// What happens when something cannot be judged.
    #[serde(default)]
    pub no_data: NoDataPolicies,
    /// Whether stable may answer a canary call that fails before the first byte. The call still counts as the canary's failure.
    #[serde(default)]
    pub fallback: bool,
    /// How long calls that are in flight on a version may continue after it stops getting traffic. Then they are cut. Default 30 s.
    #[serde(default = "defaults::drain")]
    pub drain: Duration,
    /// Limits for mirroring calls to the canary, in steps with a mirror share.
    #[serde(default)]
    pub mirror: MirrorSpec,
    /// Additional versions that get copies of calls from the first step to the end of the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowSpec>,
    /// Which pairs of a live and a mirrored answer are kept as examples. Default: none, because bodies can contain private data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// What happens after promotion.
    #[serde(default)]
    pub promotion: PromotionSpec,
    /// What happens if another rollout of the model is already running.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// What `serin plan` needs to estimate costs.
    #[serde(default)]
    pub plan: PlanSpec,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RolloutSpec {
    /// How long windows are left out of the comparison after a change of the traffic: `settle` windows.
    pub fn settles_for(&self) -> Duration {
        Duration(Span(self.window.0.0.saturating_mul(i64::from(self.settle))))
    }

    /// What the gates must show before the step after this one: the value in the file or, if there is none, `pass` in the last step and `no_fail`
    /// in the others. After the ramp, the requirement of the last step applies.
    pub fn require(&self, step: usize) -> Require {
        let last = self.steps.len().saturating_sub(1);
        let default = if step >= last { Require::Pass } else { Require::NoFail };
        self.steps.get(step.min(last)).and_then(|step| step.require).unwrap_or(default)
    }

    /// The index of the step in which rates and means pass at planned looks, with those looks.
    pub fn planned_looks(&self) -> Option<(usize, GroupSequential)> {
        let steps = self.steps.iter().enumerate();
        steps.filter_map(|(index, step)| Some((index, step.group_sequential?))).next_back()
    }
}

/// A version of the model and where it is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionSpec {
    /// Name of the version.
    #[schemars(with = "String")]
    pub version: Version,
    /// Base URL of the version's servers. Default: the URL in the router's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Base URL of the version's servers for gRPC, if they use another port for it. Default: `url`, or the router's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_url: Option<String>,
    /// The servers' own name for the version, if they expect one in paths (`/versions/2`) and gRPC messages. Default: none, or the
    /// name in the router's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_version: Option<String>,
    /// Capacity and cost of one replica of the version. Only `serin plan` uses this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
}

/// Capacity and cost of one replica of a version.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Replica {
    /// Requests per second that one replica serves.
    pub requests_per_second: f64,
    /// Cost of one replica per hour, in the currency of `plan`. Default 0.
    #[serde(default)]
    pub cost_per_hour: f64,
    /// Number of GPUs that one replica uses. Default 0.
    #[serde(default)]
    pub gpus: u64,
}

/// What `serin plan` needs to estimate costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlanSpec {
    /// Cost of one bad answer. Default 0.
    #[serde(default)]
    pub cost_per_bad_outcome: f64,
    /// Currency of all costs. Default: costs are printed without a currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// A group of metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupSpec {
    /// Name of the group, as metrics refer to it.
    pub name: String,
    /// Weight of the group in the score, compared with that of a metric outside any group. Default 1.
    #[serde(default = "defaults::one")]
    pub weight: f64,
}

/// Whether verdicts change the traffic split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Verdicts change the traffic split.
    #[default]
    Act,
    /// Verdicts are only reported.
    Observe,
}

/// What splits the traffic and reports the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrafficSource {
    /// Serin's routers.
    #[default]
    Router,
    /// Another system. Predictions on the `predictions` topic name their arm.
    External,
}

/// What happens after promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PromotionSpec {
    /// How long the promoted version is compared with the holdback. Default 0: it is not compared.
    #[serde(default)]
    pub monitor: Duration,
    /// Share of the traffic that stays on the previous version as control while `monitor` runs. Default 5 % if `monitor` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdback: Option<Share>,
    /// How long after the end of the rollout `serin undo` may go back to the previous version, whose servers must run that long.
    /// Default 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_previous: Option<Duration>,
}

impl PromotionSpec {
    /// How long after the end of the rollout it may be undone.
    pub fn keeps_previous(&self) -> Duration {
        self.keep_previous.unwrap_or_else(defaults::keep_previous)
    }
}

/// What happens if another rollout of the model is already running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// The new rollout is refused.
    #[default]
    Reject,
    /// The new rollout waits until the running one ends.
    Queue,
    /// The running rollout ends, its traffic goes to stable, and the new rollout starts.
    Supersede,
}

/// What warm-up froze. It does not change for the rest of the rollout, so that the statistics stay valid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Frozen {
    /// The values of each dimension that are judged separately. All others are `other`.
    pub segments: BTreeMap<String, Vec<String>>,
    /// Number of stable's answers in warm-up.
    pub warmup_events: u64,
}
