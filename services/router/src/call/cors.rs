//! CORS preflight requests (Fetch standard). Where the path names the model, the model's servers answer them. For the
//! router's own paths, and where only the body will name the model, the router answers.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::{config::CorsConfig, report::passing::AnswerBody};

/// How long a browser may cache the answer, in seconds.
const MAX_AGE: &str = "600";

/// CORS data of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cors {
    origin: Option<HeaderValue>,
}

impl Cors {
    /// Reads the headers of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self { origin: headers.get(header::ORIGIN).cloned() }
    }

    /// Whether a request is a CORS preflight request.
    pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Allows the page of the caller to read an answer, if its origin is configured.
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
