//! Pass-through of gRPC: the model that the first message names, setting or removing its version, and the meaning of statuses.
//!
//! Messages are passed through as bytes. Only a few top-level fields of the first message are read, by their numbers in
//! `grpc_predict_v2.proto`, which all servers of the Open Inference Protocol share.

use std::{ops::Range, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

pub(crate) use serin_schemas::foreign::grpc::{http_status, name};

use crate::protocol::Scan;

/// The service of the Open Inference Protocol, with a leading slash.
pub(crate) const SERVICE: &str = "/inference.GRPCInferenceService";
/// The header and trailer with the status of a call.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The header and trailer with the message of a status.
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The header with the compression of messages.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The header with the caller's timeout.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The content type of the router's own answers.
pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// Length of the prefix of a message: a compression flag and the message length.
pub(crate) const PREFIX: usize = 5;

/// Whether a request or an answer is gRPC.
pub(crate) fn is(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether the first field of a method's request is the model's name and the second its version.
pub(super) fn names_model(method: &str) -> bool {
    matches!(
        method,
        "ModelInfer" | "ModelStreamInfer" | "ModelReady" | "ModelMetadata" | "ModelConfig" | "ModelStatistics"
    )
}

/// Length of the first message including its prefix, once the prefix has arrived.
pub(crate) fn first_message(body: &[u8]) -> Option<usize> {
    let length = body.get(1..PREFIX)?;
    Some(PREFIX + u32::from_be_bytes(length.try_into().ok()?) as usize)
}

/// The model and version in the first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The model that the message names.
    pub(crate) model: String,
    /// The version that it asks for.
    pub(crate) version: Option<String>,
    /// The range of the version's field in the body.
    field: Option<Range<usize>>,
    /// The position between two fields at which reading ended.
    end: usize,
    /// The decompressed first message, if it is compressed.
    plain: Option<Bytes>,
}

impl Named {
    /// The same for a first message that the caller sent compressed.
    pub(crate) fn in_compressed(self, plain: Bytes) -> Self {
        Self { plain: Some(plain), ..self }
    }
}

/// Finds the model at the start of a body.
pub(crate) fn named(body: &[u8]) -> Scan<Named> {
    let Some(length) = first_message(body) else { return Scan::More };
    if body[0] != 0 {
        // The message is compressed.
        return Scan::Missing;
    }
    let whole = body.len() >= length;
    let message = &body[..length.min(body.len())];
    let (mut model, mut version, mut range) = (None, None, None);
    let mut at = PREFIX;
    // Serializers write fields in the order of their numbers, so reading can stop after the second field.
    let more = loop {
        if at == message.len() {
            break !whole;
        }
        let Some(found) = field(message, at) else { break true };
        match (found.number, &found.value) {
            (1, FieldValue::Bytes(text)) => model = std::str::from_utf8(text).ok().map(str::to_owned),
            (2, FieldValue::Bytes(text)) => {
                version = std::str::from_utf8(text).ok().map(str::to_owned);
                range = Some(at..found.end);
            }
            _ => break false,
        }
        at = found.end;
    };
    match model {
        Some(model) if !more => {
            let version = version.filter(|version| !version.is_empty());
            Scan::Found(Named { model, version, field: range, end: at, plain: None })
        }
        _ if more && !whole => Scan::More,
        _ => Scan::Missing,
    }
}

/// The start of a body whose first message gets another version, or none.
pub(crate) fn with_version(body: &Bytes, named: &Named, version: Option<&str>) -> Bytes {
    if named.field.is_none() && version.is_none() {
        return body.clone();
    }
    if let Some(plain) = &named.plain {
        // Messages may be compressed individually: the rest stays unchanged.
        let rest = first_message(body).and_then(|length| body.get(length..)).unwrap_or_default();
        let first = with_version(plain, &Named { plain: None, ..named.clone() }, version);
        return Bytes::from([&first, rest].concat());
    }
    let field = named.field.clone().unwrap_or(named.end..named.end);
    let mut put = Vec::new();
    if let Some(version) = version {
        put.push(2 << 3 | 2);
        put_varint(version.len() as u64, &mut put);
        put.extend_from_slice(version.as_bytes());
    }
    let length = first_message(body).unwrap_or(PREFIX) - PREFIX - field.len() + put.len();
    let mut changed = BytesMut::with_capacity(body.len() + put.len());
    changed.extend_from_slice(&body[..1]);
    changed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    changed.extend_from_slice(&body[PREFIX..field.start]);
    changed.extend_from_slice(&put);
    changed.extend_from_slice(&body[field.end..]);
    changed.freeze()
}

/// A field of a Protocol Buffers message.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: FieldValue<'a>,
    /// Where the next field starts.
    pub(crate) end: usize,
}

/// The value of a field.
pub(crate) enum FieldValue<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// The field at a position; `None` if it is incomplete or invalid.
pub(crate) fn field(message: &[u8], at: usize) -> Option<Field<'_>> {
    let (tag, at) = read_varint(message, at)?;
    let (value, end) = match tag & 7 {
        0 => {
            let (value, end) = read_varint(message, at)?;
            (FieldValue::Varint(value), end)
        }
        1 => (FieldValue::Fixed64(message.get(at..at + 8)?.try_into().ok()?), at + 8),
        2 => {
            let (length, start) = read_varint(message, at)?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (FieldValue::Bytes(message.get(start..end)?), end)
        }
        5 => (FieldValue::Fixed32(message.get(at..at + 4)?.try_into().ok()?), at + 4),
        _ => return None,
    };
    Some(Field { number: tag >> 3, value, end })
}

pub(super) fn read_varint(message: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *message.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The status of a call, from its trailers or from a headers-only answer. A status that is not a number is UNKNOWN, as clients read it.
pub(crate) fn status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get(&STATUS)?;
    Some(status.to_str().ok().and_then(|status| status.parse().ok()).unwrap_or(2))
}

/// The compression of compressed messages; empty if the headers do not name it.
pub(crate) fn encoding(headers: &HeaderMap) -> &str {
    headers.get(&ENCODING).and_then(|name| name.to_str().ok()).unwrap_or_default()
}

/// The caller's timeout, if it sent one.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&TIMEOUT)?.to_str().ok()?;
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = count.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The code for one of the router's own answers.
pub(crate) fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        200..=299 => 0,
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        408 | 504 => 4,
        413 | 429 | 431 => 8,
        500 => 13,
        501 => 12,
        _ => 14,
    }
}

/// A string as a value of [`MESSAGE`]: percent-encoded.
pub(crate) fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=31 | 127.. => {
                encoded.push('%');
                encoded.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static(""))
}

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn text(number: u8, text: &[u8], out: &mut Vec<u8>) {
        out.push(number << 3 | 2);
        put_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    }

    fn request(version: Option<&str>) -> Vec<u8> {
        let mut message = Vec::new();
        text(1, b"flights", &mut message);
        if let Some(version) = version {
            text(2, version.as_bytes(), &mut message);
        }
        text(3, b"id-1", &mut message);
        text(5, &[7; 300], &mut message);
        framed(&message).to_vec()
    }

    fn found(body: &[u8]) -> Named {
        match named(body) {
            Scan::Found(named) => named,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_model_and_version_are_found_early() {
        let body = request(Some("2"));
        let all = found(&body);
        assert_eq!((all.model.as_str(), all.version.as_deref()), ("flights", Some("2")));
        assert_eq!(found(&body[..30]).model, "flights", "the tensors are not needed");
        for cut in 0..17 {
            assert_eq!(named(&body[..cut]), Scan::More, "{cut}");
        }
        let mut only_name = Vec::new();
        text(1, b"m", &mut only_name);
        assert_eq!(found(&framed(&only_name)).model, "m");
        assert_eq!(named(&framed(b"")), Scan::Missing);
        assert_eq!(named(&framed(&[0xff; 20])), Scan::Missing);
        assert_eq!(named(&[1, 0, 0, 0, 1, 0]), Scan::Missing, "compressed");
    }

    #[test]
    fn the_version_is_removed_or_set() {
        for asked in [None, Some("7")] {
            for wanted in [None, Some("12")] {
                // The second message is not touched.
                let body = Bytes::from([request(asked), request(Some("x"))].concat());
                let changed = with_version(&body, &found(&body), wanted);
                assert_eq!(
                    changed,
                    Bytes::from([request(wanted), request(Some("x"))].concat()),
                    "{asked:?} {wanted:?}"
                );
            }
        }
    }

    #[test]
    fn the_version_of_a_compressed_message_is_changed_too() {
        let plain = Bytes::from(request(Some("7")));
        let named = found(&plain).in_compressed(plain);
        let body = Bytes::from([[1, 0, 0, 0, 2, 9, 9].as_slice(), &[1, 0, 0, 0, 1, 9]].concat());
        let changed = with_version(&body, &named, Some("12"));
        assert_eq!(changed, Bytes::from([request(Some("12")).as_slice(), &[1, 0, 0, 0, 1, 9]].concat()));
        let none = Bytes::from(request(None));
        let named = found(&none).in_compressed(none);
        assert_eq!(with_version(&body, &named, None), body, "the body is unchanged");
    }

    #[test]
    fn statuses() {
        assert_eq!((name(14), http_status(14), name(99), http_status(99)), ("unavailable", 503, "unknown", 500));
        assert_eq!((http_status(3), http_status(0), code(StatusCode::BAD_GATEWAY)), (400, 200, 14));
        assert_eq!(message("50 % é"), "50 %25 %C3%A9");
        let mut headers = HeaderMap::new();
        for (text, span) in [
            ("250m", Some(Duration::from_millis(250))),
            ("2S", Some(Duration::from_secs(2))),
            ("x", None),
            ("", None),
            ("5é", None),
        ] {
            headers.insert(TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(timeout(&headers), span, "{text}");
        }
        assert_eq!(status(&headers), None);
        for (text, code) in [("0", 0), ("14", 14), ("x", 2), ("", 2)] {
            headers.insert(STATUS, text.parse().unwrap());
            assert_eq!(status(&headers), Some(code));
        }
        assert!(!is(&headers));
        for (kind, yes) in
            [("application/grpc", true), ("application/grpc+proto", true), ("application/grpc-web", false)]
        {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is(&headers), yes, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn scanning_any_body_does_not_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Scan::Found(named) = named(&body) {
                let _ = with_version(&Bytes::from(body), &named, Some("v"));
            }
        }
    }
}
