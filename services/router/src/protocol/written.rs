//! The encoding of an answer's body, according to its headers.

use http::{HeaderMap, header};

use crate::protocol::{decode::JSON_LENGTH, grpc};

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The headers declare JSON.
    Json,
    /// Text of another type, or without a type. Many servers send JSON this way.
    Text,
    /// The headers declare HTML. Some servers send JSON this way.
    Html,
    /// The binary tensor extension, with this many bytes of JSON at the start; `None` if the length is not a number.
    Binary(Option<usize>),
    /// gRPC messages.
    Grpc,
    /// Server-sent events.
    Events,
    /// Bytes of another type that may still be JSON.
    Bytes,
    /// An image, audio or multipart body: never JSON.
    Other,
}

impl Written {
    /// Determines the encoding from the headers of an answer.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if grpc::is(headers) {
            return Self::Grpc;
        }
        if let Some(length) = headers.get(&JSON_LENGTH) {
            return Self::Binary(length.to_str().ok().and_then(|length| length.trim().parse().ok()));
        }
        let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Self::Text };
        let kind = kind.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        // Fast path: nearly all answers have this type.
        if kind == b"application/json" {
            return Self::Json;
        }
        let kind = kind.to_ascii_lowercase();
        match kind.as_slice() {
            b"application/json" | b"text/json" | b"application/x-json" | b"text/x-json" => Self::Json,
            b"text/event-stream" => Self::Events,
            b"text/html" | b"application/xhtml+xml" => Self::Html,
            kind if kind.ends_with(b"+json") => Self::Json,
            kind if kind.is_empty() || kind.starts_with(b"text/") => Self::Text,
            kind if [&b"image/"[..], b"audio/", b"video/", b"font/", b"multipart/"]
                .iter()
                .any(|family| kind.starts_with(family)) =>
            {
                Self::Other
            }
            _ => Self::Bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_determine_the_encoding_of_a_body() {
        for (kind, written) in [
            ("application/json", Written::Json),
            ("application/json; charset=utf-8", Written::Json),
            ("Application/JSON", Written::Json),
            ("application/problem+json", Written::Json),
            ("application/vnd.acme+JSON", Written::Json),
            ("text/json", Written::Json),
            ("application/x-json", Written::Json),
            ("text/plain; charset=utf-8", Written::Text),
            ("", Written::Text),
            ("text/csv", Written::Text),
            ("text/html; charset=utf-8", Written::Html),
            ("text/event-stream; charset=utf-8", Written::Events),
            ("Text/Event-Stream", Written::Events),
            ("application/octet-stream", Written::Bytes),
            ("application/x-ndjson", Written::Bytes),
            ("image/png", Written::Other),
            ("multipart/form-data; boundary=x", Written::Other),
            ("application/grpc", Written::Grpc),
            ("application/grpc+proto", Written::Grpc),
        ] {
            assert_eq!(Written::of(&headers(&[("content-type", kind)])), written, "{kind}");
        }
        assert_eq!(Written::of(&HeaderMap::new()), Written::Text);
        for (length, parsed) in [("12", Some(12)), ("x", None), ("-1", None)] {
            let binary = [("content-type", "application/octet-stream"), ("inference-header-content-length", length)];
            assert_eq!(Written::of(&headers(&binary)), Written::Binary(parsed));
        }
    }
}
