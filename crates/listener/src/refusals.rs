//! Error responses as problem documents (RFC 9457). Client-error responses (4xx) of the framework are rewritten as one.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Map, Value, json};

/// Maximum size of an error text. A longer text is replaced by the status code's reason phrase.
const MAX_ERROR_BYTES: usize = 8 << 10;

/// Content type of a problem document.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A response with an error as a problem document: `code` is stable and for programs, `error` is for people. Its member `error`
/// repeats `detail` for clients that were written before problem documents.
pub fn problem(status: StatusCode, code: &str, error: &str) -> Response {
    problem_with(status, code, error, Map::new())
}

/// Like [`problem`], with further members. They do not replace the document's own.
pub fn problem_with(status: StatusCode, code: &str, error: &str, members: Map<String, Value>) -> Response {
    let own = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("the request cannot be answered"),
        "status": status.as_u16(),
        "code": code,
        "detail": error,
        "error": error,
    });
    let Value::Object(own) = own else { return Response::default() };
    let mut document = members;
    document.extend(own);
    let mut response = Response::new(Body::from(Value::Object(document).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
    response
}

/// The code of an error that has no other cause than its status.
pub fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::UNPROCESSABLE_ENTITY => "invalid",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "bad_request",
    }
}

/// Rewrites a client-error response (4xx) whose content type is not JSON as a [`problem`]. The framework refuses some
/// requests before they reach a handler (a bad query, a wrong method, a body that is too large) and answers in plain text or
/// with an empty body. All other responses are returned unchanged.
pub async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = |value: &HeaderValue| value == PROBLEM || value.as_bytes().starts_with(b"application/json");
    if !status.is_client_error() || response.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = status.canonical_reason().unwrap_or("the request cannot be answered").to_owned();
    let error = if text.is_empty() { reason } else { text };
    let (new, body) = problem(status, code_of(status), &error).into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, body)
}
