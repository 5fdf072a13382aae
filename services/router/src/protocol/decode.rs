//! Bodies as JSON values, whatever they are encoded in, for all rules that look into them.

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use super::{grpc, json, tensors};

/// Length of the JSON part of a body with binary tensors.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How a body can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// The binary tensor extension, with this many bytes of JSON first.
    Binary(usize),
    /// gRPC messages.
    Grpc,
}

impl Encoding {
    /// The encoding of a body with these headers; `None` if nobody here can read it: compressed, a stream of events, a picture.
    /// Without a content type it is taken as JSON.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if text(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return None;
        }
        if grpc::is(headers) {
            return Some(Self::Grpc);
        }
        if let Some(length) = text(JSON_LENGTH) {
            return length.trim().parse().ok().map(Self::Binary);
        }
        let kind = text(header::CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let json = kind.is_none_or(|kind| kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json"));
        json.then_some(Self::Json)
    }

    /// Reads a whole body.
    pub(crate) fn read(self, body: &[u8]) -> Option<Value> {
        match self {
            Self::Json => json::read(body),
            Self::Binary(length) => tensors::of_binary(body, length, json::read),
            Self::Grpc => tensors::of_grpc(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_the_encoding() {
        let of = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            Encoding::of(&pairs.collect())
        };
        assert_eq!(of(&[]), Some(Encoding::Json));
        assert_eq!(of(&[("content-type", "application/json; charset=utf-8")]), Some(Encoding::Json));
        assert_eq!(of(&[("content-type", "application/problem+json")]), Some(Encoding::Json));
        assert_eq!(of(&[("content-type", "text/event-stream")]), None);
        assert_eq!(of(&[("content-type", "application/json"), ("content-encoding", "gzip")]), None);
        assert_eq!(of(&[("content-type", "application/grpc")]), Some(Encoding::Grpc));
        let binary = [("content-type", "application/octet-stream"), ("inference-header-content-length", "12")];
        assert_eq!(of(&binary), Some(Encoding::Binary(12)));
    }
}
