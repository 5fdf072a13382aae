//! Refusals by the server itself, in the form of all others.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};

/// Longest text of a refusal that is kept.
const MOST_BYTES: usize = 8 << 10;

/// What refuses a request before it gets to a handler (a query, a method, a body that is too large) says so in plain text, or not
/// at all: it becomes `{"error": "..."}` like every other failure.
pub async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !status.is_client_error() || response.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = status.canonical_reason().unwrap_or("the request cannot be answered").to_owned();
    let error = if text.is_empty() { reason } else { text };
    let (new, body) = Json(serde_json::json!({ "error": error })).into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, body)
}
