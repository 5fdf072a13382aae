//! A registry's webhook starts one rollout on a running pipeline, if it is signed.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use support::{Answer, PATIENCE, Pipeline, http_with, wait_until};
use world::{User, borrowed, unreachable_url};

/// A delivery of MLflow 3.17.2 as it was received, with the secret `s3cret`.
const BODY: &str = r#"{"entity": "model_version", "action": "created", "timestamp": "2026-11-21T07:17:19.131017+00:00", "data": {"name": "fraud", "version": "1", "source": "s3://bucket/fraud/1", "run_id": null, "tags": {"canary": "true"}, "description": "v1 \u00e9\u00fc"}}"#;
const ID: &str = "0a5a93cb-d6a0-4120-9cde-a34481903726";
const TIMESTAMP: &str = "1795245439";
const SIGNATURE: &str = "v1,3F8kehZZTw/HYNu4Np2NYAqheP95njrGRdGhSzB4dAE=";
const SECRET: &str = "s3cret";

/// Starts a pipeline with a policy for the model `fraud`.
fn pipeline(trigger: &str, tolerance: &str) -> (Pipeline, User, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("fraud.yaml");
    let url = unreachable_url();
    let text = format!(
        "apiVersion: serin.dev/v1\nkind: Rollout\nmodel: fraud\nstable: {{version: '${{stable}}', url: '{url}'}}\n\
         canary: {{version: '${{version}}', url: '{url}/next'}}\nsteps: [{{weight: 10%}}]\n\
         metrics: [{{name: latency_p99, kind: {{quantile: {{level: 0.99}}}}, source: latency, margin: {{relative: 0.5}}}}]\n"
    );
    std::fs::write(&spec, text).unwrap();
    let settings = [
        "topology.partitions=2".to_owned(),
        format!("controller.mlflow.secret={SECRET}"),
        format!("controller.mlflow.tolerance={tolerance}"),
        format!("controller.policies.fraud.spec_file={}", spec.display()),
        format!("controller.policies.fraud.trigger{trigger}"),
        "controller.policies.fraud.stable=champion".to_owned(),
    ];
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let user = User(pipeline.api());
    (pipeline, user, folder)
}

/// Delivers like MLflow, with retries after a 503, which the controller returns until it has read its topics.
fn deliver(pipeline: &Pipeline, body: &str, id: &str, timestamp: &str, signature: &str) -> Answer {
    let url = format!("{}/hooks/mlflow", pipeline.api());
    let headers = [("X-MLflow-Delivery-Id", id), ("X-MLflow-Timestamp", timestamp), ("X-MLflow-Signature", signature)];
    let mut answer = None;
    wait_until(PATIENCE, || {
        answer = Some(http_with(Method::POST, &url, &headers, Some(body.as_bytes().to_vec()))?);
        Ok(answer.as_ref().is_some_and(|answer| answer.status != 503))
    })
    .unwrap();
    answer.unwrap()
}

fn signature(id: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn rollouts(user: &User) -> Vec<Value> {
    user.run(&["list", "--output", "json"]).expect(0).json().as_array().unwrap().clone()
}

#[test]
fn a_repeated_delivery_of_mlflow_starts_one_rollout() {
    let (mut pipeline, user, _folder) = pipeline("=version_created", "36500d");
    let wrong = deliver(&pipeline, BODY, ID, TIMESTAMP, "v1,AAAAehZZTw/HYNu4Np2NYAqheP95njrGRdGhSzB4dAE=");
    assert_eq!(wrong.status, 401, "{wrong:?}");
    let changed = deliver(&pipeline, &BODY.replace("fraud/1", "fraud/2"), ID, TIMESTAMP, SIGNATURE);
    assert_eq!(changed.status, 401, "{changed:?}");
    assert_eq!(rollouts(&user), Vec::<Value>::new());

    let first = deliver(&pipeline, BODY, ID, TIMESTAMP, SIGNATURE);
    assert_eq!(first.status, 202, "{first:?}");
    let id = first.json().unwrap()["rollout"].as_str().unwrap().to_owned();
    wait_until(PATIENCE, || Ok(rollouts(&user).len() == 1)).unwrap();
    let state = user.state("fraud");
    let versions = (&state["spec"]["stable"]["version"], &state["spec"]["canary"]["version"]);
    assert_eq!((state["id"].as_str().unwrap(), versions), (&*id, (&json!("champion"), &json!("1"))));

    // A repeated delivery, also after a restart, does not start a second rollout.
    assert_eq!(deliver(&pipeline, BODY, ID, TIMESTAMP, SIGNATURE).json().unwrap()["rollout"], *id);
    pipeline.kill("up").unwrap();
    pipeline.start("up").unwrap();
    pipeline.ready().unwrap();
    assert_eq!(deliver(&pipeline, BODY, ID, TIMESTAMP, SIGNATURE).json().unwrap()["rollout"], *id);
    // Commands are answered in order, so the deliveries have been processed when this command is answered.
    user.run(&["abort", "fraud", "--reason", "test"]).expect(0);
    assert_eq!(rollouts(&user).len(), 1);
    assert_eq!(deliver(&pipeline, BODY, ID, TIMESTAMP, SIGNATURE).json().unwrap()["rollout"], *id);
    user.run(&["abort", &id]).expect(2);
    assert_eq!(rollouts(&user).len(), 1);
    let started = pipeline.tail("audit").unwrap().iter().filter(|record| record["value"]["actor"] == "mlflow").count();
    assert_eq!(started, 1);
}

#[test]
fn an_alias_starts_a_rollout_and_old_or_unknown_deliveries_do_not() {
    let (pipeline, user, _folder) = pipeline(".alias=challenger", "5m");
    let event = |alias: &str, model: &str| {
        json!({"entity": "model_version_alias", "action": "created", "data": {"name": model, "alias": alias, "version": "7"}})
            .to_string()
    };
    let deliver = |id: &str, at: u64, body: &str| {
        deliver(&pipeline, body, id, &at.to_string(), &signature(id, &at.to_string(), body))
    };
    let stale = deliver("a", now() - 3600, &event("challenger", "fraud"));
    assert_eq!(stale.status, 401);
    assert!(stale.text.contains("s away from the controller's clock"), "{stale:?}");
    for (alias, model) in [("champion", "fraud"), ("challenger", "unknown")] {
        let ignored = deliver("b", now(), &event(alias, model));
        assert_eq!(ignored.status, 202);
        assert!(ignored.json().unwrap()["ignored"].is_string(), "{ignored:?}");
    }
    assert_eq!(deliver("c", now(), &event("challenger", "fraud")).status, 202);
    wait_until(PATIENCE, || Ok(rollouts(&user).len() == 1)).unwrap();
    assert_eq!(user.state("fraud")["spec"]["canary"]["version"], "7");
}
