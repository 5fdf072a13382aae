//! Upstreams that hang, refuse, abort or send invalid answers: the caller gets a clear answer, each version exactly one event, and the next
//! call works.

use http::StatusCode;
use serin_schemas::records::{Arm, Assignment, Prediction};

use crate::{
    harness::{Bench, Got, config, eventually, table},
    upstreams::{Reply, Server, raw, unused_address},
};

/// One call to a canary at `address` that gets all traffic.
async fn canary_at(address: std::net::SocketAddr, fallback: bool) -> (Got, Vec<Prediction>) {
    let stable = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &stable.url(), &format!("http://{address}"), (10_000, 0));
    split.fallback = fallback;
    bench.route(&split).await;
    let got = bench.infer(&[]).await;
    let predictions = bench.predictions(if fallback { 2 } else { 1 }).await;
    // The router continues: the next table works immediately.
    bench.route(&table(2, &stable.url(), &stable.url(), (0, 0))).await;
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    (got, predictions)
}

/// Without fallback: the status and cause of the answer, and one event with the same cause.
async fn check(address: std::net::SocketAddr, status: StatusCode, cause: &str) -> Prediction {
    let (got, predictions) = canary_at(address, false).await;
    assert_eq!(got.status, status);
    let error = got.json();
    assert_eq!(error["cause"], cause);
    assert_eq!(
        (&error["model"], &error["version"], &error["arm"]),
        (&"flights".into(), &"v2".into(), &"canary".into())
    );
    assert!(error["error"].as_str().unwrap().starts_with("v2 of model flights: its server"), "{error}");
    assert_eq!(error["prediction_id"], predictions[0].request_id.as_str());
    assert_eq!(got.header("x-model-version"), "v2");
    assert_eq!(predictions[0].error.as_deref(), Some(cause));
    predictions[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses() {
    assert_eq!(check(unused_address().await, StatusCode::BAD_GATEWAY, "connect").await.status, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_before_its_answer() {
    let prediction = check(raw(b"", true).await, StatusCode::GATEWAY_TIMEOUT, "timeout").await;
    assert!(prediction.latency_us.unwrap() >= 300_000, "a timeout completes at the timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_in_the_middle_of_its_answer() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf";
    check(raw(answer, true).await, StatusCode::GATEWAY_TIMEOUT, "timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_half_a_body() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf";
    assert_eq!(check(raw(answer, false).await, StatusCode::BAD_GATEWAY, "truncated").await.status, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_closes_without_an_answer() {
    check(raw(b"", false).await, StatusCode::BAD_GATEWAY, "reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_a_stream() {
    use http_body_util::BodyExt as _;
    let address = raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", false).await;
    let bench = Bench::start(config()).await;
    let url = format!("http://{address}");
    bench.route(&table(1, &url, &url, (0, 0))).await;
    let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
    let request = http::Request::post(uri).body(http_body_util::Full::from("{}")).unwrap();
    // The head may or may not arrive before the connection breaks; a complete answer never does.
    let whole = match bench.client.request(request).await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "the caller must see that the answer is incomplete");
    assert_eq!(bench.predictions(1).await[0].error.as_deref(), Some("truncated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_the_upstream_is_passed_on() {
    for (status, error) in [(503, Some("status_503")), (422, None)] {
        let server = Server::start(Reply { status, ..Reply::ok(r#"{"detail":"x"}"#) }).await;
        let (got, predictions) = canary_at(server.address, false).await;
        assert_eq!(got.status.as_u16(), status);
        assert_eq!(got.json()["detail"], "x");
        let prediction = &predictions[0];
        assert_eq!((prediction.error.as_deref(), prediction.status), (error, Some(i32::from(status))));
        assert_eq!(prediction.invalid_output, None, "only good answers have outputs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_answers() {
    for (body, reason) in [
        (Reply::probability("NaN"), "nan"),
        (Reply::probability("null"), "null"),
        (Reply::probability("7"), "out_of_range"),
        (Reply::probability(""), "empty"),
        (Reply::ok(r#"{"outputs":[]}"#), "missing"),
        (Reply::ok("<html>oops</html>"), "html"),
        (Reply::ok(""), "empty"),
    ] {
        let server = Server::start(body.clone()).await;
        let (got, predictions) = canary_at(server.address, false).await;
        assert_eq!((got.status, &got.body), (StatusCode::OK, &body.body), "answers pass unchanged");
        assert_eq!((predictions[0].invalid_output.as_deref(), &predictions[0].error), (Some(reason), &None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_canary_call_may_be_answered_by_stable() {
    let failing = Server::start(Reply { status: 500, ..Reply::ok("{}") }).await;
    let half = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf", false).await;
    for (address, cause) in [(unused_address().await, "connect"), (half, "truncated"), (failing.address, "status_500")]
    {
        let (got, predictions) = canary_at(address, true).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!((got.header("x-model-version"), got.header("x-model-arm")), ("v1", "stable"));
        let of = |arm| predictions.iter().find(|found| found.arm == arm).unwrap();
        assert_eq!(of(Arm::Canary).error.as_deref(), Some(cause), "the canary's failure is not hidden");
        assert_eq!(of(Arm::Canary).assignment, Assignment::Random);
        assert_eq!((of(Arm::Stable).assignment, &of(Arm::Stable).error), (Assignment::Fallback, &None));
        assert_eq!(of(Arm::Canary).request_id, of(Arm::Stable).request_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_disconnects_has_one_event() {
    use tokio::io::AsyncWriteExt as _;
    let hanging = raw(b"", true).await;
    let mut config = config();
    config.timeouts.first_byte = serin_spec::units::Duration::from_secs(600);
    let bench = Bench::start(config).await;
    let url = format!("http://{hanging}");
    bench.route(&table(1, &url, &url, (0, 0))).await;
    let mut caller = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let request = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    caller.write_all(request.as_bytes()).await.unwrap();
    eventually("it is in flight", async || {
        (bench.admin(http::Method::GET, "/tables", "").await.json()["in_flight"] == 1).then_some(())
    })
    .await;
    let stable = Server::start(Reply::probability("0.5")).await;
    bench.route(&table(2, &stable.url(), &stable.url(), (0, 0))).await;
    drop(caller);
    let found = bench.predictions(1).await;
    assert_eq!(found[0].error.as_deref(), Some("client_closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_calls_in_flight_are_refused() {
    let hanging = raw(b"", true).await;
    let mut config = config();
    config.limits.in_flight = 1;
    config.timeouts.first_byte = serin_spec::units::Duration::from_secs(600);
    let bench = std::sync::Arc::new(Bench::start(config).await);
    let url = format!("http://{hanging}");
    bench.route(&table(1, &url, &url, (0, 0))).await;
    let held = tokio::spawn({
        let bench = std::sync::Arc::clone(&bench);
        async move { bench.infer(&[]).await }
    });
    eventually("the first is in flight", async || {
        (bench.admin(http::Method::GET, "/tables", "").await.json()["in_flight"] == 1).then_some(())
    })
    .await;
    let got = bench.infer(&[]).await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.json()["error"], "too many calls are in flight; retry");
    held.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_headers_is_refused() {
    let bench = Bench::start(config()).await;
    let mut request = http::Request::get("/v2/health/live");
    for n in 0..200 {
        request = request.header(format!("x-{n}"), "1");
    }
    let got = bench.send(bench.router.data_addr(), request, "").await;
    assert_eq!(got.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let request = http::Request::get("/v2/health/live").header("x-long", "y".repeat(70_000));
    let got = bench.send(bench.router.data_addr(), request, "").await;
    assert_eq!(got.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}
