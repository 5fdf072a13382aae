//! Bodies as JSON values, whatever they are encoded in, for all rules that look into them.

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use super::{grpc, tensors};

/// Length of the JSON part of a body with binary tensors.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

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
            Self::Json => json(body),
            Self::Binary(length) => tensors::of_binary(body, length, json),
            Self::Grpc => tensors::of_grpc(body),
        }
    }
}

/// A JSON body, read tolerantly: Python servers write `NaN`, which is no JSON but says exactly what is wrong.
pub(crate) fn json(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice(body) {
        Ok(value) => Some(value),
        Err(_) => serde_json::from_slice(&quote_non_numbers(body)?).ok(),
    }
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity` outside of texts; `None` if there are none.
fn quote_non_numbers(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + 16);
    let (mut at, mut in_text, mut changed) = (0, false, false);
    while at < body.len() {
        let rest = &body[at..];
        let word = [b"NaN".as_slice(), b"-Infinity", b"Infinity"].into_iter().find(|word| rest.starts_with(word));
        match (in_text, word) {
            (false, Some(word)) => {
                out.push(b'"');
                out.extend_from_slice(word);
                out.push(b'"');
                at += word.len();
                changed = true;
                continue;
            }
            (true, _) if rest[0] == b'\\' && rest.len() > 1 => {
                out.extend_from_slice(&rest[..2]);
                at += 2;
                continue;
            }
            _ => {}
        }
        if rest[0] == b'"' {
            in_text = !in_text;
        }
        out.push(rest[0]);
        at += 1;
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn non_numbers_inside_of_texts_stay() {
        let value = super::json(br#"{"a":"NaN \" Infinity","b":NaN}"#).unwrap();
        assert_eq!(value, json!({"a": "NaN \" Infinity", "b": "NaN"}));
    }

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
