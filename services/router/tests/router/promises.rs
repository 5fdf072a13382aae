//! Guarantees that hold when the log fails: full queues, and a log that is unavailable at startup.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serin_router::{ModelConfig, Router};
use serin_stream::{
    log::{Log, LogError, WriteError, Writer},
    record::Outgoing,
    sim::SimLog,
    testing::Forward,
};

use crate::{
    events::check_promises,
    harness::{Events, config, eventually, log},
    upstreams::{Reply, Server},
};

/// A log that can be unavailable and whose queue can be full.
struct FlakyLog {
    inner: SimLog,
    away: AtomicBool,
    full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

struct FlakyWriter {
    inner: Arc<dyn Writer>,
    full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Writer for FlakyWriter {
    fn send(&self, record: Outgoing) -> Result<(), WriteError> {
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(WriteError::QueueFull);
        }
        self.inner.send(record)
    }

    fn flush(&self, deadline: Duration) -> Result<(), LogError> {
        self.inner.flush(deadline)
    }

    fn failed(&self) -> u64 {
        self.inner.failed()
    }
}

impl Forward for FlakyLog {
    fn inner(&self) -> &dyn Log {
        &self.inner
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LogError::Failed { doing: "asking for partitions".into(), cause: "no broker answers".into() });
        }
        self.inner.partitions(topic)
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        let inner = self.inner.writer(queue)?;
        Ok(Arc::new(FlakyWriter { inner, full: Arc::clone(&self.full), refused: Arc::clone(&self.refused) }))
    }
}

fn flaky(away: bool) -> Arc<FlakyLog> {
    Arc::new(FlakyLog { inner: log(), away: AtomicBool::new(away), full: Arc::default(), refused: Arc::default() })
}

/// A configuration with `flights` at this server, and its directory.
fn known(server: &Server) -> (serin_router::Config, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = serin_router::Config { data_dir: folder.path().to_owned(), ..config() };
    let versions = [("v1".to_owned(), server.url().as_str().into())].into();
    let model = ModelConfig {
        stable: "v1".into(),
        versions,
        versioned_paths: false,
        zones: [].into(),
        paths: vec![],
        segments: vec![],
        outputs: vec![],
    };
    config.models.insert("flights".into(), model);
    (config, folder)
}

async fn infer(to: std::net::SocketAddr) -> StatusCode {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::post(format!("http://{to}/v2/models/flights/infer"));
    client.request(request.body(http_body_util::Full::<bytes::Bytes>::from("{}")).unwrap()).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_events_but_no_requests_and_is_reported() {
    let server = Server::start(Reply::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = flaky(false);
    let router = Router::start(config, Arc::clone(&log) as Arc<dyn Log>).await.unwrap();
    for _ in 0..10 {
        assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
    }
    log.full.store(true, Ordering::SeqCst);
    for _ in 0..25 {
        assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
    }
    assert!(log.refused.load(Ordering::SeqCst) >= 25);
    log.full.store(false, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
    }
    eventually("20 events and the drops", async || {
        let events = Events::read(&log.inner);
        let drops = events.heartbeats().iter().flat_map(|beat| beat.drops.clone()).map(|drop| drop.dropped).max();
        (events.predictions().len() == 20 && drops == Some(25)).then_some(())
    })
    .await;
    // Numbers are used only for queued records: there is no gap, and the guarantees hold.
    assert_eq!(check_promises(&Events::read(&log.inner)), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_not_accepted_while_it_cannot_be_written() {
    let server = Server::start(Reply::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = flaky(false);
    let router = Router::start(config, Arc::clone(&log) as Arc<dyn Log>).await.unwrap();
    log.full.store(true, Ordering::SeqCst);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let post = || {
        let body = http_body_util::Full::<bytes::Bytes>::from(r#"{"prediction_id":"a","label":1}"#);
        let uri = format!("http://{}/v1/feedback", router.data_addr());
        client.request(http::Request::post(uri).body(body).unwrap())
    };
    let refused = post().await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    log.full.store(false, Ordering::SeqCst);
    assert_eq!(post().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(Events::read(&log.inner).feedback().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_serves_without_the_log_and_connects_to_it_later() {
    let server = Server::start(Reply::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = flaky(true);
    let router = Router::start(config, Arc::clone(&log) as Arc<dyn Log>).await.unwrap();
    assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
    // It has waited long enough for the log and has a table: it is ready.
    eventually("ready without the log", async || router.ready().ok()).await;
    log.away.store(false, Ordering::SeqCst);
    eventually("events and the loss are on the log", async || {
        assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
        let events = Events::read(&log.inner);
        let lost = events.heartbeats().iter().any(|beat| beat.drops.iter().any(|drop| drop.dropped >= 1));
        (lost && !events.predictions().is_empty()).then_some(())
    })
    .await;
}
