//! Parses a record in any envelope: `CloudEvents` in binary or structured mode, or none.
//!
//! It is lenient where producers are known to deviate (attribute names in any case, `ce_` or `ce-`, a structured
//! event under plain `application/json`, specversion 0.3) and strict where it would have to guess.

use serde_json::Value;
use serin_doors::{
    DoorRules,
    cloud::{Event, part_of},
    half::{self, Half},
};
use serin_schemas::Code;
use serin_schemas::{
    codec, envelope,
    foreign::{
        Attributes, Bounds, Kind, Refusal,
        cloud::{self, Data, JSON_VERSION, Opened},
        json,
    },
    records::{Feedback, Prediction},
};
use serin_stream::{fold::Poison, record::Record};

/// A record that was parsed and checked.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// One response of a model.
    Prediction(Box<Prediction>),
    /// The outcome of a prediction.
    Feedback(Box<Feedback>),
    /// The request or the response of a call, from a payload logger.
    Half(Box<Half>),
}

/// Parses a record. `by_topic` is the kind of a record without a type.
pub(crate) fn read(
    record: &Record,
    by_topic: Kind,
    max_body: usize,
    doors: &DoorRules,
    bounds: &Bounds,
) -> Result<Incoming, Poison> {
    let Some(body) = record.value.as_deref() else {
        return Err(Poison::new(Code::Empty, "the record has no value; intake topics do not support tombstones"));
    };
    if body.len() > max_body {
        return Err(Poison::new(
            Code::TooLarge,
            format!("the body has {} bytes; at most {max_body} are accepted", body.len()),
        ));
    }
    let received = envelope::read(&record.headers);
    // Seldon's logger writes the type without the prefix.
    let bare = || record.header("type").and_then(|value| std::str::from_utf8(value).ok());
    if let Some(event_type) = received.event_type.or_else(bare) {
        if event_type == half::TYPE {
            return Half::decode(body, bounds).map(|half| Incoming::Half(Box::new(half))).map_err(all);
        }
        if part_of(event_type).is_some() {
            return half_of(&Event::binary(record.headers.iter(), body, false), doors, bounds);
        }
    }
    let content = received.content_type.unwrap_or_default().to_ascii_lowercase();
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let looks_like_json = start.first() == Some(&b'{');
    if content.starts_with("application/cloudevents") || (received.event_type.is_none() && looks_like_json) {
        let value = json::parse(body).map_err(unusable)?;
        if cloud::is_structured(&value) {
            if value.get("type").and_then(Value::as_str).and_then(part_of).is_some() {
                return half_of(&Event::structured(value).map_err(unusable)?, doors, bounds);
            }
            return structured(value, by_topic, bounds);
        }
        if content.starts_with("application/cloudevents") {
            return Err(Poison::new(Code::Garbage, "a structured CloudEvent without `specversion`"));
        }
        return from_json(by_topic, &value, &Attributes::default(), bounds);
    }
    let Some(event_type) = received.event_type else {
        let without = || "the record has no `ce_type` and its body is not a JSON object".to_owned();
        return Err(Poison::new(Code::UnknownType, json::confluent(body).unwrap_or_else(without)));
    };
    let (kind, version) = cloud::kind_of(event_type).map_err(unusable)?;
    if !content.contains("json") && !looks_like_json {
        return avro(kind, version, body, bounds);
    }
    check_version(kind, version)?;
    let header = |name: &str| {
        let named = |prefix: &str| record.header(&format!("{prefix}{name}"));
        let value = named("ce_").or_else(|| named("ce-"))?;
        std::str::from_utf8(value).ok().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let about = Attributes {
        id: received.id.map(str::to_owned),
        subject: received.subject.map(str::to_owned),
        time: received.time,
        correlation: header("correlationid").or_else(|| header("causationid")),
    };
    from_json(kind, &json::parse(body).map_err(unusable)?, &about, bounds)
}

fn half_of(event: &Event, doors: &DoorRules, bounds: &Bounds) -> Result<Incoming, Poison> {
    Half::of(event, doors, bounds).map(|half| Incoming::Half(Box::new(half))).map_err(all)
}

fn structured(event: Value, by_topic: Kind, bounds: &Bounds) -> Result<Incoming, Poison> {
    let Opened { kind, version, about, data } = cloud::open(event, by_topic).map_err(unusable)?;
    match data {
        Data::Json(value) => {
            check_version(kind, version)?;
            from_json(kind, &value, &about, bounds)
        }
        Data::Bytes(bytes) => avro(kind, version, &bytes, bounds),
    }
}

fn from_json(kind: Kind, value: &Value, about: &Attributes, bounds: &Bounds) -> Result<Incoming, Poison> {
    match kind {
        Kind::Prediction => json::prediction(value, about, bounds).map(|read| Incoming::Prediction(Box::new(read))),
        Kind::Feedback => json::feedback(value, about, bounds).map(|read| Incoming::Feedback(Box::new(read))),
    }
    .map_err(all)
}

fn check_version(kind: Kind, version: u32) -> Result<(), Poison> {
    if version == JSON_VERSION {
        return Ok(());
    }
    let message = format!("{kind:?} v{version}: JSON bodies are supported up to version {JSON_VERSION}");
    Err(Poison::new(Code::UnknownSchemaVersion, message))
}

fn avro(kind: Kind, version: u32, body: &[u8], bounds: &Bounds) -> Result<Incoming, Poison> {
    let garbled = |error: codec::DecodeError| Poison {
        code: error.code(),
        message: json::confluent(body).unwrap_or_else(|| error.to_string()),
    };
    let (read, problems) = match kind {
        Kind::Prediction => {
            let read: Prediction = codec::decode(version, body).map_err(garbled)?;
            let problems = bounds.check_prediction(&read);
            (Incoming::Prediction(Box::new(read)), problems)
        }
        Kind::Feedback => {
            let read: Feedback = codec::decode(version, body).map_err(garbled)?;
            let problems = bounds.check_feedback(&read);
            (Incoming::Feedback(Box::new(read)), problems)
        }
    };
    if problems.is_empty() { Ok(read) } else { Err(all(problems)) }
}

fn unusable(refusal: Refusal) -> Poison {
    Poison::new(refusal.code, refusal.message)
}

/// Maximum number of reasons in a dead letter.
const MAX_REASONS: usize = 10;

/// Combines all reasons under the code of the first.
pub(crate) fn all(problems: Vec<Refusal>) -> Poison {
    let code = problems.first().map_or(Code::Garbage, |first| first.code);
    let messages: Vec<String> = problems.into_iter().take(MAX_REASONS).map(|problem| problem.message).collect();
    Poison::new(code, messages.join("; "))
}
