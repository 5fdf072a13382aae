//! Feedback and events over HTTP.

use http::StatusCode;
use serin_router::ClockKind;
use serin_schemas::records::{Assignment, Origin, Prediction};

use crate::harness::{Bench, Events, config, decoded};

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_on_the_log_when_it_is_accepted_and_only_once() {
    let bench = Bench::start(config()).await;
    for n in 0..100 {
        let body = format!(r#"{{"prediction_id":"p{n}","label":{},"observed_at":{n}}}"#, n % 2 == 0);
        let got = bench.post("/v1/feedback", &[], body).await;
        assert_eq!((got.status, got.json()["accepted"].clone()), (StatusCode::ACCEPTED, 1.into()));
        let found = Events::read(&bench.log).feedback();
        assert_eq!(found.len(), n + 1, "202 means that it is there, once");
    }
    let batch: Vec<String> = (0..50).map(|n| format!(r#"{{"request_id":"b{n}","values":{{"delay":{n}}}}}"#)).collect();
    assert_eq!(bench.post("/v1/feedback", &[], format!("[{}]", batch.join(","))).await.status, StatusCode::ACCEPTED);
    assert_eq!(Events::read(&bench.log).feedback().len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_feedback_names_its_problems_and_takes_nothing() {
    let bench = Bench::start(config()).await;
    let got = bench.post("/v1/feedback", &[], r#"[{"prediction_id":"a","label":1},{"prediction_id":"b"}]"#).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    assert_eq!(got.json()["problems"][0], "[1].values: there is no truth in it; send values, classes or label");
    let huge = bench.post("/v1/feedback", &[], vec![b' '; 2 << 20]).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(Events::read(&bench.log).feedback(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_far_ahead_are_not_passed_on() {
    let bench = Bench::start(config()).await;
    let ahead = bench.time.wall().0 + 7_200_000_000;
    let event = format!(
        r#"[{{"prediction_id":"x","model":"m","version":"v2"}},
            {{"prediction_id":"y","model":"m","version":"v2","completed_at":{ahead}}}]"#
    );
    let got = bench.post("/v1/events", &[], event).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    let problem = "[1].completed_at: is more than 10 minutes ahead of the router's clock";
    assert_eq!(got.json()["problems"], serde_json::json!([problem]));
    assert!(decoded::<Prediction>(&bench.log, "predictions").is_empty());
    let truth = format!(r#"{{"prediction_id":"a","label":1,"observed_at":{ahead}}}"#);
    assert_eq!(bench.post("/v1/feedback", &[], truth).await.status, StatusCode::ACCEPTED);
    assert!(Events::read(&bench.log).feedback()[0].observed_at.0 < ahead);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_model_servers_go_through_intake() {
    let mut config = config();
    config.clock = ClockKind::Replay;
    let bench = Bench::start(config).await;
    let body = r#"{"prediction_id":"x","model":"flights","version":"v2","arm":"canary","completed_at":"2026-01-02T00:00:00Z",
        "outputs":{"p":0.5},"segments":{"origin":"LGA"},"latency_ms":1.5,"status":200}"#;
    assert_eq!(bench.post("/v1/events", &[], body).await.status, StatusCode::ACCEPTED);
    let found: Vec<(i32, Prediction)> = decoded(&bench.log, "predictions");
    let prediction = &found[0].1;
    assert_eq!((prediction.origin, prediction.assignment), (Origin::Intake, Assignment::External));
    assert_eq!((prediction.latency_us, prediction.outputs["p"]), (Some(1500), 0.5));
    assert_eq!(Events::read(&bench.log).predictions(), [], "it is intake's to count it");
    let bad = bench.post("/v1/events", &[], r#"{"prediction_id":"x","model":"flights"}"#).await;
    assert_eq!(bad.json()["problems"][0], "[0]: missing field `version`");
}

#[tokio::test(flavor = "multi_thread")]
async fn seldon_s_feedback_is_on_the_log_too() {
    let bench = Bench::start(config()).await;
    let one = r#"{"request":{"data":{"ndarray":[[1,2]]}},"response":{"meta":{"puid":"s1"}},"reward":1.0,
        "truth":{"data":{"names":["delay"],"ndarray":[[12.5]]}}}"#;
    for path in ["/api/v1.0/feedback", "/seldon/models/flights/api/v1.0/feedback"] {
        let got = bench.post(path, &[], one).await;
        assert_eq!((got.status, got.json()["accepted"].clone()), (StatusCode::ACCEPTED, 1.into()));
    }
    let batch = r#"[{"response":{"meta":{"puid":"s2"}},"truth":{"strData":"late"}},{"response":{"meta":{"puid":"s3"}},"reward":0}]"#;
    assert_eq!(bench.post("/api/v1.0/feedback", &[], batch).await.status, StatusCode::ACCEPTED);
    let found = Events::read(&bench.log).feedback();
    let of = |id: &str| found.iter().find(|found| found.request_id.as_str() == id).unwrap();
    assert_eq!((found.len(), of("s1").values["reward"], of("s1").values["delay"]), (4, 1.0, 12.5));
    assert_eq!((of("s2").classes["label"].as_str(), of("s3").values["reward"]), ("late", 0.0));
    let got = bench.post("/api/v1.0/feedback", &[], r#"{"response":{"meta":{"puid":"s4"}}}"#).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST, "it says nothing");
}
