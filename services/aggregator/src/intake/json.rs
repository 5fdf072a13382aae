//! JSON bodies as predictions and feedback. Unknown members are ignored; a known one with a wrong type is refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use serin_schemas::{
    ids::{EventTime, Generation, Span},
    records::{Arm, Assignment, Feedback, Origin, Prediction, Writer},
};
use serin_stream::fold::Poison;

use super::incoming::Attributes;
use crate::fold::poison;

/// Most entries of one map.
const MOST: usize = 64;
/// Longest id, name or class, in bytes.
const LONGEST: usize = 256;

/// The members of a body.
struct Body<'a>(&'a Map<String, Value>);

fn bad<T>(member: &str, expected: &str) -> Result<T, Poison> {
    poison("bad_value", format!("{member}: expected {expected}"))
}

impl<'a> Body<'a> {
    fn of(value: &'a Value) -> Result<Self, Poison> {
        value.as_object().map(Self).map_or_else(|| poison("garbage", "the body is no JSON object".into()), Ok)
    }

    /// The first of these members that is there and not null.
    fn get(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().filter_map(|name| self.0.get(*name)).find(|value| !value.is_null())
    }

    /// A text; a number is taken as its digits.
    fn text(&self, names: &[&str]) -> Result<Option<String>, Poison> {
        let text = match self.get(names) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return bad(names[0], "a text"),
        };
        if text.len() > LONGEST {
            bad(names[0], "at most 256 bytes")
        } else {
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
    }

    /// Who asked (user, session, account): a text or a number. A whole number is the same unit however it is written: `7`, `7.0`,
    /// `"7"`.
    fn unit(&self, model: &str) -> Result<Option<i64>, Poison> {
        let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then(|| (number as i64).to_string());
        let text = match self.get(&["unit"]) {
            Some(Value::Number(number)) if number.is_f64() => {
                number.as_f64().map(|f| whole(f).unwrap_or(f.to_string()))
            }
            _ => self.text(&["unit"])?,
        };
        Ok(text.map(|text| serin_sketches::hash::unit(model, &text)))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Poison> {
        match self.get(&[name]) {
            None => Ok(None),
            Some(value) => value.as_f64().map_or_else(|| bad(name, "a number"), |number| Ok(Some(number))),
        }
    }

    fn integer(&self, names: &[&str]) -> Result<Option<i64>, Poison> {
        match self.get(names) {
            None => Ok(None),
            Some(value) => value.as_i64().map_or_else(|| bad(names[0], "a whole number"), |number| Ok(Some(number))),
        }
    }

    /// Microseconds since 1970, or RFC 3339.
    fn time(&self, name: &str) -> Result<Option<EventTime>, Poison> {
        let time = match self.get(&[name]) {
            None => return Ok(None),
            Some(Value::String(text)) => EventTime::from_rfc3339(text),
            Some(value) => value.as_i64().map(EventTime),
        };
        time.map_or_else(|| bad(name, "an RFC 3339 time, or microseconds since 1970"), |time| Ok(Some(time)))
    }

    fn map(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Poison> {
        match self.get(&[name]) {
            None => Ok(None),
            Some(Value::Object(map)) if map.len() > MOST => {
                poison("too_many_values", format!("{name} has {} entries; at most {MOST} are taken", map.len()))
            }
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => bad(name, "an object"),
        }
    }
}

/// Numbers and texts by name, as they come.
#[derive(Default)]
struct Values {
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
    /// A null where a value belongs: nobody can use it.
    null: bool,
}

impl Values {
    fn add(&mut self, name: &str, value: &Value) -> Result<(), Poison> {
        if name.len() > LONGEST {
            return bad("a name", "at most 256 bytes");
        }
        match value {
            Value::Null => self.null = true,
            Value::Bool(yes) => drop(self.numbers.insert(name.to_owned(), f64::from(u8::from(*yes)))),
            Value::Number(number) => {
                // Every JSON number converts.
                self.numbers.insert(name.to_owned(), number.as_f64().unwrap_or(f64::NAN));
            }
            Value::String(text) if text.len() <= LONGEST => drop(self.texts.insert(name.to_owned(), text.clone())),
            Value::String(_) => return bad(name, "at most 256 bytes"),
            Value::Array(_) | Value::Object(_) => return bad(name, "a number, a text or a truth value"),
        }
        Ok(())
    }

    fn add_all(&mut self, map: Option<&Map<String, Value>>) -> Result<(), Poison> {
        map.into_iter().flatten().try_for_each(|(name, value)| self.add(name, value))
    }
}

fn id(body: &Body<'_>, attributes: &[&Option<String>]) -> Result<String, Poison> {
    let own = body.text(&["prediction_id", "request_id"])?;
    let from_envelope = || attributes.iter().find_map(|attribute| (*attribute).clone());
    own.or_else(from_envelope)
        .filter(|id| id.len() <= LONGEST)
        .map_or_else(|| poison("missing_id", "there is no prediction_id, and the envelope names none".into()), Ok)
}

fn required(what: &'static str, code: &'static str, text: Option<String>) -> Result<String, Poison> {
    text.map_or_else(|| poison(code, format!("there is no {what}")), Ok)
}

/// A prediction. `logged` is when the record came to the log: the event time of a body that names none.
pub(crate) fn prediction(value: &Value, attributes: &Attributes, logged: EventTime) -> Result<Prediction, Poison> {
    let body = Body::of(value)?;
    let mirror_of = body.text(&["mirror_of"])?;
    let request_id = match mirror_of.clone() {
        Some(live) => live,
        None => id(&body, &[&attributes.id])?,
    };
    let named = body.text(&["arm"])?;
    let arm = match named.as_deref() {
        _ if mirror_of.is_some() => Arm::Shadow,
        None | Some("stable" | "pinned") => Arm::Stable,
        Some("control") => Arm::Control,
        Some("canary") => Arm::Canary,
        Some("shadow") => Arm::Shadow,
        Some(_) => return bad("arm", "stable, control, canary or shadow"),
    };
    let pinned = named.as_deref() == Some("pinned") || body.text(&["assignment"])?.as_deref() == Some("pinned");
    let latency = body.number("latency_ms")?;
    if latency.is_some_and(|latency| latency < 0.0) {
        return poison("negative_latency", format!("latency_ms {latency:?}; a latency cannot be negative"));
    }
    let latency_us = latency.map(|latency| (latency * 1e3) as i64);
    let completed = |arrived: EventTime| arrived.plus(Span(latency_us.unwrap_or(0)));
    let completed_at = body.time("completed_at")?.or_else(|| attributes.time.map(completed)).unwrap_or(logged);
    let mut outputs = Values::default();
    outputs.add_all(body.map("outputs")?)?;
    outputs.add_all(body.map("classes")?)?;
    let unusable = outputs.null.then(|| "null".to_owned());
    let segments = body.map("segments")?.into_iter().flatten().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Some((name.clone(), value.to_string())),
        _ => None,
    });
    let model = required("model", "missing_model", body.text(&["model"])?.or_else(|| attributes.subject.clone()))?;
    Ok(Prediction {
        unit: body.unit(&model)?,
        request_id: request_id.into(),
        model: model.into(),
        version: required("version", "missing_version", body.text(&["version"])?)?.into(),
        arm,
        assignment: if pinned { Assignment::Pinned } else { Assignment::External },
        origin: Origin::Intake,
        rollout: body.text(&["rollout"])?.map(Into::into),
        generation: Generation(body.integer(&["generation", "routing_epoch"])?.unwrap_or(0)),
        completed_at,
        latency_us,
        status: body.integer(&["status"])?.map(|status| status.clamp(0, 999) as i32),
        error: body.text(&["error", "error_type"])?,
        invalid_output: body.text(&["invalid_output"])?.or(unusable),
        outcome: None,
        unread: None,
        outputs: outputs.numbers,
        classes: outputs.texts,
        segments: segments.collect(),
        writer: Writer::default(),
    })
}

/// Feedback. What is not named otherwise is `truth`, `reward` or `label`.
pub(crate) fn feedback(value: &Value, attributes: &Attributes, logged: EventTime) -> Result<Feedback, Poison> {
    let body = Body::of(value)?;
    let request_id = id(&body, &[&attributes.correlation])?;
    let mut values = Values::default();
    values.add_all(body.map("values")?)?;
    values.add_all(body.map("classes")?)?;
    match body.get(&["truth"]) {
        Some(Value::Object(_)) => values.add_all(body.map("truth")?)?,
        Some(truth) => values.add("truth", truth)?,
        None => {}
    }
    for name in ["reward", "label"] {
        if let Some(value) = body.get(&[name]) {
            values.add(name, value)?;
        }
    }
    if let Some(score) = body.map("score")? {
        let name = score.get("name").and_then(Value::as_str).unwrap_or("score");
        values.add(name, score.get("value").unwrap_or(&Value::Null))?;
    }
    if values.numbers.is_empty() && values.texts.is_empty() {
        return poison(
            "no_truth",
            "there is no truth in it; send values, classes, truth, reward, label or score".into(),
        );
    }
    Ok(Feedback {
        request_id: request_id.into(),
        observed_at: body.time("observed_at")?.or(attributes.time).unwrap_or(logged),
        revision: body.integer(&["revision"])?.unwrap_or(0),
        values: values.numbers,
        classes: values.texts,
        writer: Writer::default(),
        credential: None,
    })
}
