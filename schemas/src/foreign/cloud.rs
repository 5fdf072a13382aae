//! `CloudEvents` in structured mode: envelope and body in one JSON object.

use crate::Code;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{Attributes, Kind, Refusal, json};
use crate::ids::EventTime;

/// Newest supported version of the JSON bodies.
pub const JSON_VERSION: u32 = 1;

/// The body of a structured event.
#[derive(Debug, PartialEq)]
pub enum Data {
    /// A JSON body.
    Json(Value),
    /// Bytes of another type (`datacontenttype`), from `data_base64`.
    Bytes(Vec<u8>),
}

/// An opened event.
#[derive(Debug, PartialEq)]
pub struct Opened {
    /// Kind of the event.
    pub kind: Kind,
    /// Version of the event's type; 1 if the event has no type.
    pub version: u32,
    /// Attributes of the envelope.
    pub about: Attributes,
    /// Body of the event.
    pub data: Data,
}

/// Whether a JSON object is an event with an envelope.
pub fn is_structured(value: &Value) -> bool {
    value.get("specversion").is_some()
}

/// Opens a structured event. `expected` is the kind of an event without a type.
///
/// # Errors
/// Returns what is wrong with the envelope.
pub fn open(mut event: Value, expected: Kind) -> Result<Opened, Refusal> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if !matches!(text("specversion"), Some("1.0" | "0.3")) {
        return Err(Refusal::new(Code::UnknownSchemaVersion, "specversion: CloudEvents 1.0 and 0.3 are supported"));
    }
    let (kind, version) = text("type").map_or(Ok((expected, JSON_VERSION)), kind_of)?;
    let time = match event.get("time") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(time) => {
            let read = time.as_str().and_then(EventTime::from_rfc3339);
            Some(read.ok_or_else(|| Refusal::new(Code::BadTime, "time: expected an RFC 3339 time, as in CloudEvents"))?)
        }
    };
    let about = Attributes {
        id: text("id").map(str::to_owned),
        subject: text("subject").map(str::to_owned),
        time,
        correlation: text("correlationid").or_else(|| text("causationid")).map(str::to_owned),
    };
    let content = text("datacontenttype").unwrap_or("application/json").to_ascii_lowercase();
    let data = match (event.get_mut("data").map(Value::take), event.get("data_base64")) {
        (Some(data @ Value::Object(_)), _) => Data::Json(data),
        (None | Some(Value::Null), Some(encoded)) => {
            let decoded = encoded.as_str().and_then(|text| STANDARD.decode(text).ok());
            let bytes =
                decoded.ok_or_else(|| Refusal::new(Code::Garbage, "data_base64: expected base64 of the body"))?;
            if content.contains("json") { Data::Json(json::parse(&bytes)?) } else { Data::Bytes(bytes) }
        }
        _ => return Err(Refusal::new(Code::Garbage, "data: expected a JSON object, or data_base64")),
    };
    Ok(Opened { kind, version, about, data })
}

/// Returns the kind and the version of an event type.
///
/// # Errors
/// Returns an error for a type that external systems may not send.
pub fn kind_of(event_type: &str) -> Result<(Kind, u32), Refusal> {
    let known = event_type.strip_prefix("dev.serin.").and_then(|rest| rest.rsplit_once(".v"));
    let kind = match known {
        Some(("prediction", version)) => Some((Kind::Prediction, version)),
        Some(("feedback", version)) => Some((Kind::Feedback, version)),
        _ => None,
    };
    kind.and_then(|(kind, version)| Some((kind, version.parse().ok()?))).ok_or_else(|| {
        let found: String = event_type.chars().take(100).collect();
        let expected = "dev.serin.prediction.v1 or dev.serin.feedback.v1";
        Refusal::new(Code::UnknownType, format!("type: {found:?}; expected {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_may_be_base64() {
        let body = STANDARD.encode(r#"{"label":1}"#);
        let of = |event: Value| open(event, Kind::Feedback);
        let opened = of(json!({"specversion": "1.0", "id": "e", "correlationid": "p", "data_base64": body})).unwrap();
        assert_eq!((opened.data, opened.about.correlation.as_deref()), (Data::Json(json!({"label": 1})), Some("p")));
        let avro = json!({"specversion": "1.0", "type": "dev.serin.feedback.v1", "datacontenttype": "application/avro",
            "data_base64": STANDARD.encode([1, 2])});
        assert_eq!(of(avro).unwrap().data, Data::Bytes(vec![1, 2]));
        for (time, read) in [
            (json!("2025-11-30T05:20:00Z"), Ok(true)),
            (json!(null), Ok(false)),
            (json!(""), Ok(false)),
            (json!(1_764_480_000_000_i64), Err("bad_time")),
            (json!("1764480000000"), Err("bad_time")),
            (json!("soon"), Err("bad_time")),
        ] {
            let found = of(json!({"specversion": "1.0", "data": {"label": 1}, "time": time}));
            let found = found.map(|opened| opened.about.time.is_some()).map_err(|refusal| refusal.code.as_str());
            assert_eq!(found, read, "{time}");
        }
        for data in [json!("?"), json!(1), json!(STANDARD.encode("{"))] {
            let found = of(json!({"specversion": "1.0", "data_base64": data})).unwrap_err();
            assert_eq!(found.code.as_str(), "garbage", "{found}");
        }
        assert_eq!(
            of(json!({"specversion": "1.0"})).unwrap_err().message,
            "data: expected a JSON object, or data_base64"
        );
        assert_eq!(of(json!({"specversion": "2.0"})).unwrap_err().code.as_str(), "unknown_schema_version");
    }
}
