//! Feedback and events over HTTP.

use http::StatusCode;
use serin_router::ClockKind;
use serin_schemas::records::{Assignment, Origin, Prediction};

use crate::{
    harness::{Bench, Events, config, decoded, eventually, statuses, table},
    upstreams::{Reply, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_on_the_log_when_it_is_accepted_and_only_once() {
    let bench = Bench::start(config()).await;
    for n in 0..100 {
        let body = format!(r#"{{"prediction_id":"p{n}","label":{},"revision":{n}}}"#, n % 2 == 0);
        let got = bench.post("/v1/feedback", &[], body).await;
        assert_eq!((got.status, got.json()["accepted"].clone()), (StatusCode::ACCEPTED, 1.into()));
        let found = Events::read(&bench.log).feedback();
        assert_eq!(found.len(), n + 1, "202 means that it is on the log, exactly once");
    }
    let batch: Vec<String> = (0..50).map(|n| format!(r#"{{"request_id":"b{n}","values":{{"delay":{n}}}}}"#)).collect();
    assert_eq!(bench.post("/v1/feedback", &[], format!("[{}]", batch.join(","))).await.status, StatusCode::ACCEPTED);
    assert_eq!(Events::read(&bench.log).feedback().len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_is_reported_by_its_index_and_does_not_affect_others() {
    let bench = Bench::start(config()).await;
    let list =
        r#"[{"prediction_id":"a","label":1},{"prediction_id":"b"},{"prediction_id":3,"values":{"x":NaN,"y":true}}]"#;
    let got = bench.post("/v1/feedback", &[], list).await;
    assert_eq!(got.status, StatusCode::MULTI_STATUS);
    let problem =
        "[1].values: the feedback has no value; send values, classes, truth, reward, label or score, and not null";
    assert_eq!(got.json(), serde_json::json!({"accepted": 2, "refused": 1, "problems": [problem]}));
    let mut found: Vec<_> = Events::read(&bench.log).feedback().into_iter().map(|found| found.request_id.0).collect();
    found.sort();
    assert_eq!(found, ["3", "a"]);

    let got = bench.post("/v1/feedback", &[], r#"[{"prediction_id":"c"},{}]"#).await;
    assert_eq!((got.status, &got.json()["error"]), (StatusCode::BAD_REQUEST, &"no entry was accepted".into()));
    let huge = bench.post("/v1/feedback", &[], vec![b' '; 2 << 20]).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(Events::read(&bench.log).feedback().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_far_ahead_or_in_another_unit_are_not_passed_on() {
    let bench = Bench::start(config()).await;
    let now = bench.time.wall().0;
    for (time, part) in [
        (now + 7_200_000_000, "more than 10 minutes ahead of the clock here"),
        (now / 1000, "looks like milliseconds"),
        (now / 1_000_000, "looks like seconds"),
        (now * 1000, "looks like nanoseconds"),
    ] {
        let event = format!(
            r#"[{{"prediction_id":"x","model":"m","version":"v2"}},
                {{"prediction_id":"y","model":"m","version":"v2","completed_at":{time}}}]"#
        );
        let got = bench.post("/v1/events", &[], event).await.json();
        assert_eq!((&got["accepted"], &got["refused"]), (&1.into(), &1.into()), "{got}");
        let problem = got["problems"][0].as_str().unwrap();
        assert!(problem.starts_with("[1].completed_at: ") && problem.contains(part), "{problem}");
        let truth = format!(r#"{{"prediction_id":"a","label":1,"observed_at":{time}}}"#);
        let got = bench.post("/v1/feedback", &[], truth).await;
        let problem = got.json()["problems"][0].as_str().unwrap().to_owned();
        assert!(problem.starts_with("[0].observed_at: ") && problem.contains(part), "{problem}");
    }
    let passed_on: Vec<(i32, Prediction)> = decoded(&bench.log, "predictions");
    assert!(passed_on.iter().all(|(_, found)| found.request_id.as_str() == "x"));
    assert_eq!(Events::read(&bench.log).feedback(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_names_its_writer_and_a_reload_changes_the_writers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "token-of-yesterday").unwrap();
    let mut config = config();
    config.writers = serde_json::from_value(serde_json::json!([
        {"name": "labels", "models": ["flights", "fraud-*"], "token_file": file},
    ]))
    .unwrap();
    config.data_dir = folder.path().to_owned();
    let bench = Bench::start(config.clone()).await;
    let send = async |token: &str| {
        let bearer = format!("Bearer {token}");
        bench.post("/v1/feedback", &[("authorization", &bearer)], r#"{"prediction_id":"a","label":1}"#).await.status
    };
    assert_eq!(send("token-of-today-now").await, StatusCode::UNAUTHORIZED);
    assert_eq!(send("token-of-yesterday").await, StatusCode::ACCEPTED);
    let stamp = Events::read(&bench.log).feedback()[0].credential.clone().unwrap();
    assert_eq!((stamp.writer.as_str(), stamp.models), ("labels", vec!["flights".to_owned(), "fraud-*".to_owned()]));
    // The configuration is unchanged, but the file has changed.
    config.listen = ([127, 0, 0, 1], 0).into();
    std::fs::write(&file, "token-of-today-now").unwrap();
    bench.router.reload(config.clone()).unwrap();
    assert_eq!(send("token-of-yesterday").await, StatusCode::UNAUTHORIZED);
    assert_eq!(send("token-of-today-now").await, StatusCode::ACCEPTED);
    // An unusable configuration has no effect.
    std::fs::write(&file, "short").unwrap();
    assert!(bench.router.reload(config.clone()).unwrap_err().to_string().contains("shorter than 16 characters"));
    assert_eq!(send("token-of-today-now").await, StatusCode::ACCEPTED);
    config.writers.0.clear();
    bench.router.reload(config).unwrap();
    assert_eq!(send("").await, StatusCode::ACCEPTED, "without writers, loopback is open again");
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
    assert_eq!(Events::read(&bench.log).predictions(), [], "intake writes the event");
    let bad = bench.post("/v1/events", &[], r#"{"prediction_id":"x","model":"flights"}"#).await;
    assert_eq!(bad.json()["problems"][0], "[0].version: is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_in_seldon_s_format_is_on_the_log() {
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
    assert_eq!(got.status, StatusCode::BAD_REQUEST, "it contains no truth");
}

/// Compressed events, a leading byte order mark and a trailing slash in the path are accepted too.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_feedback_and_events_may_be_compressed() {
    use std::io::Write as _;
    let bench = Bench::start(config()).await;
    let entry = r#"{"prediction_id":"p-1","label":true}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(entry.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let post = async |path: &str, encoding: &str, body: Vec<u8>| {
        bench.post(path, &[("content-encoding", encoding)], body).await.status.as_u16()
    };
    assert_eq!(post("/v1/feedback/", "gzip", packed.clone()).await, 202);
    assert_eq!(post("/v1/feedback", "identity", [b"\xef\xbb\xbf", entry.as_bytes()].concat()).await, 202);
    assert_eq!(post("/v1/feedback", "gzip", entry.into()).await, 400);
    assert_eq!(post("/v1/feedback", "lzma", packed).await, 415);
    let zeros = vec![b' '; 4 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&zeros).unwrap();
    assert_eq!(post("/v1/feedback", "gzip", encoder.finish().unwrap()).await, 413, "a decompression bomb");
}

/// A rule looks for a tensor that answers do not have, and feedback has a label: the status reports the names that exist.
#[tokio::test(flavor = "multi_thread")]
async fn the_names_in_answers_and_feedback_are_reported() {
    let stable = Server::start(Reply::probability("0.1")).await;
    let bench = Bench::start(config()).await;
    let mut one = table(1, &stable.url(), &stable.url(), (0, 0));
    bench.route(&one).await;
    bench.infer(&[]).await;
    one.generation.0 = 2;
    one.outputs = one.outputs.replace("\"tensor\":\"", "\"tensor\":\"no_such_");
    bench.route(&one).await;
    bench.infer(&[]).await;
    bench.post("/v1/feedback", &[], r#"{"prediction_id":"a","values":{"lated":1}}"#).await;
    let (names, labels) = eventually("the names are reported", async || {
        let mut statuses = statuses(&bench.log);
        statuses.retain(|(_, status)| !status.seen_outputs.is_empty());
        let status = statuses.pop()?.1;
        let seen = status.seen_outputs.into_iter().find(|seen| seen.model.as_str() == "flights")?;
        (!status.seen_labels.is_empty()).then_some((seen.names, status.seen_labels))
    })
    .await;
    assert!(names.iter().all(|name| !name.starts_with("no_such_")) && !names.is_empty(), "{names:?}");
    assert_eq!(labels, ["lated"]);
}
