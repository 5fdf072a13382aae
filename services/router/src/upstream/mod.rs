//! The way to model servers: kept connections, and the names of what goes wrong.

mod base;
mod headers;
mod pool;

use std::{io, path::Path, sync::Arc, time::Duration};

use http::{Request, Response, Version, header, uri::PathAndQuery};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

pub(crate) use base::Base;
pub(crate) use headers::{offer_trailers, strip_hop_by_hop};
pub(crate) use pool::Delivery;

use crate::{
    body::RequestBody,
    config::{Config, span},
};

use pool::Pool;

type Negotiated = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// Window of one HTTP/2 stream. That of a connection has room for every stream, so that an answer that nobody reads holds up no other.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Largest window that HTTP/2 knows.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// The connections of one worker to all upstreams.
pub(crate) struct Upstreams {
    /// HTTP/1.1 without TLS: most model servers.
    plain: Arc<Pool>,
    /// Over TLS what the server prefers.
    tls: Negotiated,
    /// HTTP/2 only, without asking first: gRPC and `h2c://`.
    http2: Negotiated,
}

/// The certificates of upstreams cannot be checked.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct RootsError {
    path: String,
    cause: String,
}

/// How upstreams are spoken to over TLS.
pub(crate) fn tls(config: &Config) -> Result<ClientConfig, RootsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RootsError { path: "TLS".to_owned(), cause: error.to_string() })?
        .with_root_certificates(roots(config)?);
    let (Some(certificate), Some(key)) = (&config.upstream_certificate, &config.upstream_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let wrong = |path: &Path, cause: String| RootsError { path: path.display().to_string(), cause };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let cannot_be_shown =
        |error: rustls::Error| wrong(certificate, format!("it cannot be shown to upstreams ({error})"));
    builder.with_client_auth_cert(certificates(certificate)?, key).map_err(cannot_be_shown)
}

impl Upstreams {
    /// No connections yet, with the timeouts and limits of the configuration.
    pub(crate) fn new(config: &Config, tls: &ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(span(config.timeouts.connect)));
        // A host that vanished must not take calls until TCP gives up, which is minutes.
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

    /// Sends a request for this path to a server; `http2`: without asking first.
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

    /// Closes connections that have been idle for too long; the clients over TLS and HTTP/2 do so themselves.
    pub(crate) fn sweep(&self) {
        self.plain.sweep();
    }
}

/// Whom upstreams' certificates are checked against: a file of the configuration, else what the system trusts.
fn roots(config: &Config) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &config.upstream_ca else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        let wrong = |error: rustls::Error| RootsError { path: path.display().to_string(), cause: error.to_string() };
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// The certificates of a PEM file: at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let wrong = |cause: String| RootsError { path: path.display().to_string(), cause };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// Why a version gave no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection: refused, or no such host.
    Connect,
    /// Neither connected nor answered in time, or the answer stopped.
    Timeout,
    /// The connection broke before the head of an answer.
    Reset,
    /// The answer ended before its end.
    Truncated,
    /// The caller left before the end of the answer.
    ClientClosed,
    /// The caller did not take the answer, or did not send its request to the end.
    ClientSlow,
    /// The time was over that the caller had set.
    Deadline,
    /// The router stopped, and the time for calls in flight to end was over.
    Stopped,
    /// Not called: its servers failed, and get nothing for a while.
    Shed,
    /// Not called: its server has as many calls in flight as it may have.
    Full,
    /// It was rolled back, and the time for calls in flight to end was over.
    Cut,
}

impl Cause {
    /// The word for it in events and errors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::ClientClosed => "client_closed",
            Self::ClientSlow => "client_slow",
            Self::Deadline => "deadline",
            Self::Stopped => "stopped",
            Self::Shed => "shed",
            Self::Full => "full",
            Self::Cut => "cut",
        }
    }

    /// A sentence for callers.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Connect => "its server could not be connected",
            Self::Timeout => "its server did not answer in time",
            Self::Reset => "its server closed the connection without an answer",
            Self::Truncated => "its server's answer broke off",
            Self::ClientClosed => "the caller left",
            Self::ClientSlow => "the caller did not send its request, or did not take its answer, in time",
            Self::Deadline => "the time was over that the caller had set",
            Self::Stopped => "the router stopped",
            Self::Shed => "its servers failed and are not called for a while",
            Self::Full => "its server has too many calls in flight",
            Self::Cut => "it was rolled back, and calls in flight were given no more time",
        }
    }

    /// Whether the version is not to blame: the caller ended the call, or the router did as it stopped.
    pub(crate) fn is_cancelled(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ClientSlow | Self::Deadline | Self::Stopped)
    }

    /// Whether it tells that the way to a server failed.
    pub(crate) fn is_way(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Reset | Self::Truncated)
    }

    /// What a client error means.
    pub(crate) fn of(error: &Error) -> Self {
        if timed_out(error) {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Reset
        }
    }
}

/// Whether a timeout is among the sources of an error.
fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = error.source();
    }
    false
}
