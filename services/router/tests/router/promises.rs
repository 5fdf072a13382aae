//! What holds when the log does not: full queues, a log that is away at the start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serin_router::{ModelConfig, Router};
use serin_schemas::ids::NextOffset;
use serin_stream::{
    log::{Log, LogError, Membership, Reader, Start, Transactional, WriteError, Writer},
    record::{Outgoing, TopicPartition},
    sim::SimLog,
};
use serin_topology::TopicSpec;

use crate::{
    events::check_promises,
    harness::{Events, config, eventually, log},
    upstreams::{Says, Server},
};

/// A log that can be away, and whose queue can be full.
struct Moody {
    inner: SimLog,
    away: AtomicBool,
    full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

struct MoodyWriter {
    inner: Arc<dyn Writer>,
    full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Writer for MoodyWriter {
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

impl Log for Moody {
    fn full_name(&self, topic: &str) -> Arc<str> {
        self.inner.full_name(topic)
    }

    fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.inner.create(topics)
    }

    fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        self.inner.describe(topics)
    }

    fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(LogError::Failed { doing: "asking for partitions".into(), cause: "nobody answers".into() });
        }
        self.inner.partitions(topic)
    }

    fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        self.inner.bounds(at)
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<NextOffset>, LogError> {
        self.inner.committed(group, at)
    }

    fn reader(&self, from: &[(TopicPartition, Start)]) -> Result<Box<dyn Reader>, LogError> {
        self.inner.reader(from)
    }

    fn transactional(&self, id: &str) -> Result<Box<dyn Transactional>, LogError> {
        self.inner.transactional(id)
    }

    fn writer(&self, queue: usize) -> Result<Arc<dyn Writer>, LogError> {
        let inner = self.inner.writer(queue)?;
        Ok(Arc::new(MoodyWriter { inner, full: Arc::clone(&self.full), refused: Arc::clone(&self.refused) }))
    }

    fn join(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(group, topics)
    }
}

fn moody(away: bool) -> Arc<Moody> {
    Arc::new(Moody { inner: log(), away: AtomicBool::new(away), full: Arc::default(), refused: Arc::default() })
}

/// A configuration that knows `flights` at this server, and its folder.
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
async fn a_full_queue_costs_events_never_requests_and_is_reported() {
    let server = Server::start(Says::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = moody(false);
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
    // Numbers are used only for what was queued: no gap, and the promises hold.
    assert_eq!(check_promises(&Events::read(&log.inner)), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_not_accepted_while_it_cannot_be_written() {
    let server = Server::start(Says::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = moody(false);
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
async fn a_router_serves_without_the_log_and_joins_it_later() {
    let server = Server::start(Says::probability("0.5")).await;
    let (config, _folder) = known(&server);
    let log = moody(true);
    let router = Router::start(config, Arc::clone(&log) as Arc<dyn Log>).await.unwrap();
    assert_eq!(infer(router.data_addr()).await, StatusCode::OK);
    // It has waited long enough for the log and knows a model: it is ready.
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
