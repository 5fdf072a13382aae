//! Model servers that ship with Serin: one small HTTP server per version, which speaks the Open Inference Protocol V2.
//!
//! It serves the demo's models and the model of `serin model-server` ([`fraud`]). `serin load` ([`mod@load`]) calls the latter
//! through a router and sends the labels. The model ([`Model`]) alone determines an answer and its latency from the request: the
//! same request always gets the same answer.

mod fraud;
mod load;
mod model;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{cli, output, serve};
use fraud::Fraud;

pub(crate) use load::load;
pub(crate) use model::{Answer, Model};

/// Header with the latency of a call in microseconds, for a router on a replay clock.
const LATENCY: HeaderName = HeaderName::from_static("x-serin-latency-us");

/// The clock on which an answer takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The caller waits for the latency.
    Wall,
    /// The caller gets the answer at once, with the latency in a header.
    Replay,
}

struct Served<M> {
    model: M,
    clock: Clock,
}

/// Serves a model on `listener` until the task is dropped.
pub(crate) async fn serve<M: Model>(listener: TcpListener, model: M, clock: Clock) -> std::io::Result<()> {
    let served = Arc::new(Served { model, clock });
    let app = Router::new()
        .route("/v2/health/live", get(|| async { Json(json!({"live": true})) }))
        .route("/v2/health/ready", get(|| async { Json(json!({"ready": true})) }))
        .route("/v2/models/{model}", get(metadata::<M>))
        .route("/v2/models/{model}/ready", get(|| async { Json(json!({"ready": true})) }))
        .route("/v2/models/{model}/infer", post(infer::<M>))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer_version::<M>))
        .with_state(served);
    axum::serve(listener, app).await
}

async fn metadata<M: Model>(State(served): State<Arc<Served<M>>>, Path(name): Path<String>) -> Json<Value> {
    Json(json!({"name": name, "versions": [served.model.version()], "platform": "serin"}))
}

async fn infer_version<M: Model>(
    State(served): State<Arc<Served<M>>>,
    Path((name, version)): Path<(String, String)>,
    request: Bytes,
) -> Response {
    if version != served.model.version() {
        let error = format!("version {version:?} is not served here, only version {:?}", served.model.version());
        return problem(StatusCode::NOT_FOUND, &error);
    }
    infer(State(served), Path(name), request).await
}

async fn infer<M: Model>(State(served): State<Arc<Served<M>>>, Path(name): Path<String>, request: Bytes) -> Response {
    // The content type is ignored: `curl -d` sends a different one.
    let request: Value = match serde_json::from_slice(&request) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {error}")),
    };
    let id = request.get("id").and_then(Value::as_str).unwrap_or_default();
    let Answer { takes, result } = served.model.answer(id, &request["inputs"]);
    if served.clock == Clock::Wall && !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let version = served.model.version();
    let mut response = match result {
        Ok(outputs) => {
            Json(json!({"model_name": name, "model_version": version, "id": id, "outputs": outputs})).into_response()
        }
        Err((status, error)) => problem(status, &error),
    };
    if served.clock == Clock::Replay {
        response.headers_mut().insert(LATENCY, HeaderValue::from(takes.as_micros() as u64));
    }
    response
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

/// `serin model-server`: serves the model of a first rollout until the process is asked to stop.
pub(crate) async fn run(args: &cli::ModelServer) -> anyhow::Result<ExitCode> {
    let listen: SocketAddr = args.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}: the address cannot be used; choose another port"))?;
    let address = listener.local_addr()?;
    let model = Fraud::new(args);
    output::line(format!("version {} answers at http://{address}: {}", args.version, model.about()));
    tokio::select! {
        ended = serve(listener, model, Clock::Wall) => ended?,
        () = serve::asked_to_stop() => {}
    }
    Ok(ExitCode::SUCCESS)
}
