//! The ramp: assignment, warm-up, steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetSpec, defaults};
use crate::units::{Duration, Share};

/// How a request finds its arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AssignmentSpec {
    /// Key whose salted hash decides. Left out: by chance, per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// Who is sent to an arm before the split; the first that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetSpec>,
}

/// Where the sticky key of a request is found. A request without it is split by chance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyKey {
    /// A request header.
    Header(String),
    /// A cookie.
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

/// What is learned from stable traffic before the first canary request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Warmup {
    /// Answers of stable to see first. Default 1000.
    #[serde(default = "defaults::min_events")]
    pub min_events: u64,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { min_events: defaults::min_events() }
    }
}

/// One entry of the ramp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// The canary's share of the traffic.
    #[serde(default, skip_serializing_if = "Share::is_none")]
    pub weight: Share,
    /// Instead of a weight: share of the calls that the canary gets a copy of. Callers see stable's answers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Share>,
    /// How long it stays.
    #[serde(default)]
    pub bake: Bake,
    /// What the gates must show before the next step. Left out: `pass` in the last step, `no_fail` in the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<Require>,
    /// A fixed number of looks at which rates and means pass in this step, instead of an e-process that may pass at any time.
    /// Only on the last step that requires a pass. Left out: e-processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_sequential: Option<GroupSequential>,
}

/// A group-sequential rule for PASS: planned before the step begins, over when the planned answers are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupSequential {
    /// Answers of the canary in the step at the last look.
    pub answers: u64,
    /// Number of looks, at equal parts of them. Default 5, at most 10.
    #[serde(default = "defaults::looks")]
    pub looks: u32,
}

/// How long a step stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bake {
    /// At least this long, in event time. Default 10 m.
    #[serde(default = "defaults::bake_min")]
    pub min: Duration,
    /// At most this long; then it is marginal. Default 4 h.
    #[serde(default = "defaults::bake_max")]
    pub max: Duration,
    /// At least this many answers of the canary in the step. Default 0.
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
    /// Nothing has failed, and every gate that needs no label has seen enough answers (`decision.minAnswers`).
    NoFail,
    /// Every gate has passed over all traffic, and the pessimistic score is high enough. Segments must not have failed.
    Pass,
    /// The same, and every gate has passed in each of its segments too. A segment that cannot be judged holds the step up; the
    /// rest of a dimension (`other`) only if it has traffic.
    PassInSegments,
}
