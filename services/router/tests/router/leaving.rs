//! Callers that disconnect, in all possible ways. This never counts against the version. A server that aborts counts against its version,
//! never as a disconnected caller.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serin_schemas::records::{Outcome, Prediction};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{Bench, config, eventually, table},
    upstreams::{Reply, Server, streaming},
};

/// Routes all calls to a canary at this address. No rule reads requests, so the router passes uploads on as they arrive.
async fn route(bench: &Bench, to: SocketAddr) {
    let mut split = table(1, &format!("http://{to}"), &format!("http://{to}"), (10_000, 0));
    split.outputs = "[]".into();
    split.segments = "[]".into();
    bench.route(&split).await;
}

/// A router in front of one server, with long timeouts on both sides.
async fn router(to: SocketAddr) -> Bench {
    let mut config = config();
    for timeout in [&mut config.timeouts.first_byte, &mut config.timeouts.idle] {
        *timeout = serin_spec::units::Duration::from_secs(600);
    }
    let bench = Bench::start(config).await;
    route(&bench, to).await;
    bench
}

/// A server that reads a head, writes these bytes, and then handles the connection with `then`.
async fn server<F: Future<Output = ()> + Send + 'static>(
    answer: &'static [u8],
    then: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let then = std::sync::Arc::new(then);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let then = std::sync::Arc::clone(&then);
            tokio::spawn(async move {
                let mut request = vec![0; 65536];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                then(stream).await;
            });
        }
    });
    address
}

/// Reads until the other side closes.
async fn hang(mut stream: TcpStream) {
    let mut rest = vec![0; 65536];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

const HALF: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n";
const CALL: &str = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";

async fn caller(bench: &Bench, request: &str) -> TcpStream {
    let mut caller = TcpStream::connect(bench.router.data_addr()).await.unwrap();
    caller.write_all(request.as_bytes()).await.unwrap();
    caller
}

/// Reads until these bytes have been received.
async fn read_until(caller: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.windows(end.len()).any(|part| part == end) {
        let mut part = [0; 1024];
        let read = caller.read(&mut part).await.unwrap();
        assert!(read > 0, "the answer ended: {}", all.escape_ascii());
        all.extend_from_slice(&part[..read]);
    }
    all
}

async fn one(bench: &Bench) -> Prediction {
    bench.predictions(1).await.remove(0)
}

fn check(found: &Prediction, outcome: Outcome, cause: Option<&str>) {
    assert_eq!((found.outcome, found.error.as_deref()), (Some(outcome), cause), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_disconnect_before_and_after_the_head() {
    let bench = router(server(b"", hang).await).await;
    let caller_before = caller(&bench, CALL).await;
    eventually("it is in flight", async || {
        (bench.admin(http::Method::GET, "/tables", "").await.json()["in_flight"] == 1).then_some(())
    })
    .await;
    drop(caller_before);
    check(&one(&bench).await, Outcome::Cancelled, Some("client_closed"));

    // The head names the arm that answers. A caller that then disconnects must not count against it.
    let bench = router(server(HALF, hang).await).await;
    let mut after = caller(&bench, CALL).await;
    let head = read_until(&mut after, b"{\"a\"").await;
    assert!(String::from_utf8(head).unwrap().contains("x-model-arm: canary"));
    drop(after);
    check(&one(&bench).await, Outcome::Cancelled, Some("client_closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_reset_a_stream_or_a_connection() {
    for http2 in [true, false] {
        let bench = router(server(HALF, hang).await).await;
        let client: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let uri = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
        let mut answer = client.request(Request::post(uri).body(Full::from("{}")).unwrap()).await.unwrap();
        assert!(answer.frame().await.unwrap().is_ok());
        // Over HTTP/2 this resets the stream, and the connection stays open.
        drop(answer);
        check(&one(&bench).await, Outcome::Cancelled, Some("client_closed"));
    }
    let bench = router(server(HALF, hang).await).await;
    let mut caller = caller(&bench, CALL).await;
    read_until(&mut caller, b"{\"a\"").await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    check(&one(&bench).await, Outcome::Cancelled, Some("client_closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_disconnect_in_the_middle_of_an_upload() {
    let upload = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n";
    for answer in [&b""[..], HALF] {
        // A server that receives an incomplete request aborts too.
        let bench = router(server(answer, hang).await).await;
        let mut caller = caller(&bench, upload).await;
        caller.write_all(&vec![b' '; 200_000]).await.unwrap();
        if answer.is_empty() {
            eventually("it is in flight", async || {
                (bench.admin(http::Method::GET, "/tables", "").await.json()["in_flight"] == 1).then_some(())
            })
            .await;
        } else {
            read_until(&mut caller, b"{\"a\"").await;
        }
        drop(caller);
        check(&one(&bench).await, Outcome::Cancelled, Some("client_closed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_stop_sending_its_request() {
    let mut config = config();
    config.timeouts.request = serin_spec::units::Duration::parse("200ms").unwrap();
    let address = server(HALF, hang).await;
    let bench = Bench::start(config).await;
    route(&bench, address).await;
    let upload = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n";
    let mut caller = caller(&bench, upload).await;
    caller.write_all(&vec![b' '; 100_000]).await.unwrap();
    check(&one(&bench).await, Outcome::Cancelled, Some("client_slow"));
}

/// The server aborts because its answer is not read. The caller already knows the arm.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_not_read_the_answer() {
    static LARGE: &[u8] = &[b'x'; 16 << 20];
    let gave_up = std::sync::Arc::new(tokio::sync::Notify::new());
    let notify = std::sync::Arc::clone(&gave_up);
    let give_up = move |mut stream: TcpStream| {
        let notify = std::sync::Arc::clone(&notify);
        async move {
            // Bytes that exceed all buffers are not read.
            let _ = tokio::time::timeout(Duration::from_millis(1500), stream.write_all(LARGE)).await;
            stream.set_zero_linger().unwrap();
            drop(stream);
            notify.notify_one();
        }
    };
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
    let bench = router(server(head, give_up).await).await;
    let mut lazy = caller(&bench, CALL).await;
    read_until(&mut lazy, b"xxx").await;
    gave_up.notified().await;
    let mut rest = Vec::new();
    let _ = lazy.read_to_end(&mut rest).await;
    check(&one(&bench).await, Outcome::Cancelled, Some("client_slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_disconnect_after_the_answer_has_reported_its_end() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"boom\"}}\n\n";
    for (last, outcome, cause) in [
        ("data: [DONE]\n\n", Outcome::Ok, None),
        (error, Outcome::Failed, Some("error_frame")),
        (chunk, Outcome::Cancelled, Some("client_closed")),
    ] {
        let (address, send) = streaming().await;
        let bench = router(address).await;
        let uri = format!("http://{}/v1/chat/completions", bench.router.data_addr());
        let body = Full::from(r#"{"model":"flights","stream":true,"messages":[]}"#);
        let mut answer = bench.client.request(Request::post(uri).body(body).unwrap()).await.unwrap();
        for piece in [chunk, last] {
            send.send(Bytes::from_static(piece.as_bytes())).unwrap();
            assert!(answer.frame().await.unwrap().is_ok());
        }
        // The server has not ended its stream yet.
        drop(answer);
        check(&one(&bench).await, outcome, cause);
        drop(send);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_set_a_deadline() {
    for (timeout, code, outcome, cause) in [
        (Some("1m"), "4", Outcome::Cancelled, "deadline"),
        (Some("1m"), "1", Outcome::Cancelled, "deadline"),
        (Some("1H"), "4", Outcome::Failed, "grpc_deadline_exceeded"),
        (Some("1H"), "1", Outcome::Failed, "grpc_cancelled"),
        (None, "4", Outcome::Failed, "grpc_deadline_exceeded"),
        (Some("1m"), "13", Outcome::Failed, "grpc_internal"),
    ] {
        let reply = Reply { delay: Duration::from_millis(20), ..Reply::grpc("", code) };
        let bench = router(Server::start(reply).await.address).await;
        let client: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let uri = format!("http://{}/inference.GRPCInferenceService/ModelInfer", bench.router.data_addr());
        let mut request = Request::post(uri).header("content-type", "application/grpc");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let message = Full::from(&b"\0\0\0\0\x09\x0a\x07flights"[..]);
        let answer = client.request(request.body(message).unwrap()).await.unwrap();
        assert!(answer.into_body().collect().await.is_ok());
        check(&one(&bench).await, outcome, Some(cause));
    }
}

/// The server aborts while its caller waits or sends: this counts against the version.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_aborts_has_failed() {
    let close = |stream: TcpStream| async move { drop(stream) };
    let reset = |stream: TcpStream| async move { stream.set_zero_linger().unwrap() };
    let upload = "POST /v2/models/flights/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n";
    for request in [CALL, upload] {
        for (answer, address) in [
            ("", server(b"", close).await),
            ("", server(b"", reset).await),
            ("half", server(HALF, close).await),
            ("half", server(HALF, reset).await),
        ] {
            let bench = router(address).await;
            let mut caller = caller(&bench, request).await;
            if request == upload {
                let _ = caller.write_all(&vec![b' '; 200_000]).await;
            }
            let found = one(&bench).await;
            assert_eq!(found.outcome, Some(Outcome::Failed), "{answer}: {found:#?}");
            assert!(matches!(found.error.as_deref(), Some("reset" | "truncated")), "{found:#?}");
        }
    }
}
