//! What a call comes with: who calls, and the thread that serves it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderValue;
use tokio::task::JoinSet;

use crate::{state::Shared, upstream::clients::Upstreams};

/// What a call is served with: what all workers share, and this one's connections to upstreams.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstreams: Upstreams,
    /// Held while a large or compressed body is read: one at a time, so that decoders' windows are bounded.
    pub(crate) reading: tokio::sync::Mutex<()>,
    /// Copies of calls on their way to shadows.
    copies: Mutex<JoinSet<()>>,
}

impl Worker {
    /// Without any connection yet.
    pub(crate) fn new(shared: Arc<Shared>, upstreams: Upstreams) -> Self {
        Self { shared, upstreams, reading: tokio::sync::Mutex::default(), copies: Mutex::default() }
    }

    /// Does something beside the calls, without anybody waiting for it.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        while copies.try_join_next().is_some() {}
        copies.spawn(work);
    }

    /// The copies on their way; those that begin later are not among them.
    pub(crate) fn copies(&self) -> JoinSet<()> {
        std::mem::take(&mut *self.copies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
    /// Of a connection that was accepted.
    pub(crate) fn new(address: SocketAddr, at: SocketAddr, secure: bool) -> Self {
        Self { address, at, name: HeaderValue::try_from(address.ip().to_string()).ok(), secure }
    }
}
