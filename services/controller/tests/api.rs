//! The API over the controller's fold and a log in memory.

#![expect(clippy::unwrap_used, reason = "a test: it fails where it would panic")]

mod support;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use serin_controller::{
    Config, ControllerFactory, Follower, RoutingTopic, Secret,
    api::{ApiState, api},
    config::{MlflowConfig, Policy, Role, Token, Trigger},
    mlflow::Policies,
    open,
    view::View,
};
use serin_schemas::records::{Capture, Decision, Verdict};
use serin_stream::{
    clock::ManualClock,
    log::{Log, LogError, WriteError, Writer},
    record::Outgoing,
    sim::SimLog,
    stage::{Stage, StageHandle, StageOptions},
    store::MemoryStores,
};
use serin_topology::Topology;
use support::{SPEC, outgoing, verdict};
use tower::ServiceExt as _;

/// When the golden delivery was made, and a little more.
const NOW_MS: i64 = 1_795_245_449_000;
/// How long anything here may take before the test gives up.
const WAIT_MS: u64 = 20_000;

/// API, fold and log.
struct World {
    log: Arc<dyn Log>,
    routes: Router,
    _follower: Follower,
    stage: Option<StageHandle>,
}

impl World {
    fn new(config: Config) -> Self {
        let log: Arc<dyn Log> = Arc::new(SimLog::new());
        let topology = Topology { partitions: 3, ..Topology::default() };
        log.create(&topology.topics()).unwrap();
        let factory = ControllerFactory::new(config.settings(), Arc::new(RoutingTopic(Arc::clone(&log))));
        let stores = Arc::new(MemoryStores::default());
        let stage = Stage::start(Arc::clone(&log), stores, Arc::new(factory), StageOptions::default()).unwrap();
        let (state, follower) = open(config, Arc::clone(&log), clock()).unwrap();
        Self { log, routes: api(state), _follower: follower, stage: Some(stage) }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        send(&self.routes, request).await
    }

    async fn apply(&self, spec: &str) -> String {
        let (status, body) = self.post(&format!("/v1/rollouts?wait_ms={WAIT_MS}"), spec.to_owned()).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["rollout"].as_str().unwrap().to_owned()
    }

    fn write(&self, record: Outgoing) {
        let writer = self.log.writer(10).unwrap();
        writer.send(record).unwrap();
        writer.flush(Duration::from_secs(10)).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            stage.stop(Duration::from_secs(10)).unwrap();
        }
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW_MS))
}

async fn send(routes: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::String(String::from_utf8_lossy(&body).into_owned())))
}

#[tokio::test]
async fn a_rollout_is_started_looked_at_and_acted_on() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;

    let (_, list) = world.get("/v1/rollouts").await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["phase"]), (1, &json!("warming")));
    let (_, state) = world.get("/v1/rollouts/flights").await;
    assert_eq!((&state["id"], &state["spec"]["metrics"][1]["name"]), (&json!(id), &json!("failed")));
    assert_eq!(world.get(&format!("/v1/rollouts/{id}/verdict")).await.0, StatusCode::NOT_FOUND);

    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(outgoing::<Verdict>("verdicts", &warm));
    let (status, news) = world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    assert_eq!((status, &news["next"], &news["events"][0]["kind"]), (StatusCode::OK, &json!(2), &json!("advanced")));
    assert_eq!(world.get("/v1/rollouts/flights/verdict").await.1["as_of"], json!(10_000_000));

    let wait = format!("?wait_ms={WAIT_MS}");
    let (status, paused) = world.post(&format!("/v1/rollouts/{id}/pause{wait}"), r#"{"reason": "lunch"}"#).await;
    assert_eq!((status, &paused["sentence"]), (StatusCode::OK, &json!("paused by operator: lunch")));
    let (status, refused) = world.post(&format!("/v1/rollouts/flights/pause{wait}"), "").await;
    assert_eq!((status, &refused["refused"]), (StatusCode::CONFLICT, &json!(true)));
    assert_eq!(refused["error"], json!("pause refused: operator has paused it already"));
    let (_, resumed) = world.post(&format!("/v1/rollouts/flights/resume{wait}"), "").await;
    assert_eq!(resumed["event"]["kind"], json!("resumed"));
    let (_, promoted) = world.post(&format!("/v1/rollouts/flights/promote{wait}"), r#"{"full": true}"#).await;
    assert_eq!(promoted["event"]["kind"], json!("completed"));
    let (_, tables) = world.get("/v1/routing").await;
    assert_eq!(
        tables[0]["routes"],
        json!([{"version": "v2", "arm": "stable", "share": 10_000, "url": "http://localhost:9002"}])
    );
    let (status, _) = world.post(&format!("/v1/rollouts/{id}/abort{wait}"), "").await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn examples_are_those_of_the_rollout_and_disagreements_come_first() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let examples = format!("/v1/rollouts/{id}/examples");
    assert_eq!(world.get(&examples).await, (StatusCode::OK, json!([])));
    let capture = |request: &str, rollout: &str, differences: &[&str]| {
        let answer = |arm| json!({"version": "v1", "arm": arm, "status": 200, "error": null, "latency_us": 7, "body": "{}", "bytes": 2});
        let capture: Capture = serde_json::from_value(json!({
            "request_id": request, "model": "flights", "rollout": rollout, "generation": 2, "at": 5, "reason": "sample",
            "differences": differences, "request": null, "request_bytes": 9, "live": answer("control"), "shadow": answer("shadow"),
        }))
        .unwrap();
        world.write(outgoing("captures", &capture));
    };
    capture("a", &id, &["p: 1 against 2"]);
    capture("b", "another", &["p: 1 against 3"]);
    capture("c", &id, &[]);
    capture("d", &id, &["p: 1 against 4"]);
    let ids = |found: Value| found.as_array().unwrap().iter().map(|one| one["request_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(world.get(&examples).await.1), ["d", "a", "c"]);
    assert_eq!(ids(world.get(&format!("{examples}?limit=1")).await.1), ["d"]);
    assert_eq!(world.get("/v1/rollouts/nobody/examples").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_bad_spec_is_answered_with_all_its_problems_and_a_dry_run_starts_nothing() {
    let world = World::new(Config::default());
    let bad = SPEC.replace("weight: 25%", "weigth: 25%").replace("absolute: 0.02", "absolute: 2");
    let (status, body) = world.post("/v1/rollouts", bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problems = body["problems"].as_array().unwrap();
    let errors: Vec<_> =
        problems.iter().filter(|problem| problem["severity"] == "error").map(|problem| &problem["path"]).collect();
    assert_eq!(errors, ["steps[1].weigth", "metrics[0].margin"], "{body:#}");
    assert!(problems.iter().all(|problem| problem["line"].as_u64() > Some(0)));

    let (status, body) = world.post("/v1/rollouts?dry_run=true&per_second=0.001", SPEC).await;
    assert_eq!((status, &body["spec"]["model"]), (StatusCode::OK, &json!("flights")));
    assert!(body["problems"].to_string().contains("shadow or blue-green"), "{body:#}");
    assert_eq!(world.get("/v1/rollouts").await.1, json!([]));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_clearly() {
    let world = World::new(Config { max_body_bytes: 2048, ..Config::default() });
    assert_eq!(world.get("/v1/rollouts/nobody").await.0, StatusCode::NOT_FOUND);
    let nothing = world.get("/nothing").await.1;
    assert!(
        nothing["error"].as_str().unwrap().starts_with("there is nothing here; see docs/api.md (in a path "),
        "{nothing}"
    );
    assert_eq!(world.post("/v1/rollouts", vec![0xff, 0xfe]).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.post("/v1/rollouts", "x".repeat(4096)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    world.apply(SPEC).await;
    assert_eq!(world.post("/v1/rollouts/flights/dance", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.post("/v1/rollouts/flights/pause", "{\"reson\": 1}").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(world.post("/v1/rollouts/flights/pause", "{\"full\": true}").await.0, StatusCode::BAD_REQUEST);
    let (status, body) = world.post(&format!("/v1/rollouts?wait_ms={WAIT_MS}"), SPEC).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(body["error"].as_str().unwrap().contains("abort it first"), "{body}");
}

#[tokio::test]
async fn stop_all_reaches_the_models_of_every_partition() {
    let world = World::new(Config::default());
    for model in ["flights", "fraud", "ranking", "search"] {
        world.apply(&SPEC.replace("model: flights", &format!("model: {model}"))).await;
    }
    let (status, body) = world.post(&format!("/v1/stop-all?wait_ms={WAIT_MS}"), r#"{"reason": "fire"}"#).await;
    assert_eq!((status, &body["sentence"]), (StatusCode::OK, &json!("4 rollouts stopped; all traffic is on stable")));
    let (_, list) = world.get("/v1/rollouts").await;
    assert!(list.as_array().unwrap().iter().all(|state| state["phase"] == "aborted"));
}

/// A log that takes everything.
struct Taken;

impl Writer for Taken {
    fn send(&self, _: Outgoing) -> Result<(), WriteError> {
        Ok(())
    }

    fn flush(&self, _: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn failed(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn stop_all_claims_nothing_before_the_api_has_read_its_topics() {
    let (_publish, view) = tokio::sync::watch::channel(Arc::new(View::new(1)));
    let policies = Policies::load(&Config::default().policies).unwrap();
    let routes = api(ApiState::new(Config::default(), policies, Arc::new(Taken), view, clock()));
    let (status, body) = send(&routes, Request::post("/v1/stop-all").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().starts_with("the stop is on the log, but"), "{body}");
}

#[tokio::test]
async fn with_tokens_viewers_look_and_operators_act() {
    let token = |role, text: &str| Token { role, token: Secret::new(text) };
    let tokens = [
        ("grafana".to_owned(), token(Role::Viewer, "viewer-0123456789")),
        ("ada".to_owned(), token(Role::Operator, "operator-0123456789")),
    ];
    let world = World::new(Config { tokens: tokens.into(), ..Config::default() });
    let request = |method: &str, token: &str| {
        let request = Request::builder().method(method).uri(format!("/v1/rollouts?wait_ms={WAIT_MS}"));
        let uri = if method == "GET" { request.uri("/v1/rollouts") } else { request };
        uri.header(header::AUTHORIZATION, format!("Bearer {token}")).body(Body::from(SPEC)).unwrap()
    };
    assert_eq!(world.get("/v1/rollouts").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.send(request("GET", "wrong-0123456789")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.send(request("GET", "viewer-0123456789")).await.0, StatusCode::OK);
    assert_eq!(world.send(request("POST", "viewer-0123456789")).await.0, StatusCode::FORBIDDEN);
    let (status, body) = world.send(request("POST", "operator-0123456789")).await;
    assert_eq!((status, &body["event"]["actor"]), (StatusCode::CREATED, &json!("ada")));
}

#[tokio::test]
async fn without_tokens_a_web_page_of_another_origin_is_refused() {
    let world = World::new(Config::default());
    let with = |name, value: &str| Request::post("/v1/stop-all").header(name, value).body(Body::empty()).unwrap();
    for (name, value) in
        [(header::HOST, "rebound.example.org"), (header::ORIGIN, "https://example.org"), (header::ORIGIN, "null")]
    {
        assert_eq!(world.send(with(name, value)).await.0, StatusCode::FORBIDDEN, "{value}");
    }
    let mut own = with(header::HOST, "localhost:8100");
    *own.uri_mut() = format!("/v1/stop-all?wait_ms={WAIT_MS}").parse().unwrap();
    assert_eq!(world.send(own).await.0, StatusCode::OK);
}

#[test]
fn a_wrong_configuration_is_refused_whole() {
    let log: Arc<dyn Log> = Arc::new(SimLog::new());
    let policies = [("fraud".to_owned(), Policy::default())].into();
    let config = Config { listen: ([0, 0, 0, 0], 1).into(), policies, ..Config::default() };
    let error = open(config, log, clock()).err().unwrap().to_string();
    assert!(error.contains("listen: ") && error.contains("policies.fraud: give either"), "{error}");
}

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
async fn a_real_mlflow_delivery_starts_one_rollout_however_often_it_comes() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    let mut started = Vec::new();
    for _ in 0..3 {
        // 503 until the API has read its topics: MLflow delivers again, and so does this test.
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
async fn a_delivery_during_a_monitored_promotion_waits_to_start_from_the_promoted_version() {
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
    // A command is answered after those before it.
    world.post(&format!("/v1/rollouts/{id}/pause?wait_ms={WAIT_MS}"), "").await;
    let (_, state) = world.get(&format!("/v1/rollouts/{waiting}")).await;
    assert_eq!((&state["phase"], &state["spec"]["stable"]["version"]), (&json!("pending"), &json!("v2")), "{state}");
}

#[tokio::test]
async fn a_delivery_that_proves_nothing_is_refused() {
    let world = World::new(with_mlflow("fraud", "0", Trigger::VersionCreated));
    let rewritten = serde_json::to_string(&serde_json::from_str::<Value>(DELIVERY).unwrap()).unwrap();
    let (status, body) = world.send(delivery(&rewritten)).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::UNAUTHORIZED, &json!("the signature does not fit this body and our secret"))
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

/// A log that is away.
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
async fn our_own_trouble_is_a_503_so_that_the_sender_tries_again() {
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

#[tokio::test]
async fn every_failure_is_json() {
    let world = World::new(Config { max_body_bytes: 1024, ..Config::default() });
    let request = |method: &str, path: &str, body: &str| {
        Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()
    };
    let large = "x".repeat(2000);
    let (mib, wrong) = ("y".repeat(1 << 20), "{");
    for (method, path, body, status) in [
        ("GET", "/v1/rollouts/r/events?nonsense=1", "", 400),
        ("GET", "/v1/rollouts/r/examples?limit=many", "", 400),
        ("POST", "/v1/rollouts?wait_ms=-1", "", 400),
        ("POST", "/v1/rollouts", large.as_str(), 413),
        ("POST", "/v1/stop-all", mib.as_str(), 413),
        ("POST", "/v1/stop-all", wrong, 400),
        ("DELETE", "/v1/rollouts", "", 405),
        ("PUT", "/hooks/mlflow", "", 405),
        ("GET", "/v1/rollouts/%ff/verdict", "", 400),
        ("GET", "/nowhere", "", 404),
    ] {
        let response = world.routes.clone().oneshot(request(method, path, body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::from_u16(status).unwrap(), "{method} {path}");
        let content = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        assert_eq!(content, "application/json", "{method} {path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {body}");
    }
}
