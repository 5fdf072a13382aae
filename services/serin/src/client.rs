//! The controller's API as the command line and the demo use it.

use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serin_rollout::RolloutState;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{Capture, RouterStatus, Verdict},
};

use crate::cli::Remote;

/// A controller's API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: Client,
    base: String,
    token: Option<String>,
}

/// The API refused a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody answers there.
    #[error("no controller answers at {base}: {cause}\nstart one with `serin up`, or name another with --api")]
    Away {
        /// The address tried.
        base: String,
        /// What happened.
        cause: String,
    },
    /// The token is missing or has not the role.
    #[error("{base} refuses: {message}\nset SERIN_TOKEN to a token with the operator role")]
    Forbidden {
        /// The address tried.
        base: String,
        /// What it said.
        message: String,
    },
    /// There is no such rollout.
    #[error("{0}\n`serin list` shows what there is")]
    NotFound(String),
    /// The rollout file has problems; they stand in the body.
    #[error("the rollout file has problems")]
    Invalid(Value),
    /// It cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("the controller answered {status}: {message}")]
    Other {
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
}

impl Api {
    /// The API that the command line names.
    pub(crate) fn new(remote: &Remote) -> anyhow::Result<Self> {
        Self::at(&remote.api, remote.token.clone())
    }

    /// The API at `base`.
    pub(crate) fn at(base: &str, token: Option<String>) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(Duration::from_secs(70)).build().context("the HTTP client")?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token })
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Value, ApiError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let away = |cause: reqwest::Error| ApiError::Away { base: self.base.clone(), cause: root(&cause) };
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let text = response.text().await.map_err(away)?;
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

    /// How far a rollout's model is planned: event time, and the generation after it.
    pub(crate) async fn progress(&self, rollout: &str) -> Result<(Option<EventTime>, Generation), ApiError> {
        let body = self.call(Method::GET, &rollout_path(rollout, "/progress"), None).await?;
        let generation = Generation(body["generation"].as_i64().unwrap_or_default());
        Ok((body["planned_through"].as_i64().map(EventTime), generation))
    }

    /// The newest verdict on a rollout, with all its evidence.
    pub(crate) async fn verdict(&self, rollout: &str) -> Result<Verdict, ApiError> {
        self.typed(&rollout_path(rollout, "/verdict")).await
    }

    /// Pairs of answers that routers kept.
    pub(crate) async fn examples(&self, rollout: &str, limit: usize) -> Result<Vec<Capture>, ApiError> {
        self.typed(&rollout_path(rollout, &format!("/examples?limit={limit}"))).await
    }

    async fn typed<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.call(Method::GET, path, None).await?;
        serde_json::from_value(body).map_err(|error| ApiError::Other {
            status: StatusCode::OK,
            message: format!("something this version of serin cannot read: {error}"),
        })
    }

    /// What routers report.
    pub(crate) async fn routers(&self) -> Result<Vec<RouterStatus>, ApiError> {
        self.typed("/v1/routers").await
    }

    /// What happened to a rollout after event number `after`; waits up to `wait` for something new.
    pub(crate) async fn events(&self, rollout: &str, after: u64, wait: Duration) -> Result<Value, ApiError> {
        let path = rollout_path(rollout, &format!("/events?after={after}&wait_ms={}", wait.as_millis()));
        self.call(Method::GET, &path, None).await
    }

    /// Acts on a rollout: `promote`, `pause`, `resume` or `abort`.
    pub(crate) async fn act(&self, rollout: &str, verb: &str, reason: &str, full: bool) -> Result<Value, ApiError> {
        let body = json!({"reason": reason, "full": full}).to_string();
        self.call(Method::POST, &rollout_path(rollout, &format!("/{verb}?wait_ms=10000")), Some(body)).await
    }

    /// Every model to stable, now.
    pub(crate) async fn stop_all(&self, reason: &str) -> Result<Value, ApiError> {
        self.call(Method::POST, "/v1/stop-all?wait_ms=10000", Some(json!({"reason": reason}).to_string())).await
    }
}

/// The path of a rollout: its name is one part of it, whatever characters it has.
fn rollout_path(rollout: &str, rest: &str) -> String {
    format!("/v1/rollouts/{}{rest}", utf8_percent_encode(rollout, NON_ALPHANUMERIC))
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
