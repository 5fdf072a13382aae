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
    log::{Log, LogError, Writer},
};
use tokio::sync::{Semaphore, watch};

use crate::{config::Config, policies::Policies, progress::ProgressBoard, view::View};

/// Reports from the log that are computed at a time. Further requests wait.
const REPORTS: usize = 2;

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
    pub(super) log: OnceLock<Arc<dyn Log>>,
    pub(super) reports: Semaphore,
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
        let (progress, log, reports) = (ProgressBoard::default(), OnceLock::new(), Semaphore::new(REPORTS));
        Self(Arc::new(Shared { config, policies, writer, view, clock, progress, log, reports }))
    }

    /// The same API, with reports from this log.
    #[must_use]
    pub(crate) fn reading(self, log: Arc<dyn Log>) -> Self {
        // Only the first log counts, and there is only one.
        let _ = self.0.log.set(log);
        self
    }

    /// Computes a report from the log on a thread that may block; `None` without a log.
    pub(super) async fn report<T: Send + 'static>(
        &self,
        report: impl FnOnce(&Arc<dyn Log>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let Some(log) = self.0.log.get().cloned() else { return Ok(None) };
        let internal = |error: String| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let _permit = self.0.reports.acquire().await.map_err(|error| internal(error.to_string()))?;
        match tokio::task::spawn_blocking(move || report(&log)).await {
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(error)) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
            Err(error) => Err(internal(error.to_string())),
        }
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
