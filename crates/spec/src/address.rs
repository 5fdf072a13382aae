//! Addresses of model servers. The lint of the rollout file and the router use the same parser, so lint accepts exactly the
//! addresses that a router can use.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::{Uri, uri::Authority};

/// Maximum number of servers of one version.
pub const SERVERS_MAX: usize = 64;

/// Protocol of a server, as the scheme of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
}

impl Scheme {
    /// The scheme as it is written in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }

    /// Default port of the scheme.
    pub fn port(self) -> u16 {
        if self == Self::Https { 443 } else { 80 }
    }
}

/// Base URL of a server: `http://host:port/prefix`, `https://...` or `h2c://...`.
///
/// Two addresses are equal if they have the same scheme, host, port and prefix. Spelling does not matter.
#[derive(Clone, Debug)]
pub struct Address {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// A router cannot use the text as an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the base URL of an upstream ({why}); write http://host:port")]
pub struct AddressError {
    /// The text, without credentials.
    pub url: String,
    /// What is wrong with the text.
    pub why: String,
}

impl Address {
    /// Parses one address.
    ///
    /// # Errors
    /// Returns an error if routers cannot use the address.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let wrong = |why: &str| AddressError { url: without_credentials(url), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let scheme = [Scheme::Http, Scheme::Https, Scheme::H2c].into_iter().find(|known| known.as_str() == scheme);
        let scheme = scheme.ok_or_else(|| wrong("the scheme must be http, https or h2c"))?;
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("the URL has a query or a fragment"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("the URL has no host"))?.clone();
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("the URL has no host"));
        }
        if host.contains(',') {
            return Err(wrong("the URL lists several hosts; each needs its own scheme"));
        }
        if !is_host(host) {
            return Err(wrong("the host is neither a name nor an IP address"));
        }
        // Only a port may follow the host. The URI parser drops anything else without an error.
        let rest = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = rest.get(host.len()..).unwrap_or_default();
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("a port is a number from 1 to 65535"));
        }
        Ok(Self { scheme, authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Parses the addresses of one version: one address, or several separated by commas.
    ///
    /// # Errors
    /// Returns an error if routers cannot use one of the addresses, or if there are more than [`SERVERS_MAX`].
    pub fn parse_list(urls: &str) -> Result<Vec<Self>, AddressError> {
        let list = urls.split(',').map(|url| Self::parse(url.trim())).collect::<Result<Vec<_>, _>>();
        let list = list.map_err(|error| {
            let why = if urls.contains(',') {
                format!("{}; write each address of a list in full", error.why)
            } else {
                error.why
            };
            AddressError { why, ..error }
        })?;
        if list.len() > SERVERS_MAX {
            let why = format!("{} servers are listed; the maximum is {SERVERS_MAX}", list.len());
            return Err(AddressError { url: without_credentials(urls), why });
        }
        Ok(list)
    }

    /// Protocol of the server.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port` of the server, as written in the address.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Prefix of every request's path, without a trailing slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Port of the server: the one in the address, or the default of its scheme.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or_else(|| self.scheme.port())
    }

    /// Whether the address contains a user name or a password. Routers send neither.
    pub fn has_credentials(&self) -> bool {
        self.authority.as_str().contains('@')
    }

    /// Whether both addresses have the same host, port and prefix. Schemes may differ.
    pub fn has_same_endpoint(&self, other: &Self) -> bool {
        self.endpoint() == other.endpoint()
    }

    /// Whether both addresses have the same port and prefix, and hosts that are different names of the machine itself, such as
    /// `localhost` and `127.0.0.1`. They usually are the same server.
    pub fn is_probably(&self, other: &Self) -> bool {
        let (one, two) = (self.endpoint(), other.endpoint());
        (one.1, one.2) == (two.1, two.2) && [one.0, two.0].iter().all(|host| is_this_machine(host))
    }

    /// Why the address is not in its plain form, which comparisons of addresses need; `None` if it is.
    pub fn oddity(&self) -> Option<&'static str> {
        let dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        if self.prefix.split('/').any(dots) {
            return Some("its path has a `.` or `..`, which servers resolve in different ways");
        }
        let host = host_of(&self.authority);
        let is_number = |part: &str| {
            let hex = part.strip_prefix("0x");
            hex.map_or_else(
                || part.bytes().all(|byte| byte.is_ascii_digit()),
                |hex| u64::from_str_radix(hex, 16).is_ok(),
            )
        };
        let numeric = host.rsplit('.').next().is_some_and(is_number);
        (numeric && host.parse::<Ipv4Addr>().is_err())
            .then_some("an IPv4 address is written as four numbers, such as 127.0.0.1")
    }

    fn endpoint(&self) -> (String, u16, &str) {
        (host_of(&self.authority), self.port(), &self.prefix)
    }
}

/// The host in one spelling: lower case, without the dot at the end of a complete name, and IPv6 addresses in their short form.
fn host_of(authority: &Authority) -> String {
    let host = authority.host().to_ascii_lowercase();
    let v6 =
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).and_then(|host| host.parse::<Ipv6Addr>().ok());
    v6.map_or_else(|| host.strip_suffix('.').unwrap_or(&host).to_owned(), |v6| format!("[{v6}]"))
}

/// Whether a host is a name or an IP address. Names in private networks may contain an underscore.
fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
    }
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 254 && host.strip_suffix('.').unwrap_or(host).split('.').all(part)
}

/// Whether a [host](host_of) is one of the names of the machine itself.
fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]" | "[::ffff:127.0.0.1]")
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.has_same_endpoint(other)
    }
}

impl Eq for Address {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are neither sent nor shown.
        let endpoint = self.authority.as_str().rsplit('@').next().unwrap_or_default();
        write!(f, "{}://{endpoint}{}", self.scheme.as_str(), self.prefix)
    }
}

/// Addresses with credentials replaced by `***`, safe to show and log.
pub fn without_credentials(url: &str) -> String {
    let of = |url: &str| match url.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((before, rest)))) if !before.contains('/') => format!("{scheme}://***@{rest}"),
        _ => url.to_owned(),
    };
    url.split(',').map(of).collect::<Vec<_>>().join(",")
}

/// Whether two strings list the same servers. Order and spelling do not matter.
pub fn same_servers(a: &str, b: &str) -> bool {
    let keys = |urls: &str| {
        let list = Address::parse_list(urls).ok()?;
        let mut keys: Vec<_> =
            list.iter().map(|one| (one.scheme, host_of(&one.authority), one.port(), one.prefix.clone())).collect();
        keys.sort();
        Some(keys)
    };
    match (keys(a), keys(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed() {
        for (url, host, port, prefix) in [
            ("http://a", "a", 80, ""),
            ("https://a:1/p/", "a", 1, "/p"),
            ("HTTPS://A", "A", 443, ""),
            ("H2C://a:9000", "a", 9000, ""),
            ("http://[::1]:8080/v2", "[::1]", 8080, "/v2"),
            ("http://models_v2.ns.svc:65535", "models_v2.ns.svc", 65535, ""),
            ("http://me@a:80", "a", 80, ""),
            ("http://models.example.", "models.example.", 80, ""),
            ("http://10.0.0.7", "10.0.0.7", 80, ""),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.authority().host(), address.port(), address.prefix()), (host, port, prefix), "{url}");
        }
        let list = Address::parse_list("http://a:1, https://b,h2c://c").unwrap();
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a:1", "https://b", "h2c://c"]);
    }

    #[test]
    fn credentials_are_never_shown() {
        for (urls, shown) in [
            ("http://me:secret@a:1/p", "http://***@a:1/p"),
            ("http://a:1, https://me@b", "http://a:1, https://***@b"),
            ("http://a/x@y", "http://a/x@y"),
            ("a:1", "a:1"),
        ] {
            assert_eq!(without_credentials(urls), shown);
        }
        assert_eq!(Address::parse("http://me:secret@a:1").unwrap().to_string(), "http://a:1");
        let error = Address::parse_list("http://me:secret@a:0").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn invalid_addresses_are_refused_with_the_cause() {
        for (urls, why) in [
            ("", "empty"),
            (" ", "empty"),
            ("a:80", "scheme"),
            ("localhost:9001", "scheme"),
            ("a", "scheme"),
            ("//a:1", ""),
            ("ftp://a", "scheme"),
            ("unix:///run/model.sock", ""),
            ("http+unix://%2Frun%2Fmodel.sock", ""),
            ("grpc://a:1", "scheme"),
            ("http://", ""),
            ("http:///v2", ""),
            ("http://:9001", ""),
            ("http:a:1", ""),
            ("http://a:", "port"),
            ("http://a:0", "port"),
            ("http://a:99999", "port"),
            ("http://a:-1", "port"),
            ("http://a:http", "port"),
            ("http://a b", ""),
            ("http://a:1 http://b:2", ""),
            ("http://a:1;http://b:2", ""),
            ("http://::1:9001", ""),
            ("http://[::1", ""),
            ("http://a?x=1", "query"),
            ("http://a/#x", "fragment"),
            ("http://ü", ""),
            ("http://a..b:80", "neither a name nor"),
            ("http://.a", "neither a name nor"),
            ("http://*:9002", "neither a name nor"),
            ("http://a%20b", ""),
            ("http://[::zz]:1", ""),
            ("http://$HOST:1", "neither a name nor"),
            ("http://a:1,b:2", "scheme"),
            ("http://a:1,", "empty"),
            (",http://a:1", "empty"),
            ("http://a:1,,http://b:2", "empty"),
            ("http://a:1,http://b:0", "port"),
        ] {
            let error = Address::parse_list(urls).unwrap_err();
            assert!(error.why.contains(why), "{urls}: {}", error.why);
        }
        // A list is refused where one address is expected.
        assert!(Address::parse("http://a,http://b").is_err());
        assert!(Address::parse("http://a,b").unwrap_err().why.contains("several hosts"));
        let many = vec!["http://a"; SERVERS_MAX + 1].join(",");
        assert!(Address::parse_list(&many).unwrap_err().why.contains("65 servers"));
    }

    #[test]
    fn names_of_the_machine_itself_are_probably_one_server() {
        let parse = |url: &str| Address::parse(url).unwrap();
        let probably = |a: &str, b: &str| parse(a).is_probably(&parse(b));
        for other in ["http://localhost:1", "http://[::1]:1", "http://0.0.0.0:1", "h2c://LOCALHOST.:1/"] {
            assert!(probably("http://127.0.0.1:1", other), "{other}");
        }
        for other in ["http://localhost:2", "http://localhost:1/v2", "http://127.0.0.2:1", "http://a:1"] {
            assert!(!probably("http://127.0.0.1:1", other), "{other}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_compared_are_odd() {
        for url in [
            "http://a/x/..",
            "http://a/./x",
            "http://a/%2E%2e",
            "http://127.1:9",
            "http://2130706433",
            "http://0x7f000001",
        ] {
            assert!(Address::parse(url).unwrap().oddity().is_some(), "{url}");
        }
        for url in
            ["http://a/x..y/v2", "http://127.0.0.1", "http://v2:80", "http://[::1]", "http://2.models", "http://a."]
        {
            assert_eq!(Address::parse(url).unwrap().oddity(), None, "{url}");
        }
    }

    #[test]
    fn the_same_servers_are_equal_in_every_spelling() {
        for (a, b) in [
            ("http://a", "http://a:80/"),
            ("https://A:443", "https://a"),
            ("http://a:1,http://b:2", " http://b:2 , http://a:1"),
            ("HTTP://a", "http://a"),
            ("http://a.", "http://a"),
            ("http://[0:0:0:0:0:0:0:1]:8", "http://[::1]:8"),
        ] {
            assert!(same_servers(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("http://a", "https://a"),
            ("http://a", "h2c://a"),
            ("http://a:1", "http://a:2"),
            ("http://a/v1", "http://a/v2"),
            ("http://a", "http://a,http://b"),
            ("http://a", "http://a,http://a"),
            ("http://localhost", "http://127.0.0.1"),
        ] {
            assert!(!same_servers(a, b), "{a} {b}");
        }
    }
}
