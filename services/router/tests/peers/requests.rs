//! Requests of real clients are routed: openai in both major versions, Azure's client, Triton's client with compression, curl.

use std::path::Path;

use serde_json::{Value, json};
use serin_spec::StickyKey;

use crate::{
    harness::{Bench, Events},
    model, patient,
    servers::{FOLDER, python},
    upstreams::{Reply, Server},
};

const ANSWER: &str = r#"{"id":"x","object":"chat.completion","created":1,"model":"m","model_name":"org/model","text":"hi","data":[],"output":[],
    "choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],
    "outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.5]}]}"#;

async fn bench() -> (Bench, Server) {
    let server = Server::start(Reply::ok(ANSWER)).await;
    let mut config = patient();
    for name in ["chat", "org/model"] {
        config.models.insert(name.into(), model(&[("v1", server.url().as_str().into())], &json!([])));
    }
    (Bench::start(config).await, server)
}

async fn run_client(environment: &'static str, bench: &Bench) -> Value {
    let router = bench.router.data_addr().to_string();
    let run = move || {
        let script = Path::new(FOLDER).join("requests_client.py");
        std::process::Command::new(python(environment)).arg(script).arg(router).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_openai_and_triton_clients_are_routed() {
    let (bench, server) = bench().await;
    let report = run_client("kserve", &bench).await;
    let calls = ["long prompt", "picture", "slash", "embeddings", "retrieve", "audio", "azure", "responses", "gzip"];
    for call in calls {
        assert_eq!(report[call], "v1", "{call}: {report}");
    }
    for call in ["None False", "None True", "gzip False", "gzip True", "deflate False", "deflate True"] {
        assert_eq!(report[format!("triton {call}")], "org/model", "{call}: {report}");
    }
    let predictions = bench.predictions(calls.len() - 1 + 6).await;
    assert_eq!(predictions.iter().filter(|found| found.model.as_str() == "org/model").count(), 8);
    assert_eq!(server.calls(), predictions.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_older_openai_client_are_routed() {
    let (bench, _server) = bench().await;
    let report = run_client("openai-1", &bench).await;
    assert_eq!(report["openai"], "1");
    for call in ["long prompt", "picture", "slash", "embeddings", "retrieve", "audio", "azure", "gzip"] {
        assert_eq!(report[call], "v1", "{call}: {report}");
    }
}

/// `curl -d` declares that it sends a form.
#[tokio::test(flavor = "multi_thread")]
async fn curl_without_a_content_type_is_read() {
    let server = Server::start(Reply::ok(ANSWER)).await;
    let bench = Bench::start(patient()).await;
    let mut table = crate::harness::table(1, &server.url(), &server.url(), (5_000, 5_000));
    table.sticky = Some(serde_json::to_string(&StickyKey::Json("/user".into())).unwrap());
    bench.route(&table).await;
    let url = format!("http://{}/v2/models/flights/infer", bench.router.data_addr());
    let curl = move || {
        let body = r#"{"user":"u1","inputs":[{"name":"origin","data":["LGA"]}]}"#;
        let output = std::process::Command::new("curl").args(["-sS", "-d", body, &url]).output().unwrap();
        assert!(output.status.success(), "curl is needed: {}", String::from_utf8_lossy(&output.stderr));
    };
    tokio::task::spawn_blocking(move || (0..10).for_each(|_| curl())).await.unwrap();
    bench.predictions(10).await;
    let predictions = Events::read(&bench.log).predictions();
    assert!(predictions.iter().all(|found| found.segments["origin"] == "LGA" && found.arm == predictions[0].arm));
}
