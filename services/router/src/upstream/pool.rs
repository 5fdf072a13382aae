//! A pool of connections to servers that speak plain HTTP/1.1.
//!
//! Each worker has its own pool: the call, the connection and its task run on one thread. The most recently used connection is used first,
//! so that surplus connections expire.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use foldhash::HashMap;
use http::{
    Request, Response,
    uri::{Authority, PathAndQuery},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::client::legacy::connect::HttpConnector;
use tower::Service as _;

use crate::{
    body::request::RequestBody,
    config::base::Base,
    upstream::cause::{Cause, timed_out},
};

/// Idle connections by `host:port`, most recently used last.
type Idle = HashMap<String, VecDeque<(SendRequest<RequestBody>, Instant)>>;

/// The connections of one worker.
#[derive(Debug)]
pub(super) struct Pool {
    connector: HttpConnector,
    idle: Mutex<Idle>,
    /// Maximum number of idle connections to one server.
    most: usize,
    /// How long a connection may be idle.
    patience: Duration,
}

impl Pool {
    pub(super) fn new(connector: HttpConnector, most: usize, patience: Duration) -> Self {
        Self { connector, idle: Mutex::default(), most, patience }
    }

    /// Sends a request whose URI is a path and whose headers contain the host.
    pub(super) async fn request(
        self: &Arc<Self>,
        base: &Base,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<Response<Delivery>, Cause> {
        loop {
            let (mut sender, used) = match self.take(base.authority().as_str()) {
                Some(sender) => (sender, true),
                None => (Box::pin(self.connect(base)).await?, false),
            };
            match sender.try_send_request(*request).await {
                Ok(response) => {
                    let lease = Lease { pool: Arc::downgrade(self), server: base.authority().clone(), sender };
                    return Ok(response.map(|body| Delivery::new(body, Some(lease))));
                }
                // The server closed the idle connection and nothing was sent: try another connection.
                Err(mut error) => match error.take_message().filter(|_| used) {
                    Some(back) => *request = back,
                    None => return Err(if timed_out(error.error()) { Cause::Timeout } else { Cause::Reset }),
                },
            }
        }
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        let patience = self.patience;
        self.idle().retain(|_, connections| {
            while connections.front().is_some_and(|(sender, since)| sender.is_closed() || since.elapsed() >= patience) {
                connections.pop_front();
            }
            !connections.is_empty()
        });
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, server: &str) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle();
        let connections = idle.get_mut(server)?;
        while let Some((sender, since)) = connections.pop_back() {
            if since.elapsed() >= self.patience {
                // The ones before it are older.
                connections.clear();
            } else if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, server: &str, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle();
        // The name is copied only for the first connection to a server.
        if !idle.contains_key(server) {
            idle.insert(server.to_owned(), VecDeque::new());
        }
        if let Some(connections) = idle.get_mut(server).filter(|connections| connections.len() < self.most) {
            connections.push_back((sender, Instant::now()));
        }
    }

    async fn connect(&self, base: &Base) -> Result<SendRequest<RequestBody>, Cause> {
        let mut connector = self.connector.clone();
        let uri = base.join(PathAndQuery::from_static("/")).map_err(|_| Cause::Connect)?;
        let connected = async {
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(uri).await
        };
        let stream =
            connected.await.map_err(|error| if timed_out(&error) { Cause::Timeout } else { Cause::Connect })?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|_| Cause::Connect)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a server ended with an error");
            }
        });
        Ok(sender)
    }
}

/// The connection on which an answer arrives.
#[derive(Debug)]
struct Lease {
    pool: Weak<Pool>,
    server: Authority,
    sender: SendRequest<RequestBody>,
}

impl Lease {
    /// Returns the connection to the pool after a complete answer, immediately or once the request has been sent completely.
    fn give_back(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        if self.sender.is_ready() {
            pool.put(self.server.as_str(), self.sender);
        } else if !self.sender.is_closed() {
            tokio::spawn(async move {
                if self.sender.ready().await.is_ok() {
                    pool.put(self.server.as_str(), self.sender);
                }
            });
        }
    }
}

/// The body of a server's answer. At its end the connection returns to the pool; if the body is dropped earlier, the connection is closed.
#[derive(Debug)]
pub(crate) struct Delivery {
    body: Incoming,
    lease: Option<Lease>,
}

impl Delivery {
    fn new(body: Incoming, lease: Option<Lease>) -> Self {
        let mut delivery = Self { body, lease };
        delivery.look();
        delivery
    }

    /// A body whose connection is not managed by this pool.
    pub(super) fn of(body: Incoming) -> Self {
        Self::new(body, None)
    }

    fn look(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
            }
            Poll::Ready(Some(Ok(_))) => this.look(),
            // A broken connection is dropped together with the body.
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
