//! Authentication and authorization.
//!
//! With tokens, each request must carry one, or the cookie of a [session](super::session) that a token has started. Without tokens,
//! the API listens on loopback only and refuses requests that a web page of another origin could have made, because a browser on
//! the operator's machine can send them too.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serin_access::{Refused, bearer, check_local, check_origin};

use super::{
    session::Session,
    state::{ApiState, Failure},
};
use crate::config::Role;

/// Path whose `POST` changes nothing.
const PLAN: &str = "/v1/plan";
/// Start of the paths of gates, which change nothing.
const GATES: &str = "/v1/gates/";

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    /// By the cookie of a session.
    Cookie,
    /// By the token of the request.
    Token,
    /// By the machine: the controller has no tokens.
    Local,
}

/// The user or program that makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Name of the token. The audit has it as the actor.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) by: By,
    /// End of the session by the controller's clock, in milliseconds.
    pub(super) ends_ms: Option<i64>,
}

impl Caller {
    /// Any caller of a controller without tokens.
    pub(super) fn local() -> Self {
        Self { name: "operator".to_owned(), role: Role::Operator, by: By::Local, ends_ms: None }
    }
}

/// Lets a request through, with its [`Caller`], or refuses it.
pub(super) async fn check(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let caller = identify(&state, request.method(), request.uri(), request.headers())?;
    let path = request.uri().path();
    let reads = is_reading(request.method()) || path == PLAN || path.starts_with(GATES);
    let needed = if reads { Role::Viewer } else { Role::Operator };
    if caller.role < needed {
        let error = format!("{} may read but not act; this request needs the role operator", caller.name);
        return Err(Failure::new(StatusCode::FORBIDDEN, error));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The caller of a request.
///
/// # Errors
/// 401 if the caller is not known, 403 if the request may come from another site's page.
pub(super) fn identify(state: &ApiState, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Failure> {
    let tokens = &state.config().tokens;
    if tokens.is_empty() {
        check_local(method, uri, headers, "controller.tokens")?;
        return Ok(Caller::local());
    }
    check_origin(uri, headers)?;
    if let Some(given) = bearer(headers) {
        return with_token(state, given);
    }
    if let Some(given) = basic(headers).filter(|_| uri.path().starts_with(GATES)) {
        return with_token(state, &given);
    }
    let unknown = |code, error: &str| Failure::new(StatusCode::UNAUTHORIZED, error).coded(code);
    let Some(session) = Session::of(headers) else {
        return Err(unknown("unauthenticated", "a bearer token is needed: `Authorization: Bearer <token>`"));
    };
    let known = tokens.get(&session.name).filter(|known| session.is_signed_with(&known.token));
    let over = || unknown("session_over", "the session is over; sign in again");
    let role = known.filter(|_| state.now_ms() < session.ends_ms).ok_or_else(over)?.role;
    // A browser sends the cookie by itself, and names the page's origin with each change.
    if !is_reading(method) && !headers.contains_key(header::ORIGIN) {
        let error = "a change in a session needs the header `Origin`; programs send a token instead";
        return Err(Failure::new(StatusCode::FORBIDDEN, error).coded("foreign_origin"));
    }
    Ok(Caller { name: session.name, role, by: By::Cookie, ends_ms: Some(session.ends_ms) })
}

/// The password of `Authorization: Basic`, which is a token. Tools that cannot set a header send it for a URL with a user and a password.
fn basic(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = STANDARD.decode(value.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some(String::from_utf8(value).ok()?.split_once(':')?.1.to_owned())
}

/// The caller with this token.
pub(super) fn with_token(state: &ApiState, given: &str) -> Result<Caller, Failure> {
    // All tokens are compared, so that the response time reveals nothing.
    let mut known = None;
    for (name, token) in &state.config().tokens {
        if token.token.is(given) {
            known = Some((name, token.role));
        }
    }
    let unknown = || Failure::new(StatusCode::UNAUTHORIZED, "the token is unknown").coded("unknown_token");
    let (name, role) = known.ok_or_else(unknown)?;
    Ok(Caller { name: name.clone(), role, by: By::Token, ends_ms: None })
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status, refused.error).coded(refused.code)
    }
}
