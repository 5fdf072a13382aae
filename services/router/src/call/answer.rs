//! Answers that the router itself gives. Each error states the problem and the fix in the format of the caller's protocol: JSON with a
//! string `error` like the Open Inference Protocol, an object `error` like `OpenAI`, or a gRPC status.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use serin_schemas::ids::RequestId;

use crate::{
    config::Answers,
    protocol::{
        Wire, grpc,
        headers::{ARM, PREDICTION_ID, VERSION},
        refusal::Refusal,
    },
    report::passing::AnswerBody,
    tables::{route::Route, table::Table},
    upstream::cause::{Cause, Failed},
};

/// A refusal as an answer in a protocol.
pub(crate) fn refusal(refusal: &Refusal, wire: Wire) -> Response<AnswerBody> {
    let mut response = refused(wire, refusal.status(), refusal.reason(), &refusal.to_string(), Map::new());
    if matches!(refusal, Refusal::Method) {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    }
    if matches!(refusal, Refusal::NoRoom | Refusal::Overloaded) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if matches!(
        refusal,
        Refusal::TooLarge | Refusal::Slow | Refusal::Broken | Refusal::NoRoom | Refusal::Host(_) | Refusal::BareLine
    ) {
        // The rest of the body is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A model in the format of `OpenAI`'s protocol.
pub(crate) fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "serin"})
}

/// A JSON error.
pub(crate) fn error(status: StatusCode, text: &str) -> Response<AnswerBody> {
    json(status, &json!({ "error": text }))
}

/// An error in the format of a protocol, with additional details.
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

/// An answer that consists of a gRPC status only.
pub(crate) fn grpc_status(code: u16, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    headers.insert(grpc::STATUS, code.into());
    headers.insert(grpc::MESSAGE, grpc::message(text));
    response
}

/// A successful gRPC answer with one message.
pub(crate) fn grpc_message(message: &[u8]) -> Response<AnswerBody> {
    let trailers = HeaderMap::from_iter([(grpc::STATUS, HeaderValue::from_static("0"))]);
    let mut response = Response::new(AnswerBody::WithTrailers(Some(grpc::framed(message)), Some(Box::new(trailers))));
    response.headers_mut().insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
    response
}

/// The answer if the version failed: 504 for a timeout, 503 if it was not called, otherwise 502.
pub(super) fn upstream_failed(
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
    let mut detail = |name: &str, value: Value| drop(details.insert(name.to_owned(), value));
    detail("model", json!(model));
    detail("cause", json!(cause));
    detail("prediction_id", json!(id));
    let mut text = format!("model {model}: {sentence}");
    if answers.arm_header {
        detail("version", json!(version));
        detail("arm", json!(route.part));
        text = format!("{} of {text}", version.in_words());
    }
    let mut response = refused(wire, status, &cause, &text, details);
    mark(response.headers_mut(), route, HeaderValue::from_str(id.as_str()).ok(), answers);
    response
}

/// Adds the headers that name the version, arm and prediction id. If the configuration hides the version and arm, it also removes such
/// headers of the server.
pub(super) fn mark(headers: &mut HeaderMap, route: &Route, id: Option<HeaderValue>, answers: &Answers) {
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
