//! Base URLs of a version's servers.

use std::fmt;

use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Base URL of a version's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    scheme: Scheme,
    /// HTTP/2 without TLS and without asking first.
    h2c: bool,
    authority: Authority,
    /// The `host` header of its requests.
    host: HeaderValue,
    /// Path in front of every request's path, without a slash at the end.
    prefix: String,
}

impl Base {
    /// Reads `http://host:port/prefix`, `https://...` or `h2c://...`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url:?} is not the base URL of an upstream ({why}); write http://host:port");
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        let (scheme, h2c) = match uri.scheme_str() {
            Some("http") => (Scheme::HTTP, false),
            Some("https") => (Scheme::HTTPS, false),
            Some("h2c") => (Scheme::HTTP, true),
            _ => return Err(wrong("the scheme must be http, https or h2c")),
        };
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.clone();
        let port = authority.port_u16().filter(|&port| port != if scheme == Scheme::HTTPS { 443 } else { 80 });
        let host = port.map_or_else(|| authority.host().to_owned(), |port| format!("{}:{port}", authority.host()));
        let host = HeaderValue::from_str(&host).map_err(|error| wrong(&format!("{error}")))?;
        Ok(Self { scheme, h2c, authority, host, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether its servers are spoken to in HTTP/2 without asking first.
    pub(crate) fn is_h2c(&self) -> bool {
        self.h2c
    }

    /// Whether its servers are spoken to over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The `host` header of requests to it.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Its `host:port`.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URL of a path and query on these servers.
    pub(crate) fn join(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        let path = self.below(path)?;
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
    }

    /// The path of such a URL alone.
    pub(crate) fn path(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        Ok(self.below(path)?.into())
    }

    fn below(&self, path: PathAndQuery) -> Result<PathAndQuery, http::Error> {
        if self.prefix.is_empty() { Ok(path) } else { Ok(format!("{}{path}", self.prefix).parse()?) }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.h2c { "h2c" } else { self.scheme.as_str() };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
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
