//! Doors for calls that other systems carry: payload loggers and spans over HTTP, access logs over gRPC.

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use serin_router::Config;
use serin_schemas::records::Prediction;

use crate::{
    harness::{Bench, Got, config, decoded, eventually, read},
    upstreams::ChannelBody,
};

const KSERVE: &str = "/v1/doors/kserve";
const SPANS: &str = "/v1/doors/otlp/v1/traces";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// The headers of an event of `KServe`'s agent.
const REQUEST: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "org.kubeflow.serving.inference.request"),
    ("ce-id", "call-1"),
    ("ce-source", "http://localhost:9081/"),
    ("ce-inferenceservicename", "fraud"),
    ("ce-time", "2025-11-30T05:19:59.1Z"),
];

fn writers() -> Config {
    let mut config = config();
    config.writers = serde_json::from_value(json!([
        {"name": "gateway", "models": ["fraud"], "may": ["events"], "token": "token-of-the-gateway"},
        {"name": "labels", "models": ["*"], "token": "token-of-the-labels"},
    ]))
    .unwrap();
    config
}

/// The halves on the topic `predictions`: partition and content.
fn halves(bench: &Bench) -> Vec<(i32, String)> {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let records = read(&bench.log, "predictions").into_iter();
    let halves = records.filter(|record| record.header("ce_type") == Some(b"dev.serin.half.v1"));
    halves.map(|record| (record.at.partition, text(record.value.as_ref().unwrap()))).collect()
}

fn spans(models: &[&str]) -> String {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let part = |(index, model): (usize, &&str)| {
        json!({"resource": {"attributes": [text("service.name", model), text("service.version", "v2")]},
            "scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("{index:016x}"), "kind": 2,
                "startTimeUnixNano": "1764479999000000000", "endTimeUnixNano": "1764479999012400000",
                "attributes": [text("http.request.method", "POST")]}]}]})
    };
    json!({"resourceSpans": models.iter().enumerate().map(part).collect::<Vec<_>>()}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_halves_of_a_call_meet_in_one_partition_without_their_payload() {
    let bench = Bench::start(config()).await;
    let answer = r#"{"model_version":"v2","outputs":[{"name":"score","shape":[1],"data":[0.83]}],"more":"private"}"#;
    let got = bench.post(KSERVE, &REQUEST, r#"{"inputs":[{"name":"private"}]}"#).await;
    assert_eq!((got.status, got.json()), (StatusCode::OK, json!({"accepted": 1})));
    let structured = json!({"specversion": "1.0", "type": "org.kubeflow.serving.inference.response", "id": "call-1",
        "source": "http://localhost:9081/", "inferenceservicename": "fraud", "time": "2025-11-30T05:19:59.2Z",
        "data": serde_json::from_str::<serde_json::Value>(answer).unwrap()});
    let batch = json!([structured, {"specversion": "1.0", "type": "other"}]).to_string();
    let got = bench.post(KSERVE, &[], batch).await;
    assert_eq!(
        (got.status, &got.json()["accepted"], &got.json()["refused"]),
        (StatusCode::MULTI_STATUS, &json!(1), &json!(1))
    );
    let found = halves(&bench);
    assert_eq!((found.len(), found[0].0), (2, found[1].0));
    assert!(found.iter().all(|(_, half)| !half.contains("private")), "{found:?}");
    assert!(found.iter().any(|(_, half)| half.contains(r#""outputs":{"score":0.83}"#)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_payload_door_cannot_read_is_refused() {
    let bench = Bench::start(config()).await;
    let refused = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let got = bench.post(path, headers, body.to_owned()).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{got:?}");
        got.json()["problems"][0].as_str().unwrap().to_owned()
    };
    let mut without_id = REQUEST;
    without_id[2].1 = "";
    assert!(refused(KSERVE, &without_id, "{}").await.starts_with("[0].prediction_id: is missing"));
    assert!(refused("/v1/doors/seldon", &REQUEST, "{}").await.contains("is not an event that this path accepts"));
    assert!(refused(KSERVE, &[], "{").await.contains("not JSON"));
    assert!(refused(KSERVE, &[], "{}").await.contains("is not an event that this path accepts"));
    let huge = bench.post(KSERVE, &REQUEST, vec![b' '; 2 << 20]).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    let get = Request::get(KSERVE);
    assert_eq!(bench.send(bench.router.data_addr(), get, "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(halves(&bench), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_accepted_as_json_and_protobuf_and_the_answer_names_what_was_refused() {
    let bench = Bench::start(config()).await;
    let got = bench.post(SPANS, &[], spans(&["fraud", "fraud"])).await;
    assert_eq!((got.status, got.json()), (StatusCode::OK, json!({})));
    let found: Vec<(i32, Prediction)> = decoded(&bench.log, "predictions");
    assert_eq!((found.len(), found[0].1.latency_us), (2, Some(12_400)));
    let got = bench.post(SPANS, &[], spans(&["fraud", ""])).await.json();
    assert_eq!(got["partialSuccess"]["rejectedSpans"], "1", "{got}");
    for (body, content, status) in [
        (&b"{"[..], "application/json", 400),
        (b"\xff\xff", "application/x-protobuf", 400),
        (b"{}", "application/xml", 415),
        (b"", "application/x-protobuf", 200),
    ] {
        let request = Request::post(SPANS).header("content-type", content);
        let got = bench.send(bench.router.data_addr(), request, body.to_vec()).await;
        assert_eq!(got.status.as_u16(), status, "{content} {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_reports_on_its_own_models_only() {
    let bench = Bench::start(writers()).await;
    let send = async |path: &str, token: &str, body: String| {
        let bearer = format!("Bearer {token}");
        bench.post(path, &[("authorization", &bearer)], body).await
    };
    for token in ["token-of-an-outsider", "token-of-the-labels"] {
        assert!(send(SPANS, token, spans(&["fraud"])).await.status.is_client_error(), "{token}");
    }
    let got = send(SPANS, "token-of-the-gateway", spans(&["fraud", "other"])).await;
    assert_eq!(got.json()["partialSuccess"]["rejectedSpans"], "1");
    assert!(got.json()["partialSuccess"]["errorMessage"].as_str().unwrap().contains("may not send data for other"));
    let found: Vec<(i32, Prediction)> = decoded(&bench.log, "predictions");
    assert_eq!(found.len(), 1);
    let mut other = REQUEST.to_vec();
    other[4].1 = "other";
    other.push(("authorization", "Bearer token-of-the-gateway"));
    let got = bench.post(KSERVE, &other, "{}").await;
    assert!(got.json()["problems"][0].as_str().unwrap().contains("may not send data for other"), "{got:?}");
}

/// A field of a Protocol Buffers message with bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(length < 128 && number < 16);
    [&[number << 3 | 2, length], value].concat()
}

/// A message of Envoy's access log with one entry, in a gRPC frame.
fn log_frame(id: &str, path: &str) -> Vec<u8> {
    let common =
        [field(5, &[8, 0xff, 0x87, 0xb0, 0xc9, 6]), field(12, &[0x10, 0x80, 0xad, 0xe2, 4]), field(15, b"v2")].concat();
    let request = [field(5, path.as_bytes()), field(9, id.as_bytes())].concat();
    let response = field(1, &[8, 0xc8, 1]);
    let entry = [field(1, &common), field(3, &request), field(4, &response)].concat();
    let message = field(2, &field(1, &entry));
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

async fn stream(bench: &Bench, headers: &[(&str, &str)], body: Vec<u8>) -> (Got, String) {
    grpc(bench, LOGS, headers, body).await
}

async fn grpc(bench: &Bench, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (Got, String) {
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut request = Request::post(format!("http://{}{path}", bench.router.data_addr()));
    for (name, value) in headers.iter().chain(&[("content-type", "application/grpc")]) {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let status = body.trailers().or(Some(&head.headers)).and_then(|headers| headers.get("grpc-status")).cloned();
    let status = status.or_else(|| head.headers.get("grpc-status").cloned()).unwrap();
    let status = status.to_str().unwrap().to_owned();
    (Got { status: head.status, headers: head.headers, body: body.to_bytes() }, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn access_logs_are_a_stream_of_messages() {
    let bench = Bench::start(config()).await;
    let body = [log_frame("r-1", "/v2/models/fraud/infer"), log_frame("r-2", "/v1/models/fraud:predict")].concat();
    let (got, status) = stream(&bench, &[], body).await;
    assert_eq!((got.status, status.as_str(), &got.body[..]), (StatusCode::OK, "0", &[0_u8; 5][..]));
    let mut found: Vec<Prediction> = decoded(&bench.log, "predictions").into_iter().map(|(_, found)| found).collect();
    found.sort_by(|a, b| a.request_id.as_str().cmp(b.request_id.as_str()));
    assert_eq!(found.len(), 2);
    for (call, id) in found.iter().zip(["r-1", "r-2"]) {
        assert_eq!((call.request_id.as_str(), call.model.as_str(), call.version.as_str()), (id, "fraud", "v2"));
        assert_eq!((call.status, call.latency_us), (Some(200), Some(10_000)));
    }
    // What was complete before a message that cannot be read is kept.
    let broken = [log_frame("r-3", "/v2/models/fraud/infer"), b"\0\0\0\0\x02\xff\xff".to_vec()].concat();
    assert_eq!(stream(&bench, &[], broken).await.1, "3");
    assert_eq!(stream(&bench, &[], b"\0\xff\xff\xff\xff".to_vec()).await.1, "8");
    assert_eq!(stream(&bench, &[], Vec::new()).await.1, "0");
    assert_eq!(decoded::<Prediction>(&bench.log, "predictions").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_logs_need_the_credential_of_a_writer() {
    let bench = Bench::start(writers()).await;
    let frame = || [log_frame("a", "/v2/models/fraud/infer"), log_frame("b", "/v2/models/other/infer")].concat();
    assert_ne!(stream(&bench, &[], frame()).await.1, "0");
    assert_ne!(stream(&bench, &[("authorization", "Bearer token-of-the-labels")], frame()).await.1, "0");
    assert_eq!(decoded::<Prediction>(&bench.log, "predictions").len(), 0);
    assert_eq!(stream(&bench, &[("authorization", "Bearer token-of-the-gateway")], frame()).await.1, "0");
    let found = decoded::<Prediction>(&bench.log, "predictions");
    assert_eq!((found.len(), found[0].1.model.as_str()), (1, "fraud"));
}

/// A stream may last for days.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_once_its_writer_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = writers();
    config.data_dir = folder.path().to_owned();
    let bench = Bench::start(config.clone()).await;
    let client: Client<_, ChannelBody> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let (frames, receive) = tokio::sync::mpsc::unbounded_channel();
    let request = Request::post(format!("http://{}{LOGS}", bench.router.data_addr()))
        .header("content-type", "application/grpc")
        .header("authorization", "Bearer token-of-the-gateway")
        .body(ChannelBody(receive))
        .unwrap();
    let answer = tokio::spawn(client.request(request));
    frames.send(log_frame("a", "/v2/models/fraud/infer").into()).unwrap();
    let count = || decoded::<Prediction>(&bench.log, "predictions").len();
    eventually("the first entry is on the log", async || (count() == 1).then_some(())).await;
    config.listen = ([127, 0, 0, 1], 0).into();
    config.writers = serde_json::from_value(json!([
        {"name": "labels", "models": ["*"], "token": "token-of-the-labels"},
    ]))
    .unwrap();
    bench.router.reload(config).unwrap();
    frames.send(log_frame("b", "/v2/models/fraud/infer").into()).unwrap();
    let head = answer.await.unwrap().unwrap();
    assert_eq!(head.headers().get("grpc-status").map(http::HeaderValue::as_bytes), Some(&b"16"[..]));
    assert_eq!(count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_accepted_over_grpc() {
    let bench = Bench::start(config()).await;
    let text = |key: &[u8], value: &[u8]| field(9, &[field(1, key), field(2, &field(1, value))].concat());
    let attribute = |key: &[u8], value: &[u8]| field(1, &[field(1, key), field(2, &field(1, value))].concat());
    let span = [
        field(1, &[1; 16]),
        field(2, &[2; 8]),
        vec![6 << 3, 2],
        [&[7 << 3 | 1], &1_764_479_999_000_000_000_u64.to_le_bytes()[..]].concat(),
        [&[8 << 3 | 1], &1_764_479_999_012_400_000_u64.to_le_bytes()[..]].concat(),
        text(b"http.request.method", b"POST"),
    ];
    let span = span.concat();
    let export = |version: &[u8]| {
        let resource = [attribute(b"service.name", b"m"), attribute(b"service.version", version)].concat();
        let scope = long(2, &span);
        let parts = [long(1, &resource), long(2, &scope)].concat();
        let message = long(1, &parts);
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    };
    let (got, status) = grpc(&bench, EXPORT, &[], export(b"v2")).await;
    assert_eq!((status.as_str(), &got.body[..]), ("0", &[0_u8; 5][..]));
    let found = decoded::<Prediction>(&bench.log, "predictions");
    assert_eq!((found.len(), found[0].1.latency_us), (1, Some(12_400)));
    let (got, status) = grpc(&bench, EXPORT, &[], export(b"")).await;
    assert_eq!((status.as_str(), got.body.len() > 5), ("0", true), "the answer names the refused span");
    for body in [Vec::new(), b"\0\0\0\0\x02\xff\xff".to_vec(), b"\0\0\0\0\x09x".to_vec()] {
        assert_eq!(grpc(&bench, EXPORT, &[], body).await.1, "3");
    }
    let bench = Bench::start(writers()).await;
    assert_ne!(grpc(&bench, EXPORT, &[], export(b"v2")).await.1, "0");
}

/// A field of up to 16 KiB.
fn long(number: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    [&[number << 3 | 2, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8], value].concat()
}
