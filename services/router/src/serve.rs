//! The callers' port: connections, the router's own paths, the end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{answer, body::AnswerBody, call, config::span, intake, state::Shared};

/// Accepts callers until `stop` says so, then lets requests in flight finish within the time it gives, and cuts the rest.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<Option<Duration>>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(shared.config.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            // A caller beyond the limit waits in the listener's backlog.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(Option::is_some) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve(&shared, stream, peer, &graceful);
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors: taking a breath is all that helps.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    let patience = stop.borrow().unwrap_or_default();
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight at the deadline and are cut");
    }
    // Their guards report before this returns, so nothing follows the leaving heartbeat.
    connections.shutdown().await;
}

/// One connection.
fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    // Latency is worth more than packets; a socket that refuses is used as it is.
    let _ = stream.set_nodelay(true);
    let limits = &shared.config.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(span(shared.config.timeouts.request))
        .max_buf_size(limits.head)
        .max_headers(limits.headers);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX));
    let service_shared = Arc::clone(shared);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&service_shared);
        async move { Ok::<_, Infallible>(Box::pin(answer(&shared, peer, request)).await) }
    });
    let watcher = graceful.watcher();
    async move {
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, %peer, "a connection ended early");
        }
    }
}

/// Answers one request.
async fn answer(shared: &Arc<Shared>, peer: SocketAddr, request: Request<Incoming>) -> Response<AnswerBody> {
    let version = request.version();
    let (parts, body) = request.into_parts();
    let mut response = match own_path(&parts.method, parts.uri.path()) {
        Some(Own::Feedback) => intake::feedback(shared, body).await,
        Some(Own::Events) => intake::events(shared, body).await,
        Some(own) => about(shared, own),
        None => call::call(shared, peer, parts, body).await.unwrap_or_else(|refusal| {
            shared.metrics.refused(refusal.reason());
            refusal.answer()
        }),
    };
    if version >= Version::HTTP_2 {
        response.headers_mut().remove(header::CONNECTION);
    } else if shared.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the router answers itself.
#[derive(Clone, Copy, Debug)]
enum Own {
    Feedback,
    Events,
    Live,
    Ready,
    Metadata,
    ModelsV1,
    ModelsV2,
}

fn own_path(method: &Method, path: &str) -> Option<Own> {
    match (method, path) {
        (&Method::POST, "/v1/feedback") => Some(Own::Feedback),
        (&Method::POST, "/v1/events") => Some(Own::Events),
        (&Method::GET, "/v2/health/live") => Some(Own::Live),
        (&Method::GET, "/v2/health/ready") => Some(Own::Ready),
        (&Method::GET, "/v2" | "/v2/") => Some(Own::Metadata),
        (&Method::GET, "/v1/models") => Some(Own::ModelsV1),
        (&Method::GET, "/v2/models") => Some(Own::ModelsV2),
        _ => None,
    }
}

/// Health and metadata of the router itself, as the Open Inference Protocol and `KServe`'s V1 ask for them.
fn about(shared: &Shared, own: Own) -> Response<AnswerBody> {
    let models = || {
        let tables = shared.tables.load();
        let mut names: Vec<String> = tables.0.keys().cloned().collect();
        names.sort_unstable();
        json!({ "models": names })
    };
    match own {
        Own::Live => answer::json(StatusCode::OK, &json!({"live": true})),
        Own::Ready => match shared.ready() {
            Ok(()) => answer::json(StatusCode::OK, &json!({"ready": true})),
            Err(why) => answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "error": why})),
        },
        Own::Metadata => answer::json(
            StatusCode::OK,
            &json!({"name": "serin-router", "version": env!("CARGO_PKG_VERSION"), "extensions": []}),
        ),
        Own::ModelsV1 | Own::ModelsV2 => answer::json(StatusCode::OK, &models()),
        Own::Feedback | Own::Events => answer::error(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
    }
}
