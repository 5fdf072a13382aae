//! OpenTelemetry spans (OTLP), as protobuf or JSON, with the semantic conventions of HTTP and of generative AI.
//!
//! One span is one call. Which spans count, and where version, unit and request id are, is in the configuration
//! ([`Mapping`]). Other spans are ignored, because exporters send all spans of a process to one place.

use std::{collections::BTreeMap, fmt::Write as _};

use prost::Message;
use serde_json::Value;
use serin_schemas::{
    Code,
    foreign::{Bounds, Refusal, grpc, json},
    ids::EventTime,
    records::Prediction,
};

use crate::rules::{Defaults, Mapping, Spans, failure, number, text};

/// The path of the method that exporters call over gRPC.
pub const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const DEFAULTS: Defaults = Defaults {
    model: &[("span", "serin.model"), ("span", "gen_ai.request.model"), ("resource", "service.name")],
    version: &[("span", "serin.version"), ("resource", "service.version"), ("span", "gen_ai.response.model")],
    request_id: &[("span", "serin.request_id"), ("span", "gen_ai.response.id"), ("span", "gen_ai.request.id")],
};

/// Attributes that are reported as outputs of language models, with the factor to Serin's unit. The first that is present counts.
const NUMBERS: [(&str, &[(&str, f64)]); 3] = [
    ("llm.input_tokens", &[("gen_ai.usage.input_tokens", 1.0), ("gen_ai.usage.prompt_tokens", 1.0)]),
    ("llm.output_tokens", &[("gen_ai.usage.output_tokens", 1.0), ("gen_ai.usage.completion_tokens", 1.0)]),
    (
        "llm.time_to_first_chunk",
        &[("gen_ai.response.time_to_first_chunk", 1000.0), ("gen_ai.latency.time_to_first_token", 1000.0)],
    ),
];

/// Attributes with the status of a gRPC or Connect call: a number or a name, depending on the version of the conventions.
const RPC_STATUS: [&str; 3] = ["rpc.grpc.status_code", "rpc.response.status_code", "rpc.connect_rpc.error_code"];
/// Attributes that say that a span is a remote procedure call.
const RPC_SYSTEM: [&str; 2] = ["rpc.system", "rpc.system.name"];

/// Values of the kind of a span.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
/// The status code of a span that failed.
const ERROR: i32 = 2;

/// The calls in an export.
#[derive(Debug, Default, PartialEq)]
pub struct Calls {
    /// The calls.
    pub calls: Vec<Prediction>,
    /// Number of spans that are calls, but cannot be used.
    pub refused: usize,
    /// Problems of these spans, at most 100. Each starts with the id of the span.
    pub problems: Vec<Refusal>,
    /// Number of spans that are not calls of a model.
    pub ignored: usize,
}

/// Maximum number of reported problems.
const MOST_PROBLEMS: usize = 100;

/// Reads the body of an export request.
///
/// # Errors
/// The body is not an export request.
pub fn read(body: &[u8], is_json: bool, rules: &Mapping, bounds: &Bounds) -> Result<Calls, Refusal> {
    let spans = if is_json {
        of_json(&json::parse(body)?)?
    } else {
        let export = Export::decode(body)
            .map_err(|error| Refusal::new(Code::Garbage, format!("the body is not an OTLP export request: {error}")))?;
        of_protobuf(export)
    };
    let mut found = Calls::default();
    for span in &spans {
        if !span.is_call(rules) {
            found.ignored += 1;
            continue;
        }
        match span.prediction(rules, bounds) {
            Ok(call) => found.calls.push(call),
            Err(problems) => {
                found.refused += 1;
                let room = MOST_PROBLEMS.saturating_sub(found.problems.len());
                let named =
                    |problem: Refusal| Refusal::new(problem.code, format!("span {}: {}", span.id, problem.message));
                found.problems.extend(problems.into_iter().take(room).map(named));
            }
        }
    }
    Ok(found)
}

/// The answer to an export request; `refused` is the number of its spans that were refused.
pub fn answer(refused: usize, message: &str, is_json: bool) -> Vec<u8> {
    if is_json {
        let partial =
            serde_json::json!({"partialSuccess": {"rejectedSpans": refused.to_string(), "errorMessage": message}});
        return if refused == 0 { b"{}".to_vec() } else { partial.to_string().into_bytes() };
    }
    let partial =
        Partial { rejected_spans: i64::try_from(refused).unwrap_or(i64::MAX), error_message: message.to_owned() };
    Answer { partial_success: (refused > 0).then_some(partial) }.encode_to_vec()
}

/// A span, independent of its encoding.
#[derive(Debug, Default)]
struct Span {
    trace: String,
    id: String,
    kind: i32,
    start_ns: u64,
    end_ns: u64,
    attributes: BTreeMap<String, Value>,
    resource: std::rc::Rc<BTreeMap<String, Value>>,
    status: i32,
}

impl Span {
    fn text(&self, name: &str) -> Option<String> {
        self.attributes.get(name).and_then(text)
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    fn is_call(&self, rules: &Mapping) -> bool {
        let is_gen_ai = self.has("gen_ai.operation.name") || self.has("gen_ai.request.model");
        let of_kind = match rules.spans.unwrap_or_default() {
            Spans::Server => self.kind == SERVER,
            Spans::Client => self.kind == CLIENT,
            Spans::GenAi => return is_gen_ai && self.is_at(rules),
        };
        let method = self.text("http.request.method").or_else(|| self.text("http.method"));
        let is_call = is_gen_ai || method.is_some_and(|method| method == "POST") || self.is_rpc();
        let is_health = self.text("rpc.service").is_some_and(|service| service == "grpc.health.v1.Health");
        of_kind && is_call && !is_health && self.is_at(rules)
    }

    fn is_rpc(&self) -> bool {
        RPC_SYSTEM.iter().any(|name| self.has(name))
    }

    /// The code of a gRPC call. Its HTTP status, if the span has one, is 200 whatever the result.
    fn grpc(&self) -> Option<u16> {
        RPC_STATUS.iter().find_map(|name| grpc::code_of(&self.text(name)?))
    }

    /// Whether its path is one of the configured ones.
    fn is_at(&self, rules: &Mapping) -> bool {
        let path =
            ["url.path", "http.route", "http.target"].iter().find_map(|name| self.text(name)).unwrap_or_default();
        rules.paths.is_empty() || rules.paths.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }

    fn prediction(&self, rules: &Mapping, bounds: &Bounds) -> Result<Prediction, Vec<Refusal>> {
        let mut found = rules.find(&DEFAULTS, &|kind, name| match kind {
            "span" => self.attributes.get(name).cloned(),
            "resource" => self.resource.get(name).cloned(),
            _ => None,
        });
        let id = found.request_id.take().unwrap_or_else(|| format!("{}-{}", self.trace, self.id));
        let micros = |nanos: u64| i64::try_from(nanos / 1000).unwrap_or(i64::MAX);
        let mut call = found.prediction(id, EventTime(micros(self.end_ns)));
        // Both times come from one process, and a difference in nanoseconds keeps its precision.
        let duration = i128::from(self.end_ns) - i128::from(self.start_ns);
        call.latency_us = i64::try_from(duration / 1000).ok();
        let status = ["http.response.status_code", "http.status_code"].iter().find_map(|name| self.text(name));
        call.status = status.and_then(|status| status.parse().ok());
        call.error = failure(call.status);
        if let (Some(code), None) = (self.grpc(), &call.error) {
            let (status, error) = grpc::finished(code);
            (call.status, call.error) = (status.or(call.status), error);
        }
        if self.status == ERROR && call.error.is_none() && call.status.is_none_or(|status| status < 400) {
            call.error = Some(self.text("error.type").unwrap_or_else(|| "error".to_owned()));
        }
        for (name, attributes) in NUMBERS {
            let value = attributes
                .iter()
                .find_map(|(attribute, factor)| Some(number(self.attributes.get(*attribute)?)? * factor));
            if let Some(value) = value {
                call.outputs.entry(name.to_owned()).or_insert(value);
            }
        }
        if let Some(reason) = self.text("gen_ai.response.finish_reasons") {
            call.classes.entry("llm.finish_reason".to_owned()).or_insert(reason);
        }
        let mut problems = bounds.check_prediction(&call);
        if self.end_ns == 0 {
            problems.push(Refusal::new(Code::BadTime, "the span has no end time"));
        }
        if problems.is_empty() { Ok(call) } else { Err(problems) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn of_protobuf(export: Export) -> Vec<Span> {
    let mut spans = Vec::new();
    for ResourceSpans { resource, scope_spans } in export.resource_spans {
        let resource = std::rc::Rc::new(attributes(resource.unwrap_or_default().attributes));
        for span in scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                kind: span.kind,
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                attributes: attributes(span.attributes),
                resource: resource.clone(),
                status: span.status.unwrap_or_default().code,
            });
        }
    }
    spans
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, Value> {
    list.into_iter().filter_map(|KeyValue { key, value }| Some((key, value?.json()))).collect()
}

impl AnyValue {
    fn json(self) -> Value {
        match self.value {
            Some(any_value::Kind::Text(text)) => text.into(),
            Some(any_value::Kind::Bool(yes)) => yes.into(),
            Some(any_value::Kind::Int(number)) => number.into(),
            Some(any_value::Kind::Double(number)) => number.into(),
            Some(any_value::Kind::Array(list)) => list.values.into_iter().map(Self::json).collect(),
            None => Value::Null,
        }
    }
}

fn of_json(export: &Value) -> Result<Vec<Span>, Refusal> {
    let list = |value: &Value, name: &str, old: &str| {
        value.get(name).or_else(|| value.get(old)).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    if !export.is_object() {
        return Err(Refusal::new(Code::Garbage, "the body is not an OTLP export request: expected an object"));
    }
    let mut spans = Vec::new();
    for part in list(export, "resourceSpans", "resource_spans") {
        let resource = part.get("resource").map(json_attributes).unwrap_or_default();
        let resource = std::rc::Rc::new(resource);
        for scope in list(&part, "scopeSpans", "scope_spans") {
            for span in list(&scope, "spans", "spans") {
                let number = |name: &str| span.get(name).and_then(whole).unwrap_or(0);
                let id = |name: &str| span.get(name).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
                let status = span.get("status").and_then(|status| status.get("code"));
                spans.push(Span {
                    trace: id("traceId"),
                    id: id("spanId"),
                    kind: span
                        .get("kind")
                        .map_or(0, |kind| named(kind, "SPAN_KIND_SERVER", SERVER, "SPAN_KIND_CLIENT", CLIENT)),
                    start_ns: number("startTimeUnixNano"),
                    end_ns: number("endTimeUnixNano"),
                    attributes: json_attributes(&span),
                    resource: resource.clone(),
                    status: status.map_or(0, |code| named(code, "STATUS_CODE_ERROR", ERROR, "STATUS_CODE_OK", 1)),
                });
            }
        }
    }
    Ok(spans)
}

/// An enumeration as a number, or as one of two names.
fn named(value: &Value, first: &str, number: i32, second: &str, other: i32) -> i32 {
    match value {
        Value::String(text) if text == first => number,
        Value::String(text) if text == second => other,
        value => value.as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
    }
}

/// A 64-bit number, which JSON may write as text.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn json_attributes(of: &Value) -> BTreeMap<String, Value> {
    let entry = |entry: &Value| {
        let value = entry.get("value")?;
        Some((entry.get("key")?.as_str()?.to_owned(), json_value(value)))
    };
    of.get("attributes").and_then(Value::as_array).into_iter().flatten().filter_map(entry).collect()
}

fn json_value(value: &Value) -> Value {
    if let Some(value) = ["stringValue", "boolValue", "doubleValue"].iter().find_map(|kind| value.get(kind)) {
        return value.clone();
    }
    if let Some(number) = value.get("intValue") {
        let parsed = number.as_i64().or_else(|| number.as_str()?.parse().ok());
        return parsed.map_or(Value::Null, Value::from);
    }
    let list = value.get("arrayValue").and_then(|list| list.get("values")).and_then(Value::as_array);
    list.map_or(Value::Null, |values| values.iter().map(json_value).collect())
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "any_value::Kind", tags = "1, 2, 3, 4, 5")]
    value: Option<any_value::Kind>,
}

mod any_value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(message, tag = "5")]
        Array(super::ArrayValue),
    }
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use serin_schemas::{ids::Span as TimeSpan, records::Outcome};

    /// 2025-11-30T05:20:00Z.
    const NOW: EventTime = EventTime(1_764_480_000_000_000);

    fn bounds() -> Bounds {
        Bounds::new(Some(NOW), NOW, TimeSpan(600_000_000))
    }

    fn export(kind: i32, resource: &[(&str, &str)], attributes: &Value) -> Value {
        let entry = |(name, value): (&str, &str)| json!({"key": name, "value": {"stringValue": value}});
        let resource: Vec<Value> = resource.iter().map(|pair| entry(*pair)).collect();
        json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"spans": [{
            "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "kind": kind,
            "startTimeUnixNano": "1764479999000000000", "endTimeUnixNano": "1764479999012400999",
            "attributes": attributes, "status": {}
        }]}]}]})
    }

    fn http(status: i64) -> Value {
        json!([{"key": "http.request.method", "value": {"stringValue": "POST"}},
               {"key": "url.path", "value": {"stringValue": "/predict"}},
               {"key": "http.response.status_code", "value": {"intValue": status.to_string()}}])
    }

    const SERVICE: [(&str, &str); 2] = [("service.name", "fraud"), ("service.version", "v2")];

    fn of(export: &Value, rules: &Mapping) -> Calls {
        read(export.to_string().as_bytes(), true, rules, &bounds()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_server_span_becomes_a_call() {
        let found = of(&export(SERVER, &SERVICE, &http(200)), &Mapping::default());
        assert_eq!((found.calls.len(), found.refused, found.ignored), (1, 0, 0), "{found:?}");
        let call = &found.calls[0];
        assert_eq!(call.request_id.as_str(), "5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174");
        assert_eq!((call.model.as_str(), call.version.as_str(), call.status), ("fraud", "v2", Some(200)));
        assert_eq!(
            (call.latency_us, call.completed_at.0, call.outcome()),
            (Some(12_400), NOW.0 - 987_600, Outcome::Ok)
        );
        for (status, outcome, error) in [(503, Outcome::Failed, Some("status_503")), (422, Outcome::Refused, None)] {
            let call = of(&export(SERVER, &SERVICE, &http(status)), &Mapping::default()).calls.remove(0);
            assert_eq!((call.outcome(), call.error.as_deref()), (outcome, error));
        }
    }

    #[test]
    fn a_span_of_a_language_model_has_its_outputs() {
        let attributes = json!([
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "assistant"}},
            {"key": "gen_ai.response.id", "value": {"stringValue": "chatcmpl-1"}},
            {"key": "gen_ai.response.finish_reasons", "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 100}},
            {"key": "gen_ai.usage.completion_tokens", "value": {"intValue": "180"}},
            {"key": "gen_ai.latency.time_to_first_token", "value": {"doubleValue": 0.25}},
            {"key": "session.id", "value": {"stringValue": "s1"}}
        ]);
        let rules: Mapping =
            serde_json::from_value(json!({"spans": "gen_ai", "unit": "span:session.id"})).unwrap_or_default();
        let call = of(&export(CLIENT, &SERVICE, &attributes), &rules).calls.remove(0);
        assert_eq!(
            (call.request_id.as_str(), call.model.as_str(), call.version.as_str()),
            ("chatcmpl-1", "assistant", "v2")
        );
        assert_eq!(
            call.outputs,
            [("llm.input_tokens", 100.0), ("llm.output_tokens", 180.0), ("llm.time_to_first_chunk", 250.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
        assert_eq!(call.classes["llm.finish_reason"], "stop");
        assert_eq!(call.unit, Some(serin_sketches::hash::unit("assistant", "s1")));
    }

    #[test]
    fn spans_that_are_not_calls_are_ignored() {
        let get = json!([{"key": "http.request.method", "value": {"stringValue": "GET"}}]);
        for (kind, attributes) in [(SERVER, get), (SERVER, json!([])), (CLIENT, http(200)), (1, http(200))] {
            let found = of(&export(kind, &SERVICE, &attributes), &Mapping::default());
            assert_eq!((found.calls.len(), found.refused, found.ignored), (0, 0, 1), "{kind} {attributes}");
        }
        let rules = Mapping { paths: vec!["/other".to_owned()], ..Mapping::default() };
        assert_eq!(of(&export(SERVER, &SERVICE, &http(200)), &rules).ignored, 1);
    }

    #[test]
    fn a_call_without_a_version_or_with_a_wrong_time_is_refused_and_others_are_kept() {
        let mut mixed = export(SERVER, &SERVICE, &http(200));
        let bad = export(SERVER, &[("service.name", "fraud")], &http(200));
        let mut future = export(SERVER, &SERVICE, &http(200));
        future["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"] = json!("2764479999012400999");
        for other in [bad, future, json!({"resourceSpans": [{}]})] {
            let part = other["resourceSpans"][0].clone();
            mixed["resourceSpans"].as_array_mut().into_iter().for_each(|list| list.push(part.clone()));
        }
        let found = of(&mixed, &Mapping::default());
        assert_eq!((found.calls.len(), found.refused), (1, 2));
        let codes: Vec<Code> = found.problems.iter().map(|problem| problem.code).collect();
        assert!(codes.contains(&Code::MissingVersion) && codes.contains(&Code::FarFuture), "{codes:?}");
        assert!(found.problems[0].message.starts_with("span eee19b7ec3c1b174: "), "{:?}", found.problems);
    }

    #[test]
    fn a_span_with_an_error_failed() {
        let mut failed = export(
            SERVER,
            &SERVICE,
            &json!([{"key": "rpc.system", "value": {"stringValue": "grpc"}},
            {"key": "error.type", "value": {"stringValue": "UNAVAILABLE"}}]),
        );
        failed["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["status"] = json!({"code": "STATUS_CODE_ERROR"});
        let call = of(&failed, &Mapping::default()).calls.remove(0);
        assert_eq!((call.outcome(), call.error.as_deref(), call.status), (Outcome::Failed, Some("UNAVAILABLE"), None));
    }

    #[test]
    fn the_status_of_a_grpc_span_decides() {
        let failed = |error| (Outcome::Failed, Some(error));
        for (name, code, expected) in [
            ("rpc.grpc.status_code", json!({"intValue": "0"}), (Outcome::Ok, None)),
            ("rpc.grpc.status_code", json!({"intValue": 3}), (Outcome::Refused, None)),
            ("rpc.grpc.status_code", json!({"intValue": "16"}), (Outcome::Refused, None)),
            ("rpc.grpc.status_code", json!({"intValue": 14}), failed("grpc_unavailable")),
            ("rpc.grpc.status_code", json!({"intValue": 1}), failed("grpc_cancelled")),
            ("rpc.response.status_code", json!({"stringValue": "OK"}), (Outcome::Ok, None)),
            ("rpc.response.status_code", json!({"stringValue": "PERMISSION_DENIED"}), (Outcome::Refused, None)),
            ("rpc.response.status_code", json!({"stringValue": "DATA_LOSS"}), failed("grpc_data_loss")),
            ("rpc.connect_rpc.error_code", json!({"stringValue": "not_found"}), (Outcome::Refused, None)),
        ] {
            for system in RPC_SYSTEM {
                let attributes = json!([
                    {"key": system, "value": {"stringValue": "grpc"}}, {"key": name, "value": code}
                ]);
                for (kind, spans) in [(SERVER, Spans::Server), (CLIENT, Spans::Client)] {
                    let mut span = export(kind, &SERVICE, &attributes);
                    if kind == CLIENT && expected.0 != Outcome::Ok {
                        // A client span is an error with every code but OK.
                        span["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["status"] = json!({"code": 2});
                    }
                    let rules = Mapping { spans: Some(spans), ..Mapping::default() };
                    let call = of(&span, &rules).calls.remove(0);
                    assert_eq!((call.outcome(), call.error.as_deref()), expected, "{attributes}");
                }
            }
        }
    }

    /// What the SDK for Python 1.45.2 sent: spans of the conventions for HTTP, and one with the attributes of vLLM.
    #[test]
    fn recorded_exports_of_the_python_sdk_are_read() {
        let of = |hex, rules: &Mapping| {
            read(&crate::recorded(hex), false, rules, &bounds()).unwrap_or_else(|error| panic!("{error}"))
        };
        let found = of(include_str!("../golden/otel-python-http.hex"), &Mapping::default());
        assert_eq!((found.refused, found.ignored), (0, 2), "{:?}", found.problems);
        let calls: Vec<_> =
            found.calls.iter().map(|call| (call.version.as_str(), call.status, call.outcome())).collect();
        assert_eq!(
            calls,
            [("v2", Some(200), Outcome::Ok), ("v2", Some(422), Outcome::Refused), ("v2", Some(503), Outcome::Failed),]
        );
        assert!(found.calls.iter().all(|call| call.latency_us == Some(12_400)));
        let found = of(include_str!("../golden/otel-python-gen-ai.hex"), &Mapping::default());
        let call = &found.calls[0];
        assert_eq!((call.model.as_str(), call.request_id.as_str()), ("assistant", "chatcmpl-1"));
        assert_eq!((call.outputs["llm.output_tokens"], call.outputs["llm.time_to_first_chunk"]), (180.0, 250.0));
    }

    /// The same span in protobuf and in JSON is the same call.
    #[test]
    fn protobuf_and_json_are_read_alike() {
        let text = |text: &str| Some(AnyValue { value: Some(any_value::Kind::Text(text.to_owned())) });
        let pair = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: text(value) };
        let status = AnyValue { value: Some(any_value::Kind::Int(200)) };
        let span = WireSpan {
            trace_id: (0..16).collect(),
            span_id: vec![0xee; 8],
            kind: SERVER,
            start_time_unix_nano: 1_764_479_999_000_000_000,
            end_time_unix_nano: 1_764_479_999_012_400_999,
            attributes: vec![
                pair("http.request.method", "POST"),
                pair("url.path", "/predict"),
                KeyValue { key: "http.response.status_code".to_owned(), value: Some(status) },
            ],
            status: None,
        };
        let resource = Resource { attributes: SERVICE.map(|(key, value)| pair(key, value)).to_vec() };
        let body = Export {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans { spans: vec![span] }],
            }],
        };
        let found =
            read(&body.encode_to_vec(), false, &Mapping::default(), &bounds()).unwrap_or_else(|e| panic!("{e}"));
        let mut json = export(SERVER, &SERVICE, &http(200));
        let first = &mut json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        first["traceId"] = json!("000102030405060708090a0b0c0d0e0f");
        first["spanId"] = json!("eeeeeeeeeeeeeeee");
        assert_eq!(found, of(&json, &Mapping::default()));
        assert_eq!(found.calls.len(), 1);
    }

    #[test]
    fn other_bodies_are_refused_without_a_panic() {
        let code = |body: &[u8], is_json| {
            read(body, is_json, &Mapping::default(), &bounds()).map_err(|error| error.code).err()
        };
        for (body, is_json) in [(&b"{"[..], true), (b"[]", true), (b"\xff\xff\xff", false), (b"{}", false)] {
            assert_eq!(code(body, is_json), Some(Code::Garbage), "{body:?}");
        }
        assert_eq!((code(b"", false), code(b"{}", true)), (None, None));
        assert_eq!(read(b"", false, &Mapping::default(), &bounds()), Ok(Calls::default()));
    }

    #[test]
    fn the_answer_names_what_was_refused() {
        assert_eq!(answer(0, "", true), b"{}");
        assert_eq!(answer(0, "", false), b"");
        let partial = r#"{"partialSuccess":{"errorMessage":"no","rejectedSpans":"2"}}"#;
        assert_eq!(String::from_utf8_lossy(&answer(2, "no", true)), partial);
        assert_eq!(answer(2, "no", false), b"\x0a\x06\x08\x02\x12\x02no");
    }
}
