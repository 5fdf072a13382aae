//! Requests and answers as callers and model servers see them.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serin_schemas::records::{Arm, Assignment};

use crate::{
    harness::{Bench, Events, config, eventually, table},
    upstreams::{ChannelBody, Reply, Server, streaming},
};

async fn two() -> (Server, Server) {
    (Server::start(Reply::probability("0.1")).await, Server::start(Reply::probability("0.9")).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_split_and_reported() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (2000, 3000))).await;
    let n = 1000_u32;
    for _ in 0..n {
        let got = bench.infer(&[]).await;
        assert_eq!(got.status, StatusCode::OK);
        let canary = got.header("x-model-arm") == "canary";
        assert_eq!(got.header("x-model-version"), if canary { "v2" } else { "v1" });
        assert_eq!(got.json()["outputs"][0]["data"][0], if canary { 0.9 } else { 0.1 });
    }
    let predictions = bench.predictions(n as usize).await;
    let count = |arm| predictions.iter().filter(|found| found.arm == arm).count();
    let expected = [(Arm::Canary, 0.2), (Arm::Control, 0.3), (Arm::Stable, 0.5)];
    let chi_square: f64 =
        expected.iter().map(|&(arm, p)| (count(arm) as f64 - p * f64::from(n)).powi(2) / (p * f64::from(n))).sum();
    // 99.9 % quantile of chi-square with 2 degrees of freedom.
    assert!(chi_square < 13.82, "{chi_square}");
    assert_eq!(canary.calls(), count(Arm::Canary));
    let one = predictions.iter().find(|found| found.arm == Arm::Canary).unwrap();
    assert_eq!((one.status, one.error.clone(), one.invalid_output.clone()), (Some(200), None, None));
    assert_eq!((one.assignment, one.generation.0), (Assignment::Random, 1));
    let outputs = [("p", 0.9), ("response.bytes", one.outputs["response.bytes"]), ("response.missing", 0.0)];
    assert_eq!(one.outputs, outputs.map(|(name, value)| (name.to_owned(), value)).into());
    assert!(one.outputs["response.bytes"] > 50.0 && one.segments["origin"] == "LGA");
    assert!(one.latency_us.unwrap() > 0 && one.rollout.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sticky_ramp_moves_no_user_back_and_a_share_of_zero_gets_no_calls() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    let mut before: Vec<String> = Vec::new();
    for (step, share) in [100, 500, 2500, 10_000].into_iter().enumerate() {
        let mut next = table(step as i64 + 1, &stable.url(), &canary.url(), (share, 0));
        next.sticky = Some(r#"{"header":"x-user"}"#.into());
        bench.route(&next).await;
        let mut now = Vec::new();
        for user in 0..200 {
            let user = format!("user-{user}");
            if bench.infer(&[("x-user", &user)]).await.header("x-model-arm") == "canary" {
                now.push(user);
            }
        }
        assert!(before.iter().all(|user| now.contains(user)), "a user moved back at {share}");
        before = now;
    }
    assert_eq!(before.len(), 200);
    assert!(
        bench.predictions(800).await.iter().all(|found| found.assignment == Assignment::Sticky && found.unit.is_some())
    );

    // Rollback: once the table is applied, no call reaches the canary.
    bench.route(&table(9, &stable.url(), &canary.url(), (0, 0))).await;
    let calls = canary.calls();
    for user in 0..200 {
        bench.infer(&[("x-user", &format!("user-{user}"))]).await;
    }
    assert_eq!(canary.calls(), calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_answered_and_excluded_from_the_comparison() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (0, 0))).await;
    let by_header = bench.infer(&[("x-model-version", "v2")]).await;
    assert_eq!((by_header.header("x-model-version"), by_header.header("x-model-arm")), ("v2", "canary"));
    let by_path = bench.post("/v2/models/flights/versions/v2/infer", &[], "{}").await;
    assert_eq!(by_path.header("x-model-version"), "v2");
    assert!(bench.predictions(2).await.iter().all(|found| found.assignment == Assignment::Pinned));
    // The server gets the version in a header, not in its path.
    let seen = canary.seen();
    assert_eq!(seen[1].path, "/v2/models/flights/infer");
    assert_eq!(seen[1].headers["x-model-version"], "v2");
    let unknown = bench.infer(&[("x-model-version", "v9")]).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["error"], r#"model "flights" has no version "v9"; known versions: v1, v2"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_headers_are_kept() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (0, 0))).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = [("x-prediction-id", "my-id"), ("x-request-id", "req-1"), ("traceparent", trace), ("x-private", "1")];
    let got = bench.infer(&sent).await;
    assert_eq!(got.header("x-prediction-id"), "my-id");
    assert_eq!(bench.predictions(1).await[0].request_id.as_str(), "my-id");
    let seen = &stable.seen()[0];
    for (name, value) in sent {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    assert_eq!(seen.headers["host"], stable.address.to_string());
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-host"], bench.router.data_addr().to_string());
    // Without an id from the caller, each call gets a new one, which is also passed to the server.
    let first = bench.infer(&[]).await;
    assert_eq!(first.header("x-prediction-id").len(), 36);
    assert_eq!(stable.seen()[1].headers["x-request-id"], first.header("x-prediction-id"));
    let bad = bench.infer(&[("x-prediction-id", "two words")]).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_go_to_stable_without_an_event() {
    let (stable, canary) = two().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (10_000, 0))).await;
    let get = |path: &str| Request::builder().method(Method::GET).uri(path.to_owned());
    let to = bench.router.data_addr();
    for path in ["/v2/models/flights", "/v2/models/flights/ready", "/v2/models/flights/versions/v1/ready?a=b"] {
        assert_eq!(bench.send(to, get(path), "").await.status, StatusCode::OK);
    }
    assert_eq!(
        bench.send(to, get("/metadata").header("x-serin-model", "flights"), "").await.header("x-model-arm"),
        "stable"
    );
    let paths: Vec<String> = stable.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v2/models/flights", "/v2/models/flights/ready", "/v2/models/flights/ready?a=b", "/metadata"]);
    // V1 and a plain path with the model in a header are predictions.
    assert_eq!(bench.post("/v1/models/flights:predict", &[], "{}").await.header("x-model-arm"), "canary");
    assert_eq!(bench.post("/score?x=1", &[("x-serin-model", "flights")], "{}").await.header("x-model-arm"), "canary");
    assert_eq!(canary.seen()[1].path, "/score?x=1");
    bench.predictions(2).await;
    // The router's own endpoints.
    assert_eq!(bench.send(to, get("/v2/health/live"), "").await.json()["live"], true);
    assert_eq!(bench.send(to, get("/v2/health/ready"), "").await.json()["ready"], true);
    assert_eq!(bench.send(to, get("/v2"), "").await.json()["name"], "serin-router");
    assert_eq!(bench.send(to, get("/v1/models"), "").await.json()["models"][0], "flights");
    assert_eq!(bench.send(to, get("/nothing"), "").await.status, StatusCode::NOT_FOUND);
    let unknown = bench.post("/v2/models/nope/infer", &[], "{}").await;
    assert!(unknown.json()["error"].as_str().unwrap().starts_with("unknown model \"nope\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_passes_before_the_last_one_arrives() {
    let (upstream, pieces) = streaming().await;
    let bench = Bench::start(config()).await;
    let url = format!("http://{upstream}");
    bench.route(&table(1, &url, &url, (0, 0))).await;
    let uri = format!("http://{}/v2/models/flights/generate_stream", bench.router.data_addr());
    let request = Request::post(uri).body(Full::new(Bytes::from("{}"))).unwrap();
    let mut body = bench.client.request(request).await.unwrap().into_body();
    for piece in ["data: 1\n\n", "data: 2\n\n"] {
        pieces.send(Bytes::from(piece)).unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
        assert!(Events::read(&bench.log).predictions().is_empty());
    }
    drop(pieces);
    assert!(body.frame().await.is_none());
    let prediction = &bench.predictions(1).await[0];
    assert_eq!((prediction.error.clone(), prediction.invalid_output.clone()), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_and_too_large_ones_are_refused() {
    let (stable, canary) = two().await;
    let mut config = config();
    config.limits.body = 3 << 20;
    let bench = Bench::start(config).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (0, 0))).await;
    let large = vec![b'x'; 2 << 20];
    assert_eq!(bench.post("/v2/models/flights/infer", &[], large.clone()).await.status, StatusCode::OK);
    assert_eq!(stable.seen()[0].body.len(), large.len());
    let too_large = bench.post("/v2/models/flights/infer", &[], vec![b'x'; (3 << 20) + 1]).await;
    assert_eq!(too_large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(too_large.json()["error"].as_str().unwrap().contains("limits.body"));
    // A refused request has no event.
    bench.predictions(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_blocks_no_other() {
    use tokio::io::AsyncWriteExt as _;
    let huge = Server::start(Reply::ok(vec![b'x'; 32 << 20])).await;
    let quick = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &quick.url(), &huge.url(), (0, 0))).await;
    let mut lazy = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let request =
        "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\nx-model-version: v2\r\ncontent-length: 2\r\n\r\n{}";
    lazy.write_all(request.as_bytes()).await.unwrap();
    eventually("the lazy caller's call", async || (huge.calls() == 1).then_some(())).await;
    for _ in 0..50 {
        assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    }
    bench.predictions(50).await;
    drop(lazy);
    let predictions = bench.predictions(51).await;
    let left = predictions.iter().find(|found| found.version.as_str() == "v2").unwrap();
    assert_eq!(left.error.as_deref(), Some("client_closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_unknown_length_pass_and_are_cut_at_the_limit() {
    let (stable, canary) = two().await;
    let mut config = config();
    config.limits.body = 300_000;
    let bench = Bench::start(config).await;
    bench.route(&table(1, &stable.url(), &canary.url(), (0, 0))).await;
    let client: Client<HttpConnector, ChannelBody> = Client::builder(TokioExecutor::new()).build_http();
    let upload = async |pieces: usize| {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
        let answer = tokio::spawn(client.request(Request::post(uri).body(ChannelBody(receive)).unwrap()));
        for _ in 0..pieces {
            send.send(Bytes::from(vec![b' '; 10_000])).unwrap();
            tokio::task::yield_now().await;
        }
        drop(send);
        answer.await.unwrap().unwrap().status()
    };
    // The table's segments are in the body, so the first 64 KiB are read ahead and the rest is passed through.
    assert_eq!(upload(3).await, StatusCode::OK);
    assert_eq!(upload(20).await, StatusCode::OK);
    assert_eq!(stable.seen().iter().map(|seen| seen.body.len()).collect::<Vec<_>>(), [30_000, 200_000]);
    assert_eq!(upload(31).await, StatusCode::PAYLOAD_TOO_LARGE);
    bench.predictions(2).await;
}
