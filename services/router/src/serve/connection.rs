//! One connection of a caller: HTTP/1.1 or HTTP/2, plain or over TLS. It is watched so that callers cannot hold it open without use.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    call::worker::{Peer, Worker},
    config::{Config, span},
    serve::{
        activity::{Activity, HalfOpen, Patience, Seen, Watched},
        answer::answer,
    },
    upstream::clients::{LARGEST_WINDOW, STREAM_WINDOW},
};

pub(super) type Builder = auto::Builder<TokioExecutor>;

/// hyper's default limit for the number of headers.
const HEADERS: usize = 100;

/// Timeout for the first byte of a new connection once the router stops.
const FIRST_BYTE: Duration = Duration::from_secs(2);
/// Interval of checks until the first byte has arrived.
const FIRST_BYTE_CHECK: Duration = Duration::from_millis(20);

/// A connection builder with the limits of the configuration.
pub(super) fn builder(config: &Config) -> Builder {
    let limits = &config.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` distinguishes a slow head from an idle connection; hyper's timer does not.
        .header_read_timeout(None)
        .max_buf_size(limits.head);
    // hyper's default limit is free; any other limit costs an allocation per request.
    if limits.headers != HEADERS {
        builder.http1().max_headers(limits.headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        // Window for all streams: an upload that its upstream does not read does not block other streams.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams).min(LARGEST_WINDOW))
        .keep_alive_interval(Duration::from_secs(20));
    builder
}

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Arc<Worker>,
    builder: Builder,
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: Peer,
    stop: watch::Receiver<Option<Duration>>,
) {
    // Latency matters more than the number of packets. An error is ignored.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(worker, builder, stream, peer, stop).await };
    let patience = span(worker.shared.config().timeouts.header);
    match tokio::time::timeout(patience, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => speak(worker, builder, stream, peer, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.address, "a TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.address, "a TLS handshake timed out"),
    }
}

async fn speak(
    worker: Arc<Worker>,
    builder: Builder,
    stream: impl AsyncRead + AsyncWrite + HalfOpen + Unpin + Send + 'static,
    peer: Peer,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    let config = worker.shared.config();
    let timeouts = &config.timeouts;
    let patience =
        Patience { header: span(timeouts.header), keep_alive: span(timeouts.keep_alive), send: span(timeouts.send) };
    let address = peer.address;
    let activity = Arc::new(Activity::new(Instant::now()));
    let service = service_fn({
        let (activity, caller) = (Arc::clone(&activity), Arc::new((worker, peer)));
        move |request: Request<Incoming>| {
            let (caller, busy) =
                (Arc::clone(&caller), activity.begin(request.version(), request.body().size_hint().exact()));
            async move {
                let (worker, peer) = &*caller;
                let answered = Box::pin(answer(worker, peer, request, busy.has_bare_line())).await;
                Ok::<_, Infallible>(answered.map(|body| busy.with(body)))
            }
        }
    });
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(io, service));
    let (mut stopping, mut next) = (false, patience.look_again(Duration::MAX));
    // When the router began to stop while no request was answered. hyper would close the connection before it reads a request that
    // is arriving.
    let mut expected: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, peer = %address, "a connection ended early");
                }
                return;
            }
            _ = stop.wait_for(Option::is_some), if !stopping => {
                stopping = true;
                if activity.is_answering() {
                    connection.as_mut().graceful_shutdown();
                } else {
                    // The next request may already be in the socket without this task knowing it.
                    (expected, next) = (Some(Instant::now()), FIRST_BYTE_CHECK);
                }
            }
            () = tokio::time::sleep(next) => {
                if let Some(since) = expected {
                    if !activity.expects_request() {
                        expected = None;
                        connection.as_mut().graceful_shutdown();
                    } else if activity.is_silent() && since.elapsed() >= FIRST_BYTE {
                        return;
                    }
                }
                match activity.look(Instant::now(), &patience) {
                    Seen::Fine(_) if expected.is_some() => next = FIRST_BYTE_CHECK,
                    Seen::Fine(within) => next = patience.look_again(within),
                    Seen::Idle if !stopping => {
                        stopping = true;
                        next = patience.header;
                        connection.as_mut().graceful_shutdown();
                    }
                    Seen::Idle => return,
                    Seen::Held(why) => {
                        tracing::debug!(peer = %address, why, "a connection is closed because it is held open without use");
                        return;
                    }
                }
            }
        }
    }
}
