//! Doors of a running Serin: the halves of a call meet, although Serin restarts between them, and a half that stays alone is dead-lettered.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::Value;
use serin_schemas::ids::EventTime;
use support::{PATIENCE, Pipeline, http_with, wait_until};

/// Sends one event of `KServe`'s payload logger, with the time of now.
fn half(pipeline: &Pipeline, id: &str, part: &str, body: &str) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
    let (kind, time) =
        (format!("org.kubeflow.serving.inference.{part}"), EventTime(now).to_rfc3339().unwrap_or_default());
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-type", &kind),
        ("ce-id", id),
        ("ce-source", "http://localhost:9081/"),
        ("ce-time", &time),
        ("ce-inferenceservicename", "fraud"),
        ("ce-metadata", r#"{"X-User-Id":["u1"]}"#),
        ("content-type", "application/json"),
    ];
    let answer = http_with(
        Method::POST,
        &format!("{}/v1/doors/kserve", pipeline.router()),
        &headers,
        Some(body.as_bytes().to_vec()),
    )?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
    Ok(())
}

/// Waits for a record of a topic.
fn wait_for(pipeline: &Pipeline, topic: &str, found: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut record = None;
    wait_until(PATIENCE, || {
        record = pipeline.tail(topic)?.into_iter().find(|record| found(&record["value"]));
        Ok(record.is_some())
    })?;
    Ok(record.unwrap_or_default()["value"].take())
}

#[test]
fn halves_meet_across_a_restart_and_one_that_stays_alone_is_dead_lettered() -> Result<()> {
    let settings = ["topology.partitions=2", "doors.pair_within=1h", "doors.kserve.unit=metadata:x-user-id"];
    let mut pipeline = Pipeline::embedded(&settings)?;
    for call in 0..8 {
        half(&pipeline, &format!("call-{call}"), "request", r#"{"inputs":[{"name":"private"}]}"#)?;
    }
    pipeline.stop("up")?;
    pipeline.start("up")?;
    pipeline.ready()?;
    let answer = r#"{"model_version":"v2","outputs":[{"name":"score","shape":[1],"data":[0.83]}]}"#;
    for call in 0..8 {
        half(&pipeline, &format!("call-{call}"), "response", answer)?;
    }
    for call in 0..8 {
        let event = wait_for(&pipeline, "events", |value| value["request_id"] == format!("call-{call}"))?;
        ensure!(event["version"] == "v2" && event["outputs"]["score"] == 0.83 && event["status"] == 200, "{event:#}");
        ensure!(
            event["latency_us"].as_i64().is_some_and(|latency| latency > 0) && !event["unit"].is_null(),
            "{event:#}"
        );
    }
    let raw = pipeline.tail("predictions")?;
    ensure!(!raw.is_empty() && raw.iter().all(|record| !record.to_string().contains("private")), "{raw:#?}");

    pipeline.stop("up")?;
    pipeline.start_with("up", &["--set", "doors.pair_within=100ms"])?;
    pipeline.ready()?;
    half(&pipeline, "alone", "request", "{}")?;
    let mut later = 0;
    wait_until(PATIENCE, || {
        // The log's time passes with the records of the same partition.
        later += 1;
        half(&pipeline, &format!("later-{later}"), "request", "{}")?;
        Ok(pipeline.tail("dead-letters")?.iter().any(|letter| letter["value"]["code"] == "unpaired"))
    })?;
    let letter = wait_for(&pipeline, "dead-letters", |value| value["message"].to_string().contains("alone"))?;
    ensure!(
        letter["code"] == "unpaired" && letter["stage"] == "intake" && letter["topic"] == "predictions",
        "{letter:#}"
    );
    Ok(())
}
