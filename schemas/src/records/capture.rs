//! Examples of two versions' answers to the same call (topic `captures`, key = model).

use serde::{Deserialize, Serialize};

use super::Arm;
use crate::ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Version};

/// A live answer and a mirrored answer to the same call, kept as an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Id of the call.
    pub request_id: RequestId,
    /// The model that was called.
    pub model: ModelName,
    /// The rollout in force, if any.
    pub rollout: Option<RolloutId>,
    /// The routing table in force.
    pub generation: Generation,
    /// Time at which both answers were complete.
    pub at: EventTime,
    /// `disagreement` or `sample`.
    pub reason: String,
    /// How the answers differ, one sentence per difference.
    pub differences: Vec<String>,
    /// Body of the request, redacted and truncated; `None` if it must not be kept.
    pub request: Option<String>,
    /// Original length of the request body.
    pub request_bytes: i64,
    /// The answer that the caller got.
    pub live: CapturedAnswer,
    /// The answer of the mirrored version.
    pub shadow: CapturedAnswer,
}

/// One answer of a captured pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedAnswer {
    /// The version that answered.
    pub version: Version,
    /// The arm of the version.
    pub arm: Arm,
    /// HTTP status of the answer; `None` if there was no answer.
    pub status: Option<i32>,
    /// Why there is no good answer, as in a prediction.
    pub error: Option<String>,
    /// Latency of the answer, in microseconds.
    pub latency_us: Option<i64>,
    /// Body of the answer, redacted and truncated; `None` if it must not be kept.
    pub body: Option<String>,
    /// Original length of the body.
    pub bytes: i64,
}
