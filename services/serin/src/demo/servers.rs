//! The demo's model servers: one per version, each on a loopback port, speaking the Open Inference Protocol V2.
//!
//! They take a few milliseconds of synthetic service time, so that a tail is the model's and not the scheduler's. `v4`
//! sends three calls in a hundred down a slow path.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use serin_sketches::hash::hash64;

use super::model::{Flight, Models};

/// Every version the demo serves.
pub(crate) const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// What every call takes.
const SERVICE_TIME: Duration = Duration::from_millis(20);
/// What a call on `v4`'s slow path takes instead: a second, as a model that is loaded anew would give. On a busy machine the
/// scheduler alone makes tails of 100 ms and more for both arms; the demo is about the model's.
const SLOW_TIME: Duration = Duration::from_secs(1);
/// One call in this many takes `v4`'s slow path: 3 %, so that the median does not move and p99 does.
const SLOW_ONE_IN: u64 = 33;

struct Server {
    version: &'static str,
    models: Models,
}

/// Starts a server per version; returns each with its address. They run until the runtime ends.
pub(crate) async fn start() -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
    let mut started = Vec::new();
    for version in VERSIONS {
        let server = Arc::new(Server { version, models: Models::embedded() });
        let app = Router::new()
            .route("/v2/health/live", get(|| async { Json(json!({"live": true})) }))
            .route("/v2/health/ready", get(|| async { Json(json!({"ready": true})) }))
            .route("/v2/models/{model}/infer", post(infer))
            .with_state(server);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("a model server's port")?;
        started.push((version, listener.local_addr()?));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    Ok(started)
}

async fn infer(State(server): State<Arc<Server>>, Path(name): Path<String>, Json(request): Json<Value>) -> Response {
    let flight = match Flight::from_oip(&request["inputs"]) {
        Ok(flight) => flight,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(json!({"error": error.to_string()}))).into_response(),
    };
    let id = request.get("id").and_then(Value::as_str).unwrap_or_default();
    tokio::time::sleep(service_time(server.version, id)).await;
    let Some(model) = server.models.get(server.version) else {
        return (StatusCode::NOT_FOUND, Json(json!({"error": "unknown version"}))).into_response();
    };
    Json(json!({
        "model_name": name,
        "model_version": server.version,
        "id": id,
        "outputs": [{"name": "probability", "shape": [1], "datatype": "FP64", "data": [model.predict(&flight)]}]
    }))
    .into_response()
}

/// Whether a call takes the slow path: decided by its id, so that a seed gives the same tail again.
pub(crate) fn is_slow(version: &str, id: &str) -> bool {
    version == "v4" && hash64(b"slow path", id.as_bytes()).is_multiple_of(SLOW_ONE_IN)
}

/// What a call takes, scheduler and network aside.
pub(crate) fn service_time(version: &str, id: &str) -> Duration {
    if is_slow(version, id) { SLOW_TIME } else { SERVICE_TIME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_v4_has_a_slow_path_and_it_is_three_percent() {
        let slow = |version| (0..100_000).filter(|id| service_time(version, &id.to_string()) == SLOW_TIME).count();
        assert_eq!(slow("v2"), 0);
        let share = slow("v4") as f64 / 1e5;
        assert!((0.028..0.033).contains(&share), "{share}");
    }
}
