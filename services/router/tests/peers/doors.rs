//! The doors for foreign traffic with the software that they are for: a real OpenTelemetry SDK and a real Envoy.

use http::Request;
use serde_json::json;
use serin_router::Config;
use serin_schemas::records::{Outcome, Prediction};

use crate::{
    harness::{Bench, config, decoded, eventually},
    servers::{Peer, client_of},
    upstreams::{Reply, Server},
};

const TOKEN: &str = "token-of-the-gateway";

/// A router with a writer for every model.
fn with_writer() -> Config {
    let mut config = config();
    config.writers =
        serde_json::from_value(json!([{"name": "gateway", "models": ["*"], "may": ["events"], "token": TOKEN}]))
            .unwrap();
    config.doors = serde_json::from_value(json!({"otlp": {"spans": "server", "unit": "span:session.id"}})).unwrap();
    config
}

/// The calls on the topic of the intake, once there are `count`.
async fn calls(bench: &Bench, model: &str, count: usize) -> Vec<Prediction> {
    eventually("calls", async || {
        let found = decoded::<Prediction>(&bench.log, "predictions").into_iter().map(|(_, found)| found);
        let mut found: Vec<Prediction> = found.filter(|found| found.model.as_str() == model).collect();
        found.sort_by_key(|found| found.completed_at);
        (found.len() >= count).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_the_opentelemetry_sdk_are_calls() {
    let bench = Bench::start(with_writer()).await;
    let report = client_of("otel", "otel_spans.py", vec![bench.router.data_addr().to_string(), TOKEN.to_owned()]).await;
    assert_eq!(report, json!({"plain": true, "gzip": true, "refused": false}));
    let found = calls(&bench, "fraud", 3).await;
    assert_eq!(found.len(), 3, "spans of clients and GET requests are not calls: {found:#?}");
    let outcomes: Vec<(Outcome, Option<i32>)> = found.iter().map(|call| (call.outcome(), call.status)).collect();
    for expected in [(Outcome::Ok, Some(200)), (Outcome::Refused, Some(422)), (Outcome::Failed, Some(503))] {
        assert!(outcomes.contains(&expected), "{outcomes:?}");
    }
    assert!(found.iter().all(|call| call.version.as_str() == "v2" && call.latency_us == Some(12_400)), "{found:#?}");
    let found = calls(&bench, "assistant", 1).await;
    let call = &found[0];
    assert_eq!((call.request_id.as_str(), call.version.as_str()), ("chatcmpl-1", "v2"));
    let outputs = ["llm.input_tokens", "llm.output_tokens", "llm.time_to_first_chunk"].map(|name| call.outputs[name]);
    assert_eq!((outputs, call.classes["llm.finish_reason"].as_str()), ([100.0, 180.0, 250.0], "stop"));
    assert_eq!(call.unit, Some(serin_sketches::hash::unit("assistant", "s1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_logs_of_envoy_are_calls() {
    let bench = Bench::start(with_writer()).await;
    let (good, failing) =
        (Server::start(Reply::ok("{}")).await, Server::start(Reply { status: 503, ..Reply::ok("{}") }).await);
    let at = |server: &Server| server.url().trim_start_matches("http://").parse().unwrap();
    let envoy = Peer::envoy(bench.router.data_addr(), TOKEN, at(&good), at(&failing)).await;
    for (path, version, status) in [("fraud", "v1", 200), ("fraud", "v2", 503), ("fraud", "v1", 200)] {
        let request = Request::post(format!("/v2/models/{path}/infer"))
            .header("content-type", "application/json")
            .header("x-version", version);
        let got = bench.send(envoy.http, request, "{}").await;
        assert_eq!(got.status.as_u16(), status, "{got:?}");
    }
    let found = calls(&bench, "fraud", 3).await;
    let seen: Vec<(&str, Option<i32>, Outcome)> =
        found.iter().map(|call| (call.version.as_str(), call.status, call.outcome())).collect();
    let ok = ("v1", Some(200), Outcome::Ok);
    assert_eq!(seen, [ok, ("v2", Some(503), Outcome::Failed), ok]);
    assert!(found.iter().all(|call| call.latency_us.is_some_and(|latency| latency > 0)), "{found:#?}");
    let mut ids: Vec<&str> = found.iter().map(|call| call.request_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each call has its own id");
}
