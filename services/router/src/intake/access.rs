//! Access control of feedback and events over HTTP.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Response, StatusCode, header, request};
use serin_access::{Door, Refused, Writer, Writers, bearer, check_local};
use serin_schemas::{Code, foreign::Refusal};

use crate::{call::answer, report::passing::AnswerBody};

/// Headers that proxies add to a forwarded request.
const PROXIES: [&str; 15] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-original-forwarded-for",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "cf-connecting-ip",
    "true-client-ip",
    "fastly-client-ip",
    "via",
];

/// Permission to send.
pub(super) struct Granted {
    /// The writer that sends; `None`: a process on this machine, where no writers are configured.
    pub(super) writer: Option<Arc<Writer>>,
}

impl Granted {
    /// Checks whether the sender may report on a model.
    pub(super) fn covers(&self, model: &str) -> Result<(), Vec<Refusal>> {
        match &self.writer {
            Some(writer) if !writer.covers(model) => {
                let message = format!("model: writer {} may not send data for {model}", writer.name());
                Err(vec![Refusal::new(Code::NotAllowed, message)])
            }
            _ => Ok(()),
        }
    }
}

/// Checks whether a request to the address `at` may send.
pub(super) fn ask(writers: &Writers, head: &request::Parts, at: SocketAddr, door: Door) -> Result<Granted, Refused> {
    let refused = |status, error: String| Err(Refused { status, code: serin_listener::code_of(status), error });
    if writers.is_empty() {
        let cause = "the configuration has no writers that may send this (writers: see docs/trust.md)";
        if !at.ip().to_canonical().is_loopback() {
            let error = format!("{cause}, and {} is reachable from other machines", at.ip());
            return refused(StatusCode::UNAUTHORIZED, error);
        }
        if let Some(name) = forwarded(&head.headers) {
            let error = format!("{cause}, and the request came through a proxy ({name})");
            return refused(StatusCode::UNAUTHORIZED, error);
        }
        check_local(&head.method, &head.uri, &head.headers, "writers")?;
        return Ok(Granted { writer: None });
    }
    let Some(token) = bearer(&head.headers) else {
        let error = "send a writer's token: `Authorization: Bearer <token>` (writers in the configuration)";
        return refused(StatusCode::UNAUTHORIZED, error.to_owned());
    };
    let Some(writer) = writers.find(token) else {
        return refused(StatusCode::UNAUTHORIZED, "no configured writer has this token".to_owned());
    };
    if !writer.may(door) {
        let error = format!("writer {} may not send {} (`may` in the configuration)", writer.name(), door.as_str());
        return refused(StatusCode::FORBIDDEN, error);
    }
    Ok(Granted { writer: Some(Arc::clone(writer)) })
}

/// The first header that a proxy added.
fn forwarded(headers: &HeaderMap) -> Option<&'static str> {
    PROXIES.into_iter().find(|name| headers.contains_key(*name))
}

/// The answer to a request that may not send.
pub(super) fn answer(refused: &Refused) -> Response<AnswerBody> {
    let mut response = answer::error(refused.status, &refused.error);
    if refused.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    }
    // The body is not read.
    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use serin_access::WriterList;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:8000";

    fn writers() -> Writers {
        let list: WriterList = serde_json::from_value(serde_json::json!([
            {"name": "labels", "models": ["*"], "token": "token-of-labels-1"},
            {"name": "logs", "models": ["m"], "may": ["events"], "token": "token-of-the-logs"},
        ]))
        .unwrap();
        Writers::load(&list).unwrap()
    }

    fn status(writers: &Writers, at: &str, door: Door, headers: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::post("/v1/feedback");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        ask(writers, &head, at.parse().unwrap(), door).map_or_else(|refused| refused.status.as_u16(), |_| 202)
    }

    #[test]
    fn without_writers_only_this_machine_may_send() {
        let open = |at: &str, headers: &[(&str, &str)]| status(&Writers::default(), at, Door::Feedback, headers);
        for at in [LOOPBACK, "[::1]:8000", "127.1.2.3:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(open(at, &[("host", "localhost:8000")]), 202, "{at}");
        }
        for at in ["0.0.0.0:8000", "[::]:8000", "10.0.0.7:8000", "[::ffff:10.0.0.7]:1"] {
            assert_eq!(open(at, &[]), 401, "{at}");
            assert_eq!(open(at, &[("authorization", "Bearer anything-at-all-here")]), 401, "{at}");
        }
        for header in PROXIES.into_iter().chain(["X-Real-IP", "CF-Connecting-IP", "True-Client-IP"]) {
            assert_eq!(open(LOOPBACK, &[(header, "10.0.0.7")]), 401, "{header}");
        }
        assert_eq!(open(LOOPBACK, &[("host", "serin.example")]), 403);
        assert_eq!(open(LOOPBACK, &[("host", "localhost:8000"), ("origin", "http://localhost:3000")]), 403);
        assert_eq!(open(LOOPBACK, &[("content-type", "text/plain")]), 415);
    }

    #[test]
    fn with_writers_a_token_is_required_on_loopback_too_and_is_sufficient_on_any_address() {
        let (labels, logs) = ("Bearer token-of-labels-1", "Bearer token-of-the-logs");
        let ask = |at: &str, door, token: &str| status(&writers(), at, door, &[("authorization", token)]);
        for at in [LOOPBACK, "0.0.0.0:8000"] {
            assert_eq!(ask(at, Door::Feedback, labels), 202);
            assert_eq!(ask(at, Door::Feedback, logs), 403);
            assert_eq!(ask(at, Door::Events, labels), 403);
            assert_eq!(ask(at, Door::Events, logs), 202);
            for wrong in ["", "Bearer ", "Bearer x", "Basic token-of-labels-1", "token-of-labels-1"] {
                assert_eq!(ask(at, Door::Feedback, wrong), 401, "{wrong}");
            }
            assert_eq!(status(&writers(), at, Door::Feedback, &[]), 401);
        }
        let through = [("authorization", labels), ("x-forwarded-for", "10.0.0.7"), ("host", "serin.example")];
        assert_eq!(status(&writers(), LOOPBACK, Door::Feedback, &through), 202);
    }
}
