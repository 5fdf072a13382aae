//! Answers that the router gives itself: each error names what is wrong and the way out, as the caller's protocol writes errors:
//! JSON with a text `error` like the Open Inference Protocol's, an object `error` like `OpenAI`'s, or a gRPC status.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use serin_schemas::ids::RequestId;

use crate::{
    body::{AnswerBody, BodyError},
    call::{ARM, Failed, LONGEST_ID, PREDICTION_ID, VERSION},
    config::Answers,
    protocol::{Unread, Wire, grpc},
    table::{Route, Table},
    upstream::Cause,
};

/// Why the router turns a request away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no model is named; {}", way_to_name(*.0))]
    NoModel(Wire),
    #[error(
        "model {0:?} is not known here: it has no routing table, and no entry under `models` of the router's configuration"
    )]
    UnknownModel(String),
    #[error("model {model:?} has no version {version:?} here; known: {known}")]
    UnknownVersion { model: String, version: String, known: String },
    #[error(
        "who asks for a version here must {}; without one the router chooses",
        if *.0 { "send the right x-serin-pin-token" } else { "be allowed to (pin.allow of the router's configuration), and nobody is" }
    )]
    MayNotPin(bool),
    #[error("x-prediction-id must have 1 to {LONGEST_ID} visible ASCII characters")]
    BadId,
    #[error("x-serin-event-time must be microseconds since 1970, as a whole number")]
    BadTime,
    #[error("the replay clock was never set; PUT /replay/clock on the admin port, or send x-serin-event-time")]
    NoClock,
    #[error("this path takes POST")]
    Method,
    #[error("a request of HTTP/1.1 has one Host header, and this one has {0}")]
    Host(usize),
    #[error(
        "a line of the request's head ends with a line feed alone; lines end with a carriage return and a line feed"
    )]
    BareLine,
    #[error("the request's body is larger than the limit (limits.body of the router's configuration)")]
    TooLarge,
    #[error("the request's body did not come in time")]
    Slow,
    #[error("the request's body broke off")]
    Broken,
    #[error("the model's name cannot be read: the request's body {}", why_unread(*.0))]
    Unread(Unread),
    #[error(
        "too many request bodies wait in memory (limits.held of the router's configuration); try again in a second"
    )]
    NoRoom,
    #[error("too many calls are in flight; try again")]
    Overloaded,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoModel(_) | Self::UnknownModel(_) | Self::UnknownVersion { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MayNotPin(_) => StatusCode::FORBIDDEN,
            Self::Unread(Unread::Encoding) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge | Self::Unread(Unread::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadId | Self::BadTime | Self::Broken | Self::Unread(_) | Self::Host(_) | Self::BareLine => {
                StatusCode::BAD_REQUEST
            }
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoClock | Self::Overloaded | Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Every word of [`reason`](Self::reason).
    pub(crate) const REASONS: [&str; 16] = [
        "no_model",
        "unknown_model",
        "unknown_version",
        "may_not_pin",
        "bad_id",
        "bad_time",
        "no_clock",
        "method",
        "host",
        "bare_line",
        "too_large",
        "slow",
        "broken",
        "unread_model",
        "no_room",
        "overloaded",
    ];

    /// The word for it in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoModel(_) => "no_model",
            Self::UnknownModel(_) => "unknown_model",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::MayNotPin(_) => "may_not_pin",
            Self::BadId => "bad_id",
            Self::BadTime => "bad_time",
            Self::NoClock => "no_clock",
            Self::Method => "method",
            Self::Host(_) => "host",
            Self::BareLine => "bare_line",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::Unread(_) => "unread_model",
            Self::NoRoom => "no_room",
            Self::Overloaded => "overloaded",
        }
    }

    /// The answer in a protocol.
    pub(crate) fn answer(&self, wire: Wire) -> Response<AnswerBody> {
        let mut response = refused(wire, self.status(), self.reason(), &self.to_string(), Map::new());
        if matches!(self, Self::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        }
        if matches!(self, Self::NoRoom | Self::Overloaded) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::TooLarge | Self::Slow | Self::Broken | Self::NoRoom | Self::Host(_) | Self::BareLine) {
            // The rest of the body is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Why the model's name could not be read from a body.
fn why_unread(why: Unread) -> &'static str {
    match why {
        Unread::TooLarge => {
            "is too large, or too large when decoded (limits.held and limits.body of the router's configuration); send the header x-serin-model"
        }
        Unread::Encoding => {
            "is not encoded as gzip, deflate, br or zstd, or is not what its content-encoding says; send it plain, or with the header x-serin-model"
        }
        Unread::NotJson => "is neither valid JSON nor a whole form",
        Unread::TooDeep => "is nested too deep",
        Unread::TooLong | Unread::UnknownResponse => "has a name for it that is too long",
        Unread::NotScalar => "has no text under `model`",
    }
}

/// How a protocol names the model.
fn way_to_name(wire: Wire) -> &'static str {
    match wire {
        Wire::OpenAi => "put `model` into the JSON body, or send the header x-serin-model",
        Wire::Grpc => {
            "send an uncompressed message of inference.GRPCInferenceService with its model_name, or the metadata x-serin-model"
        }
        Wire::V1 | Wire::V2 | Wire::Plain => {
            "use /v2/models/<model>/infer, /v1/models/<model>:predict, the header x-serin-model, or a path that the \
             router's configuration gives to a model"
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::Slow => Self::Slow,
            BodyError::Broken => Self::Broken,
            BodyError::NoRoom => Self::NoRoom,
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

/// A model as `OpenAI`'s protocol has it.
pub(crate) fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "serin"})
}

/// A JSON error.
pub(crate) fn error(status: StatusCode, text: &str) -> Response<AnswerBody> {
    json(status, &json!({ "error": text }))
}

/// An error in a protocol, with what else there is to say about it.
fn refused(
    wire: Wire,
    status: StatusCode,
    code: &str,
    text: &str,
    mut details: Map<String, Value>,
) -> Response<AnswerBody> {
    match wire {
        Wire::Grpc => return grpc_status(grpc::code(status), text),
        Wire::OpenAi => {
            let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
            let error = json!({"message": text, "type": kind, "param": null, "code": code});
            details.insert("error".to_owned(), error);
        }
        Wire::V1 | Wire::V2 | Wire::Plain => drop(details.insert("error".to_owned(), text.into())),
    }
    json(status, &Value::Object(details))
}

/// An answer that is nothing but a gRPC status.
fn grpc_status(code: u16, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    headers.insert(grpc::STATUS, code.into());
    headers.insert(grpc::MESSAGE, grpc::message(text));
    response
}

/// A good gRPC answer with one message.
pub(crate) fn grpc_message(message: &[u8]) -> Response<AnswerBody> {
    let trailers = HeaderMap::from_iter([(grpc::STATUS, HeaderValue::from_static("0"))]);
    let mut response = Response::new(AnswerBody::WithTrailers(Some(grpc::framed(message)), Some(Box::new(trailers))));
    response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    response
}

/// No version could answer: 504 for a timeout, 503 when it was not called, else 502.
pub(crate) fn upstream_failed(
    wire: Wire,
    table: &Table,
    route: &Route,
    id: &RequestId,
    failed: Failed,
    answers: &Answers,
) -> Response<AnswerBody> {
    let (cause, sentence, status) = match failed {
        Failed::Cause(cause @ (Cause::Shed | Cause::Full)) => {
            (cause.as_str().to_owned(), cause.sentence(), StatusCode::SERVICE_UNAVAILABLE)
        }
        Failed::Cause(Cause::Timeout) => ("timeout".to_owned(), Cause::Timeout.sentence(), StatusCode::GATEWAY_TIMEOUT),
        Failed::Cause(cause) => (cause.as_str().to_owned(), cause.sentence(), StatusCode::BAD_GATEWAY),
        Failed::Status(status) => (format!("status_{}", status.as_u16()), "its server failed", StatusCode::BAD_GATEWAY),
    };
    let (model, version) = (&table.record.model, &route.version);
    let mut details = Map::new();
    let mut tell = |name: &str, value: Value| drop(details.insert(name.to_owned(), value));
    tell("model", json!(model));
    tell("cause", json!(cause));
    tell("prediction_id", json!(id));
    let mut text = format!("model {model}: {sentence}");
    if answers.arm_header {
        tell("version", json!(version));
        tell("arm", json!(route.part));
        text = format!("{} of {text}", version.in_words());
    }
    let mut response = refused(wire, status, &cause, &text, details);
    mark(response.headers_mut(), route, HeaderValue::from_str(id.as_str()).ok(), answers);
    response
}

/// Says who answered, unless that is not to be told: then not in a server's words either.
pub(crate) fn mark(headers: &mut HeaderMap, route: &Route, id: Option<HeaderValue>, answers: &Answers) {
    if answers.arm_header {
        if let Some(version) = &route.header {
            headers.insert(VERSION, version.clone());
        }
        headers.insert(ARM, HeaderValue::from_static(route.part));
    } else {
        headers.remove(VERSION);
        headers.remove(ARM);
    }
    if let Some(id) = id {
        headers.insert(PREDICTION_ID, id);
    }
}
