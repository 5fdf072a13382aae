//! The context of a call: the peer and the worker thread.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderValue;
use tokio::task::JoinSet;

use crate::{state::Shared, upstream::clients::Upstreams};

/// A worker thread: the state shared by all workers, and this worker's connections to upstreams.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstreams: Upstreams,
    /// Held while a large or compressed body is read: one at a time, so that the memory of decoders is bounded.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// Copies of calls on their way to shadows.
    copies: Mutex<JoinSet<()>>,
}

impl Worker {
    /// A worker without connections.
    pub(crate) fn new(shared: Arc<Shared>, upstreams: Upstreams) -> Self {
        Self { shared, upstreams, reading: tokio::sync::Mutex::default(), copies: Mutex::default() }
    }

    /// Runs a copy of a call in the background.
    pub(super) fn spawn_copy(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        while copies.try_join_next().is_some() {}
        copies.spawn(work);
    }

    /// Takes the copies in flight. Copies that start later are not included.
    pub(crate) fn copies(&self) -> JoinSet<()> {
        std::mem::take(&mut *self.copies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The peer that calls.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The caller's address.
    pub(crate) address: SocketAddr,
    /// The local address that the caller connected to.
    pub(crate) at: SocketAddr,
    /// The caller's IP address as a header value.
    pub(super) name: Option<HeaderValue>,
    /// Whether the caller is connected over TLS.
    pub(super) secure: bool,
}

impl Peer {
    /// The peer of an accepted connection.
    pub(crate) fn new(address: SocketAddr, at: SocketAddr, secure: bool) -> Self {
        Self { address, at, name: HeaderValue::try_from(address.ip().to_string()).ok(), secure }
    }
}
