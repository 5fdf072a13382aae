//! Who may do what.
//!
//! With tokens, each request carries one. Without, only loopback is listened on, and requests that a web page of another
//! origin could have made are refused: a browser sends them from the operator's machine too.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};

use super::{ApiState, Failure};
use crate::config::Role;

/// Who makes a request, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) String);

/// Lets a request through, with its [`Caller`], or refuses it.
pub(super) async fn check(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let tokens = &state.config().tokens;
    let caller = if tokens.is_empty() {
        from_this_machine(request.headers(), request.uri())?;
        Caller("operator".to_owned())
    } else {
        let needed =
            if matches!(*request.method(), Method::GET | Method::HEAD) { Role::Viewer } else { Role::Operator };
        let given = bearer(request.headers()).ok_or_else(|| {
            Failure::new(StatusCode::UNAUTHORIZED, "a bearer token is needed: `Authorization: Bearer <token>`")
        })?;
        // All are compared, so that the time tells nothing.
        let mut known = None;
        for (name, token) in tokens {
            if token.token.is(given) {
                known = Some((name, token.role));
            }
        }
        let (name, role) = known.ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "the token is unknown"))?;
        if role < needed {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                format!("{name} may look but not act; this needs the role operator"),
            ));
        }
        Caller(name.clone())
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn from_this_machine(headers: &HeaderMap, uri: &Uri) -> Result<(), Failure> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or("?", |(_, host)| host));
    if host.into_iter().chain(origin).all(is_loopback) {
        return Ok(());
    }
    let error = "without tokens only this machine is answered, by the name localhost, 127.0.0.1 or [::1]; set controller.tokens";
    Err(Failure::new(StatusCode::FORBIDDEN, error))
}

/// Whether `host`, with or without a port, names this machine.
fn is_loopback(host: &str) -> bool {
    let name = if let Some(end) = host.find(']') { &host[..=end] } else { host.split(':').next().unwrap_or_default() };
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for name in ["localhost", "LOCALHOST:8100", "127.0.0.1:8100", "[::1]:8100", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", "", "?", "null"] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
