//! Envoy's gRPC access-log service: the entries of one `StreamAccessLogsMessage`.
//!
//! One HTTP log entry is one call. Bodies are not part of an entry, so this door carries statuses and latencies, but no outputs, except
//! those that a header contains.

use std::collections::HashMap;

use prost::Message;
use serde_json::Value;
use serin_schemas::{
    Code,
    foreign::{Bounds, Refusal, grpc},
    ids::EventTime,
    records::Prediction,
};

use crate::rules::{Defaults, Mapping, failure};

/// The path of the method that Envoy calls.
pub const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

const DEFAULTS: Defaults = Defaults {
    model: &[("tag", "model"), ("field", "model")],
    version: &[("tag", "version"), ("response", "x-model-version"), ("field", "cluster")],
    request_id: &[("field", "request_id"), ("field", "stream_id")],
};

/// The type of an entry that is written at the end of a call. Envoy may also write entries while a call is in progress.
const DOWNSTREAM_END: i32 = 6;

/// The calls in a message.
#[derive(Debug, Default, PartialEq)]
pub struct Calls {
    /// The calls. The intake dead-letters those that the checks refuse, because Envoy cannot be answered.
    pub calls: Vec<Prediction>,
    /// Number of entries that are not calls of a model: TCP connections and entries of calls in progress.
    pub ignored: usize,
    /// Problems of calls, at most 100.
    pub problems: Vec<Refusal>,
}

/// Reads one message.
///
/// # Errors
/// The bytes are not a `StreamAccessLogsMessage`.
pub fn read(message: &[u8], rules: &Mapping, bounds: &Bounds) -> Result<Calls, Refusal> {
    let message = Logs::decode(message).map_err(|error| {
        Refusal::new(Code::Garbage, format!("the message is not a StreamAccessLogsMessage: {error}"))
    })?;
    let mut found = Calls { ignored: message.tcp_logs.map_or(0, |logs| logs.entries.len()), ..Calls::default() };
    for entry in message.http_logs.unwrap_or_default().entries {
        let common = entry.common.as_ref();
        let unfinished = common
            .is_some_and(|common| common.intermediate || common.log_type != 0 && common.log_type != DOWNSTREAM_END);
        if unfinished {
            found.ignored += 1;
            continue;
        }
        let call = entry.prediction(rules, bounds);
        let room = 100_usize.saturating_sub(found.problems.len());
        found.problems.extend(bounds.check_prediction(&call).into_iter().take(room));
        found.calls.push(call);
    }
    Ok(found)
}

impl Entry {
    fn prediction(&self, rules: &Mapping, bounds: &Bounds) -> Prediction {
        let (common, request) = (self.common.clone().unwrap_or_default(), self.request.clone().unwrap_or_default());
        let response = self.response.clone().unwrap_or_default();
        let header = |headers: &HashMap<String, String>, name: &str| headers.get(&name.to_ascii_lowercase()).cloned();
        let mut found = rules.find(&DEFAULTS, &|kind, name| {
            let found = match (kind, name) {
                ("tag", name) => common.custom_tags.get(name).cloned(),
                ("request", name) => header(&request.headers, name),
                ("response", name) => header(&response.headers, name),
                ("trailer", name) => header(&response.trailers, name),
                ("field", "cluster") => Some(common.upstream_cluster.clone()),
                ("field", "route") => Some(common.route_name.clone()),
                ("field", "authority") => Some(request.authority.clone()),
                ("field", "path") => Some(request.path.clone()),
                ("field", "model") => model_of(&request.path).map(str::to_owned),
                ("field", "request_id") => Some(request.request_id.clone()),
                ("field", "stream_id") => Some(common.stream_id.clone()),
                _ => None,
            };
            found.filter(|text| !text.is_empty()).map(Value::from)
        });
        let id = found.request_id.take().unwrap_or_default();
        let micros = |time: Time| time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1000);
        // The whole call: to the last byte sent to the caller, or else to the last one received from the upstream.
        let duration = common.last_downstream.or(common.duration).or(common.last_upstream).map(micros);
        let started = common.start_time.map(micros);
        let completed = started.map(|started| EventTime(started.saturating_add(duration.unwrap_or(0))));
        let mut call = found.prediction(id, bounds.or_now(completed));
        // As routers measure it: from the last byte of the request.
        let received = common.last_request.map_or(0, micros);
        call.latency_us = duration.map(|duration| duration.saturating_sub(received).max(0));
        // Envoy writes 0 if there was no answer.
        call.status = response.code.and_then(|code| i32::try_from(code.value).ok()).filter(|status| *status > 0);
        let flags = common.flags.unwrap_or_default();
        call.error = flags.cause(call.status).map(str::to_owned).or_else(|| failure(call.status));
        // An answer without messages has its status in a header.
        let code = response.trailers.get("grpc-status").or_else(|| response.headers.get("grpc-status"));
        if let (Some(code), None) = (code, &call.error) {
            // As in routers, a status that is not a number is UNKNOWN.
            let (status, error) = grpc::finished(code.parse().unwrap_or(2));
            (call.status, call.error) = (status.or(call.status), error);
        }
        call
    }
}

impl Flags {
    /// The cause of a failure, in the words of Serin's routers.
    fn cause(self, status: Option<i32>) -> Option<&'static str> {
        let named = [
            // HTTP/2 resets the stream of a call, HTTP/1 closes its connection.
            (self.downstream_terminated || self.downstream_reset, "client_closed"),
            (
                self.upstream_timeout || self.stream_idle_timeout || self.max_duration || self.duration_timeout,
                "timeout",
            ),
            (self.connection_failure || self.no_healthy_upstream, "connect"),
            (
                self.upstream_reset || self.connection_terminated || self.local_reset || self.upstream_protocol_error,
                "truncated",
            ),
            (self.overflow, "shed"),
        ];
        let flagged = named.into_iter().find(|(flag, _)| *flag).map(|(_, cause)| cause);
        // A call without a status had no answer.
        flagged.or_else(|| status.is_none().then_some("no_answer"))
    }
}

/// The model in a path of `KServe` V1 or of the Open Inference Protocol.
fn model_of(path: &str) -> Option<&str> {
    let path = path.split('?').next()?;
    let rest = path.strip_prefix("/v1/models/").or_else(|| path.strip_prefix("/v2/models/"))?;
    rest.split([':', '/']).next()
}

#[derive(Clone, PartialEq, Message)]
struct Logs {
    #[prost(message, optional, tag = "2")]
    http_logs: Option<HttpLogs>,
    #[prost(message, optional, tag = "3")]
    tcp_logs: Option<TcpLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpLogs {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct TcpLogs {
    #[prost(bytes = "vec", repeated, tag = "1")]
    entries: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    common: Option<Common>,
    #[prost(message, optional, tag = "3")]
    request: Option<RequestPart>,
    #[prost(message, optional, tag = "4")]
    response: Option<ResponsePart>,
}

#[derive(Clone, PartialEq, Message)]
struct Common {
    #[prost(message, optional, tag = "5")]
    start_time: Option<Time>,
    #[prost(message, optional, tag = "6")]
    last_request: Option<Time>,
    #[prost(message, optional, tag = "10")]
    last_upstream: Option<Time>,
    #[prost(message, optional, tag = "12")]
    last_downstream: Option<Time>,
    #[prost(string, tag = "15")]
    upstream_cluster: String,
    #[prost(message, optional, tag = "16")]
    flags: Option<Flags>,
    #[prost(string, tag = "19")]
    route_name: String,
    #[prost(map = "string, string", tag = "22")]
    custom_tags: HashMap<String, String>,
    #[prost(message, optional, tag = "23")]
    duration: Option<Time>,
    #[prost(string, tag = "26")]
    stream_id: String,
    #[prost(bool, tag = "27")]
    intermediate: bool,
    #[prost(int32, tag = "33")]
    log_type: i32,
}

/// A point in time or a length of time.
#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
#[expect(clippy::struct_excessive_bools, reason = "the wire format has a field for each flag")]
struct Flags {
    #[prost(bool, tag = "2")]
    no_healthy_upstream: bool,
    #[prost(bool, tag = "3")]
    upstream_timeout: bool,
    #[prost(bool, tag = "4")]
    local_reset: bool,
    #[prost(bool, tag = "5")]
    upstream_reset: bool,
    #[prost(bool, tag = "6")]
    connection_failure: bool,
    #[prost(bool, tag = "7")]
    connection_terminated: bool,
    #[prost(bool, tag = "8")]
    overflow: bool,
    #[prost(bool, tag = "15")]
    downstream_terminated: bool,
    #[prost(bool, tag = "17")]
    stream_idle_timeout: bool,
    #[prost(bool, tag = "20")]
    max_duration: bool,
    #[prost(bool, tag = "23")]
    duration_timeout: bool,
    #[prost(bool, tag = "24")]
    upstream_protocol_error: bool,
    #[prost(bool, tag = "28")]
    downstream_reset: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RequestPart {
    #[prost(string, tag = "3")]
    authority: String,
    #[prost(string, tag = "5")]
    path: String,
    #[prost(string, tag = "9")]
    request_id: String,
    #[prost(map = "string, string", tag = "13")]
    headers: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponsePart {
    #[prost(message, optional, tag = "1")]
    code: Option<Number>,
    #[prost(map = "string, string", tag = "4")]
    headers: HashMap<String, String>,
    #[prost(map = "string, string", tag = "5")]
    trailers: HashMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Number {
    #[prost(uint32, tag = "1")]
    value: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_schemas::{ids::Span, records::Outcome};

    /// 2025-11-30T05:20:00Z.
    const NOW: EventTime = EventTime(1_764_480_000_000_000);

    fn entry(status: u32, flags: Flags) -> Entry {
        Entry {
            common: Some(Common {
                start_time: Some(Time { seconds: 1_764_479_999, nanos: 0 }),
                last_request: Some(Time { seconds: 0, nanos: 1_000_000 }),
                last_downstream: Some(Time { seconds: 0, nanos: 13_400_000 }),
                upstream_cluster: "v2".to_owned(),
                flags: Some(flags),
                log_type: DOWNSTREAM_END,
                ..Common::default()
            }),
            request: Some(RequestPart {
                path: "/v2/models/fraud/infer?x=1".to_owned(),
                request_id: "r-1".to_owned(),
                headers: [("x-user-id".to_owned(), "u1".to_owned())].into(),
                ..RequestPart::default()
            }),
            response: Some(ResponsePart { code: Some(Number { value: status }), ..ResponsePart::default() }),
        }
    }

    fn of(entries: Vec<Entry>, rules: &Mapping) -> Calls {
        let bytes = Logs { http_logs: Some(HttpLogs { entries }), tcp_logs: None }.encode_to_vec();
        let bounds = Bounds::new(Some(NOW), NOW, Span(600_000_000));
        read(&bytes, rules, &bounds).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_entry_becomes_a_call() {
        let rules = serde_json::from_value(serde_json::json!({"unit": "request:X-User-Id"})).unwrap_or_default();
        let found = of(vec![entry(200, Flags::default())], &rules);
        assert_eq!(found.problems, []);
        let call = &found.calls[0];
        assert_eq!((call.request_id.as_str(), call.model.as_str(), call.version.as_str()), ("r-1", "fraud", "v2"));
        assert_eq!((call.status, call.latency_us, call.completed_at.0), (Some(200), Some(12_400), NOW.0 - 986_600));
        assert_eq!((call.unit, call.outcome()), (Some(serin_sketches::hash::unit("fraud", "u1")), Outcome::Ok));
    }

    #[test]
    fn statuses_and_flags_become_outcomes() {
        let none = Flags::default();
        for (status, flags, outcome, error) in [
            (503, none, Outcome::Failed, Some("status_503")),
            (422, none, Outcome::Refused, None),
            (504, Flags { upstream_timeout: true, ..none }, Outcome::Failed, Some("timeout")),
            (503, Flags { connection_failure: true, ..none }, Outcome::Failed, Some("connect")),
            (200, Flags { upstream_reset: true, ..none }, Outcome::Failed, Some("truncated")),
            (0, Flags { downstream_terminated: true, ..none }, Outcome::Cancelled, Some("client_closed")),
            (0, Flags { downstream_reset: true, ..none }, Outcome::Cancelled, Some("client_closed")),
            (200, Flags { downstream_reset: true, ..none }, Outcome::Cancelled, Some("client_closed")),
            // Envoy resets the upstream too when the caller is gone.
            (
                200,
                Flags { downstream_reset: true, local_reset: true, ..none },
                Outcome::Cancelled,
                Some("client_closed"),
            ),
            (200, Flags { local_reset: true, ..none }, Outcome::Failed, Some("truncated")),
            (200, Flags { upstream_protocol_error: true, ..none }, Outcome::Failed, Some("truncated")),
            (200, Flags { max_duration: true, ..none }, Outcome::Failed, Some("timeout")),
            (200, Flags { duration_timeout: true, ..none }, Outcome::Failed, Some("timeout")),
            (0, none, Outcome::Failed, Some("no_answer")),
        ] {
            let call = of(vec![entry(status, flags)], &Mapping::default()).calls.remove(0);
            assert_eq!((call.outcome(), call.error.as_deref()), (outcome, error), "{status}");
        }
    }

    #[test]
    fn a_grpc_status_decides_if_it_is_logged() {
        for (code, outcome, error) in [
            ("0", Outcome::Ok, None),
            ("1", Outcome::Failed, Some("grpc_cancelled")),
            ("3", Outcome::Refused, None),
            ("8", Outcome::Refused, None),
            ("10", Outcome::Refused, None),
            ("14", Outcome::Failed, Some("grpc_unavailable")),
            ("99", Outcome::Failed, Some("grpc_unknown")),
            ("x", Outcome::Failed, Some("grpc_unknown")),
        ] {
            let status: HashMap<_, _> = [("grpc-status".to_owned(), code.to_owned())].into();
            // An answer without messages consists of headers only.
            for (headers, trailers) in [(HashMap::new(), status.clone()), (status, HashMap::new())] {
                let mut entry = entry(200, Flags::default());
                entry.response = Some(ResponsePart { headers, trailers, ..entry.response.unwrap_or_default() });
                let call = of(vec![entry], &Mapping::default()).calls.remove(0);
                assert_eq!((call.outcome(), call.error.as_deref()), (outcome, error), "{code}");
            }
        }
        let mut reset = entry(200, Flags { downstream_reset: true, ..Flags::default() });
        let trailers = [("grpc-status".to_owned(), "1".to_owned())].into();
        reset.response = Some(ResponsePart { trailers, ..reset.response.unwrap_or_default() });
        assert_eq!(of(vec![reset], &Mapping::default()).calls[0].outcome(), Outcome::Cancelled);
    }

    /// The fields of Envoy's `ResponseFlags` by number.
    #[test]
    fn flags_have_the_numbers_of_envoy() {
        for (number, cause) in [
            (2, "connect"),
            (3, "timeout"),
            (4, "truncated"),
            (5, "truncated"),
            (6, "connect"),
            (7, "truncated"),
            (8, "shed"),
            (15, "client_closed"),
            (17, "timeout"),
            (20, "timeout"),
            (23, "timeout"),
            (24, "truncated"),
            (28, "client_closed"),
        ] {
            let mut bytes = Vec::new();
            prost::encoding::bool::encode(number, &true, &mut bytes);
            let flags = Flags::decode(bytes.as_slice()).unwrap_or_default();
            assert_eq!(flags.cause(Some(200)), Some(cause), "{number}");
        }
    }

    #[test]
    fn entries_of_calls_in_progress_are_ignored_and_incomplete_ones_have_problems() {
        let mut early = entry(200, Flags::default());
        early.common = Some(Common { intermediate: true, ..early.common.unwrap_or_default() });
        let mut other = entry(200, Flags::default());
        other.common = Some(Common { log_type: 5, ..other.common.unwrap_or_default() });
        let found = of(vec![early, other, Entry::default()], &Mapping::default());
        assert_eq!((found.ignored, found.calls.len()), (2, 1));
        let codes: Vec<Code> = found.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::MissingId, Code::MissingModel, Code::MissingVersion]);
    }

    /// What Envoy 1.40 sent: a call that the upstream answered with 200, one with 503, and a direct response to a GET request.
    #[test]
    fn recorded_messages_of_envoy_are_read() {
        let now = EventTime(1_796_086_800_000_000);
        let bounds = Bounds::new(Some(now), now, Span(600_000_000));
        for (hex, version, status, outcome) in [
            (include_str!("../golden/envoy-200.hex"), "v1", 200, Outcome::Ok),
            (include_str!("../golden/envoy-503.hex"), "v2", 503, Outcome::Failed),
        ] {
            let bytes = crate::recorded(hex);
            let found = read(&bytes, &Mapping::default(), &bounds).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((found.problems, found.ignored), (Vec::new(), 0));
            let call = &found.calls[0];
            assert_eq!((call.model.as_str(), call.version.as_str()), ("fraud", version));
            assert_eq!((call.status, call.outcome()), (Some(status), outcome));
            assert!(call.latency_us.is_some_and(|latency| (1..1_000_000).contains(&latency)), "{call:?}");
            assert_eq!(call.request_id.as_str().len(), 36);
        }
        let direct = crate::recorded(include_str!("../golden/envoy-direct.hex"));
        let found = read(&direct, &Mapping::default(), &bounds).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            found.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(),
            [Code::MissingModel, Code::MissingVersion]
        );
    }

    #[test]
    fn models_are_found_in_paths() {
        for (path, model) in [
            ("/v1/models/fraud:predict", Some("fraud")),
            ("/v2/models/fraud/versions/2/infer", Some("fraud")),
            ("/v2/models/", Some("")),
            ("/predict", None),
            ("", None),
        ] {
            assert_eq!(model_of(path), model, "{path}");
        }
    }

    #[test]
    fn other_bytes_are_refused_without_a_panic() {
        let bounds = Bounds::new(Some(NOW), NOW, Span(600_000_000));
        let of = |bytes: &[u8]| read(bytes, &Mapping::default(), &bounds).map_err(|error| error.code);
        assert_eq!(of(b""), Ok(Calls::default()));
        for bytes in [&b"{}"[..], b"\xff\xff\xff\xff", b"\x12\x7f"] {
            assert_eq!(of(bytes), Err(Code::Garbage), "{bytes:?}");
        }
    }
}
