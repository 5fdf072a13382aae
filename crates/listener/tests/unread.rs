//! Responses of Serin's own ports that are sent before the request's body was read, over real sockets.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use axum::{Router, http::StatusCode, routing::post};
use serin_listener::Listener;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A port whose only path answers 401 without reading the body.
async fn port() -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(socket, None).unwrap();
    let address = listener.address();
    let routes = Router::new().route("/v1/act", post(|| async { (StatusCode::NOT_FOUND, "no") }));
    tokio::spawn(listener.serve(routes, std::future::pending()));
    address
}

/// Sends a request with its body in separate packets, and reads the head and body of the response.
async fn ask(stream: &mut TcpStream, more: &str, length: usize, sent: usize) -> String {
    let head = format!("POST /v1/act HTTP/1.1\r\nhost: a\r\n{more}content-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    for piece in vec![b' '; sent].chunks(64 << 10) {
        stream.write_all(piece).await.unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nno") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_connection_survives_a_response_before_the_body_was_read() {
    let address = port().await;
    for length in [0, 1, 3_000, 200_000, 4_000_000] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for _ in 0..if length < 10_000 { 30 } else { 3 } {
            let answer = ask(&mut stream, "", length, length).await;
            assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("connection: close"), "{length}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_continue_gets_connection_close() {
    let mut stream = TcpStream::connect(port().await).await.unwrap();
    let answer = ask(&mut stream, "expect: 100-continue\r\n", 1 << 20, 0).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_too_large_to_drain_gets_connection_close() {
    let mut stream = TcpStream::connect(port().await).await.unwrap();
    let answer = ask(&mut stream, "", 1 << 30, (16 << 20) + 1).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close"), "{answer}");
}
