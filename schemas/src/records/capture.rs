//! Examples of what two versions answered to the same call (topic `captures`, key = model).

use serde::{Deserialize, Serialize};

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Version};

/// A live answer and that of a mirror to the same call, kept as an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The call.
    pub request_id: RequestId,
    /// The model.
    pub model: ModelName,
    /// The rollout in force, if any.
    pub rollout: Option<RolloutId>,
    /// The routing table in force.
    pub generation: Generation,
    /// When both answers were there.
    pub at: EventTime,
    /// `disagreement` or `sample`.
    pub reason: String,
    /// How the answers differ, a sentence each.
    pub differences: Vec<String>,
    /// Body of the request, redacted and cut; `None` when it must not be kept.
    pub request: Option<String>,
    /// Its length as it came.
    pub request_bytes: i64,
    /// What the caller got.
    pub live: CapturedAnswer,
    /// What the mirror answered.
    pub shadow: CapturedAnswer,
}

/// One answer of a captured pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedAnswer {
    /// Who answered.
    pub version: Version,
    /// The part it played.
    pub arm: Arm,
    /// HTTP status; `None` when none came.
    pub status: Option<i32>,
    /// Why there is no good answer, as in a prediction.
    pub error: Option<String>,
    /// How long it took, in microseconds.
    pub latency_us: Option<i64>,
    /// Its body, redacted and cut; `None` when it must not be kept.
    pub body: Option<String>,
    /// Length of the body as it came.
    pub bytes: i64,
}
