//! Base URLs of a version's servers.

use std::fmt;

use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery},
};
use serin_spec::address::{Address, Scheme};

/// Base URL of a version's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    address: Address,
    /// The `host` header of its requests.
    host: HeaderValue,
}

impl Base {
    /// Reads `http://host:port/prefix`, `https://...` or `h2c://...`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        Self::new(Address::parse(url).map_err(|error| error.to_string())?)
    }

    /// Parses the base URLs of a version: one URL, or several separated by commas.
    pub(crate) fn parse_list(urls: &str) -> Result<Vec<Self>, String> {
        let list = Address::parse_list(urls).map_err(|error| error.to_string())?;
        list.into_iter().map(Self::new).collect()
    }

    fn new(address: Address) -> Result<Self, String> {
        let (host, port) = (address.authority().host(), address.port());
        let host = if port == address.scheme().port() { host.to_owned() } else { format!("{host}:{port}") };
        let host = HeaderValue::from_str(&host).map_err(|error| format!("{address}: {error}"))?;
        Ok(Self { address, host })
    }

    /// Whether its servers use HTTP/2 without TLS (prior knowledge).
    pub(crate) fn is_h2c(&self) -> bool {
        self.address.scheme() == Scheme::H2c
    }

    /// Whether its servers use TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.address.scheme() == Scheme::Https
    }

    /// The `host` header of requests to it.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Its `host:port`.
    pub(crate) fn authority(&self) -> &Authority {
        self.address.authority()
    }

    /// The URL of a path and query on these servers.
    pub(crate) fn join(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        let path = self.below(path)?;
        let scheme = if self.is_tls() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
        Uri::builder().scheme(scheme).authority(self.authority().clone()).path_and_query(path).build()
    }

    /// The path and query of that URL, without scheme and authority.
    pub(crate) fn path(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        Ok(self.below(path)?.into())
    }

    fn below(&self, path: PathAndQuery) -> Result<PathAndQuery, http::Error> {
        let prefix = self.address.prefix();
        if prefix.is_empty() { Ok(path) } else { Ok(format!("{prefix}{path}").parse()?) }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_joined_with_paths() {
        let base = Base::parse("http://10.0.0.1:8080/models/").unwrap();
        let path = PathAndQuery::from_static;
        assert_eq!(base.join(path("/v2/live?x=1")).unwrap(), "http://10.0.0.1:8080/models/v2/live?x=1");
        assert_eq!(base.path(path("/v2/live?x=1")).unwrap(), "/models/v2/live?x=1");
        assert_eq!(base.host(), "10.0.0.1:8080");
        assert_eq!(Base::parse("http://a").unwrap().join(path("/x")).unwrap(), "http://a/x");
        assert_eq!(Base::parse("http://me@a:80").unwrap().host(), "a");
        for url in ["https://a:1/p", "h2c://a", "http://a"] {
            assert_eq!(Base::parse(url).unwrap().to_string(), url);
        }
        let h2c = Base::parse("h2c://a:1").unwrap();
        assert_eq!((h2c.is_h2c(), h2c.join(path("/x")).unwrap().to_string()), (true, "http://a:1/x".to_owned()));
        for url in ["ftp://a", "a:80", "http://a/?q", "", "http://"] {
            assert!(Base::parse(url).is_err(), "{url}");
        }
    }
}
