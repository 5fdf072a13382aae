//! Rewrites client-error responses (4xx) that are not JSON as JSON.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

/// Maximum size of an error text. A longer text is replaced by the status code's reason phrase.
const MAX_ERROR_BYTES: usize = 8 << 10;

/// A response with an error in JSON.
pub(crate) fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Rewrites a client-error response (4xx) whose content type is not JSON as `{"error": "..."}`. The framework refuses some
/// requests before they reach a handler (a bad query, a wrong method, a body that is too large) and answers in plain text or
/// with an empty body. All other responses are returned unchanged.
pub async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !status.is_client_error() || response.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = status.canonical_reason().unwrap_or("the request cannot be answered").to_owned();
    let error = if text.is_empty() { reason } else { text };
    let (new, body) = problem(status, &error).into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, body)
}
