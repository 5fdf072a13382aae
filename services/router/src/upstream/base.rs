//! Base URLs of a version's servers.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Base URL of a version's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    scheme: Scheme,
    /// HTTP/2 without TLS and without asking first.
    h2c: bool,
    authority: Authority,
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
        Ok(Self { scheme, h2c, authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether its servers are spoken to in HTTP/2 without asking first.
    pub(crate) fn is_h2c(&self) -> bool {
        self.h2c
    }

    /// Its `host:port`.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The URL of a path and query on these servers.
    pub(crate) fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let path: PathAndQuery = if self.prefix.is_empty() {
            path_and_query.parse()?
        } else {
            format!("{}{path_and_query}", self.prefix).parse()?
        };
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
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
        assert_eq!(base.join("/v2/health/live?x=1").unwrap(), "http://10.0.0.1:8080/models/v2/health/live?x=1");
        assert_eq!(Base::parse("http://a").unwrap().join("/x").unwrap(), "http://a/x");
        for url in ["https://a:1/p", "h2c://a", "http://a"] {
            assert_eq!(Base::parse(url).unwrap().to_string(), url);
        }
        let h2c = Base::parse("h2c://a:1").unwrap();
        assert_eq!((h2c.is_h2c(), h2c.join("/x").unwrap().to_string()), (true, "http://a:1/x".to_owned()));
        for url in ["ftp://a", "a:80", "http://a/?q", "", "http://"] {
            assert!(Base::parse(url).is_err(), "{url}");
        }
    }
}
