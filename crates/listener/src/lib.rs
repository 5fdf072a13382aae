//! The listeners of Serin's own ports: the API, the admin port, metrics. Model traffic has a server of its own, in the router.
//!
//! Invariants:
//! - Nobody holds a place for nothing: a TLS handshake, the head of a request and an idle connection have [`HEAD`] each, a
//!   request has [`REQUEST`], and a listener has [`CONNECTIONS`] places. Who comes when all are taken waits in the backlog.
//! - An answer that comes before the request's body was read does not break the connection ([`unread`]).
//! - Whoever stops is polite: requests in flight are answered, new ones are not taken.

mod refusals;
pub mod sockets;
pub mod tls;
pub mod unread;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Body,
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

pub use refusals::in_json;
pub use sockets::{Offer, Sockets, TakenOver};
pub use tls::{Certificate, CertificateError, Reload, TlsFiles};

/// Time for a TLS handshake, for the head of a request, and between two requests of a connection.
pub const HEAD: Duration = Duration::from_secs(10);
/// Time for one request, with its body and its answer. The API's longest wait for news is a minute.
pub const REQUEST: Duration = Duration::from_mins(2);
/// Connections of one listener at a time, unless [`set_places`] has lowered it.
pub const CONNECTIONS: usize = 512;
/// Most bytes of a body that are read after an answer that did not ask for them.
const UNREAD: u64 = 16 << 20;
/// How long a caller that has just connected may take until its first request once the listener stops.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Between two warnings that connections cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

static PLACES: AtomicUsize = AtomicUsize::new(CONNECTIONS);

/// Sets how many connections at a time each listener has that starts to serve after this: a process that may open few files
/// keeps some aside for each of its ports.
pub fn set_places(places: usize) {
    PLACES.store(places.clamp(1, CONNECTIONS), Ordering::Relaxed);
}
/// What these ports speak (ALPN).
pub const PROTOCOLS: &[&str] = &["http/1.1"];

/// A port: its socket, and its certificate if it speaks TLS.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl Listener {
    /// A listener on a socket that is bound, over TLS if there is a certificate.
    pub fn new(socket: TcpListener, certificate: Option<&Certificate>) -> io::Result<Self> {
        Ok(Self { address: socket.local_addr()?, socket, tls: certificate.map(Certificate::current) })
    }

    /// Its socket, to be copied.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` until `stop` is ready, then answers what is in flight.
    pub async fn serve(self, routes: Router, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(PLACES.load(Ordering::Relaxed)));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let (mut refused, mut warned) = (0_u64, None);
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
                    // Out of descriptors: taking a breath is all that helps.
                    refused += 1;
                    if warned.is_none_or(|warned: Instant| warned.elapsed() >= WARN_EVERY) {
                        tracing::warn!(address = %self.address, %error, count = refused, "connections could not be accepted");
                        (refused, warned) = (0_u64, Some(Instant::now()));
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
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS connection could not be made"),
        Err(_) => tracing::debug!(%peer, "a TLS connection was not made in time"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let began = Arc::new(Notify::new());
    let service = service_fn({
        let (began, stopped) = (Arc::clone(&began), stopped.clone());
        move |request: hyper::Request<Incoming>| {
            began.notify_one();
            let (answer, stopped) = (answer(routes.clone(), request), stopped.clone());
            async move {
                let mut answer = answer.await;
                // The connection ends after this answer: a caller must not send the next request on it.
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
        // hyper closes a connection on which nothing has come yet under the request that is on its way.
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

async fn answer(mut routes: Router, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    use tower_service::Service as _;
    let (head, body) = request.into_parts();
    let (body, loan) = unread::lend(body, &head.headers);
    let request = Request::from_parts(head, Body::new(body));
    let Ok(answered) = tokio::time::timeout(REQUEST, routes.call(request)).await else {
        let mut response = Response::new(Body::from("the request took too long\n"));
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    };
    let Ok(mut response) = answered;
    if !loan.finish(UNREAD).await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
