//! What a model server asks a model.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

/// One version of a model.
pub(crate) trait Model: Send + Sync + 'static {
    /// Name of the version.
    fn version(&self) -> &str;
    /// The answer to one request with this `id` and these `inputs` tensors.
    fn answer(&self, id: &str, inputs: &Value) -> Answer;
}

/// The answer of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Latency of the answer.
    pub(crate) takes: Duration,
    /// The `outputs` of the response, or an error with its status.
    pub(crate) result: Result<Value, (StatusCode, String)>,
}
