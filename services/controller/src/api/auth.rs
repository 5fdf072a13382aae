//! Authentication and authorization.
//!
//! With tokens, each request must carry one. Without tokens, the API listens on loopback only and refuses requests that a web page
//! of another origin could have made, because a browser on the operator's machine can send them too.

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use serin_access::{Refused, bearer, check_local, check_origin};

use super::state::{ApiState, Failure};
use crate::config::Role;

/// The user or program that makes a request, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) String);

/// Lets a request through, with its [`Caller`], or refuses it.
pub(super) async fn check(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let tokens = &state.config().tokens;
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let caller = if tokens.is_empty() {
        check_local(method, uri, headers, "controller.tokens")?;
        Caller("operator".to_owned())
    } else {
        check_origin(uri, headers)?;
        let needed = if matches!(*method, Method::GET | Method::HEAD) { Role::Viewer } else { Role::Operator };
        let given = bearer(headers).ok_or_else(|| {
            Failure::new(StatusCode::UNAUTHORIZED, "a bearer token is needed: `Authorization: Bearer <token>`")
        })?;
        // All tokens are compared, so that the response time reveals nothing.
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
                format!("{name} may read but not act; this request needs the role operator"),
            ));
        }
        Caller(name.clone())
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status, refused.error)
    }
}
