//! The callers' ports: connections, plain and over TLS, and who answers a request.

mod activity;
mod connection;
mod own;
pub(crate) mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    body::AnswerBody,
    call,
    protocol::Wire,
    state::{Connected, Shared},
};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

/// A port that callers connect to.
pub(crate) struct Door {
    /// Its socket.
    pub(crate) listener: TcpListener,
    /// Its certificate, if it is one for TLS.
    pub(crate) tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

/// Accepts callers until `stop` says so, then lets requests in flight finish within the time it gives, and cuts the rest.
pub(crate) async fn listen(shared: Arc<Shared>, doors: Vec<Door>, mut stop: watch::Receiver<Option<Duration>>) {
    let places = Arc::new(Semaphore::new(shared.config().limits.connections));
    let mut accepting = JoinSet::new();
    for door in doors {
        accepting.spawn(accept(Arc::clone(&shared), door, Arc::clone(&places), stop.clone()));
    }
    let patience = match stop.wait_for(Option::is_some).await {
        Ok(patience) => patience.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    let all = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("requests were still in flight at the deadline and are cut");
    }
    // Their guards report before this returns, so nothing follows the leaving heartbeat.
    accepting.shutdown().await;
}

/// Accepts at one port; ends when its last connection has.
async fn accept(shared: Arc<Shared>, door: Door, places: Arc<Semaphore>, mut stop: watch::Receiver<Option<Duration>>) {
    let builder = connection::builder(&shared.config());
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            // A caller beyond the limit waits in the listener's backlog.
            let place = Arc::clone(&places).acquire_owned().await;
            (door.listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(Option::is_some) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let tls = door.tls.as_ref().map(|tls| tls.load_full());
                let peer = Peer { address, secure: tls.is_some() };
                let connection =
                    connection::serve(Arc::clone(&shared), builder.clone(), stream, tls, peer, stop.clone());
                let connected = Connected::new(&shared);
                connections.spawn(async move {
                    connection.await;
                    drop((place, connected));
                });
            }
            Err(error) => {
                // Out of descriptors: taking a breath is all that helps.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

/// Answers one request.
async fn answer(shared: &Arc<Shared>, peer: Peer, request: Request<Incoming>) -> Response<AnswerBody> {
    let version = request.version();
    let (parts, body) = request.into_parts();
    let wire = Wire::of(parts.uri.path(), &parts.headers);
    let mut response = match own::find(&parts.method, parts.uri.path(), wire) {
        Some(own) => own::answer(shared, own, body).await,
        None => call::call(shared, peer, parts, body).await.unwrap_or_else(|refusal| {
            shared.metrics.refused(refusal.reason());
            refusal.answer(wire)
        }),
    };
    if version >= Version::HTTP_2 {
        response.headers_mut().remove(header::CONNECTION);
    } else if shared.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
