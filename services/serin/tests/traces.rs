//! Traces with the real binary: a collector receives the whole trace of a call, from the router to the routing change that it led to.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value, trace::v1::Span,
};
use prost::Message as _;
use reqwest::Method;
use serde_json::json;

use support::{PATIENCE, Pipeline, http_with, wait_until};
use world::{MODEL, Traffic, User, borrowed, infer, rollout, wall};

/// Answers a request, of which it gets head and body, with a status and a body.
type Answer = dyn Fn(&str, &[u8]) -> (u16, String) + Send + Sync;

/// Starts an HTTP server.
fn server(answer: impl Fn(&str, &[u8]) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || drop(serve(&stream, &*answer)));
        }
    });
    url
}

fn serve(mut stream: &TcpStream, answer: &Answer) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[start..].trim().to_ascii_lowercase();
            length = line.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, text) = answer(&head, &body);
        let length = text.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + &text).as_bytes())?;
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
    pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Spans that a collector has received.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Span>>>);

impl Collected {
    fn find(&self, wanted: impl Fn(&Span) -> bool) -> Option<Span> {
        self.0.lock().unwrap().iter().find(|span| wanted(span)).cloned()
    }

    /// Waits for a span.
    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        let mut found = None;
        wait_until(PATIENCE, || {
            found = self.find(&wanted);
            Ok(found.is_some())
        })
        .unwrap_or_else(|error| panic!("{what}: {error}: {:#?}", self.0.lock().unwrap()));
        found.unwrap()
    }

    #[track_caller]
    fn child(&self, parent: &Span, name: &str) -> Span {
        self.wait(name, |span| {
            span.name == name && span.trace_id == parent.trace_id && span.parent_span_id == parent.span_id
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from_digit(number.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn text(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {span:#?}"),
    }
}

#[test]
fn a_collector_receives_the_whole_trace_of_a_call() {
    let collected = Collected::default();
    let (spans, paths) = (collected.clone(), Arc::new(Mutex::new(Vec::new())));
    let asked = Arc::clone(&paths);
    let collector = server(move |head, body| {
        asked.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        (200, String::new())
    });
    // The contexts that model servers receive.
    let received = Arc::<Mutex<Vec<String>>>::default();
    let bad = Arc::new(AtomicBool::new(false));
    let version = |fails: Arc<AtomicBool>| {
        let received = Arc::clone(&received);
        server(move |head, _| {
            received.lock().unwrap().extend(header(head, "traceparent").map(str::to_owned));
            let output = json!({"name": "probability", "shape": [1], "datatype": "FP64", "data": [0.1]});
            let status = if fails.load(Ordering::Relaxed) { 500 } else { 200 };
            (status, json!({"model_name": MODEL, "outputs": [output]}).to_string())
        })
    };
    let (v1, v2) = (version(Arc::default()), version(Arc::clone(&bad)));
    let mut settings = wall(&[("v1", &v1), ("v2", &v2)]);
    settings.push(format!("telemetry.traces.otlp={collector}/v1/traces"));
    settings.push("telemetry.traces.sample=0".to_owned());
    settings.push("telemetry.log_level=info".to_owned());
    let mut pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let (user, _traffic) = (User(pipeline.api()), Traffic::start(&pipeline.router(), 60));
    let id = user.apply(&rollout("v2", "1h"));
    user.wait_for_phase(&id, "baking");

    // A call that the caller traces.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let url = format!("{}/v2/models/{MODEL}/infer", pipeline.router());
    let call = |traceparent: String| {
        let headers = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=1")];
        http_with(Method::POST, &url, &headers, Some(infer().to_string().into_bytes())).unwrap()
    };
    let answer = call(format!("00-{trace}-{parent}-01"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let predict = collected.wait("predict", |span| span.name == "predict" && hex(&span.trace_id) == trace);
    assert_eq!(hex(&predict.parent_span_id), parent);
    assert_eq!(text(&predict, "serin.prediction_id"), answer.headers["x-prediction-id"]);
    let called = collected.child(&predict, "call version");
    assert_eq!(text(&called, "serin.version"), answer.headers["x-model-version"]);
    assert_eq!(text(&called, "serin.outcome"), "ok");
    assert!(called.start_time_unix_nano >= predict.start_time_unix_nano);
    // The version's server continues the trace.
    let context = format!("00-{trace}-{}-01", hex(&called.span_id));
    assert_eq!(received.lock().unwrap().iter().filter(|found| found.contains(trace)).collect::<Vec<_>>(), [&context]);
    let sent = collected.child(&called, "send event");
    let counted = collected.child(&sent, "count in window");
    assert!(counted.end_time_unix_nano >= sent.start_time_unix_nano);
    // The window is a part of its verdict's trace, which the call links to, and which links back.
    let [link] = &counted.links[..] else { panic!("{counted:#?}") };
    assert_ne!(link.trace_id, counted.trace_id);
    let window = collected.wait("window", |span| span.span_id == link.span_id && span.trace_id == link.trace_id);
    assert_eq!((window.name.as_str(), text(&window, "serin.rollout")), ("window", id.clone()));
    assert!(window.links.iter().any(|link| link.trace_id == sent.trace_id && link.span_id == sent.span_id));
    let verdict = collected.wait("verdict", |span| span.trace_id == window.trace_id && span.name == "verdict");
    assert_eq!((&verdict.span_id, verdict.parent_span_id.is_empty()), (&window.parent_span_id, true));
    assert_eq!(text(&verdict, "serin.rollout"), id);

    // A call that the caller does not trace, and calls without a context, are not in the sample.
    let untraced = "4bf92f3577b34da6a3ce929d0e0e4737";
    assert_eq!(call(format!("00-{untraced}-{parent}-00")).status, 200);
    assert!(received.lock().unwrap().contains(&format!("00-{untraced}-{parent}-00")), "it is passed on unchanged");

    // The canary turns bad: the verdict leads to a rollback.
    bad.store(true, Ordering::Relaxed);
    user.wait_for_phase(&id, "rolled_back");
    let rolled_back = collected.wait("rolled_back", |span| span.name == "rolled_back");
    let verdict = collected.wait("its verdict", |span| {
        span.trace_id == rolled_back.trace_id && span.span_id == rolled_back.parent_span_id
    });
    assert_eq!((text(&verdict, "serin.decision"), text(&rolled_back, "serin.rollout")), ("rollback".to_owned(), id));
    collected.child(&verdict, "window");

    // At its end the process sends what it still has. Log lines about the rollback contain the trace.
    pipeline.stop("up").unwrap();
    assert!(collected.find(|span| hex(&span.trace_id) == untraced).is_none());
    let predictions = collected.0.lock().unwrap().iter().filter(|span| span.name == "predict").count();
    assert_eq!(predictions, 1, "calls without a context are not in the sample");
    assert!(paths.lock().unwrap().iter().all(|line| line == "POST /v1/traces HTTP/1.1"));
    let log = pipeline.log("up");
    let trace_id = format!("trace_id=\"{}\"", hex(&rolled_back.trace_id));
    let lines = log.lines().filter(|line| line.contains("roll back: ") && line.contains(&trace_id)).count();
    assert_eq!(lines, 2, "one of the analyzer, one of the controller:\n{log}");
}

/// A collector that cannot be reached, refuses or never answers delays neither calls, verdicts nor the end of the process, and is
/// reported once.
#[test]
fn a_collector_that_fails_changes_nothing() {
    let refuses = server(|_, _| (500, String::new()));
    // The backlog accepts connections that are never read.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://{}", silent.local_addr().unwrap());
    for collector in [world::unreachable_url(), refuses, hangs] {
        let v1 = world::model_server(world::Behavior::Good);
        let v2 = world::model_server(world::Behavior::Fails);
        let mut settings = wall(&[("v1", &v1), ("v2", &v2)]);
        settings.push(format!("telemetry.traces.otlp={collector}/v1/traces"));
        settings.push("telemetry.traces.sample=1".to_owned());
        let mut pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
        let (user, _traffic) = (User(pipeline.api()), Traffic::start(&pipeline.router(), 100));
        let id = user.apply(&rollout("v2", "1h"));
        user.wait_for_phase(&id, "rolled_back");
        let warning = "traces do not reach the OTLP collector (telemetry.traces.otlp)";
        wait_until(PATIENCE, || Ok(pipeline.log("up").contains(warning))).unwrap();
        pipeline.stop("up").unwrap();
        assert_eq!(pipeline.log("up").matches(warning).count(), 1, "{collector}: {}", pipeline.log("up"));
    }
    drop(silent);
}
