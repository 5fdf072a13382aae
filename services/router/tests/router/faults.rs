//! Slow, huge and broken requests and answers must not affect healthy requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::{Bench, config, eventually, table},
    upstreams::{ChannelBody, Reply, Server, reset_after, streaming},
};

fn span(text: &str) -> serin_spec::units::Duration {
    serin_spec::units::Duration::parse(text).unwrap()
}

/// Reads until the other side closes and returns the bytes read.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset also ends the connection.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await.expect("it is cut");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_are_closed_and_free_their_slots() {
    let server = Server::start(Reply::probability("0.1")).await;
    let mut config = config();
    config.limits.connections = 8;
    config.timeouts.header = span("300ms");
    let bench = Bench::start(config).await;
    // The harness itself holds one connection.
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let mut slow = Vec::new();
    for n in 0..20 {
        let mut stream = TcpStream::connect(bench.router.data_addr()).await.unwrap();
        // Some send nothing at all, some start a head, some start a second one after a valid request.
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"POST /v2/models/flights/infer HTTP/1.1\r\nx-slow: ").await.unwrap(),
            _ if n < 6 => {
                stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200");
                stream.write_all(b"GET /v2/hea").await.unwrap();
            }
            _ => stream.write_all(b"GET").await.unwrap(),
        }
        slow.push(stream);
    }
    // All slots are taken, but only for a short time.
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    for mut stream in slow {
        read_to_end(&mut stream).await;
    }
    bench.predictions(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_takes_no_slot_and_is_not_a_failure_of_the_version() {
    let server = Server::start(Reply::probability("0.1")).await;
    let mut config = config();
    config.limits.in_flight = 1;
    config.timeouts.request = span("400ms");
    let bench = Bench::start(config).await;
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let mut slow = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let head = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK, "the only slot is free");
    let answer = read_to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");

    // A large body is already being sent to the server when it stops.
    let mut large = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let head = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{";
    large.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut large).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    bench.predictions(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_tiny_chunks_times_out() {
    let server = Server::start(Reply::probability("0.1")).await;
    let mut config = config();
    config.timeouts.upload = span("500ms");
    let bench = Bench::start(config).await;
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let mut slow = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let head = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    loop {
        tokio::select! {
            read = slow.read_exact(&mut answer) => {
                read.unwrap();
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                // The router may have closed its side already.
                let _ = slow.write_all(b" ").await;
            }
        }
    }
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_is_disconnected() {
    let huge = Server::start(Reply::ok(vec![b'x'; 32 << 20])).await;
    let mut config = config();
    config.timeouts.send = span("300ms");
    let bench = Bench::start(config).await;
    bench.route(&table(1, &huge.url(), &huge.url(), (0, 0))).await;
    let mut lazy = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let request = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    lazy.write_all(request.as_bytes()).await.unwrap();
    let found = bench.predictions(1).await;
    assert_eq!(found[0].error.as_deref(), Some("client_closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_timeout() {
    let mut config = config();
    config.timeouts.header = span("100ms");
    config.timeouts.keep_alive = span("700ms");
    let bench = Bench::start(config).await;
    let mut idle = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    let started = std::time::Instant::now();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let text = read_to_end(&mut idle).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with('}'), "{text}");
    assert!(started.elapsed() >= Duration::from_millis(700), "an idle connection is not a slow head");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_head_after_a_request_has_the_timeout_of_a_head() {
    let mut config = config();
    config.timeouts.header = span("200ms");
    config.timeouts.keep_alive = span("10m");
    let bench = Bench::start(config).await;
    let request = "GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n";
    let chunked = "POST /v2/health/live HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for sent in [format!("{request}POST /v2/mod"), format!("{request}{request}POST"), format!("{chunked}POST")] {
        let mut loris = TcpStream::connect(bench.router.data_addr()).await.unwrap();
        loris.write_all(sent.as_bytes()).await.unwrap();
        let answers = tokio::time::timeout(Duration::from_secs(20), read_to_end(&mut loris)).await.unwrap();
        assert!(answers.starts_with("HTTP/1.1 "), "{answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_http2_stream_does_not_block_others() {
    let huge = Server::start(Reply::ok(vec![b'x'; 8 << 20])).await;
    let quick = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    let h2c = |server: &Server| format!("h2c://{}", server.address);
    bench.route(&table(1, &h2c(&quick), &h2c(&huge), (0, 0))).await;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_initial_stream_window_size(1 << 16)
        .http2_initial_connection_window_size(1 << 24)
        .build_http();
    let call = |version: &str| {
        let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
        client.request(Request::post(uri).header("x-model-version", version).body(Full::from("{}")).unwrap())
    };
    let mut unread = Vec::new();
    for _ in 0..10 {
        unread.push(call("v2").await.unwrap());
    }
    for _ in 0..20 {
        let answer = call("v1").await.unwrap();
        assert!(answer.into_body().collect().await.is_ok());
    }
    for answer in unread {
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes().len(),
            8 << 20,
            "the answer is complete in the end"
        );
    }
    bench.predictions(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_100_mb_passes_or_is_refused_depending_on_the_limit() {
    let server = Server::start(Reply::probability("0.1")).await;
    for (limit, status) in [(200 << 20, StatusCode::OK), (64 << 20, StatusCode::PAYLOAD_TOO_LARGE)] {
        let mut config = config();
        config.limits.body = limit;
        config.timeouts.first_byte = span("20s");
        let bench = Bench::start(config).await;
        bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
        let client: Client<HttpConnector, ChannelBody> = Client::builder(TokioExecutor::new()).build_http();
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let piece = Bytes::from(vec![b' '; 1 << 20]);
        for _ in 0..100 {
            send.send(piece.clone()).unwrap();
        }
        drop(send);
        let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
        let answer = client.request(Request::post(uri).body(ChannelBody(receive)).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    }
    assert_eq!(server.seen()[0].body.len(), 100 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_headers_over_http2_is_refused() {
    let bench = Bench::start(config()).await;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/v2/health/live", bench.router.data_addr());
    let mut flood = Request::get(&uri);
    for n in 0..2000 {
        flood = flood.header(format!("x-{n}"), "y".repeat(100));
    }
    // The refusal may be the status, or the end of the stream or connection.
    let refused = client.request(flood.body(Full::default()).unwrap()).await;
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let good = client.request(Request::get(&uri).body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(good.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_resets_mid_stream_affects_only_its_own_caller() {
    let broken = reset_after(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let (steady, send) = streaming().await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &format!("http://{steady}"), &format!("http://{broken}"), (0, 0))).await;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let call = |version: &str| {
        let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
        client.request(Request::post(uri).header("x-model-version", version).body(Full::from("{}")).unwrap())
    };
    // Both are streams of one HTTP/2 connection.
    let steady = call("v1").await.unwrap();
    let whole = match call("v2").await {
        Ok(answer) => answer.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "a reset is not a normal end");
    send.send(Bytes::from_static(b"still here")).unwrap();
    drop(send);
    assert_eq!(steady.into_body().collect().await.unwrap().to_bytes(), "still here");
    let found = eventually("both events", async || {
        let found = crate::harness::Events::read(&bench.log).predictions();
        (found.len() == 2).then_some(found)
    })
    .await;
    let of = |version: &str| found.iter().find(|found| found.version.as_str() == version).unwrap();
    assert_eq!(of("v1").error, None);
    assert!(matches!(of("v2").error.as_deref(), Some("truncated" | "reset")), "{found:#?}");
}
