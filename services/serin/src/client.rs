//! A client of the controller's API, for the command line and the demo.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serin_rollout::{
    RolloutState,
    planner::{Applied, Freeze},
};
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{Capture, RouterStatus, Verdict},
};

use crate::{
    cli::{Connection, Remote},
    http::{CertificateProblem, Http, NoAnswer},
};

/// Timeout of an answer: longer than the longest wait that the API allows.
const TIMEOUT: Duration = Duration::from_secs(70);

/// A controller's API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: Http,
    /// The URL as the user gave it.
    base: String,
    /// The normalized URL, without a slash at its end.
    root: String,
    token: Option<String>,
}

/// A request to the API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No controller answers at this address.
    #[error("no controller answers at {base}: {cause}\n{}", fix(base, cause))]
    Away {
        /// Base URL of the API.
        base: String,
        /// Why there is no answer.
        cause: NoAnswer,
    },
    /// The token is missing or does not have the role.
    #[error("{base} refused the request: {message}\nset SERIN_TOKEN to a token with the operator role")]
    Forbidden {
        /// Base URL of the API.
        base: String,
        /// The controller's error message.
        message: String,
    },
    /// There is no such rollout.
    #[error("{0}\n`serin list` shows all rollouts")]
    NotFound(String),
    /// The rollout file has problems. The body lists them.
    #[error("the rollout file has problems")]
    Invalid(Value),
    /// The request conflicts with the present state.
    #[error("{0}")]
    Refused(String),
    /// Any other error response.
    #[error("the controller answered {status}: {message}")]
    Other {
        /// The HTTP status.
        status: StatusCode,
        /// The controller's error message.
        message: String,
    },
}

impl Api {
    /// The API with the options of the command line.
    pub(crate) fn new(remote: &Remote) -> anyhow::Result<Self> {
        Self::connect(&remote.connection)
    }

    /// The API at a connection of the command line.
    pub(crate) fn connect(Connection { api, token, ca_file }: &Connection) -> anyhow::Result<Self> {
        Self::at(api, token.clone(), ca_file.as_deref())
    }

    /// The API at `base`. Its certificate is checked against the PEM file `authorities`, or against the CAs that the system trusts.
    pub(crate) fn at(base: &str, token: Option<String>, authorities: Option<&Path>) -> anyhow::Result<Self> {
        let url = Url::parse(base).with_context(|| format!("--api {base}: write a URL, such as https://serin:8100"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            bail!("--api {base}: write a URL that begins with http:// or https://");
        }
        let http = Http::new(authorities, TIMEOUT).context("--ca-file")?;
        let root = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), root, token })
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Value, ApiError> {
        let away = |cause| ApiError::Away { base: self.base.clone(), cause };
        let not_sent = |cause: String| away(NoAnswer::Failed(cause));
        // Not as a `Url`, which would resolve an encoded `..` and leave the path.
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.root));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(Bytes::from).unwrap_or_default());
        let request = request.map_err(|error| not_sent(error.to_string()))?;
        let (head, body) = self.http.send(request).await.map_err(away)?.into_parts();
        let (status, text) = (head.status, String::from_utf8_lossy(&body).into_owned());
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(body);
        }
        let message = body["error"].as_str().map_or_else(|| body.to_string(), str::to_owned);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ApiError::Forbidden { base: self.base.clone(), message }
            }
            StatusCode::NOT_FOUND => ApiError::NotFound(message),
            StatusCode::CONFLICT => ApiError::Refused(message),
            StatusCode::UNPROCESSABLE_ENTITY => ApiError::Invalid(body),
            _ => ApiError::Other { status, message },
        })
    }

    /// Starts a rollout from the text of a rollout file.
    pub(crate) async fn apply(&self, spec: &str) -> Result<Value, ApiError> {
        self.call(Method::POST, "/v1/rollouts?wait_ms=10000", Some(spec.to_owned())).await
    }

    /// All rollouts, newest first.
    pub(crate) async fn rollouts(&self) -> Result<Value, ApiError> {
        self.call(Method::GET, "/v1/rollouts", None).await
    }

    /// The state of one rollout, by its id or its model.
    pub(crate) async fn state(&self, rollout: &str) -> Result<RolloutState, ApiError> {
        self.typed(&rollout_path(rollout, "")).await
    }

    /// The state of one rollout, and whether routers use its table. `None`: it waits for another rollout, or an older controller does
    /// not report it.
    pub(crate) async fn shown(&self, rollout: &str) -> Result<(RolloutState, Option<Applied>), ApiError> {
        let body = self.call(Method::GET, &rollout_path(rollout, ""), None).await?;
        let applied = serde_json::from_value(body["applied"].clone()).unwrap_or_default();
        Ok((read(body)?, applied))
    }

    /// How far a rollout's model is planned: the event time, and the generation at that time.
    pub(crate) async fn progress(&self, rollout: &str) -> Result<(Option<EventTime>, Generation), ApiError> {
        let body = self.call(Method::GET, &rollout_path(rollout, "/progress"), None).await?;
        let generation = Generation(body["generation"].as_i64().unwrap_or_default());
        Ok((body["planned_through"].as_i64().map(EventTime), generation))
    }

    /// The newest verdict on a rollout, with all its evidence.
    pub(crate) async fn verdict(&self, rollout: &str) -> Result<Verdict, ApiError> {
        self.typed(&rollout_path(rollout, "/verdict")).await
    }

    /// The verdicts on a rollout over time, thinned.
    pub(crate) async fn verdicts(&self, rollout: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, &rollout_path(rollout, "/verdicts"), None).await
    }

    /// The report of a rollout in the form `json`, `html` or `markdown`.
    pub(crate) async fn report(&self, rollout: &str, form: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, &rollout_path(rollout, &format!("/report?format={form}")), None).await
    }

    /// All rollouts since a time of the wall clock, in numbers.
    pub(crate) async fn fleet(&self, from: EventTime) -> Result<Value, ApiError> {
        self.call(Method::GET, &format!("/v1/fleet?from={}", from.0), None).await
    }

    /// Pairs of answers that routers captured.
    pub(crate) async fn examples(&self, rollout: &str, limit: usize) -> Result<Vec<Capture>, ApiError> {
        self.typed(&rollout_path(rollout, &format!("/examples?limit={limit}"))).await
    }

    /// The profiles of a rollout, with these query parameters.
    pub(crate) async fn profile(&self, rollout: &str, query: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, &rollout_path(rollout, &format!("/profile?{query}")), None).await
    }

    /// The dimensions in which the arms of a rollout differ most.
    pub(crate) async fn contrasts(&self, rollout: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, &rollout_path(rollout, "/contrasts"), None).await
    }

    async fn typed<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        read(self.call(Method::GET, path, None).await?)
    }

    /// The status reports of all routers.
    pub(crate) async fn routers(&self) -> Result<Vec<RouterStatus>, ApiError> {
        self.typed("/v1/routers").await
    }

    /// The events of a rollout after event number `after`. Waits up to `wait` for a new one.
    pub(crate) async fn events(&self, rollout: &str, after: u64, wait: Duration) -> Result<Value, ApiError> {
        let path = rollout_path(rollout, &format!("/events?after={after}&wait_ms={}", wait.as_millis()));
        self.call(Method::GET, &path, None).await
    }

    /// Acts on a rollout, for example with `promote`. The body has the reason and the options of the verb.
    pub(crate) async fn act(&self, rollout: &str, verb: &str, body: Value) -> Result<Value, ApiError> {
        let path = rollout_path(rollout, &format!("/{verb}?wait_ms=10000"));
        self.call(Method::POST, &path, Some(body.to_string())).await
    }

    /// What is frozen.
    pub(crate) async fn freezes(&self) -> Result<Vec<Freeze>, ApiError> {
        self.typed("/v1/freezes").await
    }

    /// Starts or ends a freeze, by the verb.
    pub(crate) async fn freeze(&self, verb: &str, body: Value) -> Result<Value, ApiError> {
        self.call(Method::POST, &format!("/v1/{verb}?wait_ms=10000"), Some(body.to_string())).await
    }

    /// Sends every model's traffic to stable now.
    pub(crate) async fn stop_all(&self, reason: &str) -> Result<Value, ApiError> {
        self.call(Method::POST, "/v1/stop-all?wait_ms=10000", Some(json!({"reason": reason}).to_string())).await
    }
}

/// Reads the body of an answer.
pub(crate) fn read<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(|error| ApiError::Other {
        status: StatusCode::OK,
        message: format!("this version of serin cannot read the answer: {error}"),
    })
}

/// The path of a rollout. Its name is percent-encoded, so it is always one path segment.
fn rollout_path(rollout: &str, rest: &str) -> String {
    format!("/v1/rollouts/{}{rest}", utf8_percent_encode(rollout, NON_ALPHANUMERIC))
}

/// What to do about an API that does not answer.
fn fix(base: &str, cause: &NoAnswer) -> String {
    let url = Url::parse(base).ok();
    let secure = url.as_ref().is_some_and(|url| url.scheme() == "https");
    let here = url.as_ref().and_then(Url::host_str).is_some_and(is_local);
    match cause {
        NoAnswer::Certificate(CertificateProblem::UnknownAuthority) => {
            "pass the PEM file of the CA that signed it as --ca-file (or SERIN_CA_FILE)".to_owned()
        }
        NoAnswer::Certificate(CertificateProblem::OtherName) => {
            "use a name from its certificate in --api, or add this name to the certificate".to_owned()
        }
        NoAnswer::Certificate(CertificateProblem::OutOfTime) => {
            "renew the certificate (controller.tls), and compare this machine's clock with the controller's".to_owned()
        }
        NoAnswer::Certificate(CertificateProblem::Unusable) => {
            "check the certificate in controller.tls; see docs/tls.md".to_owned()
        }
        NoAnswer::NotTls => "use http://, or give the controller a certificate (controller.tls)".to_owned(),
        // A TLS port answers a plain request with this error.
        NoAnswer::Failed(cause) if !secure && cause.contains("HTTP version") => {
            "the port does not speak plain HTTP: use https:// if the controller has a certificate".to_owned()
        }
        _ if !secure && here => "start one with `serin up`, or pass another URL as --api".to_owned(),
        _ => {
            let other = if secure { "" } else { " (https:// if it has a certificate)" };
            format!(
                "check that the controller runs and listens there (controller.listen), or pass another URL as --api{other}"
            )
        }
    }
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_matches_the_address_and_the_cause() {
        let refused = || NoAnswer::Failed("Connection refused".to_owned());
        let unknown = || NoAnswer::Certificate(CertificateProblem::UnknownAuthority);
        let cases = [
            ("http://127.0.0.1:8100", refused(), "serin up"),
            ("http://localhost:8100", refused(), "serin up"),
            ("http://[::1]:8100", refused(), "serin up"),
            ("https://127.0.0.1:8100", refused(), "controller.listen"),
            ("http://serin.example:8100", refused(), "https:// if it has a certificate"),
            ("http://10.0.0.7:8100", refused(), "controller.listen"),
            ("https://serin.example:8100", unknown(), "--ca-file"),
            ("https://localhost:8100", unknown(), "--ca-file"),
            ("https://localhost:8100", NoAnswer::NotTls, "use http://"),
        ];
        for (base, cause, expected) in cases {
            let text = fix(base, &cause);
            assert!(text.contains(expected), "{base}: {text}");
            assert_eq!(text.contains("serin up"), expected == "serin up", "{base}: {text}");
        }
    }

    /// A URL library that reads `%2E%2E` as `..` would leave the path.
    #[test]
    fn any_name_is_one_segment_of_the_path() {
        for name in
            ["org/model", "a%2Fb", "50% off", "%", "a b", "a+b", "a?b#c", "modèle", "a\\b", ".", "..", "...", "a:b"]
        {
            let path = rollout_path(name, "/events?after=0");
            let uri: http::Uri = format!("http://localhost:8100{path}").parse().unwrap();
            let parts: Vec<&str> = uri.path().split('/').collect();
            let ["", v1, rollouts, part, events] = parts.as_slice() else { panic!("{name}: {uri}") };
            assert_eq!((*v1, *rollouts, *events, uri.query()), ("v1", "rollouts", "events", Some("after=0")), "{name}");
            let decoded = percent_encoding::percent_decode_str(part).decode_utf8().unwrap();
            assert_eq!(decoded, name);
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_refused_with_an_example() {
        for address in ["controller:8100", "8100", "ftp://controller", ""] {
            let error = Api::at(address, None, None).unwrap_err().to_string();
            assert!(error.contains("--api") && error.contains("http"), "{address}: {error}");
        }
    }
}
