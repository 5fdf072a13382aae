//! The content of an answer with a 2xx status for its prediction event: its outputs, and whether a caller can use it. Pure.
//!
//! Bodies are untrusted: no body may cause a panic, and the memory is bounded.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::Value;
use serin_spec::{OutputKind, OutputRule, OutputSource};

use crate::{
    content::{
        census::Census,
        llm::Reply,
        messages::ReadMessages,
        outcome::{Content, Unread},
        values::{first, first_of_tensor, header_text, number, scalar_text},
    },
    protocol::{Promise, decode::Encoding, written::Written},
};

/// The result of reading an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    /// Values found by the output rules.
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
    /// The content: the worst finding. Of equal findings it is the first in the order of the rules.
    pub(crate) content: Content,
    /// Share of the answer's missing values, if it could be read and has values.
    pub(crate) missing_share: Option<f64>,
    /// Data of a language model's answer.
    pub(crate) reply: Option<Reply>,
    /// Names in the answer, if a rule found nothing: one of them may be the intended one.
    pub(crate) names: Vec<String>,
}

/// Maximum number of names that are collected from one answer.
const NAMES: usize = crate::content::seen::MOST;
/// Maximum depth at which names are collected.
const DEPTH: usize = 4;

/// Reads a whole body and applies output rules to it. `ok` is whether its status is 200 or another one that requires content.
pub(crate) fn read(
    rules: &[OutputRule],
    headers: &HeaderMap,
    body: &[u8],
    written: Written,
    promise: Promise,
    ok: bool,
) -> Outputs {
    let looks_in = rules.iter().any(|rule| !in_header(rule));
    if body.trim_ascii().is_empty() {
        let content = if ok || looks_in || promise.is_some() {
            Content::Unusable("empty")
        } else {
            Content::Unread(Unread::NoContent)
        };
        return of_headers(rules, headers, content);
    }
    let chats = matches!(promise, Promise::Choices | Promise::Response);
    let has_reply = chats || promise == Promise::Embeddings;
    let may_be_json = matches!(written, Written::Json | Written::Text | Written::Html | Written::Bytes);
    if may_be_json
        && !looks_in
        && !has_reply
        && let Some(census) = Census::of_json(body, promise)
    {
        return Outputs { missing_share: census.missing_share(), ..of_headers(rules, headers, census.content()) };
    }
    let encoding = match written {
        Written::Binary(length) => length.map(Encoding::Binary),
        _ => may_be_json.then_some(Encoding::Json),
    };
    let Some(answer) = encoding.and_then(|encoding| encoding.read(body)) else {
        let expected = looks_in || promise.is_some();
        return of_headers(rules, headers, unreadable(body, written, expected));
    };
    let mut outputs = of_value(rules, headers, &answer, promise);
    if has_reply && !matches!(outputs.content, Content::Failed(_)) {
        let reply = Reply::of_json(&answer);
        if chats {
            outputs.content = outputs.content.or_worse(reply.content());
        }
        outputs.reply = Some(reply);
    }
    outputs
}

/// Applies output rules to an answer whose body is not read and whose content so far is `content`.
pub(crate) fn of_headers(rules: &[OutputRule], headers: &HeaderMap, content: Content) -> Outputs {
    let mut outputs = Outputs::default();
    read_rules(&mut outputs, rules.iter().filter(|rule| in_header(rule)), headers, &Value::Null);
    outputs.content = outputs.content.or_worse(content);
    outputs
}

/// Applies output rules to the first answer in the messages of a gRPC answer.
pub(crate) fn of_messages(rules: &[OutputRule], headers: &HeaderMap, messages: &ReadMessages) -> Outputs {
    let Some(first) = &messages.first else { return of_headers(rules, headers, messages.content()) };
    let mut outputs = Outputs::default();
    read_rules(&mut outputs, rules.iter(), headers, first);
    outputs.content = outputs.content.or_worse(messages.content());
    outputs.missing_share = messages.census.missing_share();
    outputs
}

fn of_value(rules: &[OutputRule], headers: &HeaderMap, answer: &Value, promise: Promise) -> Outputs {
    let census = Census::of(answer, promise);
    let mut outputs = Outputs::default();
    read_rules(&mut outputs, rules.iter(), headers, answer);
    outputs.content = outputs.content.or_worse(census.content());
    outputs.missing_share = census.missing_share();
    outputs
}

/// The content of a body that cannot be parsed; `expected` if rules or the protocol require its content.
fn unreadable(body: &[u8], written: Written, expected: bool) -> Content {
    match written {
        Written::Html => Content::Unusable("html"),
        Written::Json | Written::Text if is_page(body) => Content::Unusable("html"),
        Written::Json | Written::Binary(_) | Written::Grpc => Content::Unusable("unparsable"),
        Written::Text if expected => Content::Unusable("unparsable"),
        Written::Text | Written::Bytes | Written::Events | Written::Other => Content::Unread(Unread::ContentType),
    }
}

/// Whether a text starts like an HTML page.
fn is_page(body: &[u8]) -> bool {
    let text = body.trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"]
        .iter()
        .any(|tag| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
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
            None => {
                if outputs.names.is_empty() {
                    outputs.names = names_in(answer, &rule.source);
                }
                rule.required.then_some("missing")
            }
            Some(value) => keep(outputs, rule, &value).err(),
        };
        outputs.content = outputs.content.or_worse(problem.map_or(Content::Good, Content::Unusable));
    }
}

/// Names in an answer under which a rule of this kind could find a value.
fn names_in(answer: &Value, source: &OutputSource) -> Vec<String> {
    let mut names = Vec::new();
    match source {
        OutputSource::Tensor(_) => {
            let tensors = answer.get("outputs").and_then(Value::as_array).into_iter().flatten();
            let named = tensors.filter_map(|tensor| tensor.get("name")?.as_str());
            names.extend(named.take(NAMES).map(str::to_owned));
        }
        OutputSource::Json(_) => pointers(answer, &mut String::new(), DEPTH, &mut names),
        OutputSource::Header(_) => {}
    }
    names
}

/// Adds the pointers to the scalars of an answer to `into`, for lists only to the first item.
fn pointers(value: &Value, at: &mut String, depth: usize, into: &mut Vec<String>) {
    let length = at.len();
    match value {
        _ if into.len() >= NAMES => {}
        Value::Object(members) if depth > 0 => {
            for (name, member) in members.iter().take(NAMES) {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                pointers(member, at, depth - 1, into);
                at.truncate(length);
            }
        }
        Value::Array(list) if depth > 0 => {
            if let Some(first) = list.first() {
                at.push_str("/0");
                pointers(first, at, depth - 1, into);
                at.truncate(length);
            }
        }
        Value::Object(_) | Value::Array(_) => {}
        _ => into.push(at.clone()),
    }
}

/// Stores one output, or returns why it is unusable.
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
    use crate::content::values::LONGEST;
    use proptest::prelude::*;

    fn read(rules: &[OutputRule], headers: &HeaderMap, body: &[u8], promise: Promise) -> Outputs {
        super::read(rules, headers, body, Written::of(headers), promise, true)
    }

    fn rule(kind: OutputKind, source: OutputSource) -> OutputRule {
        OutputRule { name: "score".into(), source, kind, min: Some(0.0), max: Some(1.0), required: true }
    }

    fn tensor() -> Vec<OutputRule> {
        vec![rule(OutputKind::Number, OutputSource::Tensor("p".into()))]
    }

    fn content(body: &str) -> Content {
        read(&tensor(), &HeaderMap::new(), body.as_bytes(), Promise::Nothing).content
    }

    fn of_type(kind: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind.parse().unwrap())])
    }

    #[test]
    fn outputs_of_a_tensor() {
        let answer = r#"{"outputs":[{"name":"x","data":[3]},{"name":"p","data":[[0.25,0.75]]}]}"#;
        let outputs = read(&tensor(), &HeaderMap::new(), answer.as_bytes(), Promise::Nothing);
        assert_eq!(outputs.numbers, BTreeMap::from([("score".to_owned(), 0.25)]));
        assert_eq!(outputs.content, Content::Good);
    }

    #[test]
    fn unusable_outputs_have_a_cause() {
        let with = |data: &str| format!(r#"{{"outputs":[{{"name":"p","data":{data}}}]}}"#);
        for (body, cause) in [
            (with("[NaN]"), "nan"),
            (with("[-Infinity]"), "nan"),
            (with("[1e999]"), "nan"),
            (with("[\"NaN\"]"), "nan"),
            (with("[null]"), "null"),
            (with("[]"), "empty"),
            (with("[\"\"]"), "empty"),
            (with("[1.5]"), "out_of_range"),
            (with("[-0.1]"), "out_of_range"),
            (with("[\"high\"]"), "unparsable"),
            (with("[{}]"), "unparsable"),
            (r#"{"outputs":[]}"#.to_owned(), "missing"),
            ("[1,2".to_owned(), "unparsable"),
            ("<html>".to_owned(), "html"),
            (String::new(), "empty"),
            (" \n".to_owned(), "empty"),
        ] {
            assert_eq!(content(&body), Content::Unusable(cause), "{body}");
        }
        assert_eq!(content(&with("[true]")), Content::Good);
    }

    #[test]
    fn the_names_of_an_answer_are_returned_if_a_rule_found_nothing() {
        let names = |source: OutputSource, body: &str| {
            let rule = OutputRule { required: false, ..rule(OutputKind::Number, source) };
            read(&[rule], &HeaderMap::new(), body.as_bytes(), Promise::Nothing).names
        };
        let tensor = || OutputSource::Tensor("p".into());
        assert_eq!(
            names(tensor(), r#"{"outputs":[{"name":"x","data":[3]},{"name":"prob","data":[0.5]}]}"#),
            ["x", "prob"]
        );
        assert!(names(tensor(), r#"{"outputs":[{"name":"p","data":[0.5]}]}"#).is_empty());
        let pointer = || OutputSource::Json("/score".into());
        let body = r#"{"id":"a","predictions":[{"score":0.5,"a/b":1}],"deep":{"a":{"b":{"c":{"d":1}}}}}"#;
        assert_eq!(names(pointer(), body), ["/id", "/predictions/0/a~1b", "/predictions/0/score"]);
        let many: Vec<String> = (0..100).map(|n| format!("\"n{n}\":{n}")).collect();
        assert_eq!(names(pointer(), &format!("{{{}}}", many.join(","))).len(), NAMES);
        assert!(names(OutputSource::Header("x".into()), body).is_empty());
    }

    #[test]
    fn unusable_answers_of_every_protocol() {
        use Content::{Failed, Good, Unread as Not, Unusable};
        use Promise as P;
        let empty = Unusable("empty");
        for (promise, body, content) in [
            (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[NaN]}]}"#, Unusable("nan")),
            (
                P::Tensors,
                r#"{"outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[null,null]}]}"#,
                Unusable("null"),
            ),
            (P::Tensors, r#"{"outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[null,1]}]}"#, Good),
            (P::Tensors, r#"{"outputs":[{"name":"boxes","shape":[0,4],"datatype":"FP32","data":[]}]}"#, Good),
            (P::Tensors, r#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64"}]}"#, Unusable("missing")),
            (P::Tensors, r#"{"outputs":[]}"#, empty),
            (P::Tensors, "{}", Unusable("missing")),
            (P::Tensors, r#"{"error":"CUDA out of memory"}"#, Failed("error_object")),
            (P::Tensors, r#"{"outputs":[{"name":"p","shape":["1"],"datatype":"INT64","data":["7"]}]}"#, Good),
            (P::Tensors, r#"{"outputs":[{"name":"p","shape":["1"],"datatype":"INT64","data":["-7"]}]}"#, Good),
            (
                P::Tensors,
                r#"{"outputs":[{"name":"p","shape":[1],"datatype":"UINT64","data":["-7"]}]}"#,
                Unusable("schema"),
            ),
            (
                P::Tensors,
                r#"{"outputs":[{"name":"p","shape":[1],"datatype":"INT32","data":["7"]}]}"#,
                Unusable("schema"),
            ),
            (P::Tensors, "<html>", Unusable("html")),
            (P::Tensors, "ok", Unusable("unparsable")),
            (P::Predictions, r#"{"predictions":[NaN]}"#, Unusable("nan")),
            (P::Predictions, r#"{"predictions":[[null]]}"#, Unusable("null")),
            (P::Predictions, r#"{"predictions":[null,2]}"#, Good),
            (P::Predictions, r#"{"predictions":[]}"#, empty),
            (P::Predictions, r#"{"predictions":null}"#, Unusable("missing")),
            (P::Predictions, r#"{"outputs":{"p":[0.5]}}"#, Good),
            (P::Predictions, r#"{"error":{"code":500}}"#, Failed("error_object")),
            (P::Predictions, r#"{"predictions":[1],"error":null}"#, Good),
            (P::Choices, r#"{"error":{"message":"boom"}}"#, Failed("error_object")),
            (P::Choices, r#"{"object":"error","message":"boom","code":500}"#, Failed("error_object")),
            (P::Choices, r#"{"choices":[]}"#, empty),
            (P::Choices, r#"{"id":"c"}"#, Unusable("missing")),
            (
                P::Choices,
                r#"{"choices":[{"message":{"role":"assistant","content":null},"finish_reason":"stop"}]}"#,
                empty,
            ),
            (P::Choices, r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#, Good),
            (P::Choices, r#"{"choices":[{"message":{"content":null,"audio":{"data":"AA"}}}]}"#, Good),
            (P::Choices, r#"{"choices":[{"text":"hi"}]}"#, Good),
            (
                P::Response,
                r#"{"object":"response","status":"failed","error":{"code":"server_error"},"output":[]}"#,
                Failed("error_object"),
            ),
            (
                P::Response,
                r#"{"object":"response","status":"failed","error":null,"output":[]}"#,
                Failed("error_object"),
            ),
            (P::Response, r#"{"object":"response","status":"completed","output":[]}"#, empty),
            (P::Embeddings, r#"{"data":[{"index":0,"embedding":[NaN,NaN]}]}"#, Unusable("nan")),
            (P::Embeddings, r#"{"data":[{"index":0,"embedding":[]}]}"#, empty),
            (P::Embeddings, r#"{"data":[{"index":0,"embedding":"AAAA"}]}"#, Good),
            (P::Json, r#"{"text_output":"hi"}"#, Good),
            (P::Json, r#"{"error":"boom"}"#, Failed("error_object")),
            (P::Nothing, r#"{"score":null}"#, Unusable("null")),
            (P::Nothing, r#"{"score":0.5,"error":0.01}"#, Good),
            (P::Nothing, r#"{"score":0.5,"error":""}"#, Good),
            (P::Nothing, r#"[{"error":"boom"}]"#, Failed("error_object")),
            (P::Nothing, "{}", empty),
            (P::Nothing, "0.73", Good),
            (P::Nothing, "plain text", Not(Unread::ContentType)),
            (P::Nothing, "<!DOCTYPE html><p>", Unusable("html")),
        ] {
            assert_eq!(read(&[], &HeaderMap::new(), body.as_bytes(), promise).content, content, "{promise:?} {body}");
            let marked = [b"\xef\xbb\xbf", body.as_bytes()].concat();
            if !matches!(content, Not(_) | Unusable("html" | "unparsable")) {
                assert_eq!(read(&[], &of_type("text/json"), &marked, promise).content, content, "with a mark: {body}");
            }
        }
    }

    #[test]
    fn json_is_read_under_many_content_types() {
        let answer = br#"{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}"#;
        for kind in [
            "text/html; charset=utf-8",
            "text/plain",
            "text/json",
            "application/json",
            "application/x+json",
            "application/octet-stream",
        ] {
            let outputs = read(&tensor(), &of_type(kind), answer, Promise::Tensors);
            assert_eq!((outputs.numbers["score"], outputs.content), (0.25, Content::Good), "{kind}");
        }
        let picture = read(&tensor(), &of_type("image/png"), b"\x89PNG", Promise::Tensors);
        assert_eq!(picture.content, Content::Unread(Unread::ContentType));
        assert_eq!(read(&[], &of_type("text/html"), b"oops", Promise::Nothing).content, Content::Unusable("html"));
        let bytes = read(&[], &of_type("application/octet-stream"), b"\0\x01", Promise::Tensors);
        assert_eq!(bytes.content, Content::Unread(Unread::ContentType));
    }

    #[test]
    fn an_empty_answer_is_unusable_unless_its_status_allows_it() {
        let empty = |promise, ok| super::read(&[], &HeaderMap::new(), b"", Written::Text, promise, ok).content;
        assert_eq!(empty(Promise::Nothing, true), Content::Unusable("empty"));
        assert_eq!(empty(Promise::Nothing, false), Content::Unread(Unread::NoContent));
        assert_eq!(empty(Promise::Tensors, false), Content::Unusable("empty"));
        let looked_into = super::read(&tensor(), &HeaderMap::new(), b"", Written::Text, Promise::Nothing, false);
        assert_eq!(looked_into.content, Content::Unusable("empty"));
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
        let outputs = read(&rules, &headers, br#"{"predictions":[{"label":"fraud"}]}"#, Promise::Nothing);
        assert_eq!(outputs.classes["score"], "fraud");
        assert_eq!(outputs.numbers, BTreeMap::from([("tokens".to_owned(), 12.0)]));
        let long = format!(r#"{{"predictions":[{{"label":"{}"}}]}}"#, "é".repeat(500));
        let outputs = read(&rules, &headers, long.as_bytes(), Promise::Nothing);
        assert_eq!(outputs.classes["score"].len(), LONGEST);
    }

    #[test]
    fn rules_that_read_only_headers_leave_the_body_to_the_census() {
        let tokens = OutputRule { max: None, ..rule(OutputKind::Number, OutputSource::Header("x-n".into())) };
        let mut headers = of_type("application/json");
        headers.insert("x-n", "12".parse().unwrap());
        let outputs = |body: &[u8]| read(std::slice::from_ref(&tokens), &headers, body, Promise::Predictions);
        let numbers = BTreeMap::from([("score".to_owned(), 12.0)]);
        for (body, missing_share, content) in [
            (&br#"{"predictions":[1,null]}"#[..], Some(0.5), Content::Good),
            // Not strictly valid JSON, but read anyway.
            (br#"{"predictions":[NaN,1]}"#, Some(0.5), Content::Good),
            (b"{}", None, Content::Unusable("missing")),
            (br#"{"predictions":[1"#, None, Content::Unusable("unparsable")),
            (b"", None, Content::Unusable("empty")),
        ] {
            let numbers = numbers.clone();
            let expected = Outputs { numbers, content, missing_share, ..Outputs::default() };
            assert_eq!(outputs(body), expected, "{}", body.escape_ascii());
        }
    }

    proptest! {
        /// Reading any answer neither panics nor exceeds the memory bound, and all numbers are finite.
        #[test]
        fn any_answer_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            for body in [body.as_slice(), text.as_bytes(), format!("{{\"outputs\":[{{\"name\":\"p\",\"data\":[{text}]}}]}}").as_bytes()] {
                for promise in [Promise::Nothing, Promise::Tensors, Promise::Choices, Promise::Embeddings] {
                    let outputs = read(&tensor(), &HeaderMap::new(), body, promise);
                    prop_assert!(outputs.numbers.values().all(|number| number.is_finite()));
                    prop_assert!(outputs.content != Content::Good || !outputs.numbers.is_empty());
                }
            }
        }

        /// A body gets the same result whether or not its values are kept.
        #[test]
        fn the_fast_path_gives_the_same_result(text in r#"[\[\]{}",:0-9anul.-]{0,60}"#, value in ".{0,10}") {
            for body in [text.clone(), format!(r#"{{"predictions":[{text}]}}"#), format!(r#"{{"error":"{value}","predictions":[1]}}"#)] {
                for promise in [Promise::Nothing, Promise::Json, Promise::Tensors, Promise::Predictions] {
                    let Some(quick) = Census::of_json(body.as_bytes(), promise) else { continue };
                    let slow = Encoding::Json.read(body.as_bytes()).map(|value| Census::of(&value, promise));
                    prop_assert_eq!(Some(quick), slow, "{}", body);
                }
            }
        }
    }
}
