//! Requests and responses of payload loggers: they are paired across partitions, restarts and repetitions.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use serin_doors::{DoorRules, half};
use serin_intake::{IntakeConfig, IntakeFold, IntakeTopic};
use serin_schemas::{
    codec,
    event::EventRecord,
    records::{DeadLetter, Prediction},
};
use serin_spec::units::Duration;
use serin_stream::{
    driver::FoldDriver,
    partition_of,
    record::{Headers, Outgoing, Target},
};

const NOW_MS: i64 = 1_764_480_000_000;
const PARTITIONS: i32 = 4;
const ANSWER: &str = r#"{"model_version":"v2","outputs":[{"name":"score","shape":[1],"data":[0.83]}]}"#;

fn relay(partition: i32, doors: DoorRules) -> FoldDriver {
    let topics = vec![IntakeTopic { feedback: None, predictions: Some("team".into()), models: vec!["team-*".into()] }];
    let config = IntakeConfig { doors, topics, ..IntakeConfig::default() };
    FoldDriver::new(move || Box::new(IntakeFold::new(config.clone(), partition, PARTITIONS))).unwrap()
}

/// An id whose call belongs to this partition.
fn id(partition: i32) -> String {
    (0..1000).map(|n| format!("call-{n}")).find(|id| partition_of(id.as_bytes(), PARTITIONS) == partition).unwrap()
}

/// The headers of `KServe`'s events, as Knative writes them to Kafka.
fn headers(id: &str, part: &str) -> Vec<(String, String)> {
    let time = if part == "request" { "2025-11-30T05:19:59.1Z" } else { "2025-11-30T05:19:59.1124Z" };
    [
        ("ce_specversion", "1.0"),
        ("ce_type", &format!("org.kubeflow.serving.inference.{part}")),
        ("ce_id", id),
        ("ce_source", "http://localhost:9081/"),
        ("ce_time", time),
        ("ce_inferenceservicename", "fraud"),
        ("content-type", "application/json"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn send(
    relay: &mut FoldDriver,
    topic: &str,
    partition: i32,
    at_ms: i64,
    headers: &[(String, String)],
    body: &str,
) -> Option<&'static str> {
    let headers: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let record = relay.record(topic, partition, at_ms, "", headers, Some(body));
    relay.apply(&record).unwrap().poison.map(|poison| poison.code.as_str())
}

fn half(relay: &mut FoldDriver, partition: i32, at_ms: i64, id: &str, part: &str) -> Option<&'static str> {
    let body = if part == "request" { r#"{"inputs":[]}"# } else { ANSWER };
    send(relay, "predictions", partition, at_ms, &headers(id, part), body)
}

fn predictions(out: &[Outgoing]) -> Vec<Prediction> {
    let events = out.iter().filter(|record| record.topic == "events");
    let read = events.map(|record| EventRecord::decode(&record.headers, record.value.as_ref().unwrap()).unwrap());
    read.map(|event| if let EventRecord::Prediction(found) = event { found } else { panic!("{event:?}") }).collect()
}

fn letters(out: &[Outgoing]) -> Vec<DeadLetter> {
    let letters = out.iter().filter(|record| record.topic == "dead-letters");
    letters.map(|record| codec::read(&record.headers, record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn both_parts_become_one_prediction_in_either_order_and_across_a_crash() {
    for (first, second, crash) in
        [("request", "response", false), ("response", "request", false), ("request", "response", true)]
    {
        let mut relay = relay(2, DoorRules::default());
        let id = id(2);
        assert_eq!(half(&mut relay, 2, NOW_MS, &id, first), None);
        assert_eq!(relay.commit().unwrap(), []);
        if crash {
            // Not committed, so read again.
            half(&mut relay, 2, NOW_MS, &id, second);
            relay.crash().unwrap();
        }
        assert_eq!(half(&mut relay, 2, NOW_MS, &id, second), None);
        let found = predictions(&relay.commit().unwrap());
        assert_eq!(found.len(), 1);
        let call = &found[0];
        assert_eq!((call.request_id.as_str(), call.model.as_str(), call.version.as_str()), (&*id, "fraud", "v2"));
        assert_eq!((call.latency_us, call.status, call.outputs["score"]), (Some(12_400), Some(200), 0.83));
    }
}

#[test]
fn parts_that_arrive_twice_count_once() {
    let mut relay = relay(2, DoorRules::default());
    let id = id(2);
    for part in ["request", "request", "response", "response", "request"] {
        assert_eq!(half(&mut relay, 2, NOW_MS, &id, part), None);
    }
    relay.crash().unwrap();
    for part in ["request", "response", "request"] {
        half(&mut relay, 2, NOW_MS, &id, part);
    }
    assert_eq!(predictions(&relay.commit().unwrap()).len(), 1);
    relay.crash().unwrap();
    half(&mut relay, 2, NOW_MS, &id, "response");
    assert_eq!(relay.commit().unwrap(), []);
}

#[test]
fn a_part_in_another_partition_is_sent_to_that_of_its_call() {
    let mut other = relay(0, DoorRules::default());
    let id = id(2);
    half(&mut other, 0, NOW_MS, &id, "response");
    let out = other.commit().unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].topic, out[0].target, &out[0].key[..]), ("predictions", Target::Partition(2), id.as_bytes()));
    assert_eq!(out[0].headers.get("ce_type"), Some(half::TYPE.as_bytes()));
    let value = out[0].value.clone().unwrap();
    assert!(!String::from_utf8_lossy(&value).contains("outputs\":["), "the raw payload is dropped");
    let mut owner = relay(2, DoorRules::default());
    half(&mut owner, 2, NOW_MS, &id, "request");
    let record = owner.record("predictions", 2, NOW_MS, out[0].key.clone(), out[0].headers.clone(), Some(value));
    assert_eq!(owner.apply(&record).unwrap().poison, None);
    let found = predictions(&owner.commit().unwrap());
    assert_eq!((found.len(), found[0].outputs["score"]), (1, 0.83));
}

#[test]
fn a_part_that_stays_alone_is_dead_lettered_in_log_time() {
    let doors = DoorRules { pair_within: Duration::from_secs(60), ..DoorRules::default() };
    let mut relay = relay(2, doors);
    let (alone, paired) = (id(2), format!("{}-b", id(2)));
    let paired =
        (0..1000).map(|n| format!("{paired}{n}")).find(|id| partition_of(id.as_bytes(), PARTITIONS) == 2).unwrap();
    half(&mut relay, 2, NOW_MS, &alone, "request");
    half(&mut relay, 2, NOW_MS, &paired, "request");
    half(&mut relay, 2, NOW_MS, &paired, "response");
    relay.commit().unwrap();
    relay.crash().unwrap();
    relay.tick(NOW_MS).unwrap();
    let body = r#"{"request_id":"x","model":"m","version":"v1"}"#;
    send(&mut relay, "predictions", 2, NOW_MS + 59_999, &[], body);
    assert_eq!(letters(&relay.commit().unwrap()), []);
    // The wall clock does not matter.
    relay.tick(NOW_MS + 600_000).unwrap();
    send(&mut relay, "predictions", 2, NOW_MS + 60_000, &[], body);
    let found = letters(&relay.commit().unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code.as_str(), found[0].offset, found[0].key.as_slice()), ("unpaired", 0, alone.as_bytes()));
    assert!(
        found[0].message.starts_with(&format!("the request of call {alone:?} of kserve waited for 1m")),
        "{found:?}"
    );
    assert!(relay.rows().keys().all(|key| !key.starts_with(b"half/")), "rows of ended calls are removed");
    // Its other part comes too late, and waits on its own.
    half(&mut relay, 2, NOW_MS + 60_001, &alone, "response");
    assert_eq!(predictions(&relay.commit().unwrap()).len(), 0);
}

/// The intake was down for longer than parts wait. The other part is in the backlog of another task, or a part waited before the outage.
#[test]
fn parts_in_the_backlogs_of_several_partitions_meet_after_an_outage() {
    for before in [false, true] {
        let (mut other, mut owner) = (relay(0, DoorRules::default()), relay(2, DoorRules::default()));
        let (id, present) = (id(2), NOW_MS + 600_000);
        if before {
            half(&mut owner, 2, NOW_MS, &id, "response");
            owner.commit().unwrap();
            owner.crash().unwrap();
        }
        other.tick(present).unwrap();
        owner.tick(present).unwrap();
        if !before {
            half(&mut owner, 2, NOW_MS, &id, "response");
        }
        half(&mut other, 0, NOW_MS, &id, "request");
        let sent = other.commit().unwrap().remove(0);
        // The owner reaches the end of its own backlog first.
        let alone = r#"{"request_id":"x","model":"m","version":"v1"}"#;
        send(&mut owner, "predictions", 2, present, &[], alone);
        let record = owner.record("predictions", 2, present + 1000, sent.key, sent.headers, sent.value);
        assert_eq!(owner.apply(&record).unwrap().poison, None);
        let out = owner.commit().unwrap();
        assert_eq!((letters(&out), predictions(&out).len()), (Vec::new(), 2), "{before}");
    }
}

#[test]
fn calls_that_are_paired_end_before_calls_that_wait() {
    let mut relay = relay(2, DoorRules { max_pairs: 3, ..DoorRules::default() });
    let ids: Vec<String> =
        (0..).map(|n| format!("c{n}")).filter(|id| partition_of(id.as_bytes(), PARTITIONS) == 2).take(20).collect();
    half(&mut relay, 2, NOW_MS, &ids[0], "request");
    for id in &ids[1..] {
        half(&mut relay, 2, NOW_MS + 1000, id, "request");
        half(&mut relay, 2, NOW_MS + 1000, id, "response");
    }
    half(&mut relay, 2, NOW_MS + 2000, &ids[0], "response");
    let out = relay.commit().unwrap();
    assert_eq!((letters(&out), predictions(&out).len()), (Vec::new(), 20));
}

#[test]
fn the_number_of_waiting_calls_is_bounded() {
    let mut relay = relay(2, DoorRules { max_pairs: 3, ..DoorRules::default() });
    let ids: Vec<String> =
        (0..).map(|n| format!("c{n}")).filter(|id| partition_of(id.as_bytes(), PARTITIONS) == 2).take(6).collect();
    for id in &ids {
        half(&mut relay, 2, NOW_MS, id, "request");
    }
    let found = letters(&relay.commit().unwrap());
    assert!(found[0].message.contains("waited for 0s of the log's time, and doors.max_pairs"), "{found:?}");
    let keys: Vec<Vec<u8>> = found.into_iter().map(|letter| letter.key).collect();
    assert_eq!(keys, [ids[0].as_bytes(), ids[1].as_bytes()], "the oldest end first");
    assert!(relay.rows().len() <= 6);
}

#[test]
fn parts_of_other_models_and_sources_are_other_calls() {
    let mut relay = relay(2, DoorRules::default());
    let id = id(2);
    half(&mut relay, 2, NOW_MS, &id, "request");
    for (name, value) in [("ce_inferenceservicename", "other"), ("ce_source", "http://elsewhere/")] {
        let mut response = headers(&id, "response");
        response.iter_mut().filter(|(found, _)| found == name).for_each(|entry| entry.1 = value.to_owned());
        assert_eq!(send(&mut relay, "predictions", 2, NOW_MS, &response, ANSWER), None);
    }
    assert_eq!(predictions(&relay.commit().unwrap()).len(), 0);
}

#[test]
fn a_topic_reports_on_its_own_models() {
    let mut relay = relay(2, DoorRules::default());
    assert_eq!(send(&mut relay, "team", 2, NOW_MS, &headers(&id(2), "request"), "{}"), Some("not_allowed"));
    let mut own = headers(&id(2), "request");
    own[5].1 = "team-fraud".to_owned();
    assert_eq!(send(&mut relay, "team", 2, NOW_MS, &own, "{}"), None);
}

#[test]
fn what_cannot_be_read_has_a_code() {
    let mut relay = relay(2, DoorRules::default());
    let id = id(2);
    let without = |name: &str| -> Vec<(String, String)> {
        headers(&id, "response").into_iter().filter(|(found, _)| found != name).collect()
    };
    let mut code = |headers: &[(String, String)], body: &str| send(&mut relay, "predictions", 2, NOW_MS, headers, body);
    assert_eq!(code(&without("ce_id"), ANSWER), Some("missing_id"));
    assert_eq!(code(&without("ce_inferenceservicename"), ANSWER), Some("missing_model"));
    let named = [("ce_type".to_owned(), half::TYPE.to_owned())];
    assert_eq!(code(&named, "{"), Some("garbage"));
    assert_eq!(code(&without("ce_time"), &"x".repeat(1_000_001)), Some("too_large"));
    // A pair without a version: the second part is refused, and the first one still waits.
    assert_eq!(code(&headers(&id, "request"), "{}"), None);
    assert_eq!(code(&headers(&id, "response"), r#"{"predictions":[1]}"#), Some("missing_version"));
}

#[test]
fn structured_events_and_seldons_headers_are_read() {
    let mut relay = relay(2, DoorRules::default());
    let id = id(2);
    let structured = |part: &str, body: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"org.kubeflow.serving.inference.{part}","id":"{id}","source":"s",
                "time":"2025-11-30T05:19:59Z","inferenceservicename":"fraud","data":{body}}}"#
        )
    };
    for (part, body) in [("request", "{}"), ("response", ANSWER)] {
        let content = [("content-type".to_owned(), "application/cloudevents+json".to_owned())];
        assert_eq!(send(&mut relay, "predictions", 2, NOW_MS, &content, &structured(part, body)), None);
    }
    assert_eq!(predictions(&relay.commit().unwrap())[0].outputs.get("score"), Some(&0.83));
    for (part, body) in [("request", "{}"), ("response", r#"{"data":{"names":["p"],"ndarray":[[0.25]]}}"#)] {
        let seldon = [
            ("type", format!("io.seldon.serving.inference.{part}")),
            ("content-type", "application/json".to_owned()),
            ("modelid", "classifier".to_owned()),
            ("requestid", id.clone()),
            ("inferenceservicename", "fraud".to_owned()),
            ("endpoint", "canary".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        assert_eq!(send(&mut relay, "predictions", 2, NOW_MS, &seldon, body), None);
    }
    let found = predictions(&relay.commit().unwrap());
    assert_eq!((found[0].version.as_str(), found[0].outputs["p"], found[0].latency_us), ("canary", 0.25, None));
}
