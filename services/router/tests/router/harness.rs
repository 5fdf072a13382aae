//! A router with its log and a client, and helpers that wait for conditions instead of sleeping.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng as _},
};
use serde_json::Value;
use serin_router::{ClockKind, Config, Router, RouterHandle, Seams, TimeSource};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    event::EventRecord,
    ids::{EventTime, Generation},
    records::{Arm, Feedback, Heartbeat, Prediction, Route, RouterStatus, RoutingTable},
};
use serin_stream::{
    log::{Log, Polled, Start},
    record::{self, Outgoing, Target, TopicPartition},
    sim::SimLog,
};
use serin_topology::{Cleanup, TopicSpec};

/// Number of partitions of `events` in tests.
pub(crate) const PARTITIONS: i32 = 3;

/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A log with the topics that a router uses.
pub(crate) fn log() -> SimLog {
    let log = SimLog::new();
    log.create(&topics()).unwrap();
    log
}

/// The topics that a router uses.
fn topics() -> Vec<TopicSpec> {
    let delete = Cleanup::Delete { retention_ms: 86_400_000 };
    [
        ("events", delete),
        ("predictions", delete),
        ("routing", Cleanup::Compact),
        ("router-status", delete),
        ("captures", delete),
    ]
    .map(|(name, cleanup)| TopicSpec {
        name: name.to_owned(),
        partitions: PARTITIONS,
        replication: 1,
        cleanup,
        settings: Vec::new(),
    })
    .into()
}

/// A router under test.
pub(crate) struct Bench {
    pub(crate) log: SimLog,
    pub(crate) router: RouterHandle,
    pub(crate) time: TimeSource,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    _folder: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A configuration for tests: free ports, a fast heartbeat, short timeouts.
pub(crate) fn config() -> Config {
    let span = |text| serin_spec::units::Duration::parse(text).unwrap();
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        name: "router-0".to_owned(),
        heartbeat_every: span("20ms"),
        status_every: span("50ms"),
        ..Config::default()
    };
    config.timeouts.first_byte = span("300ms");
    config.timeouts.idle = span("300ms");
    config
}

/// The same on a replay clock.
pub(crate) fn replay() -> Config {
    Config { clock: ClockKind::Replay, ..config() }
}

impl Bench {
    pub(crate) async fn start(config: Config) -> Self {
        Box::pin(Self::on(log(), config)).await
    }

    /// Starts a router on this log, with its own directory unless the configuration names one.
    pub(crate) async fn on(log: SimLog, config: Config) -> Self {
        Box::pin(Self::with(log, config, TimeSource::system())).await
    }

    pub(crate) async fn with(log: SimLog, mut config: Config, time: TimeSource) -> Self {
        let folder = (config.data_dir == Config::default().data_dir).then(|| tempfile::tempdir().unwrap());
        if let Some(folder) = &folder {
            config.data_dir = folder.path().to_owned();
        }
        let random = Mutex::new(ChaCha8Rng::seed_from_u64(11));
        let chance = Arc::new(move || random.lock().unwrap().next_u64());
        let seams = Seams { time: time.clone(), chance };
        let router = Router::start_with(config, Arc::new(log.clone()), seams).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let bench = Self { log, router, time, client, _folder: folder };
        eventually("ready", async || bench.router.ready().ok()).await;
        bench
    }

    pub(crate) async fn send(&self, to: SocketAddr, request: http::request::Builder, body: impl Into<Bytes>) -> Got {
        let uri = format!("http://{to}{}", request.uri_ref().unwrap());
        let response = self.client.request(request.uri(uri).body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Got { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// One call of `flights`.
    pub(crate) async fn infer(&self, headers: &[(&str, &str)]) -> Got {
        self.post("/v2/models/flights/infer", headers, r#"{"inputs":[{"name":"origin","data":["LGA"]}]}"#).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Got {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(self.router.data_addr(), request, body).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: &str) -> Got {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        self.send(self.router.admin_addr(), request, body.to_owned()).await
    }

    /// Writes a table to the log and waits until the router has applied it.
    pub(crate) async fn route(&self, table: &RoutingTable) {
        put(&self.log, table);
        let wanted = (table.generation.0, table.lease_seq);
        eventually("the table is applied", async || {
            let got = self.admin(Method::GET, "/tables", "").await.json();
            let tables = got["tables"].as_array().unwrap();
            let table = tables.iter().find(|found| found["model"] == table.model.as_str())?;
            (table["generation"] == wanted.0 && table["lease_seq"] == wanted.1 && table["lease"] != "unconfirmed")
                .then_some(())
        })
        .await;
    }

    /// Waits for this many predictions.
    pub(crate) async fn predictions(&self, count: usize) -> Vec<Prediction> {
        eventually(&format!("{count} predictions"), async || {
            let found = Events::read(&self.log).predictions();
            assert!(found.len() <= count, "too many: {found:#?}");
            (found.len() == count).then_some(found)
        })
        .await
    }
}

/// Writes a routing record to the log.
pub(crate) fn put(log: &SimLog, table: &RoutingTable) {
    let envelope = Envelope { id: "t", source: "/controller", subject: "", time: EventTime(0) };
    let headers = envelope::headers::<RoutingTable>(&envelope);
    put_raw(log, table.model.as_str(), Some(codec::encode(table).unwrap().into()), headers);
}

/// Writes any record to `routing`.
pub(crate) fn put_raw(log: &SimLog, key: &str, value: Option<Bytes>, headers: record::Headers) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let writer = log.writer(10).unwrap();
    writer.send(Outgoing { topic: "routing", target: Target::ByKey, key, value, headers, timestamp_ms: None }).unwrap();
    writer.flush(PATIENCE).unwrap();
}

/// A table of `flights`: `v1` at `stable`, `v2` at `canary` with this share, control as given.
pub(crate) fn table(generation: i64, stable: &str, canary: &str, shares: (i32, i32)) -> RoutingTable {
    let route =
        |version: &str, arm, share, url: &str| Route { version: version.into(), arm, share, url: Some(url.to_owned()) };
    RoutingTable {
        model: "flights".into(),
        generation: Generation(generation),
        lease_seq: 0,
        lease_ms: 600_000,
        rollout: Some("r1".into()),
        salt: "r1".into(),
        sticky: None,
        routes: vec![
            route("v1", Arm::Stable, 10_000 - shares.0 - shares.1, stable),
            route("v1", Arm::Control, shares.1, stable),
            route("v2", Arm::Canary, shares.0, canary),
        ],
        segments: r#"[{"name":"origin","source":{"input":"origin"}}]"#.into(),
        outputs: r#"[{"name":"p","source":{"tensor":"p"},"min":0,"max":1}]"#.into(),
        fallback: false,
        policy: String::new(),
        reason: "test".into(),
        decided_at: EventTime(0),
    }
}

/// Adds a shadow `v3` with this share.
pub(crate) fn with_shadow(mut table: RoutingTable, url: &str, share: i32) -> RoutingTable {
    table.routes.push(Route { version: "v3".into(), arm: Arm::Shadow, share, url: Some(url.to_owned()) });
    table
}

/// The records of `events`: per partition, in order.
pub(crate) struct Events(pub(crate) Vec<Vec<EventRecord>>);

impl Events {
    pub(crate) fn read(log: &SimLog) -> Self {
        let mut partitions = vec![Vec::new(); PARTITIONS as usize];
        for record in read(log, "events") {
            let event = EventRecord::decode(&record.headers, record.value.as_ref().unwrap()).unwrap();
            partitions[record.at.partition as usize].push(event);
        }
        Self(partitions)
    }

    pub(crate) fn predictions(&self) -> Vec<Prediction> {
        self.pick(|event| if let EventRecord::Prediction(found) = event { Some(found.clone()) } else { None })
    }

    pub(crate) fn feedback(&self) -> Vec<Feedback> {
        self.pick(|event| if let EventRecord::Feedback(found) = event { Some(found.clone()) } else { None })
    }

    pub(crate) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.pick(|event| if let EventRecord::Heartbeat(found) = event { Some(found.clone()) } else { None })
    }

    fn pick<T>(&self, pick: impl Fn(&EventRecord) -> Option<T>) -> Vec<T> {
        self.0.iter().flatten().filter_map(pick).collect()
    }
}

/// All status reports of routers.
pub(crate) fn statuses(log: &SimLog) -> Vec<(i32, RouterStatus)> {
    decoded(log, "router-status")
}

/// All records of one kind on a topic, with their partitions.
pub(crate) fn decoded<R: Record>(log: &SimLog, topic: &str) -> Vec<(i32, R)> {
    let records = read(log, topic).into_iter();
    records
        .map(|record| (record.at.partition, codec::read(&record.headers, record.value.as_ref().unwrap()).unwrap()))
        .collect()
}

/// All records of a topic.
pub(crate) fn read(log: &SimLog, topic: &str) -> Vec<record::Record> {
    let places: Vec<_> = (0..PARTITIONS)
        .map(|partition| (TopicPartition::new(&log.full_name(topic), partition), Start::Beginning))
        .collect();
    let mut reader = log.reader(&places).unwrap();
    let mut records = Vec::new();
    while reader.poll(10_000, Duration::ZERO, &mut records).unwrap() != Polled::AtEnd {}
    records
}
