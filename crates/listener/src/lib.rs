//! Serves Serin's own ports: the API, the admin port, metrics. Model traffic is served by the router's own server.
//!
//! Invariants:
//! - A client cannot occupy a connection without progress: a TLS handshake, the head of a request and an idle connection may
//!   each take [`HEAD`], a handler may take [`REQUEST`], a write may wait [`SEND`] for the client to read, and a listener serves
//!   at most [`CONNECTIONS`] connections. Further connections wait in the backlog.
//! - A client without access does not keep its connection: the responses 401 and 403 close it.
//! - A request names exactly one host ([`check_host`]), and no line of its head ends with a bare line feed ([`receipt`]).
//! - A request that cannot be parsed gets a response with the reason.
//! - A response that is sent before the request's body was read does not break the connection ([`unread`]).
//! - Shutdown is graceful: no new connections are accepted, requests in flight are answered, and a client that has just connected
//!   has a second to send its first request.

mod host;
pub mod receipt;
mod refusals;
mod sending;
pub mod sockets;
pub mod tls;
pub mod unread;
mod validity;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use receipt::Receipt;
use sending::Sending;

pub use host::{HostError, check_host};
pub use refusals::{code_of, in_json, problem, problem_with};
pub use sockets::{Offer, Sockets, TakenOver};
pub use tls::{Certificate, CertificateError, Reload, TlsFiles};

/// Timeout for a TLS handshake, for the head of a request, and for an idle connection.
pub const HEAD: Duration = Duration::from_secs(10);
/// Timeout for a handler to return its response, including the time in which it reads the request's body. The API's longest long
/// poll is a minute.
pub const REQUEST: Duration = Duration::from_mins(2);
/// Timeout for a client to read a part of its responses.
pub const SEND: Duration = Duration::from_secs(10);
/// Maximum number of connections of one listener, unless [`set_places`] has lowered it.
pub const CONNECTIONS: usize = 512;
/// Maximum number of unread body bytes that are drained when a handler responds early.
const MAX_DRAIN_BYTES: u64 = 16 << 20;
/// The reason for refusing a request of which another parser may see another head.
const BARE_LINE: &str =
    "a line of the request's head ends with a bare line feed; end each line with a carriage return and a line feed";
/// After the listener stops, how long a client that has just connected may take to send its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Minimum interval between two warnings that connections cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

static PLACES: AtomicUsize = AtomicUsize::new(CONNECTIONS);

/// Sets the maximum number of connections for each listener that starts to serve after this call. A process with a
/// low limit of open files reserves some descriptors for each of its ports.
pub fn set_places(places: usize) {
    PLACES.store(places.clamp(1, CONNECTIONS), Ordering::Relaxed);
}

/// Maximum number of connections for each listener that starts to serve now.
pub fn places() -> usize {
    PLACES.load(Ordering::Relaxed)
}

/// Protocols of these ports (ALPN).
pub const PROTOCOLS: &[&str] = &["http/1.1"];

/// A port: its socket, and its certificate if it speaks TLS.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl Listener {
    /// Creates a listener on a bound socket, over TLS if there is a certificate.
    pub fn new(socket: TcpListener, certificate: Option<&Certificate>) -> io::Result<Self> {
        Ok(Self { address: socket.local_addr()?, socket, tls: certificate.map(Certificate::current) })
    }

    /// The listener's socket, for duplication.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` until `stop` is ready, then waits for the requests in flight.
    pub async fn serve(self, routes: Router, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(places()));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        // The failed calls to accept since the last warning, and the time of that warning.
        let (mut failed, mut warned) = (0_u64, None);
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (self.socket.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (tls, routes, stopped) = (self.tls.clone(), routes.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection(stream, peer, tls, routes, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Usually the process is out of file descriptors. Retrying immediately would only use CPU time.
                    failed += 1;
                    if warned.is_none_or(|warned: Instant| warned.elapsed() >= WARN_EVERY) {
                        tracing::warn!(address = %self.address, %error, count = failed, "connections could not be accepted");
                        (failed, warned) = (0_u64, Some(Instant::now()));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.socket);
        stopping.send_replace(true);
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    routes: Router,
    stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(stream, peer, routes, stopped).await };
    match tokio::time::timeout(HEAD, TlsAcceptor::from(tls.load_full()).accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, peer, routes, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake timed out"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    routes: Router,
    stopped: watch::Receiver<bool>,
) {
    speak_within(SEND, stream, peer, routes, stopped).await;
}

async fn speak_within(
    send: Duration,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let received: Arc<Mutex<Receipt>> = Arc::default();
    let stream = Sending::new(stream, send, Arc::clone(&received));
    let began = Arc::new(Notify::new());
    let service = service_fn({
        let (began, stopped) = (Arc::clone(&began), stopped.clone());
        move |request: hyper::Request<Incoming>| {
            began.notify_one();
            let bare_line = lock(&received).begin(request.body().size_hint().exact());
            let (answer, stopped) = (answer(routes.clone(), request, bare_line), stopped.clone());
            let received = Arc::clone(&received);
            async move {
                let mut answer = answer.await;
                lock(&received).finish();
                // The connection is closed after this response, so the client must not send another request on it.
                if let (Ok(response), true) = (&mut answer, *stopped.borrow()) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stop = async {
        drop(stopped.wait_for(|stopped| *stopped).await);
        // hyper closes a connection on which no bytes have arrived yet, even if a request is already in transit.
        let _ = tokio::time::timeout(FIRST_REQUEST, began.notified()).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}

fn lock(received: &Mutex<Receipt>) -> MutexGuard<'_, Receipt> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    mut routes: Router,
    request: hyper::Request<Incoming>,
    bare_line: bool,
) -> Result<Response, Infallible> {
    use tower_service::Service as _;
    if bare_line {
        return Ok(closing(problem(StatusCode::BAD_REQUEST, "bad_request", BARE_LINE)));
    }
    if let Err(error) = check_host(request.version(), request.headers()) {
        return Ok(closing(problem(StatusCode::BAD_REQUEST, "bad_request", &error.to_string())));
    }
    let (head, body) = request.into_parts();
    let (body, loan) = unread::lend(body, &head.headers);
    let request = Request::from_parts(head, Body::new(body));
    let Ok(answered) = tokio::time::timeout(REQUEST, routes.call(request)).await else {
        return Ok(closing(problem(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long")));
    };
    let Ok(response) = answered;
    let has_access = !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let may_go_on = loan.finish(MAX_DRAIN_BYTES).await && has_access;
    Ok(if may_go_on { response } else { closing(response) })
}

/// A response after which the connection is closed.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn routes() -> Router {
        let large = || async { "x".repeat(100_000) };
        Router::new()
            .route("/large", get(large))
            .route("/ok", get(|| async { "ok" }))
            .route("/401", get(|| async { StatusCode::UNAUTHORIZED }))
            .route("/403", get(|| async { StatusCode::FORBIDDEN }))
    }

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    /// What a client gets that sends these bytes, reads to the end and does not close the connection.
    async fn exchange(requests: &str) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (_stop, stopped) = watch::channel(false);
        client.write_all(requests.as_bytes()).await.unwrap();
        let mut read = String::new();
        let (_, ()) = tokio::join!(client.read_to_string(&mut read), speak(server, PEER, routes(), stopped));
        read
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_responses_loses_the_connection() {
        for requests in
            ["GET /large HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "GET /ok HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000)]
        {
            let (mut client, server) = tokio::io::duplex(1000);
            let (_stop, stopped) = watch::channel(false);
            let server = tokio::spawn(speak_within(Duration::from_millis(1), server, PEER, routes(), stopped));
            // The server closes the connection before it has read all of many requests.
            let _ = client.write_all(requests.as_bytes()).await;
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_without_access_does_not_keep_its_connection() {
        for path in ["/401", "/403"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            let read = exchange(&request.repeat(5)).await;
            assert_eq!((read.matches("HTTP/1.1 ").count(), read.contains("connection: close")), (1, true), "{read}");
        }
    }

    #[tokio::test]
    async fn a_bare_line_feed_is_refused_in_every_request_of_a_connection() {
        let (good, bare) = ("GET /ok HTTP/1.1\r\nhost: a\r\n\r\n", "GET /ok HTTP/1.1\r\nhost: a\nx: y\r\n\r\n");
        let body = "POST /ok HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na\nb";
        for (before, answers) in [(String::new(), 1), (good.to_owned(), 2), (good.repeat(3), 4), (body.to_owned(), 2)] {
            let read = exchange(&format!("{before}{bare}{good}")).await;
            assert_eq!(read.matches("HTTP/1.1 ").count(), answers, "{read}");
            assert!(read.contains(&format!("\"error\":\"{BARE_LINE}\"")) && read.contains(" 400 "), "{read}");
        }
        let read = exchange(&format!("{good}{}", good.replace("host: a", "host: a\r\nconnection: close"))).await;
        assert_eq!(read.matches("HTTP/1.1 200 OK").count(), 2, "{read}");
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_parsed_gets_the_reason() {
        let many = (0..200).map(|n| format!("h{n}: x\r\n")).collect::<Vec<_>>().concat();
        for (request, status) in [
            ("GET / HTTP/1.1\r\nhost a\r\n\r\n".to_owned(), 400),
            ("G\u{0}T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(), 400),
            (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
            (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000)), 414),
        ] {
            let read = exchange(&request).await;
            assert!(read.starts_with(&format!("HTTP/1.1 {status} ")), "{read}");
            assert!(read.contains("content-type: application/json\r\n") && read.ends_with("\"}"), "{read}");
            let (head, body) = read.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{read}");
            assert!(head.contains("connection: close") && body.starts_with("{\"error\":\"the request "), "{read}");
        }
    }

    #[tokio::test]
    async fn a_request_without_exactly_one_host_is_refused() {
        for (hosts, cause) in
            [("", "has 0"), ("host: a\r\nhost: a\r\n", "has 2"), ("host: a b\r\n", "not a valid host")]
        {
            let read = exchange(&format!("GET /ok HTTP/1.1\r\n{hosts}\r\n")).await;
            assert!(read.starts_with("HTTP/1.1 400 ") && read.contains("\"error\":\""), "{read}");
            assert!(read.contains(cause) && read.contains("connection: close"), "{read}");
        }
    }
}
