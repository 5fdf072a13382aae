//! Every answer gets exactly one outcome, independent of its protocol.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serin_schemas::records::{Arm, Outcome, Prediction};

use crate::{
    harness::{Bench, config, table, with_shadow},
    upstreams::{Reply, Server},
};

pub(crate) const V2: &str = "/v2/models/flights/infer";
const GENERATE: &str = "/v2/models/flights/generate_stream";
pub(crate) const V1: &str = "/v1/models/flights:predict";
pub(crate) const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const EMBEDDINGS: &str = "/v1/embeddings";
const PLAIN: &str = "/score";
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const FOREIGN: &str = "/tensorflow.serving.PredictionService/Predict";

/// One call without output rules to a canary with this reply.
async fn call(path: &str, reply: Reply) -> Prediction {
    call_with("[]", path, reply).await
}

/// One call with these output rules to a canary with this reply. The answer must pass through unchanged.
pub(crate) async fn call_with(outputs: &str, path: &str, reply: Reply) -> Prediction {
    let server = Server::start(reply.clone()).await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &server.url(), &server.url(), (10_000, 0));
    split.outputs = outputs.into();
    bench.route(&split).await;
    let grpc = path.starts_with("/inference.") || path.starts_with("/tensorflow.");
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(grpc).build_http();
    let body = if grpc { &b"\0\0\0\0\x09\x0a\x07flights"[..] } else { br#"{"model":"flights"}"# };
    let request = Request::post(format!("http://{}{path}", bench.router.data_addr()))
        .header("content-type", if grpc { "application/grpc" } else { "application/json" })
        .header("x-serin-model", "flights");
    let (head, body) = client.request(request.body(Full::from(body)).unwrap()).await.unwrap().into_parts();
    let got = body.collect().await.unwrap();
    let trailers = got.trailers().cloned().unwrap_or_default();
    assert_eq!((head.status.as_u16(), &trailers), (reply.status, &reply.trailers), "{path}");
    assert_eq!(got.to_bytes(), reply.body, "{path}");
    bench.predictions(1).await.remove(0)
}

pub(crate) async fn check(path: &str, reply: Reply, outcome: Outcome, cause: Option<&str>) {
    let shown = format!("{path} {} {:?} {:?}", reply.status, reply.headers, reply.body);
    let found = call(path, reply).await;
    assert_eq!(found.outcome, Some(outcome), "{shown}: {found:#?}");
    let causes = [found.error.as_deref(), found.invalid_output.as_deref(), found.unread.as_deref()];
    let place = match outcome {
        Outcome::Failed | Outcome::Cancelled => 0,
        Outcome::Unusable => 1,
        _ => 2,
    };
    for (other, found) in causes.into_iter().enumerate() {
        assert_eq!(found, cause.filter(|_| other == place), "{shown}");
    }
}

pub(crate) fn json(body: impl Into<Bytes>) -> Reply {
    Reply::ok(body)
}

fn of_type(kind: &str, body: impl Into<Bytes>) -> Reply {
    Reply::ok(body).with("content-type", kind)
}

pub(crate) fn events(body: impl Into<Bytes>) -> Reply {
    of_type("text/event-stream", body)
}

/// A field of a Protocol Buffers message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// A message with its prefix.
pub(crate) fn message(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn infer_response(value: f64) -> Vec<u8> {
    let tensor =
        [field(1, b"p"), field(2, b"FP64"), field(3, &[1]), field(5, &field(7, &value.to_le_bytes()))].concat();
    [field(1, b"flights"), field(5, &tensor)].concat()
}

pub(crate) const GOOD_CHAT: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
pub(crate) const CHUNK: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn statuses_decide_for_every_protocol() {
    for path in [V2, V1, CHAT, PLAIN] {
        for (status, outcome, cause) in [
            (500, Outcome::Failed, Some("status_500")),
            (503, Outcome::Failed, Some("status_503")),
            (400, Outcome::Refused, None),
            (404, Outcome::Refused, None),
            (422, Outcome::Refused, None),
            (429, Outcome::Refused, None),
            (302, Outcome::Redirected, None),
            (307, Outcome::Redirected, None),
        ] {
            check(path, Reply { status, ..json(r#"{"error":"field required"}"#) }, outcome, cause).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_grpc_decide() {
    for (code, outcome, cause) in [
        ("1", Outcome::Failed, Some("grpc_cancelled")),
        ("2", Outcome::Failed, Some("grpc_unknown")),
        ("3", Outcome::Refused, None),
        ("4", Outcome::Failed, Some("grpc_deadline_exceeded")),
        ("5", Outcome::Refused, None),
        ("7", Outcome::Refused, None),
        ("8", Outcome::Refused, None),
        ("9", Outcome::Refused, None),
        ("11", Outcome::Refused, None),
        ("12", Outcome::Failed, Some("grpc_unimplemented")),
        ("13", Outcome::Failed, Some("grpc_internal")),
        ("14", Outcome::Failed, Some("grpc_unavailable")),
        ("15", Outcome::Failed, Some("grpc_data_loss")),
        ("16", Outcome::Refused, None),
        ("99", Outcome::Failed, Some("grpc_unknown")),
        ("x", Outcome::Failed, Some("grpc_unknown")),
    ] {
        for path in [INFER, STREAM, FOREIGN] {
            check(path, Reply::grpc(message(b""), code), outcome, cause).await;
        }
        // A headers-only answer has its status in the head.
        let alone = json("").with("content-type", "application/grpc").with("grpc-status", code);
        check(INFER, alone, outcome, cause).await;
    }
    check(INFER, of_type("application/grpc", message(&infer_response(0.5))), Outcome::Failed, Some("truncated")).await;
    check(INFER, of_type("text/html", "<html>"), Outcome::Failed, Some("truncated")).await;
    check(INFER, Reply { status: 502, ..of_type("text/html", "<html>") }, Outcome::Failed, Some("status_502")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_answers_are_ok() {
    let half = r#"{"outputs":[{"name":"p","shape":[2],"datatype":"FP64","data":[NaN,1]}]}"#;
    for (path, reply) in [
        (V2, Reply::probability("0.5")),
        (V2, json(half)),
        (V1, json(r#"{"predictions":[0.5]}"#)),
        (CHAT, json(GOOD_CHAT)),
        (CHAT, events(format!("{CHUNK}data: [DONE]\n\n"))),
        (EMBEDDINGS, json(r#"{"data":[{"embedding":[0.5]}]}"#)),
        (GENERATE, events("data: {\"text_output\":\"x\"}\n\n")),
        (PLAIN, json(r#"{"score":0.5}"#)),
        (PLAIN, of_type("text/plain", "0.5")),
        (INFER, Reply::grpc(message(&infer_response(0.5)), "0")),
        (STREAM, Reply::grpc(message(&field(2, &infer_response(0.5))), "0")),
    ] {
        check(path, reply, Outcome::Ok, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_under_a_good_status_fail() {
    let error_frame = format!("{CHUNK}data: {{\"error\":{{\"message\":\"boom\"}}}}\n\ndata: [DONE]\n\n");
    for (path, reply, cause) in [
        (V2, json(r#"{"error":"boom"}"#), "error_object"),
        (V1, json(r#"{"error":"boom"}"#), "error_object"),
        (CHAT, json(r#"{"error":{"message":"boom"}}"#), "error_object"),
        (EMBEDDINGS, json(r#"{"error":{"message":"boom"}}"#), "error_object"),
        (
            RESPONSES,
            json(r#"{"object":"response","status":"failed","error":{"code":"x"},"output":[]}"#),
            "error_object",
        ),
        (PLAIN, json(r#"{"error":"boom"}"#), "error_object"),
        (CHAT, events(error_frame.clone()), "error_frame"),
        (CHAT, events("event: error\ndata: boom\n\n"), "error_frame"),
        (CHAT, events(CHUNK), "truncated"),
        (GENERATE, events("data: {\"error\":\"boom\"}\n\n"), "error_frame"),
        (V1, json(r#"{"predictions":[{"error":"boom"}]}"#), "error_object"),
        (CHAT, of_type("text/plain", error_frame.clone()), "error_frame"),
        (PLAIN, events("data: {\"error\":\"boom\"}\n\n"), "error_frame"),
        (STREAM, Reply::grpc(message(&field(1, b"boom")), "0"), "error_message"),
        (
            STREAM,
            Reply::grpc([message(&field(2, &infer_response(0.5))), message(&field(1, b"boom"))].concat(), "0"),
            "error_message",
        ),
    ] {
        check(path, reply, Outcome::Failed, Some(cause)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_answers_are_recognized() {
    for (path, reply, cause) in [
        (V2, Reply::probability("NaN"), "nan"),
        (V2, Reply::probability("null"), "null"),
        (V2, json(""), "empty"),
        (V2, Reply { status: 204, ..json("") }, "empty"),
        (V2, json("{}"), "missing"),
        (V2, json(r#"{"outputs":[]}"#), "empty"),
        (V2, of_type("text/html", "<html><body>Sign in</body></html>"), "html"),
        (V2, json("<!DOCTYPE html>"), "html"),
        (V2, json("half an ans"), "unparsable"),
        (V1, json(r#"{"predictions":[NaN]}"#), "nan"),
        (V1, json(""), "empty"),
        (CHAT, json(""), "empty"),
        (CHAT, json(r#"{"choices":[]}"#), "empty"),
        (CHAT, of_type("text/html", "<html>"), "html"),
        (CHAT, events("data: [DONE]\n\n"), "empty"),
        (EMBEDDINGS, json(r#"{"data":[{"embedding":[NaN]}]}"#), "nan"),
        (GENERATE, events(": nothing\n\n"), "empty"),
        (PLAIN, json(""), "empty"),
        (V2, events("data: hello\n\n"), "schema"),
        (V1, events("data: {\"predictions\":[0.5]}\n\n"), "schema"),
        (EMBEDDINGS, events("data: hello\n\n"), "schema"),
        (GENERATE, events("data: oops\n\n"), "unparsable"),
        (PLAIN, json(r#"{"score":NaN}"#), "nan"),
        (PLAIN, of_type("text/html", "<html>"), "html"),
        (INFER, Reply::grpc(message(&infer_response(f64::NAN)), "0"), "nan"),
        (INFER, Reply::grpc("", "0"), "empty"),
        (STREAM, Reply::grpc("", "0"), "empty"),
        (STREAM, Reply::grpc(message(&field(2, &infer_response(f64::INFINITY))), "0"), "nan"),
    ] {
        check(path, reply, Outcome::Unusable, Some(cause)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_the_router_does_not_read_are_unread() {
    let large = format!(r#"{{"outputs":[],"x":"{}"}}"#, "x".repeat(100_000));
    for (path, reply, why) in [
        (V2, json(large.clone()), "too_large"),
        (PLAIN, json(large), "too_large"),
        (V2, Reply::probability("0.5").with("content-encoding", "lzma"), "encoding"),
        (CHAT, events(CHUNK).with("content-encoding", "lzma"), "encoding"),
        (V2, of_type("image/png", "\x00PNG"), "content_type"),
        (PLAIN, of_type("application/octet-stream", "\x00\x01"), "content_type"),
        (PLAIN, of_type("text/csv", "a,b\n1,2\n"), "content_type"),
        (PLAIN, Reply { status: 204, ..json("") }, "no_content"),
        (FOREIGN, Reply::grpc(message(b"\x0a\x01x"), "0"), "service"),
        (INFER, Reply::grpc(&b"\x01\0\0\0\x01x"[..], "0").with("grpc-encoding", "snappy"), "encoding"),
        (INFER, Reply::grpc(message(&field(3, &[b'x'; 100]).repeat(1000)), "0"), "too_large"),
    ] {
        check(path, reply, Outcome::Unread, Some(why)).await;
    }
}

/// The last event of `/v1/responses` repeats the whole answer, and may exceed the limit of an event.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_that_is_too_long_to_read_ends_its_stream() {
    let text = "x".repeat(300 << 10);
    let delta =
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";
    for name in ["event: response.completed\n", ""] {
        let end = format!("{name}data: {{\"type\":\"response.completed\",\"response\":{{\"text\":\"{text}\"}}}}\n\n");
        check(RESPONSES, events(format!("{delta}{end}")), Outcome::Ok, None).await;
    }
    let failed = format!("event: response.failed\ndata: {{\"type\":\"response.failed\",\"x\":\"{text}\"}}\n\n");
    check(RESPONSES, events(failed), Outcome::Failed, Some("error_frame")).await;
    let one =
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n");
    check(CHAT, events(one.clone()), Outcome::Unread, Some("too_large")).await;
    check(CHAT, events(format!("{one}data: [DONE]\n\n")), Outcome::Ok, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrored_answers_and_fallbacks_have_outcomes_too() {
    let stable = Server::start(Reply::probability("0.5")).await;
    for (reply, outcome, cause) in [
        (json(r#"{"error":"boom"}"#), Outcome::Failed, Some("error_object")),
        (events("data: {\"error\":\"boom\"}\n\n"), Outcome::Failed, Some("error_frame")),
        (Reply { status: 422, ..json("{}") }, Outcome::Refused, None),
        (Reply { status: 500, ..json("{}") }, Outcome::Failed, Some("status_500")),
        (Reply::probability("0.5"), Outcome::Ok, None),
    ] {
        let shadow = Server::start(reply).await;
        let bench = Bench::start(config()).await;
        bench.route(&with_shadow(table(1, &stable.url(), &stable.url(), (0, 10_000)), &shadow.url(), 10_000)).await;
        assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
        let found = bench.predictions(2).await;
        let of = |arm| found.iter().find(|found| found.arm == arm).unwrap();
        assert_eq!((of(Arm::Shadow).outcome, of(Arm::Shadow).error.as_deref()), (Some(outcome), cause));
        assert_eq!(of(Arm::Control).outcome, Some(Outcome::Ok));
    }
    let canary = Server::start(Reply { status: 500, ..json("{}") }).await;
    let bench = Bench::start(config()).await;
    let mut split = table(1, &stable.url(), &canary.url(), (10_000, 0));
    split.fallback = true;
    bench.route(&split).await;
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    let found = bench.predictions(2).await;
    let of = |arm| found.iter().find(|found| found.arm == arm).unwrap().outcome;
    assert_eq!((of(Arm::Canary), of(Arm::Stable)), (Some(Outcome::Failed), Some(Outcome::Ok)));
}
