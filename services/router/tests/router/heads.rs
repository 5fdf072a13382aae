//! What path, method and head of a request say: names of models, other predictions, browsers, odd heads.

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use serin_router::ModelConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    harness::{Bench, config, eventually},
    requests::{chat, plain, servers},
    upstreams::{Says, Server},
};

/// Sends bytes as they are; what comes back until the connection ends.
async fn raw(bench: &Bench, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(bench.router.data_addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_slashes_and_colons_are_found_in_paths() {
    let server = Server::start(Says::ok("{}")).await;
    let mut config = config();
    let model: ModelConfig = serde_json::from_value(json!({"stable": "v1", "versions": {"v1": server.url()}})).unwrap();
    for name in ["org/model", "llama3:8b", "a-b", "modèle", "org", "my model"] {
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
        ("/v2/models/my%20model/infer/", "my model"),
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
            assert_eq!(server.seen().last().unwrap().path, *path, "it goes on as it came");
        }
    }
    let predictions = bench.predictions(paths.len()).await;
    for (place, (path, model)) in paths.iter().enumerate() {
        let found = predictions.iter().find(|found| found.request_id.as_str() == format!("p{place}")).unwrap();
        assert_eq!(found.model.as_str(), *model, "{path}");
    }
    let got = bench.post("/v2/models/nobody/knows/infer", &[], "{}").await;
    assert!(got.json()["error"].as_str().unwrap().contains("\"nobody/knows\""), "{got:?}");
    // A name that is there and not known is refused, also when it is not ASCII.
    let got = bench.post("/v1/embeddings", &[("x-serin-model", "modèle")], "{}").await;
    assert_eq!((got.status, got.header("x-model-version")), (StatusCode::OK, "v1"));
    let got = bench.post("/v2/models/org/infer", &[("x-model-version", "vé")], "{}").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
}

/// Ids that the router lists can be asked for, whatever the servers know of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_listed_is_there() {
    let mut says = Says::ok(r#"{"detail":"Not Found"}"#);
    says.status = 404;
    let server = Server::start(says).await;
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
    assert_eq!(get("/v1/models/nobody").await.status, StatusCode::NOT_FOUND);
}

/// Every `POST` that names a known model is a prediction.
#[tokio::test(flavor = "multi_thread")]
async fn other_predictions_are_recognized() {
    let server = Server::start(Says::ok("{}")).await;
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
    assert!(predictions.iter().all(|found| found.error.is_none()), "no answer of these is held for a broken chat");
    // What names no model is refused with a sentence.
    for (path, body) in [("/v1/rerank", "{}"), ("/invocations", ""), ("/v1/audio/transcriptions", "x")] {
        let got = plain(&bench, path, &[], body).await;
        assert_eq!(got.status, StatusCode::NOT_FOUND, "{path}");
        assert!(String::from_utf8_lossy(&got.body).contains("no model is named"), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_other_methods_and_heads() {
    let server = Server::start(Says::ok("{}").with("access-control-allow-origin", "*")).await;
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
    assert_eq!((got.status, server.calls()), (StatusCode::OK, 1), "its server says");
    for method in [Method::GET, Method::PUT] {
        let got = send(method, "/v1/chat/completions", false).await;
        assert_eq!((got.status, got.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST, OPTIONS"));
    }
    for path in ["/v2/health/live", "/v2/health/ready", "/v2", "/v1/models"] {
        assert_eq!(send(Method::HEAD, path, false).await.status, StatusCode::OK, "{path}");
    }
}

/// A request that somebody between could read in another way is refused.
#[tokio::test(flavor = "multi_thread")]
async fn odd_heads_are_refused() {
    let server = Server::start(Says::ok("{}")).await;
    let bench = Bench::start(chat(&server)).await;
    let request = |host: &str, end: &str| {
        format!("POST /v2/models/chat/infer HTTP/1.1{end}{host}content-length: 2{end}connection: close{end}{end}{{}}")
    };
    assert!(raw(&bench, request("host: a\r\n", "\r\n").as_bytes()).await.starts_with("HTTP/1.1 200"));
    for (bytes, sentence) in [
        (request("", "\r\n"), "has one Host header, and this one has 0"),
        (request("host: a\r\nhost: b\r\n", "\r\n"), "this one has 2"),
        (request("host: a\n", "\n"), "line feed alone"),
        (request("host: a\n", "\r\n"), "line feed alone"),
    ] {
        let answer = raw(&bench, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(sentence), "{answer}");
    }
    let old = "POST /v2/models/chat/infer HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}";
    assert!(raw(&bench, old.as_bytes()).await.starts_with("HTTP/1.0 200"), "HTTP/1.0 has no host");
    assert_eq!(server.calls(), 2);
}

/// Whoever ends its side of the connection after the request still gets its answer; who closes it has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_ends_its_side_gets_its_answer() {
    let mut says = Says::ok("{}");
    says.delay = std::time::Duration::from_millis(150);
    let server = Server::start(says).await;
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
async fn who_asks_for_a_version_outside_of_the_table_is_told_so() {
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
