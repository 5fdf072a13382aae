//! Clients that connected before a listener stopped, over real sockets.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use axum::{Router, routing::get};
use serin_listener::Listener;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

const REQUEST: &[u8] = b"GET /v1/rollouts HTTP/1.1\r\nhost: a\r\n\r\n";

/// Reads one response up to the end of its body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nyes") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// hyper closes a connection on which no bytes have arrived yet as soon as it is asked to shut down. A request in
/// transit would be lost.
#[tokio::test]
async fn clients_that_had_connected_are_answered() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(socket, None).unwrap();
    let address = listener.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Router::new().route("/v1/rollouts", get(|| async { "yes" }));
    let serving = tokio::spawn(listener.serve(routes, async { drop(stopped.await) }));

    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&REQUEST[..20]).await.unwrap();
    // The listener accepts connections in order: when the last one is answered, it has accepted the others.
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(REQUEST).await.unwrap();
    answer(&mut last).await;
    drop(last);

    stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    silent.write_all(REQUEST).await.unwrap();
    half.write_all(&REQUEST[20..]).await.unwrap();
    for mut caller in [silent, half] {
        let answer = answer(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
        assert_eq!(caller.read(&mut [0; 1]).await.unwrap(), 0, "the connection ends after its answer");
    }
    serving.await.unwrap();
}
