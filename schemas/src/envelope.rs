//! `CloudEvents` 1.0 binary-mode headers: the type of a record, its source and its time.
//!
//! Headers are written exactly as the Kafka binding of `CloudEvents` specifies. Reading is tolerant: names may have any case and
//! start with `ce_` or `ce-`, and unknown headers and empty (null) values are ignored.

use bytes::BytesMut;

pub use crate::event_type::{EnvelopeError, record_type};
use crate::{
    codec::Record,
    event_type::{text, utf8},
    headers::{Headers, Packing},
    ids::EventTime,
};

/// The value of `content-type`.
pub const CONTENT_TYPE: &str = "application/avro";

/// Initial capacity for the headers of an event. Longer ids and names need more.
const USUAL_BYTES: usize = 256;

/// Source, subject and time of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Id of the record, unique within `source`.
    pub id: &'a str,
    /// Writer of the record, such as `/routers/router-0`.
    pub source: &'a str,
    /// Subject of the record, usually the model. An empty subject is left out.
    pub subject: &'a str,
    /// Time at which the described event happened or arrived. It is left out if it is outside the years 0 to 9999.
    pub time: EventTime,
}

/// The headers of a record as they were read. A header that is missing or not UTF-8 is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received<'a> {
    /// `ce_id`.
    pub id: Option<&'a str>,
    /// `ce_source`.
    pub source: Option<&'a str>,
    /// `ce_type`, which may be unknown.
    pub event_type: Option<&'a str>,
    /// `ce_subject`.
    pub subject: Option<&'a str>,
    /// `ce_time`; also `None` if it is not an RFC 3339 time.
    pub time: Option<EventTime>,
    /// `content-type`.
    pub content_type: Option<&'a str>,
}

/// Creates the headers of a record in its current version.
pub fn headers<R: Record>(envelope: &Envelope<'_>) -> Headers {
    traced_headers::<R>(envelope, None)
}

/// Like [`headers`], with the context of the trace that the record belongs to (W3C Trace Context).
pub fn traced_headers<R: Record>(envelope: &Envelope<'_>, traceparent: Option<&str>) -> Headers {
    let mut bytes = BytesMut::with_capacity(USUAL_BYTES);
    let mut out = Packing::behind(&mut bytes);
    let mut put = |name: &str, value: &str| out.push(name, value.as_bytes());
    put("ce_specversion", "1.0");
    put("ce_id", envelope.id);
    put("ce_source", envelope.source);
    put("ce_type", &R::codec().ce_type);
    if !envelope.subject.is_empty() {
        put("ce_subject", envelope.subject);
    }
    if let Some(time) = envelope.time.to_rfc3339() {
        put("ce_time", &time);
    }
    put("content-type", CONTENT_TYPE);
    if let Some(traceparent) = traceparent {
        put("traceparent", traceparent);
    }
    out.finish().1
}

/// Reads all known headers.
pub fn read(headers: &Headers) -> Received<'_> {
    Received {
        id: text(headers, "id"),
        source: text(headers, "source"),
        event_type: text(headers, "type"),
        subject: text(headers, "subject"),
        time: text(headers, "time").and_then(EventTime::from_rfc3339),
        content_type: headers.get("content-type").and_then(utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Prediction;

    fn list(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().copied().collect()
    }

    #[test]
    fn headers_are_cloud_events_in_binary_mode() {
        let envelope = Envelope {
            id: "0198",
            source: "/routers/router-0",
            subject: "flights",
            time: EventTime(1_357_034_399_500_000),
        };
        let want = list(&[
            ("ce_specversion", "1.0"),
            ("ce_id", "0198"),
            ("ce_source", "/routers/router-0"),
            ("ce_type", "dev.serin.prediction.v3"),
            ("ce_subject", "flights"),
            ("ce_time", "2013-01-01T09:59:59.500000Z"),
            ("content-type", "application/avro"),
        ]);
        let headers = headers::<Prediction>(&envelope);
        assert_eq!(headers, want);
        assert_eq!(record_type(&headers), Ok(("prediction", 3)));
        assert_eq!(read(&headers).time, Some(envelope.time));
    }

    #[test]
    fn headers_without_a_value_are_left_out() {
        let headers =
            headers::<Prediction>(&Envelope { id: "1", source: "/a", subject: "", time: EventTime(i64::MAX) });
        let names: Vec<&str> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"]);
    }

    #[test]
    fn foreign_spellings_are_read() {
        let foreign = [
            ("ce_source", &[0xff][..]),
            ("ce_type", b""),
            ("traceparent", b"00-1-2-01"),
            ("ce", b"x"),
            ("ce_", b"x"),
            ("CE-Type", b"dev.serin.feedback.v12"),
            ("Ce_Id", b""),
            ("ce-id", b"7"),
            ("Content-Type", b"application/json"),
        ];
        let headers: Headers = foreign.into_iter().collect();
        assert_eq!(record_type(&headers), Ok(("feedback", 12)));
        let want = Received {
            id: Some("7"),
            event_type: Some("dev.serin.feedback.v12"),
            content_type: Some("application/json"),
            ..Received::default()
        };
        assert_eq!(read(&headers), want);
    }

    #[test]
    fn a_missing_or_unknown_type_is_reported() {
        assert_eq!(record_type(&Headers::default()), Err(EnvelopeError::NoType));
        for foreign in ["org.kubeflow.serving.inference.request", "dev.serin.prediction", "dev.serin.prediction.v-1"] {
            let error = record_type(&list(&[("ce_type", foreign)])).unwrap_err().to_string();
            assert_eq!(error, format!("`ce_type` {foreign:?} is not of the form `dev.serin.<record>.v<version>`"));
        }
    }
}
