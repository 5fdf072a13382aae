//! The state that handlers share, and their error responses.

use std::sync::{Arc, OnceLock};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use serin_rollout::planner::WallMs;
use serin_schemas::ids::EventTime;
use serin_stream::{
    clock::Clock,
    log::{Log, LogError, Writer},
};
use tokio::sync::{Semaphore, watch};

use crate::{config::Config, policies::Policies, progress::ProgressBoard, verbs::Verbs, view::View};

/// Reports from the log that are computed at a time. Further requests wait.
const REPORTS: usize = 2;
/// Share of the listener's connections that event streams may have. Other requests need the rest.
const STREAMS_OF_PLACES: usize = 4;

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
    pub(super) streams: Arc<Semaphore>,
    verbs: OnceLock<Verbs>,
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
        Self(Arc::new(Shared {
            config,
            policies,
            writer,
            view,
            clock,
            progress: ProgressBoard::default(),
            log: OnceLock::new(),
            reports: Semaphore::new(REPORTS),
            streams: Arc::new(Semaphore::new((serin_listener::places() / STREAMS_OF_PLACES).max(1))),
            verbs: OnceLock::new(),
        }))
    }

    /// The same API, with reports from this log.
    #[must_use]
    pub(crate) fn reading(self, log: Arc<dyn Log>) -> Self {
        // Only the first log counts, and there is only one.
        let _ = self.0.log.set(log);
        self
    }

    /// The same API, with these functions of the binary.
    #[must_use]
    pub(crate) fn with_verbs(self, verbs: Verbs) -> Self {
        // Only the first ones count, and there are no others.
        let _ = self.0.verbs.set(verbs);
        self
    }

    /// The functions of the binary.
    pub(super) fn verbs(&self) -> Verbs {
        self.0.verbs.get().copied().unwrap_or_default()
    }

    /// Computes a report from the log on a thread that may block; `None` without a log.
    pub(super) async fn report<T: Send + 'static>(
        &self,
        report: impl FnOnce(&Arc<dyn Log>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let Some(log) = self.0.log.get().cloned() else { return Ok(None) };
        let unavailable = |error: LogError| Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        self.compute(move || report(&log)).await?.map(Some).map_err(unavailable)
    }

    /// Runs `compute` on a thread that may block, together with at most one other report.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let internal = |error: String| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let _permit = self.0.reports.acquire().await.map_err(|error| internal(error.to_string()))?;
        tokio::task::spawn_blocking(compute).await.map_err(|error| internal(error.to_string()))
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

    /// The wall clock as the time of a command.
    pub(crate) fn wall_clock(&self) -> EventTime {
        WallMs(self.now_ms()).as_event_time()
    }
}

/// An error response: a problem document with a stable code.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    error: String,
    members: Map<String, Value>,
}

impl Failure {
    /// A failure with the code of its status.
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, code: serin_listener::code_of(status), error: error.into(), members: Map::new() }
    }

    /// The same failure with a code of its own.
    #[must_use]
    pub(super) fn coded(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// The same failure with the members of a JSON object.
    #[must_use]
    pub(super) fn with(self, members: Value) -> Self {
        let Value::Object(members) = members else { return self };
        Self { members, ..self }
    }

    /// Status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether a retry may help.
    pub(crate) fn is_of_server(&self) -> bool {
        self.status.is_server_error()
    }

    /// The error message.
    pub(crate) fn message(&self) -> &str {
        &self.error
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        serin_listener::problem_with(self.status, self.code, &self.error, self.members)
    }
}
