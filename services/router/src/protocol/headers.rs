//! Names of headers between callers, this router and model servers that are Serin's own.

use http::HeaderName;

/// Names the model where the path does not.
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-serin-model");
/// Asks for a version; tells which one answered.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Shows that the caller may ask for a version.
pub(crate) const PIN_TOKEN: HeaderName = HeaderName::from_static("x-serin-pin-token");
/// Tells which arm answered.
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-model-arm");
/// The id that joins feedback.
pub(crate) const PREDICTION_ID: HeaderName = HeaderName::from_static("x-prediction-id");
/// Event time of a replayed request.
pub(crate) const EVENT_TIME: HeaderName = HeaderName::from_static("x-serin-event-time");
/// How long a replayed call took, in microseconds, as its server says.
pub(crate) const REPLAYED_LATENCY: HeaderName = HeaderName::from_static("x-serin-latency-us");
/// The caller's own id of the request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest prediction id that is taken from a caller.
pub(crate) const LONGEST_ID: usize = 128;
/// Tells a server that its answer is for nobody.
pub(crate) const MIRROR: HeaderName = HeaderName::from_static("x-serin-mirror");
