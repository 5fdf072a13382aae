//! Browsers that ask whether a page may call (the Fetch standard's CORS). Where the path names the model its servers say; where only
//! the body of the request to come will name it, and for what is the router's own, the router says.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::{config::CorsConfig, report::passing::AnswerBody};

/// How long a browser need not ask again, in seconds.
const MAX_AGE: &str = "600";

/// What a browser says of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cors {
    origin: Option<HeaderValue>,
}

impl Cors {
    /// What the headers of a request say.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self { origin: headers.get(header::ORIGIN).cloned() }
    }

    /// Whether a request only asks whether another one may be made.
    pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Lets the page of the caller read an answer, if it may.
    pub(crate) fn allow(&self, config: &CorsConfig, answer: &mut HeaderMap) {
        let Some(origin) = &self.origin else { return };
        if config.origins.iter().any(|allowed| allowed == "*") {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else if config.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }

    /// The answer to a [preflight](Self::is_preflight).
    pub(crate) fn preflight(config: &CorsConfig, headers: &HeaderMap) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::Whole(None));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        Self::of(headers).allow(config, answer);
        if answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
            answer.extend(asked.map(|asked| (header::ACCESS_CONTROL_ALLOW_HEADERS, asked)));
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        }
        response
    }
}
