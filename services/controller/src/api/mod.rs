//! The HTTP API: look at rollouts, start them, act on them. See `docs/api.md`.
//!
//! It holds no state: it shows a [`View`] of the topics and writes commands; what becomes of a command is told by its audit
//! event.

mod act;
mod applied;
mod auth;
mod look;

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use serin_stream::{
    clock::Clock,
    log::{Log, Writer},
};
use tokio::sync::watch;

use crate::{
    config::Config, examples::Examples, metrics, mlflow, mlflow::Policies, progress::ProgressBoard, view::View,
};

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

struct Shared {
    config: Config,
    policies: Policies,
    writer: Arc<dyn Writer>,
    view: watch::Receiver<Arc<View>>,
    clock: Arc<dyn Clock>,
    progress: ProgressBoard,
    examples: OnceLock<Examples>,
}

impl ApiState {
    /// An API that writes commands with `writer` and shows `view`.
    pub fn new(
        config: Config,
        policies: Policies,
        writer: Arc<dyn Writer>,
        view: watch::Receiver<Arc<View>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (progress, examples) = (ProgressBoard::default(), OnceLock::new());
        Self(Arc::new(Shared { config, policies, writer, view, clock, progress, examples }))
    }

    /// The same with examples from this log.
    #[must_use]
    pub(crate) fn with_examples(self, log: Arc<dyn Log>) -> Self {
        // Only the first log counts; there is one.
        let _ = self.0.examples.set(Examples::new(log));
        self
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.0.policies
    }

    /// The newest snapshot.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.borrow())
    }

    /// Where the folds of this process post how far they have planned.
    pub fn progress(&self) -> ProgressBoard {
        self.0.progress.clone()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }
}

/// The routes of the API and of the webhooks.
pub fn api(state: ApiState) -> Router {
    let limit = DefaultBodyLimit::max(state.config().max_body_bytes);
    let guarded = Router::new()
        .route("/v1/rollouts", get(look::list).post(act::apply))
        .route("/v1/rollouts/{id}", get(look::state))
        .route("/v1/rollouts/{id}/verdict", get(look::verdict))
        .route("/v1/rollouts/{id}/events", get(look::events))
        .route("/v1/rollouts/{id}/examples", get(look::examples))
        .route("/v1/rollouts/{id}/progress", get(look::progress))
        .route("/v1/rollouts/{id}/{verb}", post(act::act))
        .route("/v1/stop-all", post(act::stop_all))
        .route("/v1/routing", get(look::routing))
        .route("/v1/routers", get(look::routers))
        .route("/v1/schema", get(look::schema))
        .layer(middleware::from_fn_with_state(state.clone(), auth::check));
    let alive = Router::new().route("/healthz", get(|| async { "ok\n" }));
    for outcome in ["started", "ignored", "refused", "failed"] {
        metrics::delivered(outcome, 0);
    }
    // A webhook proves itself by its signature.
    let hooks = Router::new().route("/hooks/mlflow", post(mlflow::receive));
    let api = guarded.merge(alive).merge(hooks).fallback(nothing_here).method_not_allowed_fallback(wrong_method);
    api.layer(limit).with_state(state).layer(middleware::map_response(serin_listener::in_json))
}

/// What is often wrong with a path.
const SLASHES: &str = "in a path the name of a model is one part: write `/` as %2F, as in org%2Fmodel";

async fn nothing_here() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is nothing here; see docs/api.md ({SLASHES})"))
}

async fn wrong_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes another method; see docs/api.md ({SLASHES})"))
}

/// An answer that says what went wrong: `{"error": "..."}`.
pub(crate) struct Failure(StatusCode, serde_json::Value);

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, json!({"error": error.into()}))
    }

    /// Whether asking again may help.
    pub(crate) fn is_of_server(&self) -> bool {
        self.0.is_server_error()
    }

    /// What it says.
    pub(crate) fn told(&self) -> &str {
        self.1["error"].as_str().unwrap_or_default()
    }

    fn with(status: StatusCode, body: serde_json::Value) -> Self {
        Self(status, body)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
