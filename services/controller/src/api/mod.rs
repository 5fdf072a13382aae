//! The HTTP API: look at rollouts, start them, act on them. See `docs/api.md`.
//!
//! It holds no state: it shows a [`View`](crate::view::View) of the topics and writes commands; what becomes of a command is told by its audit
//! event.

mod act;
mod applied;
mod auth;
mod look;
pub(crate) mod state;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    routing::{get, post},
};

use crate::{metrics, mlflow};

pub use state::ApiState;
use state::Failure;

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
