//! The API over the controller's fold and a log in memory.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use serin_controller::{Config, ControllerFactory, Follower, RoutingTopic, api::api, open};
use serin_stream::{
    clock::ManualClock,
    log::Log,
    record::Outgoing,
    sim::SimLog,
    stage::{Stage, StageHandle, StageOptions},
    store::MemoryStores,
};
use serin_topology::Topology;
use tower::ServiceExt as _;

/// Shortly after the time of the golden delivery.
pub(crate) const NOW_MS: i64 = 1_795_245_449_000;
/// How long a step of a test may take before the test fails.
pub(crate) const WAIT_MS: u64 = 20_000;

/// The API, the fold and the log.
pub(crate) struct World {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) routes: Router,
    _follower: Follower,
    stage: Option<StageHandle>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let log: Arc<dyn Log> = Arc::new(SimLog::new());
        let topology = Topology { partitions: 3, ..Topology::default() };
        log.create(&topology.topics()).unwrap();
        let factory = ControllerFactory::new(config.settings(), Arc::new(RoutingTopic(Arc::clone(&log))));
        let stores = Arc::new(MemoryStores::default());
        let stage = Stage::start(Arc::clone(&log), stores, Arc::new(factory), StageOptions::default()).unwrap();
        let (state, follower) = open(config, Arc::clone(&log), clock()).unwrap();
        Self { log, routes: api(state), _follower: follower, stage: Some(stage) }
    }

    /// Another API on the same log, as after a restart.
    pub(crate) fn restarted(&self) -> Self {
        let (state, follower) = open(Config::default(), Arc::clone(&self.log), clock()).unwrap();
        Self { log: Arc::clone(&self.log), routes: api(state), _follower: follower, stage: None }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        send(&self.routes, request).await
    }

    pub(crate) async fn apply(&self, spec: &str) -> String {
        let (status, body) = self.post(&format!("/v1/rollouts?wait_ms={WAIT_MS}"), spec.to_owned()).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["rollout"].as_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, record: Outgoing) {
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

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW_MS))
}

pub(crate) async fn send(routes: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::String(String::from_utf8_lossy(&body).into_owned())))
}
