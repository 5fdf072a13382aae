//! Measures the time until a routing record is in use: from its commit on the log to the first request that is sent according to it.
//!
//! It also checks that every table comes into use, in order, and that no request after the first use of a table is sent according
//! to an older one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serin_router::{Config, Router};
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    ids::{EventTime, Generation},
    records::{Arm, Route, RoutingTable},
};
use serin_stream::{
    log::{Log, Transactional},
    record::{Outgoing, Target},
};
use serin_topology::Topology;

/// Number of requests between two changes. The log is idle in that time, as between the steps of a rollout.
const BETWEEN: usize = 10;
/// Maximum wait for any event.
const PATIENCE: Duration = Duration::from_mins(1);

/// How many tables are published, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Tables at the start that are not measured, because a new broker is slow for a while.
    pub warm_up: i64,
    /// Tables that are measured.
    pub measured: i64,
}

/// One published table, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The commit itself.
    pub commit: u128,
    /// From the return of the commit to the sending of the first request that used the table.
    pub to_use: u128,
}

/// The time that this share (in percent) of the changes do not exceed, in milliseconds.
pub fn quantile(changes: &[Change], what: fn(&Change) -> u128, level: usize) -> f64 {
    let mut times: Vec<u128> = changes.iter().map(what).collect();
    times.sort_unstable();
    let rank = (times.len() * level).div_ceil(100).max(1);
    times.get(rank - 1).map_or(f64::NAN, |&micros| micros as f64 / 1e3)
}

/// A routing record for the log.
pub fn outgoing(table: &RoutingTable) -> Result<Outgoing> {
    let id = format!("{}-{}", table.model, table.generation);
    let envelope = Envelope { id: &id, source: "/test", subject: table.model.as_str(), time: EventTime(0) };
    Ok(Outgoing {
        topic: serin_topology::ROUTING,
        target: Target::ByKey,
        key: table.model.as_str().to_owned().into(),
        value: Some(codec::encode(table)?.into()),
        headers: envelope::headers::<RoutingTable>(&envelope),
        timestamp_ms: None,
    })
}

/// The table of a generation: all traffic to the version with that number.
fn table(generation: i64, url: &str) -> RoutingTable {
    let route =
        Route { version: version(generation).as_str().into(), arm: Arm::Stable, share: 10_000, url: Some(url.into()) };
    RoutingTable {
        model: "m".into(),
        generation: Generation(generation),
        lease_seq: 0,
        lease_ms: 0,
        rollout: None,
        salt: String::new(),
        sticky: None,
        routes: vec![route],
        segments: "[]".into(),
        outputs: "[]".into(),
        fallback: false,
        policy: String::new(),
        reason: "test".into(),
        decided_at: EventTime(0),
    }
}

fn version(generation: i64) -> String {
    format!("v{generation}")
}

/// A model server that answers every request immediately.
async fn model_server() -> Result<String> {
    let app = axum::Router::new().fallback(|| async { axum::Json(serde_json::json!({"outputs": []})) });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// Sends one request; returns the version that answered.
async fn call(http: &reqwest::Client, url: &str) -> Result<String> {
    let response = http.post(url).json(&serde_json::json!({"inputs": []})).send().await?;
    let version = response.headers().get("x-model-version").map(|version| version.to_str().map(str::to_owned));
    response.bytes().await?;
    Ok(version.transpose()?.unwrap_or_default())
}

async fn publish(
    mut owner: Box<dyn Transactional>,
    table: RoutingTable,
) -> Result<(Box<dyn Transactional>, Instant, Instant)> {
    tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        owner.commit(&[outgoing(&table)?], &[], None)?;
        Ok((owner, started, Instant::now()))
    })
    .await?
}

/// Publishes tables to a router on this log, one by one, while requests continue.
pub async fn measure(log: Arc<dyn Log>, series: Series) -> Result<Vec<Change>> {
    log.create(&Topology { partitions: 2, ..Topology::default() }.topics())?;
    let mut owner = log.transactional("test-controller")?;
    let upstream = model_server().await?;
    let folder = tempfile::tempdir()?;
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.path().to_owned(),
        ..Config::default()
    };
    let router = Router::start(config, log).await?;
    let url = format!("http://{}/v2/models/m/infer", router.data_addr());
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(cause) = router.ready() {
        ensure!(Instant::now() < deadline, "the router does not become ready: {cause}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut changes = Vec::new();
    for generation in 1..=series.warm_up + series.measured {
        let mut publishing = tokio::spawn(publish(owner, table(generation, &upstream)));
        let mut used = None;
        let mut committed = None;
        let deadline = Instant::now() + PATIENCE;
        // Requests continue while the table is in flight.
        while used.is_none() || committed.is_none() {
            ensure!(Instant::now() < deadline, "table {generation} did not come into use");
            let sent = Instant::now();
            let answered = call(&http, &url).await?;
            if answered == version(generation) {
                used = used.or(Some(sent));
            } else {
                ensure!(used.is_none(), "{answered} answered after table {generation} was in use");
                ensure!(generation == 1 || answered == version(generation - 1), "{answered} at table {generation}");
            }
            if committed.is_none() && publishing.is_finished() {
                committed = Some((&mut publishing).await??);
            }
        }
        let (back, started, end) = committed.context("committed")?;
        owner = back;
        let used = used.context("used")?;
        if generation > series.warm_up {
            changes.push(Change {
                commit: end.duration_since(started).as_micros(),
                to_use: used.saturating_duration_since(end).as_micros(),
            });
        }
        for _ in 0..BETWEEN {
            ensure!(call(&http, &url).await? == version(generation), "an older table came back");
        }
    }
    router.shutdown(Duration::from_secs(5)).await;
    Ok(changes)
}
