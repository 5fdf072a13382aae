//! Measures a router with an in-memory log: how fast a table is applied, and how many calls it serves.
//!
//! `cargo run --release --example measure`. Upstream, router and caller share the machine, so compare runs of this program
//! only with each other.

#![expect(clippy::print_stdout, reason = "the program prints its results")]
#![expect(clippy::unwrap_used, reason = "a failed measurement should panic where it fails")]

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serin_router::{Config, Router};
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    ids::{EventTime, Generation},
    records::{Arm, Route, RouterStatus, RoutingTable},
};
use serin_stream::{
    log::{Log, Start, Writer},
    record::{Outgoing, Target, TopicPartition},
    sim::SimLog,
};
use serin_topology::{Cleanup, TopicSpec};

const CONNECTIONS: usize = 32;
const CALLS: usize = 60_000;
const TABLES: i64 = 1000;

#[tokio::main]
async fn main() {
    let log = SimLog::new();
    let topics = ["events", "predictions", "routing", "router-status"].map(|name| TopicSpec {
        name: name.to_owned(),
        partitions: 6,
        replication: 1,
        cleanup: Cleanup::Compact,
        settings: Vec::new(),
    });
    log.create(&topics).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.path().to_owned(),
        ..Config::default()
    };
    let router = Router::start(config, Arc::new(log.clone())).await.unwrap();
    let upstream = upstream().await;
    let writer = log.writer(10_000).unwrap();

    let direct = calls(&upstream, CALLS).await;
    let blocking = (log.clone(), Arc::clone(&writer), upstream.clone());
    let mut applied = tokio::task::spawn_blocking(move || tables(&blocking.0, &blocking.1, &blocking.2)).await.unwrap();
    let routed = calls(&format!("http://{}", router.data_addr()), CALLS).await;
    router.shutdown(Duration::from_secs(10)).await;

    println!("{CALLS} calls over {CONNECTIONS} connections, one event each:");
    println!("  direct   {direct}");
    println!("  routed   {routed}");
    println!("{TABLES} tables, from writing a table to its status on the log:");
    println!("  {}", quantiles(&mut applied));
}

/// Writes tables one by one and waits for the status that confirms each.
fn tables(log: &SimLog, writer: &Arc<dyn Writer>, url: &str) -> Vec<Duration> {
    let partition = serin_stream::partition_of(b"flights", 6);
    let status = TopicPartition::new(&log.full_name("router-status"), partition);
    let mut reader = log.reader(&[(status, Start::End)]).unwrap();
    let mut took = Vec::new();
    for generation in 1..=TABLES {
        let start = Instant::now();
        put(writer, &table(generation, url));
        'waiting: loop {
            let mut records = Vec::new();
            reader.poll(100, Duration::from_secs(1), &mut records).unwrap();
            for record in records {
                let status: RouterStatus = codec::read(&record.headers, record.value.as_ref().unwrap()).unwrap();
                if status.applied.iter().any(|applied| applied.generation.0 == generation) {
                    took.push(start.elapsed());
                    break 'waiting;
                }
            }
        }
    }
    took
}

fn put(writer: &Arc<dyn Writer>, table: &RoutingTable) {
    let envelope = Envelope { id: "m", source: "/measure", subject: "", time: EventTime(0) };
    let headers = envelope::headers::<RoutingTable>(&envelope);
    let value = Some(codec::encode(table).unwrap().into());
    let key = Bytes::from_static(b"flights");
    writer.send(Outgoing { topic: "routing", target: Target::ByKey, key, value, headers, timestamp_ms: None }).unwrap();
}

fn table(generation: i64, url: &str) -> RoutingTable {
    let route = |version: &str, arm, share| Route { version: version.into(), arm, share, url: Some(url.to_owned()) };
    RoutingTable {
        model: "flights".into(),
        generation: Generation(generation),
        lease_seq: 0,
        lease_ms: 3_600_000,
        rollout: Some("r1".into()),
        salt: "r1".into(),
        sticky: None,
        routes: vec![route("v1", Arm::Stable, 0), route("v1", Arm::Control, 9000), route("v2", Arm::Canary, 1000)],
        segments: r#"[{"name":"origin","source":{"input":"origin"}}]"#.into(),
        outputs: r#"[{"name":"p","source":{"tensor":"p"},"min":0,"max":1}]"#.into(),
        fallback: false,
        policy: String::new(),
        reason: "measure".into(),
        decided_at: EventTime(0),
    }
}

/// A model server that answers immediately.
async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async {
                    let _ = request.into_body().collect().await;
                    let body = r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}"#;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body.as_bytes()))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    format!("http://{address}")
}

/// Returns the calls per second and the latency quantiles.
async fn calls(base: &str, count: usize) -> String {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let uri: http::Uri = format!("{base}/v2/models/flights/infer").parse().unwrap();
    let body = Bytes::from_static(br#"{"inputs":[{"name":"origin","shape":[1],"datatype":"BYTES","data":["LGA"]}]}"#);
    let start = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, uri, body) = (client.clone(), uri.clone(), body.clone());
        workers.push(tokio::spawn(async move {
            let mut took = Vec::with_capacity(count / CONNECTIONS);
            for _ in 0..count / CONNECTIONS {
                let start = Instant::now();
                let request = Request::post(uri.clone()).body(Full::new(body.clone())).unwrap();
                let response = client.request(request).await.unwrap();
                assert!(response.status().is_success());
                response.into_body().collect().await.unwrap();
                took.push(start.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::with_capacity(count);
    for worker in workers {
        took.extend(worker.await.unwrap());
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    format!("{rate:.0} per second; {}", quantiles(&mut took))
}

fn quantiles(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0))
}
