//! Sessions of the web page: a browser exchanges a token for a cookie, because an event stream cannot send the token.
//!
//! The cookie contains the token's name, the end of the session and their HMAC, with the token as the key. So the controller
//! keeps no sessions: they survive its restart, hold on each controller with the same tokens, and end when the token is
//! removed or replaced.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_access::{Secret, check_local, check_origin};
use sha2::Sha256;

use super::{
    auth::{By, Caller, identify, with_token},
    state::{ApiState, Failure},
};

/// Name of the cookie.
const COOKIE: &str = "serin_session";
/// Length of a session.
const LENGTH_MS: i64 = 12 * 3_600_000;
/// Separates these MACs from other uses of a token as a key.
const PURPOSE: &str = "serin session 1";

/// A session that a cookie names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Name of the token.
    pub(super) name: String,
    /// End of the session by the controller's clock, in milliseconds.
    pub(super) ends_ms: i64,
    mac: Vec<u8>,
}

impl Session {
    /// The session of the request's cookie. It is not authenticated yet, see [`Self::is_signed_with`].
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
        let (name, rest) = value.split_once('.')?;
        let (ends_ms, mac) = rest.split_once('.')?;
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        Some(Self { name, ends_ms: ends_ms.parse().ok()?, mac: URL_SAFE_NO_PAD.decode(mac).ok()? })
    }

    /// Whether the session was made with this token.
    pub(super) fn is_signed_with(&self, token: &Secret) -> bool {
        mac(token, &self.name, self.ends_ms).is_some_and(|mac| mac.verify_slice(&self.mac).is_ok())
    }
}

fn mac(token: &Secret, name: &str, ends_ms: i64) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
    mac.update(format!("{PURPOSE}\0{ends_ms}\0{name}").as_bytes());
    Some(mac)
}

/// The value of the cookie of a session.
fn value(token: &Secret, name: &str, ends_ms: i64) -> Option<String> {
    let mac = URL_SAFE_NO_PAD.encode(mac(token, name, ends_ms)?.finalize().into_bytes());
    Some(format!("{}.{ends_ms}.{mac}", URL_SAFE_NO_PAD.encode(name)))
}

/// The body of `POST /v1/session`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    token: Secret,
}

/// What the caller is, as the answer to each request about the session.
fn shown(state: &ApiState, caller: Option<&Caller>) -> Value {
    json!({
        "signed_in": caller.is_some(),
        "name": caller.map(|caller| &caller.name),
        "role": caller.map(|caller| caller.role),
        "by": caller.map(|caller| caller.by),
        "ends_at": caller.and_then(|caller| caller.ends_ms).map(|ends_ms| ends_ms.saturating_mul(1000)),
        "tokens": !state.config().tokens.is_empty(),
        "build": env!("CARGO_PKG_VERSION"),
    })
}

/// `GET /v1/session`: who the caller is. Without a session the answer is 200 too, with `signed_in: false`.
pub(super) async fn get(State(state): State<ApiState>, request: Request) -> Result<Json<Value>, Failure> {
    let caller = match identify(&state, request.method(), request.uri(), request.headers()) {
        Ok(caller) => Some(caller),
        Err(failure) if failure.status() == StatusCode::UNAUTHORIZED => None,
        Err(failure) => return Err(failure),
    };
    Ok(Json(shown(&state, caller.as_ref())))
}

/// `POST /v1/session`: exchanges a token for a cookie.
pub(super) async fn start(State(state): State<ApiState>, request: Request) -> Result<Response, Failure> {
    check_page(&state, &request)?;
    let bytes = axum::body::to_bytes(request.into_body(), state.config().max_body_bytes).await;
    let bytes = bytes.map_err(|_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large for a token"))?;
    let given: SignIn = serde_json::from_slice(&bytes).map_err(|error| {
        // The error does not quote the body, which may contain the token.
        let at = format!("line {}, column {}", error.line(), error.column());
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is not {{\"token\": \"...\"}} ({at})"))
            .coded("invalid_json")
    })?;
    if state.config().tokens.is_empty() {
        return Ok(Json(shown(&state, Some(&Caller::local()))).into_response());
    }
    let caller = with_token(&state, given.token.expose().trim())?;
    let ends_ms = state.now_ms().saturating_add(LENGTH_MS);
    let token = &state.config().tokens[&caller.name].token;
    let value = value(token, &caller.name, ends_ms).unwrap_or_default();
    let caller = Caller { by: By::Cookie, ends_ms: Some(ends_ms), ..caller };
    Ok(with_cookie(&state, &value, LENGTH_MS / 1000, Json(shown(&state, Some(&caller))).into_response()))
}

/// `DELETE /v1/session`: removes the cookie.
pub(super) async fn end(State(state): State<ApiState>, request: Request) -> Result<Response, Failure> {
    check_page(&state, &request)?;
    Ok(with_cookie(&state, "", 0, Json(shown(&state, None)).into_response()))
}

/// Refuses requests of other sites' pages. Signing in needs no access.
fn check_page(state: &ApiState, request: &Request) -> Result<(), Failure> {
    let (method, uri, headers): (&Method, _, _) = (request.method(), request.uri(), request.headers());
    if state.config().tokens.is_empty() {
        check_local(method, uri, headers, "controller.tokens")?;
    }
    Ok(check_origin(uri, headers)?)
}

fn with_cookie(state: &ApiState, value: &str, seconds: i64, mut response: Response) -> Response {
    let secure = if state.config().tls.is_some() { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cookie: &str) -> Option<Session> {
        Session::of(&HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())]))
    }

    #[test]
    fn a_session_is_bound_to_its_token_name_and_end() {
        let (token, other) = (Secret::new("0123456789abcdef"), Secret::new("0123456789abcdeg"));
        for name in ["ada", "a.b=c; d", "modèle"] {
            let value = value(&token, name, 1000).unwrap();
            let session = read(&format!("theme=dark; {COOKIE}={value}")).unwrap();
            assert_eq!((session.name.as_str(), session.ends_ms), (name, 1000));
            assert!(session.is_signed_with(&token) && !session.is_signed_with(&other));
            assert!(!Session { ends_ms: 2000, ..session.clone() }.is_signed_with(&token));
            assert!(!Session { name: "root".to_owned(), ..session.clone() }.is_signed_with(&token));
            assert!(!Session { mac: Vec::new(), ..session }.is_signed_with(&token));
        }
        for bad in ["", "a", "a.b", "a.b.c", "YQ.1.!", "!.1.YQ", "YQ.99999999999999999999.YQ"] {
            assert_eq!(read(&format!("{COOKIE}={bad}")), None, "{bad}");
        }
        assert_eq!(Session::of(&HeaderMap::new()), None);
    }
}
