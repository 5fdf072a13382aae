//! The connections of one worker to all model servers.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, Version, header, uri::PathAndQuery};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;

use crate::{
    body::request::RequestBody,
    config::{Config, base::Base, span},
    upstream::{
        cause::Cause,
        pool::{Delivery, Pool},
    },
};

type Negotiated = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// Window of one HTTP/2 stream. The window of a connection has room for every stream, so that an unread answer does not block others.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Largest window that HTTP/2 allows.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// The connections of one worker to all upstreams.
pub(crate) struct Upstreams {
    /// HTTP/1.1 without TLS: most model servers.
    plain: Arc<Pool>,
    /// TLS with the protocol that the server prefers.
    tls: Negotiated,
    /// HTTP/2 with prior knowledge: gRPC and `h2c://`.
    http2: Negotiated,
}

impl Upstreams {
    /// A client without connections, with the timeouts and limits of the configuration.
    pub(crate) fn new(config: &Config, tls: &ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(span(config.timeouts.connect)));
        // Without keep-alive, a host that vanished would get calls until TCP gives up after minutes.
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let connector = |http2_only: bool| {
            let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
            if http2_only {
                builder.enable_http2().wrap_connector(tcp.clone())
            } else {
                builder.enable_all_versions().wrap_connector(tcp.clone())
            }
        };
        let (idle, idle_for) = (config.limits.idle_per_upstream, span(config.timeouts.pool_idle));
        let streams = u32::try_from(config.limits.in_flight).unwrap_or(u32::MAX);
        let client = |http2_only: bool| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(idle_for)
                .pool_max_idle_per_host(idle)
                .http2_only(http2_only)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(LARGEST_WINDOW))
                .build(connector(http2_only))
        };
        let (tls, http2) = (client(false), client(true));
        Self { plain: Arc::new(Pool::new(tcp, idle, idle_for)), tls, http2 }
    }

    /// Sends a request for this path to a server; `http2` means with prior knowledge.
    pub(crate) async fn request(
        &self,
        base: &Base,
        path: PathAndQuery,
        mut request: Box<Request<RequestBody>>,
        http2: bool,
    ) -> Result<Response<Delivery>, Cause> {
        if !http2 && !base.is_tls() {
            *request.uri_mut() = base.path(path).map_err(|_| Cause::Connect)?;
            *request.version_mut() = Version::HTTP_11;
            request.headers_mut().insert(header::HOST, base.host().clone());
            return self.plain.request(base, request).await;
        }
        *request.uri_mut() = base.join(path).map_err(|_| Cause::Connect)?;
        let pool = if http2 {
            *request.version_mut() = Version::HTTP_2;
            &self.http2
        } else {
            *request.version_mut() = Version::HTTP_11;
            &self.tls
        };
        let response = Box::pin(pool.request(*request)).await.map_err(|error| Cause::of(&error))?;
        Ok(response.map(Delivery::of))
    }

    /// Closes connections that have been idle for too long. The clients for TLS and HTTP/2 do this themselves.
    pub(crate) fn sweep(&self) {
        self.plain.sweep();
    }
}
