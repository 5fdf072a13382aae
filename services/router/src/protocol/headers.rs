//! Serin's own headers between callers, this router and model servers.

use http::HeaderName;

/// Names the model if the path does not.
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-serin-model");
/// Asks for a version in a request; names the version that answered in an answer.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Authorizes the caller to ask for a version.
pub(crate) const PIN_TOKEN: HeaderName = HeaderName::from_static("x-serin-pin-token");
/// Names the arm that answered.
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-model-arm");
/// The id with which feedback is joined.
pub(crate) const PREDICTION_ID: HeaderName = HeaderName::from_static("x-prediction-id");
/// Event time of a replayed request.
pub(crate) const EVENT_TIME: HeaderName = HeaderName::from_static("x-serin-event-time");
/// Duration of a replayed call in microseconds, as reported by its server.
pub(crate) const REPLAYED_LATENCY: HeaderName = HeaderName::from_static("x-serin-latency-us");
/// The caller's own id of the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest prediction id that is accepted from a caller.
pub(crate) const LONGEST_ID: usize = 128;
/// Marks a mirrored request, whose answer is not sent to a caller.
pub(crate) const MIRROR: HeaderName = HeaderName::from_static("x-serin-mirror");
