//! The rollout spec as a whole: what a person writes in `rollout.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::ids::{ModelName, Span, Version};

use crate::{
    AssignmentSpec, CaptureSpec, DecisionSpec, FeatureSpec, GroupSequential, MetricSpec, MirrorSpec, NoDataPolicies,
    OutputRule, Require, SegmentSpec, ShadowSpec, Step, Warmup, defaults,
    units::{Duration, Share},
};

/// One rollout of a model from its stable to a canary version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Always `serin.dev/v1`.
    pub api_version: String,
    /// Always `Rollout`.
    pub kind: String,
    /// Name of the model, as callers use it.
    #[schemars(with = "String")]
    pub model: ModelName,
    /// The version that serves now.
    pub stable: VersionSpec,
    /// The version on trial.
    pub canary: VersionSpec,
    /// Whether verdicts move traffic.
    #[serde(default)]
    pub mode: Mode,
    /// Who splits the traffic and reports the calls.
    #[serde(default)]
    pub traffic: TrafficSource,
    /// Length of a window of event time. Default 10 s.
    #[serde(default = "defaults::window")]
    pub window: Duration,
    /// How long after its end a window waits for stragglers. Default 0: writers' heartbeats already wait.
    #[serde(default)]
    pub grace: Duration,
    /// So many windows after each change of the traffic enter no comparison of the arms: the canary's servers may still be
    /// cold, and slow answers of one arm come in later windows than the other's. Limits hold in them too. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub settle: u32,
    /// How a request finds its arm.
    #[serde(default)]
    pub assignment: AssignmentSpec,
    /// The control arm's share as a multiple of the canary's (or all there is). Default 10.
    #[serde(default = "defaults::control_ratio")]
    pub control_ratio: f64,
    /// What is learned before the first canary request.
    #[serde(default)]
    pub warmup: Warmup,
    /// The ramp. Weights only grow.
    pub steps: Vec<Step>,
    /// Dimensions along which each metric can be judged.
    #[serde(default)]
    pub segments: Vec<SegmentSpec>,
    /// How outputs are found in answers.
    #[serde(default)]
    pub outputs: Vec<OutputRule>,
    /// What is found in requests and reported like an output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureSpec>,
    /// What is judged. The gates `failed`, `refused` and `unusable` are added when no metric here has their source.
    pub metrics: Vec<MetricSpec>,
    /// Groups of metrics. A group counts once in the score, and shares one part of the error budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupSpec>,
    /// Error rates, score thresholds, ways out.
    #[serde(default)]
    pub decision: DecisionSpec,
    /// What to do when something cannot be judged.
    #[serde(default)]
    pub no_data: NoDataPolicies,
    /// Whether a failed canary call may be answered by stable before the first byte. It still counts as the canary's failure.
    #[serde(default)]
    pub fallback: bool,
    /// How long calls in flight on a version that gets no more traffic may go on; then they are cut. Default 30 s.
    #[serde(default = "defaults::drain")]
    pub drain: Duration,
    /// Limits of the mirror of the canary, in steps with a mirror share.
    #[serde(default)]
    pub mirror: MirrorSpec,
    /// Further versions that get copies of calls from the first step to the end of the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowSpec>,
    /// Which pairs of a live and a mirrored answer are kept as examples. Left out: none, for bodies can be private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// What happens after promotion.
    #[serde(default)]
    pub promotion: PromotionSpec,
    /// What happens when another rollout of the model is running.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// What `serin plan` needs to tell costs.
    #[serde(default)]
    pub plan: PlanSpec,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RolloutSpec {
    /// How long a change of the traffic leaves windows out of the comparison: `settle` windows.
    pub fn settles_for(&self) -> Duration {
        Duration(Span(self.window.0.0.saturating_mul(i64::from(self.settle))))
    }

    /// What the gates must show before the step after this one: what the file says, else `pass` in the last step and `no_fail` in
    /// the others. After the ramp it is what the last one asks for.
    pub fn require(&self, step: usize) -> Require {
        let last = self.steps.len().saturating_sub(1);
        let unsaid = if step >= last { Require::Pass } else { Require::NoFail };
        self.steps.get(step.min(last)).and_then(|step| step.require).unwrap_or(unsaid)
    }

    /// The step in which rates and means pass at planned looks, and these.
    pub fn planned_looks(&self) -> Option<(usize, GroupSequential)> {
        let steps = self.steps.iter().enumerate();
        steps.filter_map(|(index, step)| Some((index, step.group_sequential?))).next_back()
    }
}

/// A version and where it is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionSpec {
    /// Its name.
    #[schemars(with = "String")]
    pub version: Version,
    /// Base URL of its servers. Left out: the router's configuration knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Base URL of its servers for gRPC, if they have another port for it. Left out: `url`, or the router's configuration knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_url: Option<String>,
    /// The name that its servers have for the version, where they want one in paths (`/versions/2`) and gRPC messages. Left out:
    /// they want none, or the router's configuration knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_version: Option<String>,
    /// What one replica of it can do and costs. Only `serin plan` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
}

/// One replica of a version.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Replica {
    /// Requests per second that it serves.
    pub requests_per_second: f64,
    /// Its cost per hour, in the currency of `plan`. Default 0.
    #[serde(default)]
    pub cost_per_hour: f64,
    /// GPUs it occupies. Default 0.
    #[serde(default)]
    pub gpus: u64,
}

/// What `serin plan` needs to tell costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlanSpec {
    /// What one bad answer costs. Default 0.
    #[serde(default)]
    pub cost_per_bad_outcome: f64,
    /// What costs are counted in. Default: nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// A group of metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupSpec {
    /// Name that metrics use.
    pub name: String,
    /// Weight in the score, as that of a metric that stands for itself. Default 1.
    #[serde(default = "defaults::one")]
    pub weight: f64,
}

/// Whether verdicts move traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They do.
    #[default]
    Act,
    /// They are only told.
    Observe,
}

/// Who splits the traffic and reports the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrafficSource {
    /// Serin's routers.
    #[default]
    Router,
    /// Somebody else: predictions on the `predictions` topic name their arm.
    External,
}

/// What happens after promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PromotionSpec {
    /// How long the promoted version is still compared with the holdback. Default 0: not at all.
    #[serde(default)]
    pub monitor: Duration,
    /// Share that stays on the previous version as control meanwhile. Default 5 % when there is a monitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdback: Option<Share>,
}

/// What happens when another rollout of the model is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// The new one is refused.
    #[default]
    Reject,
    /// The new one waits.
    Queue,
    /// The running one ends, its traffic goes to stable, and the new one starts.
    Supersede,
}

/// What warm-up froze: it does not change for the rest of the rollout, so that the statistics stay valid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Frozen {
    /// Per dimension, the values judged alone; all others are `other`.
    pub segments: BTreeMap<String, Vec<String>>,
    /// Answers of stable that warm-up saw.
    pub warmup_events: u64,
}
