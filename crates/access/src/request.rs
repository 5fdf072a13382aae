//! What a request proves by itself: its bearer token, or that it comes from this machine and not from another site's
//! web page.
//!
//! A browser on the operator's machine can reach loopback addresses, and it sends requests for any page that asks. It
//! marks these requests: `Origin` names the page's site, and `Host` names the host that the page used. A name that
//! was bound to 127.0.0.1 for an attack (DNS rebinding) is not `localhost`. Without a preflight request a page can
//! send only three content types.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status of the response.
    pub status: StatusCode,
    /// Stable code of the cause: `foreign_host`, `foreign_origin` or `unsupported_media_type`.
    pub code: &'static str,
    /// What is wrong and how to fix it.
    pub error: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, code, error: error.into() }
    }
}

/// The token of `Authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses requests that a port without a token must not answer: requests for a host name that is not this machine's,
/// requests of another site's page, and changes whose content type a page can send without a preflight. `setting` is
/// the setting that opens the port to others.
pub fn check_local(method: &Method, uri: &Uri, headers: &HeaderMap, setting: &str) -> Result<(), Refused> {
    let foreign = |what: &str| {
        let error = format!(
            "{what}; without a token only this machine is answered, by the name localhost, 127.0.0.1 or [::1]; set {setting}"
        );
        Refused::new(StatusCode::FORBIDDEN, "foreign_host", error)
    };
    if !hosts(uri, headers).all(is_loopback) {
        return Err(foreign("the request names another host"));
    }
    check_origin(uri, headers)?;
    if changes(method) && headers.get_all(header::CONTENT_TYPE).iter().any(page_sends_it) {
        let error =
            "a web page can send this content type from anywhere; send `content-type: application/json` (curl: --json)";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", error));
    }
    Ok(())
}

/// Refuses requests of web pages that this port did not serve: an `Origin` must name the host and port of the
/// request.
pub fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    let ours = |origin: &HeaderValue| {
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let default = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
        let mut hosts = hosts(uri, headers).peekable();
        hosts.peek()?;
        Some(hosts.all(|host| with_port(host, default) == with_port(authority, default)))
    };
    if headers.get_all(header::ORIGIN).iter().all(|origin| ours(origin) == Some(true)) {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        "foreign_origin",
        "a web page of another origin may not send requests here",
    ))
}

/// Every host name in the request.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
    let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    named.chain(uri.authority().map(http::uri::Authority::as_str))
}

fn with_port(authority: &str, default: &str) -> (String, String) {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (authority, default),
    };
    (name.to_ascii_lowercase(), port.to_owned())
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a page's form can send this content type with a body that parses as JSON. The third type that pages can
/// send without a preflight, `application/x-www-form-urlencoded`, is allowed because it is curl's default: a form
/// encodes braces and quotes in it, and a script that does not encode them is caught by its `Origin`.
fn page_sends_it(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or("text/plain").trim().to_ascii_lowercase();
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind == "text/plain" || kind == "multipart/form-data"
}

/// Whether `host`, with or without a port, names this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = if let Some(end) = host.find(']') { &host[..=end] } else { host.split(':').next().unwrap_or_default() };
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for name in ["localhost", "LOCALHOST:8100", "127.0.0.1:8100", "[::1]:8100", "[::1]", "[::ffff:127.0.0.1]:1"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", "", "?", "null"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    fn check(method: &Method, headers: &[(&str, &str)]) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        match check_local(method, &Uri::from_static("/x"), &headers, "admin_token") {
            Ok(()) => 200,
            Err(refused) => refused.status.as_u16(),
        }
    }

    #[test]
    fn local_programs_are_answered() {
        let form = "application/x-www-form-urlencoded";
        for headers in [
            &[][..],
            &[("host", "localhost:8001")],
            &[("host", "127.0.0.1:8001"), ("content-type", "application/json")],
            &[("host", "[::1]:8001"), ("content-type", form)],
            &[("host", "localhost:8001"), ("origin", "http://LOCALHOST:8001")],
            &[("host", "localhost"), ("origin", "http://localhost:80")],
            &[("host", "localhost:443"), ("origin", "https://localhost")],
        ] {
            assert_eq!(check(&Method::POST, headers), 200, "{headers:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for origin in [
            "http://evil.example",
            "null",
            "",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8001",
            "http://localhost:8001.evil.example",
            "http://localhost:8001@evil.example",
            "https://localhost:80011",
        ] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(check(&method, &[("host", "localhost:8001"), ("origin", origin)]), 403, "{origin:?}");
            }
        }
        for host in ["evil.example", "evil.example:8001", "localhost.evil.example", "192.168.0.7:8001"] {
            assert_eq!(check(&Method::GET, &[("host", host)]), 403, "{host}");
        }
        for content_type in
            ["text/plain", "TEXT/PLAIN; charset=utf-8", "multipart/form-data; boundary=x", " text/plain"]
        {
            assert_eq!(check(&Method::POST, &[("host", "localhost"), ("content-type", content_type)]), 415);
        }
    }

    #[test]
    fn a_second_host_or_origin_is_checked_too() {
        let uri = Uri::from_static("/x");
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost:1"));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(check_local(&Method::GET, &uri, &headers, "x").is_err());
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost:1"));
        headers.append(header::ORIGIN, HeaderValue::from_static("http://localhost:1"));
        headers.append(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(check_local(&Method::GET, &uri, &headers, "x").is_err());
        let absolute = Uri::from_static("http://evil.example/x");
        assert!(check_local(&Method::GET, &absolute, &HeaderMap::new(), "x").is_err());
    }

    #[test]
    fn the_scheme_of_a_token_is_case_insensitive() {
        let of = |text: &'static str| {
            bearer(&[(header::AUTHORIZATION, HeaderValue::from_static(text))].into_iter().collect()).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bEARER  abc ").as_deref(), Some("abc"));
        assert_eq!((of("Basic abc"), of("Bearer")), (None, None));
    }
}
