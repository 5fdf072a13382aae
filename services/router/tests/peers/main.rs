//! The router between real servers and real clients of its protocols.
//!
//! Python packages are installed once into the user's cache; nginx comes from `scripts/install-build-deps.sh --test`.

#![expect(clippy::unwrap_used, reason = "a failing test should panic where it fails")]

mod doors;
#[path = "../router/harness.rs"]
#[expect(dead_code, reason = "the other suite uses the rest")]
mod harness;
mod outcomes;
mod requests;
mod servers;
#[path = "../router/upstreams.rs"]
#[expect(dead_code, reason = "the other suite uses the rest")]
mod upstreams;

use http::StatusCode;
use serde_json::{Value, json};
use serin_router::{Config, ModelConfig, ServersConfig, TlsConfig, VersionServers};
use serin_schemas::records::{Assignment, Outcome, Prediction};

use harness::{Bench, config};
use servers::{Peer, client, prediction};

/// A model for the configuration with these versions, the first one stable.
fn model(versions: &[(&str, VersionServers)], outputs: &Value) -> ModelConfig {
    serde_json::from_value(json!({"stable": versions[0].0, "outputs": outputs,
        "versions": versions.iter().map(|(name, at)| ((*name).to_owned(), json!(at))).collect::<serde_json::Map<_, _>>()}))
    .unwrap()
}

fn servers(peer: &Peer, path_version: Option<&str>) -> VersionServers {
    VersionServers::Full(ServersConfig {
        url: format!("http://{}", peer.http),
        grpc_url: Some(format!("http://{}", peer.grpc)),
        path_version: path_version.map(str::to_owned),
    })
}

/// A router with generous timeouts: Python is slow on a busy machine.
fn patient() -> Config {
    let mut config = config();
    config.timeouts.first_byte = serin_spec::units::Duration::from_secs(60);
    config.timeouts.idle = config.timeouts.first_byte;
    config
}

fn check(prediction: &Prediction, version: &str) {
    assert_eq!((prediction.version.as_str(), prediction.status), (version, Some(200)), "{prediction:#?}");
    assert_eq!((&prediction.error, &prediction.invalid_output), (&None, &None));
    assert_eq!(prediction.assignment, Assignment::Pinned);
    // The first flower is a setosa (0), the second a virginica (2). The event has their mean and one drawn row.
    let batch = prediction.batch.as_ref().unwrap_or_else(|| panic!("a batch: {prediction:#?}"));
    assert_eq!((batch.rows, batch.means.get("species")), (2, Some(&1.0)), "{prediction:#?}");
    let drawn = if batch.row == 0 { &0.0 } else { &2.0 };
    assert_eq!(prediction.outputs.get("species"), Some(drawn), "{prediction:#?}");
}

const FLOWERS: &str = r#"{"id":"j-1","inputs":[{"name":"predict","shape":[2,4],"datatype":"FP64",
    "data":[5.1,3.5,1.4,0.2,6.7,3.0,5.2,2.3]}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn kserve_and_mlserver_are_two_versions_of_a_scikit_learn_model() {
    let (kserve, mlserver) = tokio::join!(Peer::kserve(), Peer::mlserver());
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let mut config = patient();
    config.tls = Some(TlsConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        certificate: certificate.clone(),
        key,
        client_ca: None,
        reload_every: serin_spec::units::Duration::from_secs(60),
    });
    // KServe answers 501 to a version in the path; MLServer has its own name for it.
    let versions = [("v1", servers(&kserve, None)), ("v2", servers(&mlserver, Some("2")))];
    config
        .models
        .insert("iris".into(), model(&versions, &json!([{"name": "species", "source": {"tensor": "predict"}}])));
    let bench = Bench::start(config).await;
    let router = bench.router.data_addr();

    for version in ["v1", "v2"] {
        for path in ["/v2/models/iris/infer".to_owned(), format!("/v2/models/iris/versions/{version}/infer")] {
            let id = format!("p-json-{version}-{}", path.len());
            let headers = [("x-model-version", version), ("x-prediction-id", &id), ("x-request-id", "r-7")];
            let got = bench.post(&path, &headers, FLOWERS).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
            let answer = got.json();
            assert_eq!((&answer["id"], &answer["outputs"][0]["data"]), (&json!("j-1"), &json!([0, 2])), "{answer}");
            assert_eq!((got.header("x-model-version"), got.header("x-prediction-id")), (version, id.as_str()));
            let arm = if version == "v1" { "stable" } else { "pinned" };
            assert_eq!((got.header("x-model-arm"), got.header("x-request-id")), (arm, "r-7"));
            check(&prediction(&bench, &id).await, version);
        }
        let metadata = bench.send(router, http::Request::get(format!("/v2/models/iris/versions/{version}")), "").await;
        assert_eq!((metadata.status, &metadata.json()["name"]), (StatusCode::OK, &json!("iris")));
    }

    // Triton's clients: raw tensors to KServe (MLServer supports only JSON), gRPC to both, plain and over TLS.
    for (what, version, tls) in [
        ("binary", "v1", false),
        ("json", "v2", false),
        ("grpc", "v1", false),
        ("grpc", "v2", false),
        ("grpc", "v2", true),
    ] {
        let at =
            if tls { format!("localhost:{}", bench.router.tls_addr().unwrap().port()) } else { router.to_string() };
        let mut arguments = vec![what.to_owned(), at, version.to_owned()];
        if tls {
            arguments.push(certificate.display().to_string());
        }
        let report = client("v2_client.py", arguments).await;
        assert_eq!(
            report,
            json!({"ready": true, "model_ready": true, "answer": [0, 2], "id": "id-1"}),
            "{what} {version}"
        );
        check(&prediction(&bench, &format!("p-{what}-{version}")).await, version);
    }

    // V1 is KServe's own protocol.
    let got = bench.post("/v1/models/iris:predict", &[], r#"{"instances":[[6.7,3.0,5.2,2.3]]}"#).await;
    assert_eq!((got.status, got.json()), (StatusCode::OK, json!({"predictions": [2]})));
    let got = bench.post("/v1/models/iris/versions/v1:predict", &[], r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#).await;
    assert_eq!((got.status, got.json()), (StatusCode::OK, json!({"predictions": [0]})));
    let ready = bench.send(router, http::Request::get("/v1/models/iris"), "").await.json();
    assert_eq!((&ready["name"], ready["ready"].to_string().to_lowercase().contains("true")), (&json!("iris"), true));

    // The servers' answers to bad input are passed on: KServe 500, MLServer 422.
    for (version, status) in [("v1", 500), ("v2", 422)] {
        let headers = [("x-model-version", version), ("x-prediction-id", &*format!("bad-{version}"))];
        let path = if version == "v1" { "/v1/models/iris:predict" } else { "/v2/models/iris/infer" };
        let got = bench.post(path, &headers, "{}").await;
        assert_eq!(got.status.as_u16(), status, "{got:?}");
        let found = prediction(&bench, &format!("bad-{version}")).await;
        assert_eq!((found.status, found.error.is_some()), (Some(i32::from(got.status.as_u16())), status >= 500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_metadata_trailers_and_streams() {
    let peer = Peer::grpc().await;
    let mut config = patient();
    for name in ["flights", "fails", "refuses"] {
        let versions = [("v1", servers(&peer, None)), ("v2", servers(&peer, Some("2")))];
        let mut model = model(&versions, &json!([{"name": "p", "source": {"tensor": "p"}}]));
        model.segments = serde_json::from_value(json!([{"name": "origin", "source": {"input": "origin"}}])).unwrap();
        config.models.insert(name.into(), model);
    }
    let bench = Bench::start(config).await;
    let report = client("grpc_client.py", vec![bench.router.data_addr().to_string()]).await;

    let good = &report["good"];
    assert_eq!((&good["code"], &good["id"]), (&json!("OK"), &json!("7")));
    assert_eq!(good["version"], "none", "no version was requested, and this server expects none");
    assert_eq!((&good["initial"]["x-server"], &good["initial"]["x-model-version"]), (&json!("grpcio"), &json!("v1")));
    assert_eq!(good["initial"]["x-model-arm"], "stable");
    assert_eq!(good["trailing"], json!({"x-cost": "7", "x-detail-bin": "00ff", "x-tier": "gold"}));
    let found = prediction(&bench, good["initial"]["x-prediction-id"].as_str().unwrap()).await;
    assert_eq!((found.status, found.outputs["p"], found.segments["origin"].as_str()), (Some(200), 0.25, "LGA"));

    assert_eq!(report["pinned"]["version"], "2", "the server's name of the version is set");
    assert_eq!(report["pinned"]["initial"]["x-model-version"], "v2");

    for (call, code, message, status, error) in [
        ("fails", "INTERNAL", "the model broke: 50 %", 500, Some("grpc_internal")),
        ("refuses", "INVALID_ARGUMENT", "the shape is wrong", 400, None),
    ] {
        let answer = &report[call];
        assert_eq!((&answer["code"], &answer["message"]), (&json!(code), &json!(message)));
        assert_eq!(answer["trailing"]["x-cost"], "7", "{answer}");
        let found = prediction(&bench, answer["initial"]["x-prediction-id"].as_str().unwrap()).await;
        assert_eq!((found.status, found.error.as_deref()), (Some(status), error));
    }

    assert_eq!(
        (&report["unknown"]["code"], &report["missing_version"]["code"]),
        (&json!("NOT_FOUND"), &json!("NOT_FOUND"))
    );
    let message = report["missing_version"]["message"].as_str().unwrap();
    assert!(message.contains(r#"model "flights" has no version "v9"; known versions: v1"#), "{message}");
    assert_eq!(report["answers"], json!([["flights", "0"], ["flights", "1"], ["flights", "2"]]));

    // Triton's client in a stream, and callers that disconnect.
    assert_eq!(report["streams"], json!({"flights": "p", "fails": "no memory left", "refuses": null}));
    assert_eq!((&report["cancel"], &report["deadline"]), (&json!("CANCELLED"), &json!("DEADLINE_EXCEEDED")));
    for (id, outcome, causes) in [
        ("stream-flights", Outcome::Ok, &[][..]),
        ("stream-fails", Outcome::Failed, &["error_message"]),
        ("stream-refuses", Outcome::Cancelled, &["client_closed"]),
        ("cancel", Outcome::Cancelled, &["client_closed"]),
        // The cause depends on which of the two was first.
        ("deadline", Outcome::Cancelled, &["client_closed", "deadline"]),
    ] {
        let found = prediction(&bench, id).await;
        let cause = found.error.as_deref();
        assert_eq!(found.outcome, Some(outcome), "{found:#?}");
        assert!(cause.map_or(causes.is_empty(), |cause| causes.contains(&cause)), "{found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_client_streams_word_by_word() {
    let peer = Peer::openai().await;
    let mut config = patient();
    let at = format!("http://{}", peer.http);
    config.models.insert("chat".into(), model(&[("v1", at.as_str().into())], &json!([])));
    let bench = Bench::start(config).await;
    let report = client("openai_client.py", vec![bench.router.data_addr().to_string(), peer.http.to_string()]).await;

    assert_eq!(report["words"], json!(["Canaries ", "sing ", "early."]));
    assert_eq!((&report["usage"], &report["whole"]), (&json!(3), &json!("Canaries sing early.")));
    assert_eq!((&report["embedding"], &report["models"]), (&json!([0.5, 0.25]), &json!(["chat"])));
    assert_eq!(report["failed"], "no memory left", "an error of the server is passed to the client");
    assert_eq!(
        report["unknown"],
        json!(["unknown_model", "invalid_request_error"]),
        "an error of the router is passed to the client too"
    );
    assert_eq!(
        (&report["headers"]["x-model-version"], &report["headers"]["x-model-arm"]),
        (&json!("v1"), &json!("stable"))
    );

    let found = prediction(&bench, report["headers"]["x-prediction-id"].as_str().unwrap()).await;
    assert_eq!((found.status, &found.error), (Some(200), &None));
    assert_eq!(found.classes["llm.finish_reason"], "stop");
    for (name, value) in [
        ("llm.chunks", 3.0),
        ("llm.output_tokens", 3.0),
        ("llm.input_tokens", 4.0),
        ("llm.characters", 20.0),
        ("llm.refusal", 0.0),
    ] {
        assert_eq!(found.outputs.get(name), Some(&value), "{name}: {found:#?}");
    }
    let (first, per_chunk) = (found.outputs["llm.time_to_first_chunk"], found.outputs["llm.time_per_chunk"]);
    let whole = found.latency_us.unwrap() as f64 / 1e3;
    assert!(first > 0.0 && per_chunk > 0.0 && first + 2.0 * per_chunk <= whole, "{first} {per_chunk} {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_a_plain_upstream_by_path_and_by_header() {
    let peer = Peer::nginx().await;
    let mut config = patient();
    let at = format!("http://{}", peer.http);
    let mut plain = model(&[("v1", at.as_str().into())], &json!([{"name": "score", "source": {"json": "/score"}}]));
    plain.paths = vec!["/score".into()];
    config.models.insert("risk".into(), plain);
    let bench = Bench::start(config).await;
    for (path, headers) in [("/score/today?n=1", vec![]), ("/score", vec![("x-serin-model", "risk")])] {
        let got = bench.post(path, &headers, "{}").await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        let answer = got.json();
        assert_eq!((&answer["uri"], &answer["score"]), (&json!(path), &json!(0.5)));
        assert_eq!(answer["host"], bench.router.data_addr().to_string());
        let found = prediction(&bench, got.header("x-prediction-id")).await;
        assert_eq!((found.model.as_str(), found.outputs["score"]), ("risk", 0.5));
    }
    let got = bench.post("/missing", &[("x-serin-model", "risk")], "{}").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND, "the server's own answer");
    let got = bench.post("/other", &[], "{}").await;
    assert_eq!(
        (got.status, got.json()["error"].as_str().unwrap().starts_with("the request names no model")),
        (StatusCode::NOT_FOUND, true)
    );
}
