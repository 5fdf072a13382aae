//! The way to model servers: base URLs, the pooled client, the names of what goes wrong.

use std::{fmt, io};

use http::{
    HeaderMap, HeaderName, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    body::RequestBody,
    config::{Config, span},
};

/// Base URL of a version's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    authority: Authority,
    /// Path in front of every request's path, without a slash at the end.
    prefix: String,
}

impl Base {
    /// Reads `http://host:port/prefix`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url:?} is not the base URL of an upstream ({why}); write http://host:port");
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(wrong("the scheme must be http"));
        }
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.clone();
        Ok(Self { authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// The URL of a path and query on these servers.
    pub(crate) fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let path: PathAndQuery = if self.prefix.is_empty() {
            path_and_query.parse()?
        } else {
            format!("{}{path_and_query}", self.prefix).parse()?
        };
        Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path).build()
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// The pooled client of all upstreams.
pub(crate) type Upstreams = Client<HttpConnector, RequestBody>;

/// A client with the timeouts and limits of the configuration.
pub(crate) fn client(config: &Config) -> Upstreams {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(span(config.timeouts.connect)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(span(config.timeouts.pool_idle))
        .pool_max_idle_per_host(config.limits.idle_per_upstream)
        .build(connector)
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
        }
    }

    /// What a client error means.
    pub(crate) fn of(error: &hyper_util::client::legacy::Error) -> Self {
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

/// Headers that belong to one connection and are not passed on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the headers that belong to one connection, those that `connection` names too.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_joined_with_paths() {
        let base = Base::parse("http://10.0.0.1:8080/models/").unwrap();
        assert_eq!(base.join("/v2/health/live?x=1").unwrap(), "http://10.0.0.1:8080/models/v2/health/live?x=1");
        assert_eq!(Base::parse("http://a").unwrap().join("/x").unwrap(), "http://a/x");
        for url in ["https://a", "a:80", "http://a/?q", "", "http://"] {
            assert!(Base::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn connection_headers_stay_behind() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "close, X-Private".parse().unwrap());
        headers.insert("x-private", "1".parse().unwrap());
        headers.insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
        headers.insert("traceparent", "00-a-b-01".parse().unwrap());
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["traceparent"]);
    }
}
