//! `CloudEvents` of payload loggers, in binary and structured mode, over HTTP and Kafka.
//!
//! Reading is tolerant where senders are known to deviate: attribute names in any case, with `ce-`, `ce_` or, as Seldon writes them on
//! Kafka, without a prefix; values percent-encoded or raw; versions 0.3 and 1.0.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_schemas::{Code, foreign::Refusal};

/// The headers of Seldon's logger on Kafka, which have no prefix.
const BARE: [&str; 7] = ["type", "modelid", "requestid", "inferenceservicename", "namespace", "endpoint", "protocol"];

/// The program that wrote an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logger {
    /// `KServe`'s payload logger.
    Kserve,
    /// Seldon's request logger.
    Seldon,
}

impl Logger {
    /// The name of its door.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kserve => "kserve",
            Self::Seldon => "seldon",
        }
    }
}

/// Which part of a call an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The request.
    Request,
    /// The answer.
    Response,
}

impl Part {
    /// The name of the part.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// An event: its attributes by lower-case name, and its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    attributes: BTreeMap<String, String>,
    /// The content type of the body.
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

impl Event {
    /// An event in binary mode: attributes in headers. Values are percent-decoded with `is_http`.
    pub fn binary<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, body: &[u8], is_http: bool) -> Self {
        let mut event = Self { body: body.to_vec(), ..Self::default() };
        let mut bare = BTreeMap::new();
        for (name, value) in headers {
            let Ok(value) = std::str::from_utf8(value) else { continue };
            let name = name.to_ascii_lowercase();
            if name == "content-type" {
                value.clone_into(&mut event.content_type);
            } else if let Some(name) = name.strip_prefix("ce-").or_else(|| name.strip_prefix("ce_")) {
                let decoded = percent_decode_str(value).decode_utf8().ok().filter(|_| is_http);
                event.attributes.insert(name.to_owned(), decoded.map_or_else(|| value.to_owned(), Into::into));
            } else if !is_http && BARE.contains(&name.as_str()) {
                bare.insert(name, value.to_owned());
            }
        }
        if !event.attributes.contains_key("type") {
            event.attributes.extend(bare);
        }
        event
    }

    /// An event in structured mode: one JSON object with the attributes and `data` or `data_base64`.
    ///
    /// # Errors
    /// Returns what is wrong with the envelope.
    pub fn structured(event: Value) -> Result<Self, Refusal> {
        let Value::Object(mut members) = event else {
            return Err(Refusal::new(Code::Garbage, "the event is not a JSON object"));
        };
        let data = members.remove("data");
        let encoded = members.remove("data_base64");
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let attributes: BTreeMap<String, String> =
            members.into_iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase(), text(value)?))).collect();
        let content_type = attributes.get("datacontenttype").cloned().unwrap_or_else(|| "application/json".to_owned());
        let body = match (data, encoded) {
            (None | Some(Value::Null), Some(Value::String(encoded))) => STANDARD
                .decode(encoded)
                .map_err(|_| Refusal::new(Code::Garbage, "data_base64: expected base64 of the body"))?,
            // A body that is not JSON may be a string in `data`.
            (Some(Value::String(text)), _) => text.into_bytes(),
            (Some(data), _) => data.to_string().into_bytes(),
            (None, _) => Vec::new(),
        };
        Ok(Self { attributes, content_type, body })
    }

    /// An attribute that is not empty, by its lower-case name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Which logger wrote the event, and which part of a call it is. `None` for any other event.
    pub fn part(&self) -> Option<(Logger, Part)> {
        part_of(self.attribute("type")?)
    }
}

/// The logger and the part of a call that an event type stands for.
pub fn part_of(event_type: &str) -> Option<(Logger, Part)> {
    Some(match event_type {
        "org.kubeflow.serving.inference.request" => (Logger::Kserve, Part::Request),
        "org.kubeflow.serving.inference.response" => (Logger::Kserve, Part::Response),
        "io.seldon.serving.inference.request" => (Logger::Seldon, Part::Request),
        "io.seldon.serving.inference.response" => (Logger::Seldon, Part::Response),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binary(headers: &[(&str, &str)], is_http: bool) -> Event {
        Event::binary(headers.iter().map(|(name, value)| (*name, value.as_bytes())), b"{}", is_http)
    }

    #[test]
    fn attributes_are_read_in_every_spelling() {
        let kserve = "org.kubeflow.serving.inference.request";
        for (name, is_http) in [("ce-type", true), ("Ce-Type", true), ("ce_type", false), ("CE_TYPE", false)] {
            assert_eq!(binary(&[(name, kserve)], is_http).part(), Some((Logger::Kserve, Part::Request)), "{name}");
        }
        let seldon = binary(&[("type", "io.seldon.serving.inference.response"), ("requestid", "p")], false);
        assert_eq!(seldon.part(), Some((Logger::Seldon, Part::Response)));
        assert_eq!(seldon.attribute("requestid"), Some("p"));
        assert_eq!(binary(&[("type", kserve)], true).part(), None);
        assert_eq!(binary(&[("ce-type", "dev.serin.prediction.v1")], true).part(), None);
    }

    #[test]
    fn values_are_raw_or_percent_encoded() {
        for value in [r#"{"X-Id":["a b"]}"#, "{%22X-Id%22:[%22a%20b%22]}"] {
            assert_eq!(binary(&[("ce-metadata", value)], true).attribute("metadata"), Some(r#"{"X-Id":["a b"]}"#));
        }
        assert_eq!(binary(&[("ce-id", "%ff")], true).attribute("id"), Some("%ff"));
        assert_eq!(binary(&[("ce_id", "a%20b")], false).attribute("id"), Some("a%20b"));
        assert_eq!(binary(&[("ce-id", "")], true).attribute("id"), None);
    }

    #[test]
    fn structured_events_carry_json_text_or_base64() {
        let body =
            |event: Value| Event::structured(event).map(|event| String::from_utf8_lossy(&event.body).into_owned());
        assert_eq!(body(json!({"data": {"a": 1}})).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(body(json!({"data_base64": "e30="})).as_deref(), Ok("{}"));
        assert_eq!(body(json!({"data": "x"})).as_deref(), Ok("x"));
        assert_eq!(body(json!({})).as_deref(), Ok(""));
        assert_eq!(body(json!({"data_base64": "?"})).map_err(|error| error.code), Err(Code::Garbage));
        assert_eq!(body(json!([])).map_err(|error| error.code), Err(Code::Garbage));
    }
}
