//! What a record is, whatever its envelope: `CloudEvents` binary or structured, or none.
//!
//! Tolerant where others are known to deviate (attribute names in any case, `ce_` or `ce-`, a structured event under plain
//! `application/json`, specversion 0.3); strict where guessing would be wrong.

use serde_json::Value;
use serin_schemas::{
    codec, envelope,
    ids::EventTime,
    records::{Feedback, Prediction},
};
use serin_stream::{fold::Poison, record::Record};

use crate::fold::poison;

/// The newest version of the JSON bodies that is understood.
const JSON_VERSION: u32 = 1;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Prediction,
    Feedback,
}

/// A record, read but not yet checked.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Serin's own Avro record.
    Prediction(Box<Prediction>),
    /// Serin's own Avro record.
    Feedback(Box<Feedback>),
    /// A JSON body with what its envelope says.
    Json(Kind, Value, Attributes),
}

/// What an envelope says about a JSON body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) id: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<EventTime>,
    /// The prediction that feedback is about.
    pub(crate) correlation: Option<String>,
}

/// Reads a record.
pub(crate) fn read(record: &Record, max_body: usize) -> Result<Incoming, Poison> {
    let Some(body) = record.value.as_deref() else {
        return poison("empty", "the record has no value; nothing is deleted by a tombstone here".into());
    };
    if body.len() > max_body {
        return poison("too_large", format!("the body has {} bytes; at most {max_body} are taken", body.len()));
    }
    let received = envelope::read(&record.headers);
    let content = received.content_type.unwrap_or_default().to_ascii_lowercase();
    let looks_like_json = body.trim_ascii_start().first() == Some(&b'{');
    let by_topic = if record.at.topic.ends_with("feedback") { Kind::Feedback } else { Kind::Prediction };
    if content.starts_with("application/cloudevents") || (received.event_type.is_none() && looks_like_json) {
        let value = parse(body)?;
        if value.get("specversion").is_some() {
            return structured(value, by_topic);
        }
        if content.starts_with("application/cloudevents") {
            return poison("garbage", "a structured CloudEvent without `specversion`".into());
        }
        return Ok(Incoming::Json(by_topic, value, Attributes::default()));
    }
    let Some(event_type) = received.event_type else {
        return poison("unknown_type", "the record has no `ce_type` and its body is no JSON object".into());
    };
    let (kind, version) = kind_of(event_type)?;
    if !content.contains("json") && !looks_like_json {
        return avro(kind, version, body);
    }
    if version != JSON_VERSION {
        return unknown_version(event_type);
    }
    let header = |name: &str| {
        let named = |prefix: &str| record.header(&format!("{prefix}{name}"));
        let value = named("ce_").or_else(|| named("ce-"))?;
        std::str::from_utf8(value).ok().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let attributes = Attributes {
        id: received.id.map(str::to_owned),
        subject: received.subject.map(str::to_owned),
        time: received.time,
        correlation: header("correlationid").or_else(|| header("causationid")),
    };
    Ok(Incoming::Json(kind, parse(body)?, attributes))
}

fn structured(mut event: Value, by_topic: Kind) -> Result<Incoming, Poison> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if !matches!(text("specversion"), Some("1.0" | "0.3")) {
        return poison("unknown_schema_version", "CloudEvents specversion is neither 1.0 nor 0.3".into());
    }
    let kind = match text("type") {
        None => by_topic,
        Some(event_type) => match kind_of(event_type)? {
            (kind, JSON_VERSION) => kind,
            _ => return unknown_version(event_type),
        },
    };
    let attributes = Attributes {
        id: text("id").map(str::to_owned),
        subject: text("subject").map(str::to_owned),
        time: text("time").and_then(EventTime::from_rfc3339),
        correlation: text("correlationid").or_else(|| text("causationid")).map(str::to_owned),
    };
    match event.get_mut("data").map(Value::take) {
        Some(data @ Value::Object(_)) => Ok(Incoming::Json(kind, data, attributes)),
        _ => poison("garbage", "a structured CloudEvent whose `data` is not a JSON object".into()),
    }
}

fn kind_of(event_type: &str) -> Result<(Kind, u32), Poison> {
    let known = event_type.strip_prefix("dev.serin.").and_then(|rest| rest.rsplit_once(".v"));
    let kind = match known {
        Some(("prediction", version)) => Some((Kind::Prediction, version)),
        Some(("feedback", version)) => Some((Kind::Feedback, version)),
        _ => None,
    };
    kind.and_then(|(kind, version)| Some((kind, version.parse().ok()?))).map_or_else(
        || {
            let found: String = event_type.chars().take(100).collect();
            let expected = "dev.serin.prediction.v1 or dev.serin.feedback.v1";
            poison("unknown_type", format!("type {found:?}; expected {expected}"))
        },
        Ok,
    )
}

fn unknown_version<T>(event_type: &str) -> Result<T, Poison> {
    poison("unknown_schema_version", format!("{event_type:?}: JSON bodies are understood up to version {JSON_VERSION}"))
}

fn avro(kind: Kind, version: u32, body: &[u8]) -> Result<Incoming, Poison> {
    let read = match kind {
        Kind::Prediction => codec::decode(version, body).map(|record| Incoming::Prediction(Box::new(record))),
        Kind::Feedback => codec::decode(version, body).map(|record| Incoming::Feedback(Box::new(record))),
    };
    read.map_err(|error| Poison { code: error.code(), message: error.to_string() })
}

/// A JSON object. Python writes NaN and infinities as bare words, which JSON does not have: they are read as null.
fn parse(body: &[u8]) -> Result<Value, Poison> {
    let parsed = serde_json::from_slice(body).or_else(|error| match without_nan(body) {
        Some(clean) => serde_json::from_slice(&clean),
        None => Err(error),
    });
    match parsed {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => poison("garbage", "the body is JSON, but no object".into()),
        Err(error) => poison("garbage", format!("the body is no JSON: {error}")),
    }
}

/// The body with `NaN` and `Infinity` outside of strings replaced by null; `None` when there are none.
fn without_nan(body: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let (mut out, mut found, mut in_string, mut at) = (Vec::with_capacity(body.len()), false, false, 0);
    while let Some(&byte) = body.get(at) {
        let word = WORDS.iter().find(|word| !in_string && body[at..].starts_with(word));
        if let Some(word) = word {
            out.extend_from_slice(b"null");
            at += word.len();
            found = true;
            continue;
        }
        let escaped = in_string && byte == b'\\';
        in_string ^= byte == b'"';
        let end = (at + 1 + usize::from(escaped)).min(body.len());
        out.extend_from_slice(&body[at..end]);
        at = end;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_nan_is_null_and_strings_are_left_alone() {
        let value = parse(br#"{"a": NaN, "b": [-Infinity, 1], "NaN\" ": "Infinity NaN \\"}"#).unwrap();
        assert_eq!(value, serde_json::json!({"a": null, "b": [null, 1], "NaN\" ": "Infinity NaN \\"}));
        assert_eq!(parse(b"{\"a\": NaN").unwrap_err().code, "garbage");
        assert_eq!(parse(b"[NaN]").unwrap_err().code, "garbage");
        assert_eq!(parse(b"{\"a\\").unwrap_err().code, "garbage");
    }
}
