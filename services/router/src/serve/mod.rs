//! The callers' ports: connections, plain and over TLS, and who answers a request.

mod activity;
mod connection;
mod cors;
mod own;
mod worker;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use rustls::ServerConfig;
use serin_listener::unread::lend;
use serin_stream::seldom::Seldom;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use crate::{
    answer::Refusal,
    body::AnswerBody,
    call,
    protocol::Wire,
    state::{Connected, Shared},
};

pub(crate) use cors::Cors;
use worker::Caller;
pub(crate) use worker::{Worker, Workers};

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The address that it connected to, as the router listens there.
    pub(crate) at: SocketAddr,
    /// The same without its port, as headers have it.
    pub(crate) name: Option<HeaderValue>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

impl Peer {
    fn new(address: SocketAddr, at: SocketAddr, secure: bool) -> Self {
        Self { address, at, name: HeaderValue::try_from(address.ip().to_string()).ok(), secure }
    }
}

/// A port that callers connect to.
pub(crate) struct Door {
    /// Its socket.
    pub(crate) listener: TcpListener,
    /// Where it listens.
    pub(crate) at: SocketAddr,
    /// Its certificate, if it is one for TLS.
    pub(crate) tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

/// Accepts callers until `no_more` or `stop` says so. After `stop` requests in flight may finish within the time it gives, and the
/// rest is cut.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    doors: Vec<Door>,
    mut workers: Workers,
    mut stop: watch::Receiver<Option<Duration>>,
    no_more: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(shared.config().limits.connections));
    let mut accepting = JoinSet::new();
    for door in doors {
        accepting.spawn(accept(
            Arc::clone(&shared),
            door,
            workers.doors(),
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

/// Accepts at one port, and gives the connections to the workers in turn.
async fn accept(
    shared: Arc<Shared>,
    door: Door,
    workers: Vec<mpsc::UnboundedSender<Caller>>,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<Option<Duration>>,
    mut no_more: watch::Receiver<bool>,
) {
    let mut turns = workers.iter().cycle();
    let refused = Seldom::default();
    loop {
        let accept = async {
            // A caller beyond the limit waits in the listener's backlog.
            let place = Arc::clone(&places).acquire_owned().await;
            (door.listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            _ = stop.wait_for(Option::is_some) => return,
            _ = no_more.wait_for(|no_more| *no_more) => return,
        };
        match accepted.and_then(|(stream, address)| Ok((stream.into_std()?, address))) {
            Ok((stream, address)) => {
                let tls = door.tls.as_ref().map(|tls| tls.load_full());
                let peer = Peer::new(address, door.at, tls.is_some());
                let connected = Connected::new(&shared);
                let caller = Caller { stream, tls, peer, stop: stop.clone(), place: place.ok(), connected };
                if let Some(worker) = turns.next() {
                    // It outlives whoever accepts.
                    let _ = worker.send(caller);
                }
            }
            Err(error) => {
                // Out of descriptors: taking a breath is all that helps.
                if let Some(count) = refused.happened(1) {
                    tracing::warn!(%error, count, "connections could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Most bytes of a body that are read after an answer that did not ask for them, and ends the connection.
const UNREAD: u64 = 16 << 20;

/// Whether a request says what it is for in the one way that RFC 9112 leaves it: others between may read it in another way.
fn check(request: &Request<Incoming>, bare_line: bool) -> Result<(), Refusal> {
    if bare_line {
        return Err(Refusal::BareLine);
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match request.version() {
        Version::HTTP_11 if hosts != 1 => Err(Refusal::Host(hosts)),
        version if version < Version::HTTP_11 && hosts > 1 => Err(Refusal::Host(hosts)),
        _ => Ok(()),
    }
}

/// Answers one request.
async fn answer(
    worker: &Arc<Worker>,
    peer: &Peer,
    request: Request<Incoming>,
    bare_line: bool,
) -> Response<AnswerBody> {
    let shared = &worker.shared;
    let version = request.version();
    let checked = check(&request, bare_line);
    let (parts, body) = request.into_parts();
    let cors = Cors::of(&parts.headers);
    let (body, loan) = lend(body, &parts.headers);
    let wire = Wire::of(parts.uri.path(), &parts.headers);
    let own = own::find(&parts.method, parts.uri.path(), wire);
    let answered = match (checked, own) {
        (Err(refusal), _) => {
            drop(body);
            Err(refusal)
        }
        (Ok(()), Some(own)) => {
            let mut response = Box::pin(own::answer(shared, own, &parts, peer.at, body)).await;
            cors.allow(&shared.config().cors, response.headers_mut());
            Ok(response)
        }
        (Ok(()), None) => call::call(worker, peer, parts, body).await,
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        shared.metrics.refused(refusal.reason());
        let mut answer = refusal.answer(wire);
        cors.allow(&shared.config().cors, answer.headers_mut());
        answer
    });
    if version >= Version::HTTP_2 {
        response.headers_mut().remove(header::CONNECTION);
        return response;
    }
    let ends = response.headers().contains_key(header::CONNECTION);
    let most = if ends { UNREAD } else { shared.config().limits.body.max(UNREAD) };
    let read = loan.settle(most).await;
    if !read || shared.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
