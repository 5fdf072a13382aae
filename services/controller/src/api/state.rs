//! The state that handlers share, and their error responses.

use std::sync::{Arc, OnceLock};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use serin_stream::{
    clock::Clock,
    log::{Log, Writer},
};
use tokio::sync::watch;

use crate::{config::Config, examples::Examples, policies::Policies, progress::ProgressBoard, view::View};

/// The state that handlers share.
#[derive(Clone)]
pub struct ApiState(pub(super) Arc<Shared>);

pub(super) struct Shared {
    config: Config,
    policies: Policies,
    pub(super) writer: Arc<dyn Writer>,
    pub(super) view: watch::Receiver<Arc<View>>,
    clock: Arc<dyn Clock>,
    progress: ProgressBoard,
    pub(super) examples: OnceLock<Examples>,
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

    /// The same API, with examples from this log.
    #[must_use]
    pub(crate) fn with_examples(self, log: Arc<dyn Log>) -> Self {
        // Only the first log counts, and there is only one.
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

    /// The board on which the folds of this process post how far they have planned.
    pub fn progress(&self) -> ProgressBoard {
        self.0.progress.clone()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }
}

/// An error response: `{"error": "..."}`.
pub(crate) struct Failure(StatusCode, serde_json::Value);

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, json!({"error": error.into()}))
    }

    /// Whether a retry may help.
    pub(crate) fn is_of_server(&self) -> bool {
        self.0.is_server_error()
    }

    /// The error message.
    pub(crate) fn message(&self) -> &str {
        self.1["error"].as_str().unwrap_or_default()
    }

    pub(super) fn with(status: StatusCode, body: serde_json::Value) -> Self {
        Self(status, body)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
