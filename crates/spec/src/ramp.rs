//! The ramp: assignment, warm-up and steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetSpec, defaults};
use crate::units::{Duration, Share};

/// How requests are assigned to arms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AssignmentSpec {
    /// Key whose salted hash determines the arm. Default: each request is assigned at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// Requests that are sent to a given arm before the split. The first match applies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetSpec>,
}

/// Where the sticky key of a request is found. A request without the key is assigned at random.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyKey {
    /// A request header.
    Header(String),
    /// A cookie of the request.
    Cookie(String),
    /// A JSON pointer (RFC 6901) into the request body.
    Json(String),
    /// A parameter of an Open Inference Protocol request.
    Parameter(String),
    /// The session or conversation: the headers `x-session-id`, `mcp-session-id`, `x-conversation-id`, then in the body
    /// `conversation` (or its `id`), `conversation_id`, `session_id`, the same under `metadata`, `previous_response_id`.
    Session,
    /// The sequence of a stateful model, as Triton names it: the parameter `sequence_id`.
    Sequence,
}

/// Warm-up: what is learned from stable traffic before the first canary request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Warmup {
    /// Number of stable's answers that warm-up needs. Default 1000.
    #[serde(default = "defaults::min_events")]
    pub min_events: u64,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { min_events: defaults::min_events() }
    }
}

/// One step of the ramp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// The canary's share of the traffic.
    #[serde(default, skip_serializing_if = "Share::is_none")]
    pub weight: Share,
    /// Share of the calls that are mirrored to the canary, instead of a weight. Callers only see stable's answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Share>,
    /// How long the step lasts.
    #[serde(default)]
    pub bake: Bake,
    /// What the gates must show before the next step. Default: `pass` in the last step, `no_fail` in the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<Require>,
    /// Rates and means pass in this step at a fixed number of planned looks, instead of by an e-process that may pass at any time.
    /// Only allowed on the last step that requires a pass. Default: e-processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_sequential: Option<GroupSequential>,
    /// An approval that the rollout waits for before the next step. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approval>,
}

/// An approval that a step needs after its evidence is complete. A rollback never waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Approval {
    /// The access role that may approve. Default `operator`.
    #[serde(default)]
    pub by: Approver,
    /// How long the rollout waits for the approval, in event time, before `otherwise` applies. Default 4 h.
    #[serde(default = "defaults::approve_within")]
    pub within: Duration,
    /// What happens without a decision within `within`. Default `hold`.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// Whether a marginal step also asks for the approval, instead of being held until `holdMax`. Default false.
    #[serde(default)]
    pub marginal: bool,
}

/// The access role that may approve a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approver {
    /// A token of the controller with the role `operator`.
    #[default]
    Operator,
}

/// What happens when an approval is not given in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// Stay at the current weight, and report it once.
    #[default]
    Hold,
    /// Roll back to stable. This is not a finding against the canary.
    Rollback,
}

/// A group-sequential rule for PASS. It is planned before the step starts and ends when the planned answers have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupSequential {
    /// Number of the canary's answers in the step at the last look.
    pub answers: u64,
    /// Number of looks, spread evenly over the planned answers. Default 5, at most 10.
    #[serde(default = "defaults::looks")]
    pub looks: u32,
}

/// How long a step lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bake {
    /// Minimum length of the step, in event time. Default 10 min.
    #[serde(default = "defaults::bake_min")]
    pub min: Duration,
    /// Maximum length of the step. After it, the rollout is marginal. Default 4 h.
    #[serde(default = "defaults::bake_max")]
    pub max: Duration,
    /// Minimum number of the canary's answers in the step. Default 0.
    #[serde(default)]
    pub min_events: u64,
}

impl Default for Bake {
    fn default() -> Self {
        Self { min: defaults::bake_min(), max: defaults::bake_max(), min_events: 0 }
    }
}

/// What the gates must show before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Require {
    /// No check has failed, and every gate that needs no label has enough answers (`decision.minAnswers`).
    NoFail,
    /// Every gate has passed over all traffic, no segment has failed, and the pessimistic score is high enough.
    Pass,
    /// As `pass`, and every gate has also passed in each of its segments. A segment that cannot be judged blocks the step. The
    /// segment `other`, which is the rest of a dimension, blocks it only if it has traffic.
    PassInSegments,
}
