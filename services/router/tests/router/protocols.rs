//! Protocols: HTTP/2 and TLS on both sides, gRPC, streams of language models, tensors that are not JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};
use serde_json::json;
use serin_router::{Config, ModelConfig, TlsConfig};
use serin_schemas::records::Prediction;

use crate::{
    harness::{Bench, Got, config, eventually, table},
    upstreams::{Reply, Server, streaming, tls_server, unused_address},
};

/// A client that uses only HTTP/2.
fn http2() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

async fn got(response: Response<Incoming>) -> (Got, Option<HeaderMap>) {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (Got { status: head.status, headers: head.headers, body: collected.to_bytes() }, trailers)
}

/// A router whose model `flights` is at this URL.
async fn router_to(url: &str, change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = config();
    let model: ModelConfig = serde_json::from_value(json!({"stable": "v1", "versions": {"v1": url}})).unwrap();
    config.models.insert("flights".into(), model);
    change(&mut config);
    Bench::start(config).await
}

fn infer(at: &str) -> Request<Full<Bytes>> {
    let uri = format!("{at}/v2/models/flights/infer");
    Request::post(uri).header("content-type", "application/json").body(Full::from("{}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_works_without_tls_on_both_sides() {
    let server = Server::start(Reply::ok("{}")).await;
    let bench = router_to(&format!("h2c://{}", server.address), |_| {}).await;
    let response = http2().request(infer(&format!("http://{}", bench.router.data_addr()))).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(got(response).await.0.status, StatusCode::OK);
    let seen = &server.seen()[0];
    assert_eq!((seen.version, seen.path.as_str()), (Version::HTTP_2, "/v2/models/flights/infer"));
    assert_eq!(seen.headers["x-forwarded-host"], bench.router.data_addr().to_string());
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK, "HTTP/1.1 works on the same port");
}

/// A certificate for localhost, written to files.
fn certificate(folder: &std::path::Path) -> CertificateDer<'static> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    signed.cert.der().clone()
}

/// Sends one request over a new TLS connection that trusts only this certificate.
async fn over_tls(bench: &Bench, trusted: &CertificateDer<'static>) -> Result<Version, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let at = format!("https://localhost:{}", bench.router.tls_addr().unwrap().port());
    let response = client.request(infer(&at)).await.map_err(|error| format!("{error:?}"))?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(response.version())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_used_without_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let first = certificate(files.path());
    let server = Server::start(Reply::ok("{}")).await;
    let bench = router_to(&server.url(), |config| {
        config.tls = Some(TlsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: files.path().join("cert.pem"),
            key: files.path().join("key.pem"),
            client_ca: None,
            reload_every: serin_spec::units::Duration::parse("10ms").unwrap(),
        });
    })
    .await;
    assert_eq!(over_tls(&bench, &first).await, Ok(Version::HTTP_2));
    assert_eq!(server.seen()[0].headers["x-forwarded-proto"], "https");

    // An unusable file has no effect.
    let key = std::fs::read(files.path().join("key.pem")).unwrap();
    std::fs::write(files.path().join("key.pem"), "nonsense").unwrap();
    for _ in 0..20 {
        assert_eq!(over_tls(&bench, &first).await, Ok(Version::HTTP_2));
    }
    std::fs::write(files.path().join("key.pem"), key).unwrap();

    let second = certificate(files.path());
    eventually("the new certificate", async || over_tls(&bench, &second).await.ok()).await;
    let error = over_tls(&bench, &first).await.unwrap_err();
    assert!(error.contains("InvalidCertificate"), "{error}");
}

/// One router calls another over TLS: it is accepted with its certificate, and refused without it.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_required_from_callers_and_presented_to_upstreams() {
    let [mine, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&mine, &theirs] {
        certificate(folder.path());
    }
    let server = Server::start(Reply::ok("{}")).await;
    let inner = router_to(&server.url(), |config| {
        config.tls = Some(TlsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: theirs.path().join("cert.pem"),
            key: theirs.path().join("key.pem"),
            client_ca: Some(mine.path().join("cert.pem")),
            reload_every: serin_spec::units::Duration::from_secs(1),
        });
    })
    .await;
    let url = format!("https://localhost:{}", inner.router.tls_addr().unwrap().port());
    for (presents, status) in [(true, StatusCode::OK), (false, StatusCode::BAD_GATEWAY)] {
        let outer = router_to(&url, |config| {
            config.upstream_ca = Some(theirs.path().join("cert.pem"));
            config.upstream_certificate = presents.then(|| mine.path().join("cert.pem"));
            config.upstream_key = presents.then(|| mine.path().join("key.pem"));
        })
        .await;
        assert_eq!(outer.infer(&[]).await.status, status);
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_certificate_is_reported_at_startup() {
    let files = tempfile::tempdir().unwrap();
    certificate(files.path());
    std::fs::write(files.path().join("key.pem"), "nonsense").unwrap();
    let config = Config {
        tls: Some(TlsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: files.path().join("cert.pem"),
            key: files.path().join("key.pem"),
            client_ca: None,
            reload_every: serin_spec::units::Duration::from_secs(1),
        }),
        data_dir: files.path().to_owned(),
        ..config()
    };
    let started = serin_router::Router::start(config, Arc::new(crate::harness::log())).await;
    let error = started.err().unwrap().to_string();
    assert!(error.starts_with("tls.key: ") && error.contains("no private key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_over_tls_are_verified_against_the_configured_roots() {
    let files = tempfile::tempdir().unwrap();
    certificate(files.path());
    let server = tls_server(files.path()).await;
    let url = format!("https://localhost:{}", server.port());
    let trusting = router_to(&url, |config| config.upstream_ca = Some(files.path().join("cert.pem"))).await;
    assert_eq!(trusting.infer(&[]).await.status, StatusCode::OK);
    // The certificate is not signed by an authority in the system's trust store.
    let doubting = router_to(&url, |_| {}).await;
    let answer = doubting.infer(&[]).await;
    assert_eq!((answer.status, &answer.json()["cause"]), (StatusCode::BAD_GATEWAY, &json!("connect")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_that_cannot_be_answered_ends_with_a_grpc_status() {
    let bench = router_to(&format!("http://{}", unused_address().await), |_| {}).await;
    let at = format!("http://{}/inference.GRPCInferenceService", bench.router.data_addr());
    let call = async |method: &str, message: &'static [u8]| {
        let request = Request::post(format!("{at}/{method}")).header("content-type", "application/grpc");
        got(http2().request(request.body(Full::from(message)).unwrap()).await.unwrap()).await
    };
    let (down, _) = call("ModelInfer", b"\0\0\0\0\x09\x0a\x07flights").await;
    assert_eq!(
        (down.status, down.header("grpc-status"), down.header("content-type")),
        (StatusCode::OK, "14", "application/grpc")
    );
    assert_eq!(down.header("grpc-message"), "v1 of model flights: its server could not be reached");
    assert_eq!(bench.predictions(1).await[0].error.as_deref(), Some("connect"));
    let (nameless, _) = call("ModelInfer", b"\0\0\0\0\0").await;
    assert_eq!((nameless.header("grpc-status"), nameless.body.len()), ("5", 0));
    let (live, trailers) = call("ServerLive", b"\0\0\0\0\0").await;
    assert_eq!(
        (&live.body[..], trailers.unwrap()["grpc-status"].as_bytes()),
        (&b"\0\0\0\0\x02\x08\x01"[..], &b"0"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_tensors_pass_unchanged_and_are_read() {
    let head = br#"{"outputs":[{"name":"p","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#;
    let answer = [head.as_slice(), &0.25_f32.to_le_bytes()].concat();
    let length = head.len().to_string();
    let server = Server::start(Reply::ok(answer.clone()).with("inference-header-content-length", &length)).await;
    let bench = Bench::start(config()).await;
    bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
    let json = br#"{"inputs":[{"name":"origin","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":7}}]}"#;
    let request = [json.as_slice(), b"\x03\0\0\0LGA"].concat();
    let length = json.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let got = bench.post("/v2/models/flights/infer", &headers, request.clone()).await;
    assert_eq!((got.status, &got.body[..], &server.seen()[0].body[..]), (StatusCode::OK, &answer[..], &request[..]));
    let found = &bench.predictions(1).await[0];
    assert_eq!((found.outputs["p"], found.segments["origin"].as_str()), (0.25, "LGA"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_traces_are_kept() {
    let server = Server::start(Reply::ok("{}")).await;
    let bench = router_to(&server.url(), |_| {}).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = bench.infer(&[("traceparent", trace), ("tracestate", "a=b"), ("x-request-id", "r1")]).await;
    assert_eq!(own.header("x-request-id"), "r1");
    let made = bench.infer(&[]).await;
    assert_eq!(made.header("x-request-id"), made.header("x-prediction-id"));
    let seen = server.seen();
    assert_eq!(
        (&seen[0].headers["traceparent"], &seen[0].headers["tracestate"]),
        (&trace.parse().unwrap(), &"a=b".parse().unwrap())
    );
    assert_eq!(
        (&seen[0].headers["x-request-id"], seen[1].headers["x-request-id"].to_str().unwrap()),
        (&"r1".parse().unwrap(), made.header("x-prediction-id"))
    );
}

/// A chat with `flights` whose server sends these events and then ends the stream normally.
async fn chat(events: &[&'static str]) -> Prediction {
    let (address, send) = streaming().await;
    let bench = router_to(&format!("http://{address}"), |_| {}).await;
    let uri = format!("http://{}/v1/chat/completions", bench.router.data_addr());
    let body = r#"{"model":"flights","stream":true,"messages":[]}"#;
    let mut response = bench.client.request(Request::post(uri).body(Full::from(body)).unwrap()).await.unwrap();
    let mut passed = Vec::new();
    for event in events {
        send.send(Bytes::from_static(event.as_bytes())).unwrap();
        // The event must be passed on before the next one is sent.
        let frame = response.frame().await.unwrap().unwrap();
        passed.extend_from_slice(&frame.into_data().unwrap());
        assert!(bench.predictions(0).await.is_empty());
    }
    drop(send);
    assert!(response.frame().await.is_none());
    assert_eq!(String::from_utf8(passed).unwrap(), events.concat(), "the stream passes unchanged");
    bench.predictions(1).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_chunk_of_a_stream_passes_before_the_next_and_is_measured() {
    let found = chat(&[
        ": keep-alive\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"conte",
        "nt\":\"Hello\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"!\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: [DONE]\n\n",
    ])
    .await;
    assert_eq!((found.status, &found.error), (Some(200), &None));
    assert_eq!((found.outputs["llm.chunks"], found.classes["llm.finish_reason"].as_str()), (2.0, "length"));
    assert!(found.outputs["llm.time_to_first_chunk"] <= found.latency_us.unwrap() as f64 / 1e3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_stream_is_an_error_under_status_200() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let cut = chat(&[chunk]).await;
    assert_eq!((cut.status, cut.error.as_deref()), (Some(200), Some("truncated")));
    assert_eq!(cut.outputs.get("llm.chunks"), Some(&1.0), "received chunks are reported");
    let failed = chat(&[chunk, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n", "data: [DONE]\n\n"]).await;
    assert_eq!((failed.status, failed.error.as_deref()), (Some(200), Some("error_frame")));
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_answers_are_read_and_errors_have_openai_s_format() {
    let answer = r#"{"object":"chat.completion","choices":[{"index":0,"finish_reason":"tool_calls","message":{"tool_calls":[
        {"function":{"name":"weather","arguments":"{\"town\":1}"}}]}}],"usage":{"prompt_tokens":9,"completion_tokens":5}}"#;
    let server = Server::start(Reply::ok(answer)).await;
    let bench = router_to(&server.url(), |_| {}).await;
    let request = r#"{"tools":[{"function":{"name":"weather","parameters":{"required":["city"]}}}],"model":"flights"}"#;
    for path in ["/v1/chat/completions", "/openai/v1/chat/completions"] {
        assert_eq!(bench.post(path, &[], request).await.status, StatusCode::OK);
    }
    for found in bench.predictions(2).await {
        assert_eq!((found.outputs["llm.tool_calls_valid"], found.outputs["llm.output_tokens"]), (0.0, 5.0));
    }
    let late = format!(r#"{{"messages":"{}","model":"flights"}}"#, "x".repeat(400_000));
    let got = bench.post("/v1/chat/completions", &[], late.clone()).await;
    assert_eq!(got.status, StatusCode::OK, "the model may follow a long text");
    let got = bench.post("/v1/chat/completions", &[("x-serin-model", "flights")], late).await;
    assert_eq!(got.status, StatusCode::OK, "or in a header");
}

/// Every answer of a gRPC stream is read, however many follow.
#[tokio::test(flavor = "multi_thread")]
async fn all_answers_of_a_grpc_stream_are_read() {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
    let answer = |value: f64| {
        let contents = field(7, &field(7, &value.to_le_bytes())[2..]);
        let tensor = [field(1, b"p"), field(2, b"FP64"), field(3, &[1]), field(5, &contents)].concat();
        let message = field(2, &[field(1, b"flights"), field(5, &tensor)].concat());
        [&[0, 0, 0, 0, message.len() as u8][..], &message].concat()
    };
    let many = answer(0.25).repeat(4000);
    assert!(many.len() > 100_000, "more than is kept of bodies");
    let failed = [&b"\0\0\0\0\x06"[..], &field(1, b"busy")].concat();
    for (body, value, error) in [
        (answer(0.5), Some(0.5), None),
        (many, Some(0.25), None),
        ([answer(0.5), failed.clone()].concat(), Some(0.5), Some("error_message")),
        (failed, None, Some("error_message")),
    ] {
        let server = Server::start(Reply::grpc(body.clone(), "0")).await;
        let bench = Bench::start(config()).await;
        bench.route(&table(1, &server.url(), &server.url(), (0, 0))).await;
        let uri = format!("http://{}/inference.GRPCInferenceService/ModelStreamInfer", bench.router.data_addr());
        let message = Full::from(&b"\0\0\0\0\x09\x0a\x07flights"[..]);
        let request = Request::post(uri).header("content-type", "application/grpc").body(message).unwrap();
        let got = http2().request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(got, body, "the stream passes unchanged");
        let found = &bench.predictions(1).await[0];
        assert_eq!((found.outputs.get("p").copied(), found.error.as_deref()), (value, error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_set_the_servers_name_of_a_version_and_another_port_for_grpc() {
    let (http, grpc) = (Server::start(Reply::ok("{}")).await, Server::start(Reply::ok("")).await);
    let bench = Bench::start(config()).await;
    let mut split = table(1, &http.url(), &http.url(), (10_000, 0));
    split.policy = json!({"servers": [{"version": "v2", "grpcUrl": grpc.url(), "pathVersion": "7"}]}).to_string();
    bench.route(&split).await;
    assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    assert_eq!(bench.infer(&[("x-model-version", "v1")]).await.status, StatusCode::OK);
    let paths: Vec<String> = http.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v2/models/flights/versions/7/infer", "/v2/models/flights/infer"]);
    let uri = format!("http://{}/inference.GRPCInferenceService/ModelInfer", bench.router.data_addr());
    let message = Full::from(&b"\0\0\0\0\x09\x0a\x07flights"[..]);
    let request = Request::post(uri).header("content-type", "application/grpc").body(message).unwrap();
    http2().request(request).await.unwrap();
    // The name of the version is field 2, after the model's name.
    assert_eq!(grpc.seen()[0].body, &b"\0\0\0\0\x0c\x0a\x07flights\x12\x017"[..]);
}
