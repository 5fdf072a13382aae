//! Checks the `Host` header of a request, as RFC 9112 requires. Intermediaries may parse an ambiguous request differently.

use hyper::{
    HeaderMap, Version,
    header::{HOST, HeaderValue},
    http::uri::Authority,
};

/// Why a request is refused because of its `Host` header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An HTTP/1.1 request must have one, and no request may have several.
    #[error("an HTTP/1.1 request must have exactly one Host header, but this one has {0}")]
    Count(usize),
    /// Its value is not a host with an optional port.
    #[error("the Host header is not a valid host; send a name or an address, with an optional port")]
    Invalid,
}

/// Checks that a request names one valid host.
///
/// # Errors
/// Returns why the request must be refused.
pub fn check_host(version: Version, headers: &HeaderMap) -> Result<(), HostError> {
    let count = headers.get_all(HOST).iter().count();
    match headers.get(HOST) {
        _ if count > 1 => Err(HostError::Count(count)),
        None if version == Version::HTTP_11 => Err(HostError::Count(0)),
        Some(host) if !is_valid(host) => Err(HostError::Invalid),
        _ => Ok(()),
    }
}

/// Whether a value is a host with an optional port. RFC 3986 allows a comma in a name, but the comma may also join two headers.
fn is_valid(host: &HeaderValue) -> bool {
    let bytes = host.as_bytes();
    !bytes.iter().any(|byte| matches!(byte, b',' | b'@'))
        && Authority::try_from(bytes).is_ok_and(|authority| {
            let host = authority.host();
            let port = authority.as_str()[host.len()..].trim_start_matches(':');
            !host.is_empty() && (port.is_empty() || port.parse::<u16>().is_ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, hosts: &[&'static str]) -> Result<(), HostError> {
        let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_static(host)));
        let mut headers = HeaderMap::new();
        for (name, host) in hosts {
            headers.append(name, host);
        }
        check_host(version, &headers)
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(check(Version::HTTP_11, &[]), Err(HostError::Count(0)));
        assert_eq!((check(Version::HTTP_10, &[]), check(Version::HTTP_2, &[])), (Ok(()), Ok(())));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(check(version, &["a", "a"]), Err(HostError::Count(2)));
            assert_eq!(check(version, &["a", "b", "c"]), Err(HostError::Count(3)));
        }
    }

    #[test]
    fn the_host_is_a_name_or_an_address_with_an_optional_port() {
        for valid in ["a", "a:80", "127.0.0.1:8000", "[::1]:8000", "[::1]", "my_router.ns.svc.cluster.local", "A-b.c."]
        {
            assert_eq!(check(Version::HTTP_11, &[valid]), Ok(()), "{valid}");
        }
        for invalid in ["", " ", "a b", "a,b", "a, b", "u@a", ":80", "a/b", "http://a", "a\t", "[::1", "a:b", "a:65536"]
        {
            if let Ok(value) = HeaderValue::from_bytes(invalid.as_bytes()) {
                let headers = HeaderMap::from_iter([(HOST, value)]);
                assert_eq!(check_host(Version::HTTP_11, &headers), Err(HostError::Invalid), "{invalid}");
            }
        }
    }
}
