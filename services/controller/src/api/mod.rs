//! The HTTP API: query rollouts, start them, act on them. See `docs/api.md`.
//!
//! The API has no state. It shows a [`View`](crate::view::View) of the topics and writes commands; the audit event of a
//! command reports its result.

mod actions;
mod applied;
mod auth;
mod fleet;
mod freeze;
mod gates;
mod plan;
mod queries;
mod report;
mod session;
pub(crate) mod state;
mod stream;
mod summary;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{StatusCode, header},
    middleware,
    routing::{get, post},
};

use crate::{console, metrics, mlflow};

pub use state::ApiState;
use state::Failure;

/// The description of the API. A test compares it with the routes and with answers.
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// The routes of the API and of the webhooks.
pub fn api(state: ApiState) -> Router {
    let limit = DefaultBodyLimit::max(state.config().max_body_bytes);
    let guarded = Router::new()
        .route("/v1/rollouts", get(queries::list).post(actions::apply))
        .route("/v1/rollouts/{id}", get(queries::state))
        .route("/v1/rollouts/{id}/verdict", get(queries::verdict))
        .route("/v1/rollouts/{id}/verdicts", get(queries::verdicts))
        .route("/v1/rollouts/{id}/segments", get(queries::segments))
        .route("/v1/rollouts/{id}/events", get(queries::events))
        .route("/v1/rollouts/{id}/examples", get(queries::examples))
        .route("/v1/rollouts/{id}/profile", get(queries::profile))
        .route("/v1/rollouts/{id}/contrasts", get(queries::contrasts))
        .route("/v1/rollouts/{id}/progress", get(queries::progress))
        .route("/v1/rollouts/{id}/report", get(report::report))
        .route("/v1/rollouts/{id}/{verb}", post(actions::act))
        .route("/v1/rollouts/{id}/retry", post(actions::retry))
        .route("/v1/freezes", get(queries::freezes))
        .route("/v1/freeze", post(freeze::freeze))
        .route("/v1/unfreeze", post(freeze::unfreeze))
        .route("/v1/stream", get(stream::stream))
        .route("/v1/plan", post(plan::plan))
        .route("/v1/fleet", get(fleet::fleet))
        .route("/v1/gates/argo", get(gates::argo).post(gates::argo))
        .route("/v1/gates/flagger/advance", post(gates::flagger_advance))
        .route("/v1/gates/flagger/rollback", post(gates::flagger_rollback))
        .route("/v1/gates/kayenta/judge", post(gates::kayenta).layer(DefaultBodyLimit::max(gates::KAYENTA_MAX)))
        .route("/v1/stop-all", post(actions::stop_all))
        .route("/v1/routing", get(queries::routing))
        .route("/v1/routers", get(queries::routers))
        .route("/v1/schema", get(queries::schema))
        .layer(middleware::from_fn_with_state(state.clone(), auth::check));
    let open = Router::new()
        .route("/v1/session", get(session::get).post(session::start).delete(session::end))
        .route("/v1/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) }))
        .route("/healthz", get(|| async { "ok\n" }));
    for outcome in ["started", "ignored", "refused", "failed"] {
        metrics::delivered(outcome, 0);
    }
    // A webhook is authenticated by its signature.
    let hooks = Router::new().route("/hooks/mlflow", post(mlflow::receive));
    let api = guarded
        .merge(open)
        .merge(hooks)
        .merge(console::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method);
    api.layer(limit).with_state(state).layer(middleware::map_response(serin_listener::in_json))
}

/// A common mistake in paths.
const SLASHES: &str = "in a path the name of a model is one part: write `/` as %2F, as in org%2Fmodel";

async fn nothing_here() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no such path; see docs/api.md ({SLASHES})"))
}

async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path does not accept this method; see docs/api.md ({SLASHES})"),
    )
}
