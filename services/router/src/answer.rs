//! Answers that the router gives itself: each error names what is wrong and the way out, as JSON with `error` like the Open
//! Inference Protocol's.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use serin_schemas::ids::RequestId;

use crate::{
    body::{AnswerBody, BodyError},
    call::{ARM, Failed, LONGEST_ID, PREDICTION_ID, VERSION},
    table::{Route, Table},
    upstream::Cause,
};

/// Why the router turns a request away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no model is named; use /v2/models/<model>/infer, /v1/models/<model>:predict, or the header x-serin-model")]
    NoModel,
    #[error(
        "model {0:?} is not known here: it has no routing table, and no entry under `models` of the router's configuration"
    )]
    UnknownModel(String),
    #[error("model {model:?} has no version {version:?} here; known: {known}")]
    UnknownVersion { model: String, version: String, known: String },
    #[error("x-prediction-id must have 1 to {LONGEST_ID} visible ASCII characters")]
    BadId,
    #[error("x-serin-event-time must be microseconds since 1970, as a whole number")]
    BadTime,
    #[error("the replay clock was never set; PUT /replay/clock on the admin port, or send x-serin-event-time")]
    NoClock,
    #[error("the request's body is larger than the limit (limits.body of the router's configuration)")]
    TooLarge,
    #[error("the request's body did not come in time")]
    Slow,
    #[error("the request's body broke off")]
    Broken,
    #[error("too many calls are in flight; try again")]
    Overloaded,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoModel | Self::UnknownModel(_) | Self::UnknownVersion { .. } => StatusCode::NOT_FOUND,
            Self::BadId | Self::BadTime | Self::Broken => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoClock | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word for it in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::UnknownModel(_) => "unknown_model",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::BadId => "bad_id",
            Self::BadTime => "bad_time",
            Self::NoClock => "no_clock",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::Overloaded => "overloaded",
        }
    }

    /// The answer.
    pub(crate) fn answer(&self) -> Response<AnswerBody> {
        let mut response = error(self.status(), &self.to_string());
        if matches!(self, Self::TooLarge | Self::Slow | Self::Broken) {
            // The rest of the body is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::Slow => Self::Slow,
            BodyError::Broken => Self::Broken,
        }
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON error.
pub(crate) fn error(status: StatusCode, text: &str) -> Response<AnswerBody> {
    json(status, &json!({ "error": text }))
}

/// No version could answer: 504 for a timeout, else 502.
pub(crate) fn upstream_failed(table: &Table, route: &Route, id: &RequestId, failed: Failed) -> Response<AnswerBody> {
    let (cause, sentence, status) = match failed {
        Failed::Cause(Cause::Timeout) => ("timeout".to_owned(), Cause::Timeout.sentence(), StatusCode::GATEWAY_TIMEOUT),
        Failed::Cause(cause) => (cause.as_str().to_owned(), cause.sentence(), StatusCode::BAD_GATEWAY),
        Failed::Status(status) => (format!("status_{}", status.as_u16()), "its server failed", StatusCode::BAD_GATEWAY),
    };
    let (model, version) = (&table.record.model, &route.version);
    let body = json!({
        "error": format!("version {version} of model {model}: {sentence}"),
        "model": model, "version": version, "arm": route.arm.as_str(), "cause": cause, "prediction_id": id,
    });
    let mut response = json(status, &body);
    mark(response.headers_mut(), route, id);
    response
}

/// Says who answered.
pub(crate) fn mark(headers: &mut HeaderMap, route: &Route, id: &RequestId) {
    if let Ok(version) = HeaderValue::from_str(route.version.as_str()) {
        headers.insert(VERSION, version);
    }
    headers.insert(ARM, HeaderValue::from_static(route.arm.as_str()));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(PREDICTION_ID, id);
    }
}
