//! Kafka becomes unavailable for a router: requests are still answered, events are queued up to the limit, and dropped events are
//! counted and reported when Kafka is back.
//!
//! `SERIN_TEST_AWAY_SECONDS` sets how long Kafka is unavailable. Releases are tested with minutes.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serin_router::{Config, ModelConfig, Router};
use serin_schemas::{event::EventRecord, records::Heartbeat};
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions},
    log::{Log, Start},
    record::TopicPartition,
};
use serin_tests::kafka::{Broker, BrokerOptions, unique_prefix};
use serin_topology::Topology;

/// Size of the event queue.
const QUEUE: usize = 300;
/// Partitions of every topic.
const PARTITIONS: i32 = 2;

async fn model_server() -> Result<String> {
    let app = axum::Router::new().fallback(|| async { axum::Json(serde_json::json!({"outputs": []})) });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// The number of predictions and the newest heartbeat on `events`.
fn events(log: &dyn Log) -> Result<(usize, Option<Heartbeat>)> {
    let name = log.full_name("events");
    let places: Vec<_> =
        (0..PARTITIONS).map(|partition| (TopicPartition::new(&name, partition), Start::Beginning)).collect();
    let mut reader = log.reader(&places)?;
    let (mut predictions, mut newest, mut records) = (0, None::<Heartbeat>, Vec::new());
    loop {
        reader.poll(1000, Duration::from_secs(1), &mut records)?;
        for record in records.drain(..) {
            let Some(value) = &record.value else { continue };
            match EventRecord::decode(&record.headers, value)? {
                EventRecord::Prediction(_) => predictions += 1,
                EventRecord::Heartbeat(beat) => newest = Some(beat),
                _ => {}
            }
        }
        if places.iter().all(|(place, _)| reader.at_end(place)) {
            return Ok((predictions, newest));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_without_kafka_and_dropped_events_are_reported() -> Result<()> {
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(BrokerOptions::default())).await??;
    let options = KafkaOptions::new(broker.bootstrap(), &unique_prefix("away"));
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&options)?);
    log.create(&Topology { partitions: PARTITIONS, ..Topology::default() }.topics())?;
    let folder = tempfile::tempdir()?;
    let model = ModelConfig {
        stable: "v1".into(),
        versions: [("v1".to_owned(), model_server().await?.as_str().into())].into(),
        zones: [].into(),
        versioned_paths: false,
        paths: Vec::new(),
        segments: Vec::new(),
        outputs: Vec::new(),
    };
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.path().to_owned(),
        event_queue: QUEUE,
        models: [("m".to_owned(), model)].into(),
        ..Config::default()
    };
    let router = Router::start(config, Arc::clone(&log)).await?;
    let url = format!("http://{}/v2/models/m/infer", router.data_addr());
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let call = async || -> Result<Duration> {
        let started = Instant::now();
        let answer = http.post(&url).json(&serde_json::json!({"inputs": []})).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        answer.bytes().await?;
        Ok(started.elapsed())
    };
    let deadline = Instant::now() + support::PATIENCE;
    while let Err(reason) = router.ready() {
        ensure!(Instant::now() < deadline, "the router is not ready: {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Fewer events than the queue holds, and all of them on the log. Later drops happen because Kafka is unavailable.
    let before = QUEUE / 3;
    for _ in 0..before {
        call().await?;
    }
    loop {
        let reader = Arc::clone(&log);
        let (found, _) = tokio::task::spawn_blocking(move || events(reader.as_ref())).await??;
        if found == before {
            break;
        }
        ensure!(Instant::now() < deadline, "{found} of {before} events are on the log");
    }

    let mut broker = tokio::task::spawn_blocking(move || broker.stop().map(|()| broker)).await??;
    let seconds = std::env::var("SERIN_TEST_AWAY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let away = Instant::now();
    let mut took = Vec::new();
    while took.len() < 4 * QUEUE || away.elapsed() < Duration::from_secs(seconds) {
        took.push(call().await?);
    }
    took.sort_unstable();
    let requests = took.len();
    println!(
        "Kafka unavailable for {:.1} s: {requests} requests, none failed, p50 {:?}, p99 {:?}",
        away.elapsed().as_secs_f64(),
        took[requests / 2],
        took[requests * 99 / 100]
    );
    ensure!(router.ready().is_ok(), "a router without its log still serves");

    let _broker = tokio::task::spawn_blocking(move || broker.start_again().map(|()| broker)).await??;
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        call().await?;
        let reader = Arc::clone(&log);
        let (found, beat) = tokio::task::spawn_blocking(move || events(reader.as_ref())).await??;
        let dropped: i64 = beat.iter().flat_map(|beat| &beat.drops).map(|drop| drop.dropped).sum();
        // Heartbeats are in the same queue. Queued events arrive, the others are reported as dropped.
        let waited = found.saturating_sub(before);
        if dropped > 0 && waited > QUEUE / 2 && dropped as usize + QUEUE / 2 > requests - QUEUE {
            println!("back: {found} events are on the log, {dropped} were dropped and reported");
            ensure!(dropped as usize <= requests, "more events were dropped than requests were sent");
            break;
        }
        ensure!(Instant::now() < deadline, "{found} events, {dropped} reported as dropped, of {requests}");
    }
    router.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
