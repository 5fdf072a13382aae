//! Answers before the request's body was read: the connection stays usable, or announces that it closes.

use bytes::BytesMut;
use http::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{Bench, config, table},
    upstreams::{Reply, Server},
};

/// A keep-alive connection.
struct Kept(TcpStream, BytesMut);

impl Kept {
    async fn to(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream, BytesMut::new())
    }

    /// Sends a head, followed by its body in a separate packet, as Python's `http.client` does.
    async fn send(&mut self, head: &str, body: &[u8]) {
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
        tokio::task::yield_now().await;
        for piece in body.chunks(64 << 10) {
            self.0.write_all(piece).await.unwrap();
        }
    }

    /// Reads one answer: its status, and whether it closes the connection.
    async fn answer(&mut self) -> (u16, bool) {
        loop {
            let text = String::from_utf8_lossy(&self.1).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let header = |name: &str| {
                    head.lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                        .map(|value| value.trim().to_owned())
                };
                let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    let status = head[9..12].parse().unwrap();
                    let ends = header("connection").is_some_and(|value| value == "close");
                    self.1.clear();
                    return (status, ends);
                }
            }
            let read = self.0.read_buf(&mut self.1).await.unwrap();
            assert!(read > 0, "the connection ended before its answer: {text:?}");
        }
    }
}

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_an_answer_that_did_not_wait_for_the_body() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let mut settings = config();
    settings.limits.intake_body = 1 << 10;
    let bench = Bench::start(settings).await;
    bench.route(&table(1, &stable.url(), &stable.url(), (0, 0))).await;
    let doors = [
        (bench.router.data_addr(), "/v2/models/missing/infer", 404),
        (bench.router.data_addr(), "/nowhere", 404),
        (bench.router.data_addr(), "/v2/models/flights/versions/v9/infer", 404),
        (bench.router.admin_addr(), "/nothing", 404),
        (bench.router.admin_addr(), "/tables", 405),
    ];
    for (address, path, status) in doors {
        for length in [1, 2_000, 9_000, 100_000, 3_000_000] {
            let mut kept = Kept::to(address).await;
            for _ in 0..if length < 10_000 { 20 } else { 2 } {
                kept.send(&post(path, length), &vec![b' '; length]).await;
                assert_eq!(kept.answer().await, (status, false), "{path} {length}");
            }
        }
    }
    // A body of unknown length is handled the same way.
    let mut kept = Kept::to(bench.router.data_addr()).await;
    for _ in 0..20 {
        let head = "POST /v2/models/missing/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        kept.send(head, b"5\r\nhello\r\n0\r\n\r\n").await;
        assert_eq!(kept.answer().await, (404, false));
    }
    // So is a body that exceeds the limit.
    let mut kept = Kept::to(bench.router.data_addr()).await;
    for _ in 0..3 {
        kept.send(&post("/v1/feedback", 5_000), &[b' '; 5_000]).await;
        assert_eq!(kept.answer().await, (413, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_expects_100_continue_gets_the_answer_immediately_and_the_connection_closes() {
    let bench = Bench::start(config()).await;
    for (address, path) in
        [(bench.router.data_addr(), "/v2/models/missing/infer"), (bench.router.admin_addr(), "/nothing")]
    {
        let mut kept = Kept::to(address).await;
        let head = post(path, 1 << 20).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
        kept.send(&head, b"").await;
        assert_eq!(kept.answer().await, (404, true), "{path}");
    }
    assert_eq!(bench.admin(Method::GET, "/healthz", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_before_it_has_read_the_body_does_not_break_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It reads some of the request, refuses it, and closes the connection.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                let no = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
                let _ = stream.write_all(no).await;
                // Further bytes are read, so that the answer is not lost in a reset.
                while stream.read(&mut some).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &url, &url, (0, 0))).await;
    for length in [10_000, 500_000, 2_000_000] {
        let mut kept = Kept::to(bench.router.data_addr()).await;
        for _ in 0..3 {
            kept.send(&post("/v2/models/flights/infer", length), &vec![b' '; length]).await;
            let (status, ends) = kept.answer().await;
            assert_eq!(status, 413, "{length}");
            if ends {
                kept = Kept::to(bench.router.data_addr()).await;
            }
        }
    }
}

/// A server that refuses in the middle of an upload, and neither reads on nor closes: the caller still gets the answer, and after it has
/// sent the rest, the connection stays usable.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_does_not_wait_for_the_upload() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                // It answers once. Later bytes on this connection are read and ignored.
                let no = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
                let _ = stream.write_all(no).await;
                while stream.read(&mut some).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let bench = Bench::start(config()).await;
    let mut plain = table(1, &url, &url, (0, 0));
    // No rule needs the body, so it is passed on as it arrives.
    "[]".clone_into(&mut plain.segments);
    bench.route(&plain).await;
    let length = 200_000;
    let mut kept = Kept::to(bench.router.data_addr()).await;
    for _ in 0..3 {
        // Half of the body is held back until the answer has arrived.
        kept.send(&post("/v2/models/flights/infer", length), &vec![b' '; length / 2]).await;
        assert_eq!(kept.answer().await, (503, false));
        kept.send("", &vec![b' '; length / 2]).await;
    }
}
