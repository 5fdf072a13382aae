//! What a prediction event says about an answer: outputs, and whether anybody can use them. Pure.
//!
//! Bodies come from others: whatever they hold, this must not panic, and what it keeps is bounded.

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use serde_json::Value;
use serin_rollout::{OutputKind, OutputRule, OutputSource};

use crate::{
    census::Census,
    protocol::decode::Encoding,
    values::{first, first_of_tensor, header_text, number, scalar_text},
};

/// What output rules found in an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
    /// Why nobody can use the answer; the first reason in the order of the rules.
    pub(crate) invalid: Option<&'static str>,
    /// Share of the answer's values that are missing, if it could be read and has any.
    pub(crate) missing_share: Option<f64>,
}

impl Outputs {
    /// Adds what an answer says without any rule.
    fn count(&mut self, census: Census) {
        self.invalid = self.invalid.or(census.invalid);
        self.missing_share = census.missing_share();
    }
}

/// What is known of an answer without any rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promised {
    /// The answer says that it is JSON.
    pub(crate) json: bool,
    /// The list that its protocol promises: `outputs` or `predictions`.
    pub(crate) list: Option<&'static str>,
}

/// Whether an answer says that it is JSON.
pub(crate) fn says_json(encoding: Option<Encoding>, headers: &HeaderMap) -> bool {
    encoding == Some(Encoding::Json) && headers.contains_key(header::CONTENT_TYPE)
}

/// Applies output rules to a good answer, and counts what it says without any. `body` is `None` when it was not kept: rules
/// that need it are then left out, and the answer is not called invalid. `encoding` is what the headers say of it.
pub(crate) fn read(
    rules: &[OutputRule],
    headers: &HeaderMap,
    body: Option<&[u8]>,
    encoding: Option<Encoding>,
    promised: Promised,
) -> Outputs {
    let mut outputs = Outputs::default();
    let Some(body) = body else {
        read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
        return outputs;
    };
    if body.is_empty() {
        // An empty answer is wrong for every rule that looks into it, and where a protocol promises something.
        let looked_into = promised.list.is_some() || rules.iter().any(|rule| !in_header(rule));
        outputs.invalid = looked_into.then_some("empty");
        read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
        return outputs;
    }
    if encoding == Some(Encoding::Json)
        && rules.iter().all(in_header)
        && let Some(census) = Census::of_json(body, promised.list)
    {
        read_rules(&mut outputs, rules.iter(), headers, &Value::Null);
        outputs.count(census);
    } else if let Some(answer) = encoding.and_then(|encoding| encoding.read(body)) {
        read_rules(&mut outputs, rules.iter(), headers, &answer);
        outputs.count(Census::of(&answer, promised.list));
    } else {
        let looked_into = promised.json || promised.list.is_some() || rules.iter().any(|rule| !in_header(rule));
        outputs.invalid = looked_into.then_some("unparsable");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::LONGEST;
    use proptest::prelude::*;

    fn read(rules: &[OutputRule], headers: &HeaderMap, body: Option<&[u8]>, promised: Promised) -> Outputs {
        super::read(rules, headers, body, Encoding::of(headers), promised)
    }

    fn rule(kind: OutputKind, source: OutputSource) -> OutputRule {
        OutputRule { name: "score".into(), source, kind, min: Some(0.0), max: Some(1.0), required: true }
    }

    fn tensor() -> Vec<OutputRule> {
        vec![rule(OutputKind::Number, OutputSource::Tensor("p".into()))]
    }

    fn invalid(body: &str) -> Option<&'static str> {
        read(&tensor(), &HeaderMap::new(), Some(body.as_bytes()), Promised::default()).invalid
    }

    #[test]
    fn outputs_of_a_tensor() {
        let answer = r#"{"outputs":[{"name":"x","data":[3]},{"name":"p","data":[[0.25,0.75]]}]}"#;
        let outputs = read(&tensor(), &HeaderMap::new(), Some(answer.as_bytes()), Promised::default());
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
        assert_eq!(read(&tensor(), &HeaderMap::new(), None, Promised::default()), Outputs::default());
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
        let outputs = read(&rules, &headers, Some(br#"{"predictions":[{"label":"fraud"}]}"#), Promised::default());
        assert_eq!(outputs.classes["score"], "fraud");
        assert_eq!(outputs.numbers, BTreeMap::from([("tokens".to_owned(), 12.0)]));
        let long = format!(r#"{{"predictions":[{{"label":"{}"}}]}}"#, "é".repeat(500));
        let outputs = read(&rules, &headers, Some(long.as_bytes()), Promised::default());
        assert_eq!(outputs.classes["score"].len(), LONGEST);
    }

    #[test]
    fn rules_for_headers_alone_leave_the_body_to_the_census() {
        let tokens = OutputRule { max: None, ..rule(OutputKind::Number, OutputSource::Header("x-n".into())) };
        let headers = HeaderMap::from_iter([(header::HeaderName::from_static("x-n"), "12".parse().unwrap())]);
        let promised = Promised { json: true, list: Some("predictions") };
        let outputs = |body: &[u8]| read(std::slice::from_ref(&tokens), &headers, Some(body), promised);
        let numbers = BTreeMap::from([("score".to_owned(), 12.0)]);
        for (body, missing_share, invalid) in [
            (&br#"{"predictions":[1,null]}"#[..], Some(0.5), None),
            // No JSON in the strict sense, and read all the same.
            (br#"{"predictions":[NaN,1]}"#, Some(0.5), None),
            (b"{}", None, Some("missing")),
            (br#"{"predictions":[1"#, None, Some("unparsable")),
            (b"", None, Some("empty")),
        ] {
            let numbers = numbers.clone();
            let expected = Outputs { numbers, invalid, missing_share, ..Outputs::default() };
            assert_eq!(outputs(body), expected, "{}", body.escape_ascii());
        }
    }

    proptest! {
        /// Whatever a server answers, reading it neither panics nor keeps more than the bound, and numbers are finite.
        #[test]
        fn any_answer_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            for body in [body.as_slice(), text.as_bytes(), format!("{{\"outputs\":[{{\"name\":\"p\",\"data\":[{text}]}}]}}").as_bytes()] {
                let outputs = read(&tensor(), &HeaderMap::new(), Some(body), Promised::default());
                prop_assert!(outputs.numbers.values().all(|number| number.is_finite()));
                prop_assert!(outputs.invalid.is_some() || !outputs.numbers.is_empty());
            }
        }
    }
}
