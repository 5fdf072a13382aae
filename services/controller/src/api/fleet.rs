//! `GET /v1/fleet`: all rollouts of a time in numbers.

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serin_schemas::ids::EventTime;

use super::{
    queries::no_log,
    state::{ApiState, Failure},
};
use crate::fleet::{COVERED, Shown, fleet as count};

/// `?from=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Since {
    /// Start of the time by the wall clock, in microseconds since 1970.
    from: Option<i64>,
}

pub(super) async fn fleet(
    State(state): State<ApiState>,
    Query(Since { from }): Query<Since>,
) -> Result<Json<Shown>, Failure> {
    let now = state.wall_clock();
    let from = from.map_or(now.minus(COVERED), EventTime);
    if from > now {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "from: the time is in the future"));
    }
    state.report(move |log| count(log, from, now)).await?.map(Json).ok_or_else(no_log)
}
