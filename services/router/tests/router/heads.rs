//! Path, method and head of a request: names of models, other predictions, browsers, malformed heads.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use serin_router::ModelConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    harness::{Bench, config, eventually},
    requests::{chat, plain, servers},
    upstreams::{Reply, Server},
};

/// Sends bytes unchanged and returns what is received until the connection ends.
async fn raw(bench: &Bench, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_slashes_and_colons_are_found_in_paths() {
    let server = Server::start(Reply::ok("{}")).await;
    let mut config = config();
    let model: ModelConfig = serde_json::from_value(json!({"stable": "v1", "versions": {"v1": server.url()}})).unwrap();
    for name in ["org/model", "llama3:8b", "a-b", "modèle", "org", "my+model"] {
        config.models.insert(name.into(), model.clone());
    }
    let bench = Bench::start(config).await;
    let paths = [
        ("/v2/models/org/model/infer", "org/model"),
        ("/v2/models/org%2Fmodel/infer", "org/model"),
        ("/v1/models/org/model:predict", "org/model"),
        ("/v1/models/llama3:8b:predict", "llama3:8b"),
        ("/v1/models/llama3%3A8b%3Apredict", "llama3:8b"),
        ("/v2/models/a%2Db/infer", "a-b"),
        ("/v2/models/mod%C3%A8le/versions/v1/infer", "modèle"),
        ("/v2/models/my%2Bmodel/infer/", "my+model"),
        ("/v2/models/org/infer", "org"),
        ("/v2/models/org/model/embed", "org/model"),
        ("/v1/models/org:classify", "org"),
        ("/v1/models/org/labels/canary:predict", "org"),
        ("/openai/deployments/org%2Fmodel/chat/completions", "org/model"),
    ];
    for (place, (path, _)) in paths.iter().enumerate() {
        let got = bench.post(path, &[("x-prediction-id", &format!("p{place}"))], "{}").await;
        assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"), "{path}: {got:?}");
        if !path.contains("versions") {
            assert_eq!(server.seen().last().unwrap().path, *path, "the path is unchanged");
        }
    }
    let predictions = bench.predictions(paths.len()).await;
    for (place, (path, model)) in paths.iter().enumerate() {
        let found = predictions.iter().find(|found| found.request_id.as_str() == format!("p{place}")).unwrap();
        assert_eq!(found.model.as_str(), *model, "{path}");
    }
    let got = bench.post("/v2/models/not/known/infer", &[], "{}").await;
    assert!(got.json()["error"].as_str().unwrap().contains("\"not/known\""), "{got:?}");
    // An unknown name is refused, also if it is not ASCII.
    let got = bench.post("/v1/embeddings", &[("x-serin-model", "modèle")], "{}").await;
    assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"));
    let got = bench.post("/v2/models/org/infer", &[("x-model-version", "vé")], "{}").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
}

/// Every listed model id can be requested, even if the servers do not know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_model_can_be_requested() {
    let mut reply = Reply::ok(r#"{"detail":"Not Found"}"#);
    reply.status = 404;
    let server = Server::start(reply).await;
    let bench = Bench::start(chat(&server)).await;
    let get = async |path: &str| bench.send(bench.router.data_addr(), Request::get(path), "").await;
    let listed = get("/v1/models").await.json();
    for model in listed["data"].as_array().unwrap() {
        let id = model["id"].as_str().unwrap();
        for root in ["/v1", "/openai/v1"] {
            let got = get(&format!("{root}/models/{id}")).await;
            assert_eq!((got.status, got.json()), (StatusCode::OK, model.clone()), "{root} {id}");
        }
    }
    assert_eq!(get("/v1/models/missing").await.status, StatusCode::NOT_FOUND);
}

/// Every `POST` that names a known model is a prediction.
#[tokio::test(flavor = "multi_thread")]
async fn other_predictions_are_recognized() {
    let server = Server::start(Reply::ok("{}")).await;
    let bench = Bench::start(chat(&server)).await;
    let body = r#"{"query":"q","documents":["a"],"model":"chat"}"#;
    let paths = [
        "/v1/rerank",
        "/v1/score",
        "/v1/messages",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/moderations",
        "/rerank",
        "/v2/rerank",
    ];
    for path in paths {
        let got = bench.post(path, &[], body).await;
        assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"), "{path}");
    }
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\0\0\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\norg/model\r\n--b--\r\n";
    let kind = ("content-type", "multipart/form-data; boundary=b");
    let got = plain(&bench, "/v1/audio/transcriptions", &[kind], form).await;
    assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"));
    let predictions = bench.predictions(paths.len() + 1).await;
    assert_eq!(predictions.iter().filter(|found| found.model.as_str() == "org/model").count(), 1);
    assert!(predictions.iter().all(|found| found.error.is_none()), "these answers are not treated as failed chats");
    // A request that names no model is refused with an explanation.
    for (path, body) in [("/v1/rerank", "{}"), ("/invocations", ""), ("/v1/audio/transcriptions", "x")] {
        let got = plain(&bench, path, &[], body).await;
        assert_eq!(got.status, StatusCode::NOT_FOUND, "{path}");
        assert!(String::from_utf8_lossy(&got.body).contains("the request names no model"), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_other_methods_and_heads() {
    let server = Server::start(Reply::ok("{}").with("access-control-allow-origin", "*")).await;
    let bench = Bench::start(chat(&server)).await;
    let send = async |method: Method, path: &str, origin: bool| {
        let mut request = Request::builder().method(method).uri(path);
        if origin {
            request = request
                .header("origin", "http://ui.example")
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "content-type, authorization");
        }
        bench.send(bench.router.data_addr(), request, "").await
    };
    for path in ["/v1/chat/completions", "/v1/rerank", "/v1/feedback", "/v1/events"] {
        let got = send(Method::OPTIONS, path, true).await;
        assert_eq!(got.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(got.header("access-control-allow-origin"), "*");
        assert_eq!(got.header("access-control-allow-headers"), "content-type, authorization");
    }
    let got = send(Method::OPTIONS, "/v2/models/chat/infer", true).await;
    assert_eq!((got.status, server.calls()), (StatusCode::OK, 1), "the model's server answers");
    for method in [Method::GET, Method::PUT] {
        let got = send(method, "/v1/chat/completions", false).await;
        assert_eq!((got.status, got.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST, OPTIONS"));
    }
    for (method, path) in [(Method::GET, "/v1/feedback"), (Method::HEAD, "/v1/feedback"), (Method::PUT, "/v1/events")] {
        let got = send(method, path, false).await;
        assert_eq!((got.status, got.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST, OPTIONS"));
    }
    for path in ["/v2/health/live", "/v2/health/ready", "/v2", "/v1/models"] {
        assert_eq!(send(Method::HEAD, path, false).await.status, StatusCode::OK, "{path}");
    }
}

/// A request that an intermediary could parse differently is refused.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused() {
    let server = Server::start(Reply::ok("{}")).await;
    let bench = Bench::start(chat(&server)).await;
    let request = |host: &str, end: &str| {
        format!("POST /v2/models/chat/infer HTTP/1.1{end}{host}content-length: 2{end}connection: close{end}{end}{{}}")
    };
    assert!(raw(&bench, request("host: a\r\n", "\r\n").as_bytes()).await.starts_with("HTTP/1.1 200"));
    for (bytes, sentence) in [
        (request("", "\r\n"), "exactly one Host header, but this one has 0"),
        (request("host: a\r\nhost: b\r\n", "\r\n"), "this one has 2"),
        (request("host: a b\r\n", "\r\n"), "not a valid host"),
        (request("host: a,b\r\n", "\r\n"), "not a valid host"),
        (request("host: \r\n", "\r\n"), "not a valid host"),
        (request("host: a\n", "\n"), "bare line feed"),
        (request("host: a\n", "\r\n"), "bare line feed"),
    ] {
        let answer = raw(&bench, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(sentence), "{answer}");
    }
    let old = "POST /v2/models/chat/infer HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}";
    assert!(raw(&bench, old.as_bytes()).await.starts_with("HTTP/1.0 200"), "HTTP/1.0 has no host");
    assert_eq!(server.calls(), 2);
}

/// The same for every form of a complete request. HTTP/1.0 has no interim answers, so its callers count as gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_close_its_sending_side_after_any_complete_request() {
    let mut reply = Reply::ok("{}");
    reply.delay = std::time::Duration::from_millis(100);
    let server = Server::start(reply).await;
    let bench = Bench::start(chat(&server)).await;
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{rest}");
    let (infer, length) = ("/v2/models/chat/infer", "content-length: 2\r\n\r\n{}");
    let chunked = "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let ready = "GET /v2/health/ready HTTP/1.1\r\nhost: a\r\n\r\n";
    for (request, answers) in [
        (post(infer, chunked), 1),
        (post(infer, &format!("expect: 100-continue\r\n{length}")), 1),
        (format!("{ready}{}", post(infer, length)), 2),
        (post(infer, chunked) + &post(infer, chunked) + &post(infer, length), 3),
        (post(infer, length) + ready, 2),
        (post("/v1/feedback", chunked), 1),
    ] {
        let mut stream = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 ").count() - answer.matches("HTTP/1.1 10").count(), answers, "{answer}");
    }
}

/// A caller that closes its sending side after the request still gets its answer; a caller that closes the connection has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_closes_its_sending_side_gets_its_answer() {
    let mut reply = Reply::ok("{}");
    reply.delay = std::time::Duration::from_millis(150);
    let server = Server::start(reply).await;
    let bench = Bench::start(chat(&server)).await;
    let call = async |id: &str| {
        let mut stream = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
        let head = format!(
            "POST /v2/models/chat/infer HTTP/1.1\r\nhost: a\r\nx-prediction-id: {id}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let mut waits = call("waits").await;
    waits.shutdown().await.unwrap();
    let mut answer = String::new();
    waits.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 200 OK\r\n") && answer.ends_with("{}"), "{answer}");
    let leaves = call("leaves").await;
    eventually("the server has it", async || (server.calls() == 2).then_some(())).await;
    drop(leaves);
    let predictions = bench.predictions(2).await;
    let of = |id: &str| predictions.iter().find(|found| found.request_id.as_str() == id).unwrap().error.clone();
    assert_eq!((of("waits"), of("leaves").as_deref()), (None, Some("client_closed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_version_outside_the_table_names_the_arm_pinned() {
    let servers = servers().await;
    let mut config = config();
    let versions: Value = json!({"v1": servers.0.url(), "v2": servers.1.url()});
    config
        .models
        .insert("flights".into(), serde_json::from_value(json!({"stable": "v1", "versions": versions})).unwrap());
    let bench = Bench::start(config).await;
    let got = bench.infer(&[("x-model-version", "v2")]).await;
    assert_eq!((got.header("x-model-version"), got.header("x-model-arm")), ("v2", "pinned"));
    let got = bench.infer(&[("x-model-version", "v1")]).await;
    assert_eq!((got.header("x-model-version"), got.header("x-model-arm")), ("v1", "stable"));
}
