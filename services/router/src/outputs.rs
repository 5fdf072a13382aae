//! What a prediction event says about a call: outputs and whether anybody can use them, segments, the sticky key. Pure.
//!
//! Bodies come from others: whatever they hold, this must not panic, and what it keeps is bounded.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, header};
use serde_json::Value;
use serin_rollout::{OutputKind, OutputRule, OutputSource, SegmentSource, SegmentSpec, StickyKey};

use crate::protocol::decode::Encoding;

/// Longest class, segment value or key that is kept, in bytes.
const LONGEST: usize = 128;

/// What output rules found in an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
    /// Why nobody can use the answer; the first reason in the order of the rules.
    pub(crate) invalid: Option<&'static str>,
}

/// Applies output rules to a good answer. `body` is `None` when it was not kept: rules that need it are then left out,
/// and the answer is not called invalid.
pub(crate) fn read(rules: &[OutputRule], headers: &HeaderMap, body: Option<&[u8]>) -> Outputs {
    let mut outputs = Outputs::default();
    let Some(body) = body else {
        read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
        return outputs;
    };
    if body.is_empty() {
        // An empty answer is wrong for every rule that looks into it.
        outputs.invalid = rules.iter().any(|rule| !in_header(rule)).then_some("empty");
        read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
        return outputs;
    }
    if let Some(answer) = Encoding::of(headers).and_then(|encoding| encoding.read(body)) {
        read_rules(&mut outputs, rules.iter(), headers, &answer);
    } else {
        outputs.invalid = Some("unparsable");
        read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
    }
    outputs
}

fn in_header(rule: &OutputRule) -> bool {
    matches!(rule.source, OutputSource::Header(_))
}

fn read_rules<'a>(
    outputs: &mut Outputs,
    rules: impl Iterator<Item = &'a OutputRule>,
    headers: &HeaderMap,
    answer: &Value,
) {
    for rule in rules {
        let found = match &rule.source {
            OutputSource::Tensor(name) => first_of_tensor(answer, "outputs", name),
            OutputSource::Json(pointer) => answer.pointer(pointer).cloned(),
            OutputSource::Header(name) => header_text(headers, name).map(|text| Value::String(text.into_owned())),
        };
        let problem = match found {
            None => rule.required.then_some("missing"),
            Some(value) => keep(outputs, rule, &value).err(),
        };
        outputs.invalid = outputs.invalid.or(problem);
    }
}

/// Keeps one output, or says why nobody can use it.
fn keep(outputs: &mut Outputs, rule: &OutputRule, value: &Value) -> Result<(), &'static str> {
    let value = first(value);
    match value {
        Value::Null => return Err("null"),
        Value::Array(_) => return Err("empty"),
        Value::String(text) if text.is_empty() => return Err("empty"),
        _ => {}
    }
    match rule.kind {
        OutputKind::Number => {
            let number = number(value)?;
            if rule.min.is_some_and(|min| number < min) || rule.max.is_some_and(|max| number > max) {
                return Err("out_of_range");
            }
            outputs.numbers.insert(rule.name.clone(), number);
        }
        OutputKind::Class => {
            let class = scalar_text(value).ok_or("unparsable")?;
            outputs.classes.insert(rule.name.clone(), class);
        }
    }
    Ok(())
}

/// The first scalar of nested arrays; an empty array stays one.
fn first(mut value: &Value) -> &Value {
    while let Value::Array(items) = value {
        match items.first() {
            Some(item) => value = item,
            None => return value,
        }
    }
    value
}

fn number(value: &Value) -> Result<f64, &'static str> {
    let number = match value {
        Value::Number(number) => number.as_f64().ok_or("unparsable")?,
        Value::Bool(yes) => f64::from(u8::from(*yes)),
        Value::String(text) => text.trim().parse::<f64>().map_err(|_| "unparsable")?,
        _ => return Err("unparsable"),
    };
    if number.is_finite() { Ok(number) } else { Err("nan") }
}

/// A scalar as text, cut at [`LONGEST`].
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(cut(text).to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// A text cut at [`LONGEST`] bytes, between characters.
fn cut(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// First value of a named tensor; an empty tensor is an empty array.
fn first_of_tensor(body: &Value, list: &str, name: &str) -> Option<Value> {
    let tensors = body.get(list)?.as_array()?;
    let tensor = tensors.iter().find(|tensor| tensor.get("name").and_then(Value::as_str) == Some(name))?;
    Some(first(tensor.get("data")?).clone())
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// The value of each segment dimension that a request has.
pub(crate) fn segments(specs: &[SegmentSpec], headers: &HeaderMap, body: Option<&Value>) -> BTreeMap<String, String> {
    let value = |spec: &SegmentSpec| match &spec.source {
        SegmentSource::Header(name) => header_text(headers, name).map(|text| cut(&text).to_owned()),
        SegmentSource::Json(pointer) => scalar_text(first(body?.pointer(pointer)?)),
        SegmentSource::Input(name) => scalar_text(&first_of_tensor(body?, "inputs", name)?),
        SegmentSource::Parameter(name) => scalar_text(body?.get("parameters")?.get(name)?),
        SegmentSource::Event(_) => None,
    };
    specs.iter().filter_map(|spec| Some((spec.name.clone(), value(spec).filter(|text| !text.is_empty())?))).collect()
}

/// The sticky key of a request.
pub(crate) fn sticky_key(key: &StickyKey, headers: &HeaderMap, body: Option<&Value>) -> Option<String> {
    let found = match key {
        StickyKey::Header(name) => header_text(headers, name).map(Cow::into_owned),
        StickyKey::Cookie(name) => cookie(headers, name),
        StickyKey::Json(pointer) => scalar_text(first(body?.pointer(pointer)?)),
        StickyKey::Parameter(name) => scalar_text(body?.get("parameters")?.get(name)?),
        StickyKey::Session => None,
        StickyKey::Sequence => scalar_text(body?.get("parameters")?.get("sequence_id")?),
    };
    found.filter(|text| !text.is_empty())
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule(kind: OutputKind, source: OutputSource) -> OutputRule {
        OutputRule { name: "score".into(), source, kind, min: Some(0.0), max: Some(1.0), required: true }
    }

    fn tensor() -> Vec<OutputRule> {
        vec![rule(OutputKind::Number, OutputSource::Tensor("p".into()))]
    }

    fn invalid(body: &str) -> Option<&'static str> {
        read(&tensor(), &HeaderMap::new(), Some(body.as_bytes())).invalid
    }

    #[test]
    fn outputs_of_a_tensor() {
        let answer = r#"{"outputs":[{"name":"x","data":[3]},{"name":"p","data":[[0.25,0.75]]}]}"#;
        let outputs = read(&tensor(), &HeaderMap::new(), Some(answer.as_bytes()));
        assert_eq!(outputs.numbers, BTreeMap::from([("score".to_owned(), 0.25)]));
        assert_eq!(outputs.invalid, None);
    }

    #[test]
    fn what_nobody_can_use_has_a_reason() {
        let with = |data: &str| format!(r#"{{"outputs":[{{"name":"p","data":{data}}}]}}"#);
        assert_eq!(invalid(&with("[NaN]")), Some("nan"));
        assert_eq!(invalid(&with("[-Infinity]")), Some("nan"));
        assert_eq!(invalid(&with("[\"NaN\"]")), Some("nan"));
        assert_eq!(invalid(&with("[null]")), Some("null"));
        assert_eq!(invalid(&with("[]")), Some("empty"));
        assert_eq!(invalid(&with("[\"\"]")), Some("empty"));
        assert_eq!(invalid(&with("[1.5]")), Some("out_of_range"));
        assert_eq!(invalid(&with("[-0.1]")), Some("out_of_range"));
        assert_eq!(invalid(&with("[\"high\"]")), Some("unparsable"));
        assert_eq!(invalid(&with("[{}]")), Some("unparsable"));
        assert_eq!(invalid(r#"{"outputs":[]}"#), Some("missing"));
        assert_eq!(invalid("[1,2"), Some("unparsable"));
        assert_eq!(invalid("<html>"), Some("unparsable"));
        assert_eq!(invalid(""), Some("empty"));
        assert_eq!(invalid(&with("[true]")), None);
    }

    #[test]
    fn a_body_that_was_not_kept_is_not_judged() {
        assert_eq!(read(&tensor(), &HeaderMap::new(), None), Outputs::default());
    }

    #[test]
    fn classes_and_headers() {
        let rules = [
            rule(OutputKind::Class, OutputSource::Json("/predictions/0/label".into())),
            OutputRule {
                name: "tokens".into(),
                max: None,
                ..rule(OutputKind::Number, OutputSource::Header("x-n".into()))
            },
        ];
        let mut headers = HeaderMap::new();
        headers.insert("x-n", "12".parse().unwrap());
        let outputs = read(&rules, &headers, Some(br#"{"predictions":[{"label":"fraud"}]}"#));
        assert_eq!(outputs.classes["score"], "fraud");
        assert_eq!(outputs.numbers, BTreeMap::from([("tokens".to_owned(), 12.0)]));
        let long = format!(r#"{{"predictions":[{{"label":"{}"}}]}}"#, "é".repeat(500));
        let outputs = read(&rules, &headers, Some(long.as_bytes()));
        assert_eq!(outputs.classes["score"].len(), LONGEST);
    }

    #[test]
    fn segments_and_sticky_keys() {
        let spec = |name: &str, source| SegmentSpec { name: name.into(), source, top: 10 };
        let specs = [
            spec("country", SegmentSource::Header("x-country".into())),
            spec("origin", SegmentSource::Input("origin".into())),
            spec("tier", SegmentSource::Parameter("tier".into())),
            spec("n", SegmentSource::Json("/inputs/0/shape".into())),
            spec("gone", SegmentSource::Json("/none".into())),
        ];
        let mut headers = HeaderMap::new();
        headers.insert("x-country", "CA".parse().unwrap());
        headers.insert(header::COOKIE, "a=1; user=u7".parse().unwrap());
        let body = json!({"parameters": {"tier": "gold"},
            "inputs": [{"name": "origin", "shape": [1], "datatype": "BYTES", "data": ["LGA"]}]});
        let found = segments(&specs, &headers, Some(&body));
        let want = [("country", "CA"), ("n", "1"), ("origin", "LGA"), ("tier", "gold")];
        assert_eq!(found, want.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let key = |key: StickyKey| sticky_key(&key, &headers, Some(&body));
        assert_eq!(key(StickyKey::Cookie("user".into())).as_deref(), Some("u7"));
        assert_eq!(key(StickyKey::Header("X-Country".into())).as_deref(), Some("CA"));
        assert_eq!(key(StickyKey::Parameter("tier".into())).as_deref(), Some("gold"));
        assert_eq!(key(StickyKey::Json("/inputs/0/data/0".into())).as_deref(), Some("LGA"));
        assert_eq!(key(StickyKey::Json("/nope".into())), None);
    }

    proptest! {
        /// Whatever a server answers, reading it neither panics nor keeps more than the bound, and numbers are finite.
        #[test]
        fn any_answer_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            for body in [body.as_slice(), text.as_bytes(), format!("{{\"outputs\":[{{\"name\":\"p\",\"data\":[{text}]}}]}}").as_bytes()] {
                let outputs = read(&tensor(), &HeaderMap::new(), Some(body));
                prop_assert!(outputs.numbers.values().all(|number| number.is_finite()));
                prop_assert!(outputs.invalid.is_some() || !outputs.numbers.is_empty());
            }
        }
    }
}
