//! The listeners for callers: connections, plain and over TLS, and the dispatch of requests.

mod activity;
mod answer;
mod connection;
mod own;
pub(crate) mod workers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use serin_stream::log_limit::LogLimit;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use crate::{
    call::worker::Peer,
    serve::workers::{Caller, Workers},
    state::{Connected, Shared},
};

/// A listener for callers.
pub(crate) struct Port {
    /// The listening socket.
    pub(crate) listener: TcpListener,
    /// The address of the socket.
    pub(crate) at: SocketAddr,
    /// The TLS configuration; `None` for plain connections.
    pub(crate) tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

/// Accepts callers until `no_more` or `stop` is set. After `stop`, requests in flight may finish within the given time; the rest are cut.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    ports: Vec<Port>,
    mut workers: Workers,
    mut stop: watch::Receiver<Option<Duration>>,
    no_more: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(shared.config().limits.connections));
    let mut accepting = JoinSet::new();
    for port in ports {
        accepting.spawn(accept(
            Arc::clone(&shared),
            port,
            workers.senders(),
            Arc::clone(&places),
            stop.clone(),
            no_more.clone(),
        ));
    }
    let patience = match stop.wait_for(Option::is_some).await {
        Ok(patience) => patience.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    let all = async {
        while accepting.join_next().await.is_some() {}
        workers.finished().await;
    };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("requests were still in flight at the deadline and are cut");
        accepting.shutdown().await;
        workers.cut();
        workers.finished().await;
    }
}

/// Accepts connections of one listener and distributes them to the workers in turn.
async fn accept(
    shared: Arc<Shared>,
    port: Port,
    workers: Vec<mpsc::UnboundedSender<Caller>>,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<Option<Duration>>,
    mut no_more: watch::Receiver<bool>,
) {
    let mut turns = workers.iter().cycle();
    let refused = LogLimit::default();
    loop {
        let accept = async {
            // A caller beyond the limit waits in the listener's backlog.
            let place = Arc::clone(&places).acquire_owned().await;
            (port.listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            _ = stop.wait_for(Option::is_some) => return,
            _ = no_more.wait_for(|no_more| *no_more) => return,
        };
        match accepted.and_then(|(stream, address)| Ok((stream.into_std()?, address))) {
            Ok((stream, address)) => {
                let tls = port.tls.as_ref().map(|tls| tls.load_full());
                let peer = Peer::new(address, port.at, tls.is_some());
                let connected = Connected::new(&shared);
                let caller = Caller { stream, tls, peer, stop: stop.clone(), place: place.ok(), connected };
                if let Some(worker) = turns.next() {
                    // The worker outlives this task.
                    let _ = worker.send(caller);
                }
            }
            Err(error) => {
                // Probably out of file descriptors: only waiting helps.
                if let Some(count) = refused.happened(1) {
                    tracing::warn!(%error, count, "connections could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
