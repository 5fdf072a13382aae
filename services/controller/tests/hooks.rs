//! The webhook of a registry, over the controller's fold and a log in memory.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use serin_controller::{
    Config, Secret,
    api::{ApiState, api},
    config::{MlflowConfig, Policy, Trigger},
    policies::Policies,
    view::View,
};
use serin_schemas::records::{Decision, Verdict};
use serin_stream::{
    log::{LogError, WriteError, Writer},
    record::Outgoing,
};
use sha2::Sha256;
use support::{SPEC, outgoing, verdict};
use world::{WAIT_MS, World, clock, send};

/// A delivery of MLflow 3.17.2 as it was received, with the secret `s3cret`.
const DELIVERY: &str = r#"{"entity": "model_version", "action": "created", "timestamp": "2026-11-21T07:17:19.131017+00:00", "data": {"name": "fraud", "version": "1", "source": "s3://bucket/fraud/1", "run_id": null, "tags": {"canary": "true"}, "description": "v1 \u00e9\u00fc"}}"#;

fn delivery(body: &str) -> Request<Body> {
    Request::post("/hooks/mlflow")
        .header("User-Agent", "python-requests/2.34.2")
        .header("Content-Type", "application/json")
        .header("X-MLflow-Delivery-Id", "0a5a93cb-d6a0-4120-9cde-a34481903726")
        .header("X-MLflow-Timestamp", "1795245439")
        .header("X-MLflow-Signature", "v1,3F8kehZZTw/HYNu4Np2NYAqheP95njrGRdGhSzB4dAE=")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn with_mlflow(model: &str, stable: &str, trigger: Trigger) -> Config {
    let spec = SPEC
        .replace("model: flights", &format!("model: {model}"))
        .replace("version: v1", "version: '${stable}'")
        .replace("version: v2", "version: '${version}'");
    let policy = Policy { spec, trigger, stable: Some(stable.to_owned()), ..Policy::default() };
    let mlflow = MlflowConfig { secret: Secret::new("s3cret"), ..MlflowConfig::default() };
    Config { policies: [(model.to_owned(), policy)].into(), mlflow, ..Config::default() }
}

#[tokio::test]
async fn a_real_mlflow_delivery_starts_one_rollout_no_matter_how_often_it_is_repeated() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    let mut started = Vec::new();
    for _ in 0..3 {
        // 503 until the API has read its topics. MLflow would deliver again, as this test does.
        let (status, body) = loop {
            let answer = world.send(delivery(DELIVERY)).await;
            if answer.0 != StatusCode::SERVICE_UNAVAILABLE {
                break answer;
            }
        };
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        started.push(body["rollout"].as_str().unwrap().to_owned());
    }
    started.dedup();
    assert_eq!(started.len(), 1);
    let (_, refused) = world.post(&format!("/v1/rollouts?wait_ms={WAIT_MS}"), SPEC.replace("flights", "fraud")).await;
    assert_eq!(refused["refused"], json!(true), "{refused}");
    let (_, state) = world.get("/v1/rollouts/fraud").await;
    assert_eq!((&state["id"], &state["spec"]["canary"]["version"]), (&json!(started[0]), &json!("1")));
    assert_eq!(state["spec"]["stable"]["version"], json!("0"));
    let (_, news) = world.get(&format!("/v1/rollouts/{}/events", started[0])).await;
    assert_eq!(
        (news["events"].as_array().unwrap().len(), &news["events"][0]["actor"]),
        (1, &json!("mlflow")),
        "{news:#}"
    );
}

#[tokio::test]
async fn a_delivery_during_a_monitored_promotion_is_queued_and_starts_from_the_promoted_version() {
    let mut config = with_mlflow("fraud", "0", Trigger::VersionCreated);
    config.policies.get_mut("fraud").unwrap().spec.push_str("\nconcurrency: queue\n");
    let world = World::new(config);
    let monitored = SPEC.replace("flights", "fraud") + "\npromotion: {monitor: 1d}\n";
    let id = world.apply(&monitored).await;
    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.model = "fraud".into();
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(Outgoing { key: "fraud".into(), ..outgoing::<Verdict>("verdicts", &warm) });
    world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    let promote = format!("/v1/rollouts/{id}/promote?wait_ms={WAIT_MS}");
    let (_, promoted) = world.post(&promote, r#"{"full": true}"#).await;
    assert_eq!(promoted["event"]["kind"], json!("promoted"), "{promoted}");
    let body = loop {
        let (status, body) = world.send(delivery(DELIVERY)).await;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            break body;
        }
    };
    let waiting = body["rollout"].as_str().unwrap().to_owned();
    world.get(&format!("/v1/rollouts/{waiting}/events?wait_ms={WAIT_MS}")).await;
    // Commands are answered in order, so this one is answered after the delivery's.
    world.post(&format!("/v1/rollouts/{id}/pause?wait_ms={WAIT_MS}"), "").await;
    let (_, state) = world.get(&format!("/v1/rollouts/{waiting}")).await;
    assert_eq!((&state["phase"], &state["spec"]["stable"]["version"]), (&json!("pending"), &json!("v2")), "{state}");
}

#[tokio::test]
async fn a_delivery_whose_rollout_is_refused_is_answered_with_the_reason() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    let running = world.apply(&SPEC.replace("flights", "fraud").replace("version: v1", "version: '0'")).await;
    for _ in 0..2 {
        let (status, body) = loop {
            let answer = world.send(delivery(DELIVERY)).await;
            if answer.0 != StatusCode::SERVICE_UNAVAILABLE {
                break answer;
            }
        };
        assert_eq!(status, StatusCode::CONFLICT, "{body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(&running) && error.contains("concurrency: queue"), "{body}");
    }
    assert_eq!(world.get("/v1/rollouts").await.1.as_array().unwrap().len(), 1);
}

/// The delivery of [`DELIVERY`] as MLflow repeats it: with the same id, signed again some seconds later.
fn repeated(seconds: u32) -> Request<Body> {
    let (id, at) = ("0a5a93cb-d6a0-4120-9cde-a34481903726", (1_795_245_439 + seconds).to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(format!("{id}.{at}.{DELIVERY}").as_bytes());
    let mut request = delivery(DELIVERY);
    request.headers_mut().insert("X-MLflow-Timestamp", at.parse().unwrap());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    request.headers_mut().insert("X-MLflow-Signature", signature.parse().unwrap());
    request
}

#[tokio::test]
async fn a_delivery_that_is_signed_again_gets_the_result_of_the_first() {
    for is_running in [false, true] {
        let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
        if is_running {
            world.apply(&SPEC.replace("flights", "fraud").replace("version: v1", "version: '0'")).await;
        }
        let mut results = Vec::new();
        for seconds in [0, 7, 60] {
            let result = loop {
                let (status, body) = world.send(repeated(seconds)).await;
                if status != StatusCode::SERVICE_UNAVAILABLE {
                    break (status, body["rollout"].clone(), body["error"].clone());
                }
            };
            results.push(result);
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{results:?}");
        assert_eq!(results[0].0, if is_running { StatusCode::CONFLICT } else { StatusCode::ACCEPTED });
        assert_eq!(world.get("/v1/rollouts").await.1.as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_delivery_without_exactly_one_id_is_refused() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    for ids in [&[""][..], &["a", "b"]] {
        let mut request = delivery(DELIVERY);
        request.headers_mut().remove("X-MLflow-Delivery-Id");
        for id in ids {
            request.headers_mut().append("X-MLflow-Delivery-Id", id.parse().unwrap());
        }
        let (status, body) = world.send(request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body["error"].as_str().unwrap().contains("X-MLflow-Delivery-Id must occur exactly once"), "{body}");
    }
}

#[tokio::test]
async fn an_unsigned_delivery_is_refused() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    let rewritten = serde_json::to_string(&serde_json::from_str::<Value>(DELIVERY).unwrap()).unwrap();
    let (status, body) = world.send(delivery(&rewritten)).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::UNAUTHORIZED, &json!("the signature does not match this body and the configured secret"))
    );
    assert_eq!(world.post("/hooks/mlflow", DELIVERY).await.0, StatusCode::UNAUTHORIZED);

    let mut other = with_mlflow("fraud", "0", Trigger::VersionCreated);
    other.mlflow.secret = Secret::new("another");
    assert_eq!(World::new(other).send(delivery(DELIVERY)).await.0, StatusCode::UNAUTHORIZED);
    let off = World::new(Config::default());
    assert_eq!(off.send(delivery(DELIVERY)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_model_without_a_policy_or_another_event_is_ignored() {
    for config in [with_mlflow("other", "0", Trigger::VersionCreated), with_mlflow("fraud", "0", Trigger::default())] {
        let (status, body) = World::new(config).send(delivery(DELIVERY)).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert!(body["ignored"].is_string(), "{body}");
    }
}

/// A log that is unavailable.
struct Away;

impl Writer for Away {
    fn send(&self, _: Outgoing) -> Result<(), WriteError> {
        Ok(())
    }

    fn flush(&self, _: Duration) -> Result<(), LogError> {
        Err(LogError::Failed { doing: "writing".into(), cause: "no broker".into() })
    }

    fn failed(&self) -> u64 {
        1
    }
}

#[tokio::test]
async fn a_failure_of_the_controller_is_a_503_so_that_the_sender_retries() {
    let config = with_mlflow("fraud", "0", Trigger::VersionCreated);
    let policies = Policies::load(&config.policies).unwrap();
    let (_publish, view) = tokio::sync::watch::channel(Arc::new(View::new(1)));
    let routes = api(ApiState::new(config, policies, Arc::new(Away), view, clock()));
    assert_eq!(send(&routes, delivery(DELIVERY)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let request = Request::post("/v1/rollouts").body(Body::from(SPEC)).unwrap();
    let (status, body) = send(&routes, request).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().contains("no broker"), "{body}");
}
