//! `POST /v1/plan`: checks a rollout file and forecasts its rollout, without starting it.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_rollout::Traffic;
use serin_schemas::ids::RolloutId;
use serin_spec::{Problem, RolloutSpec};

use super::state::{ApiState, Failure};

/// `?per_second=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rate {
    /// Requests of the model per second, all versions together. Without it there is no forecast.
    per_second: Option<f64>,
}

/// The answer. A file with errors is not a failed request.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    /// Whether the file has no errors.
    valid: bool,
    problems: Vec<Problem>,
    spec: Option<RolloutSpec>,
    /// The version that serves now, if it is known.
    serving: Option<String>,
    /// The model's rollout that has not ended.
    running: Option<RolloutId>,
    forecast: Option<Value>,
    forecast_error: Option<String>,
}

pub(super) async fn plan(
    State(state): State<ApiState>,
    Query(Rate { per_second }): Query<Rate>,
    body: Bytes,
) -> Result<Json<Planned>, Failure> {
    if per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        let error = "per_second: pass the requests of the model per second, a number above 0";
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let text = std::str::from_utf8(&body).map_err(|_| {
        let error = "the rollout file is not UTF-8 text; send YAML or JSON";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error).coded("invalid_spec")
    })?;
    let traffic = per_second.map(|per_second| Traffic { per_second, rates: BTreeMap::new() });
    let checked = serin_rollout::check(text, traffic.as_ref());
    let spec = checked.spec.map(|spec| spec.normalized());
    let (mut forecast, mut forecast_error) = (None, None);
    if let (Some(spec), Some(per_second)) = (spec.clone(), per_second) {
        let compute = state.verbs().forecast;
        match state.compute(move || compute(&spec, per_second)).await? {
            Ok(found) => forecast = Some(found),
            Err(error) => forecast_error = Some(error),
        }
    }
    let view = state.view();
    let model = spec.as_ref().map(|spec| spec.model.as_str().to_owned()).unwrap_or_default();
    let concurrency = spec.as_ref().map(|spec| spec.concurrency).unwrap_or_default();
    let running = view.running().filter(|rollout| rollout.model.as_str() == model);
    Ok(Json(Planned {
        valid: spec.is_some(),
        problems: checked.problems,
        serving: view.stable_version(&model, concurrency).map(str::to_owned),
        running: running.filter_map(|rollout| rollout.state.as_ref()).map(|state| state.id.clone()).next(),
        spec,
        forecast,
        forecast_error,
    }))
}
