//! Outcomes with real servers and real clients: error answers, and callers that disconnect.

use http::StatusCode;
use serde_json::json;
use serin_schemas::records::Outcome;

use crate::{
    harness::Bench,
    model, patient,
    servers::{Peer, client_of, prediction},
};

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_litserve_and_bentoml_are_recognized() {
    let (litserve, bentoml) = tokio::join!(Peer::litserve(), Peer::bentoml());
    let mut config = patient();
    for (name, peer) in [("lit", &litserve), ("bento", &bentoml)] {
        let at = format!("http://{}", peer.http);
        config.models.insert(name.into(), model(&[("v1", at.as_str().into())], &json!([])));
    }
    let bench = Bench::start(config).await;
    for (name, path, field, refuses) in [("lit", "/predict", "input", 422), ("bento", "/score", "value", 400)] {
        for (reply, status, outcome, error, unusable) in [
            (json!(2), 200, Outcome::Ok, None, None),
            (json!("refuse"), refuses, Outcome::Refused, None, None),
            (json!("fail"), 500, Outcome::Failed, Some("status_500"), None),
            (json!("error"), 200, Outcome::Failed, Some("error_object"), None),
            (json!("nothing"), 200, Outcome::Unusable, None, Some("null")),
        ] {
            let got = bench.post(path, &[("x-serin-model", name)], json!({field: reply}).to_string()).await;
            assert_eq!(got.status, StatusCode::from_u16(status).unwrap(), "{name} {reply}: {got:?}");
            let found = prediction(&bench, got.header("x-prediction-id")).await;
            let causes = (found.error.as_deref(), found.invalid_output.as_deref());
            assert_eq!((found.outcome, causes), (Some(outcome), (error, unusable)), "{name} {reply}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_the_openai_client_see_errors_and_disconnect() {
    let peer = Peer::openai().await;
    for (packages, version) in [("openai1", "1."), ("kserve", "3.")] {
        let mut config = patient();
        let at = format!("http://{}", peer.http);
        config.models.insert("chat".into(), model(&[("v1", at.as_str().into())], &json!([])));
        let bench = Bench::start(config).await;
        let report = client_of(packages, "openai_outcomes.py", vec![bench.router.data_addr().to_string()]).await;
        assert!(report["version"].as_str().unwrap().starts_with(version), "{report}");
        assert_eq!(
            (&report["lie"], &report["nothing"], &report["timeout"]),
            (&json!(true), &json!(0), &json!(true)),
            "{report}"
        );
        assert_eq!(report["break"], "no memory left");
        for (id, outcome, error, unusable) in [
            ("lie", Outcome::Failed, Some("error_object"), None),
            ("nothing", Outcome::Unusable, None, Some("empty")),
            ("break", Outcome::Failed, Some("error_frame"), None),
            ("stop", Outcome::Cancelled, Some("client_closed"), None),
            ("timeout", Outcome::Cancelled, Some("client_closed"), None),
        ] {
            let found = prediction(&bench, id).await;
            let causes = (found.error.as_deref(), found.invalid_output.as_deref());
            assert_eq!((found.outcome, causes), (Some(outcome), (error, unusable)), "openai {version} {id}");
        }
    }
}

/// curl reads the head with the arm, and disconnects.
#[tokio::test(flavor = "multi_thread")]
async fn curl_disconnects_when_its_timeout_expires() {
    let peer = Peer::openai().await;
    let mut config = patient();
    let at = format!("http://{}", peer.http);
    config.models.insert("chat".into(), model(&[("v1", at.as_str().into())], &json!([])));
    let bench = Bench::start(config).await;
    let uri = format!("http://{}/v1/chat/completions", bench.router.data_addr());
    let body = json!({"model": "chat", "stream": true, "messages": [{"role": "user", "content": "go on"}]}).to_string();
    let curl = tokio::task::spawn_blocking(move || {
        std::process::Command::new("curl")
            .args(["--silent", "--include", "--no-buffer", "--max-time", "1", "--header", "x-prediction-id: curl"])
            .args(["--data", &body, &uri])
            .output()
            .unwrap()
    });
    let output = curl.await.unwrap();
    // 28 is curl's exit code for a timeout.
    assert_eq!(output.status.code(), Some(28));
    assert!(String::from_utf8_lossy(&output.stdout).contains("x-model-arm: stable"));
    let found = prediction(&bench, "curl").await;
    assert_eq!((found.outcome, found.error.as_deref()), (Some(Outcome::Cancelled), Some("client_closed")));
}
