//! The intake relay: reads every format, numbers its output, and dead-letters bad input with its code.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use serin_intake::{IntakeClock, IntakeConfig, IntakeFold, IntakeTopic};
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    event::EventRecord,
    ids::{EventTime, Generation},
    records::{Arm, Assignment, Batch, Credential, Feedback, Origin, Prediction, Writer},
};
use serin_stream::{
    driver::FoldDriver,
    partition_of,
    record::{Headers, Outgoing, Target},
};

const NOW_MS: i64 = 1_000_000;

fn relay(config: IntakeConfig) -> FoldDriver {
    FoldDriver::new(move || Box::new(IntakeFold::new(config.clone(), 2, 4))).unwrap()
}

/// A prediction that a router wrote, or that claims to be one.
fn prediction() -> Prediction {
    Prediction {
        request_id: "request-1".into(),
        model: "flights".into(),
        version: "v2".into(),
        arm: Arm::Canary,
        assignment: Assignment::Random,
        origin: Origin::Router,
        rollout: Some("rollout-1".into()),
        generation: Generation(2),
        completed_at: EventTime(1_000_000),
        latency_us: Some(5_000),
        status: Some(200),
        error: None,
        invalid_output: None,
        outcome: None,
        unread: None,
        batch: None,
        unit: None,
        outputs: [("score".to_owned(), 0.8)].into(),
        classes: [].into(),
        segments: [("origin".to_owned(), "LGA".to_owned())].into(),
        writer: Writer { name: "router-0".to_owned(), incarnation: 1, seq: 1 },
    }
}

fn feedback() -> Feedback {
    Feedback {
        request_id: "request-1".into(),
        observed_at: EventTime(1_000_000),
        revision: 3,
        values: [("late".to_owned(), 1.0)].into(),
        classes: [].into(),
        writer: Writer { name: "router-1".to_owned(), incarnation: 1, seq: 9 },
        credential: None,
    }
}

fn wire<R: codec::Record>(record: &R) -> (Headers, Bytes) {
    let envelope = Envelope { id: "1", source: "/test", subject: "flights", time: EventTime(0) };
    (envelope::headers::<R>(&envelope), codec::encode(record).unwrap().into())
}

fn headers(of: &[(&str, &str)]) -> Headers {
    of.iter().copied().collect()
}

fn send(relay: &mut FoldDriver, topic: &str, of: &[(&str, &str)], body: &str) -> Option<&'static str> {
    let record = relay.record(topic, 2, NOW_MS, "any", headers(of), Some(Bytes::copy_from_slice(body.as_bytes())));
    relay.apply(&record).unwrap().poison.map(|poison| poison.code.as_str())
}

fn decode(out: &[Outgoing]) -> Vec<EventRecord> {
    out.iter().map(|record| EventRecord::decode(&record.headers, record.value.as_ref().unwrap()).unwrap()).collect()
}

fn one(relay: &mut FoldDriver) -> EventRecord {
    let out = decode(&relay.commit().unwrap());
    assert_eq!(out.len(), 1);
    out.into_iter().next().unwrap()
}

fn predicted(relay: &mut FoldDriver) -> Prediction {
    match one(relay) {
        EventRecord::Prediction(prediction) => prediction,
        other => panic!("{other:?}"),
    }
}

const JSON: [(&str, &str); 5] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "event-1"),
    ("ce_type", "dev.serin.prediction.v1"),
    ("ce_time", "1970-01-01T00:16:39.500000000Z"),
    ("content-type", "application/json"),
];

#[test]
fn documented_json_becomes_a_prediction() {
    let mut relay = relay(IntakeConfig::default());
    let body = r#"{"prediction_id":"0192","model":"fraud","version":2,"arm":"canary","assignment":"split","rollout":"r1",
        "routing_epoch":17,"unit":"h:9f2c","status":200,"error_type":null,"latency_ms":12.4,"mirror_of":null,
        "segments":{"country":"CA","tier":3},"outputs":{"score":0.83,"label":"fraud","sure":true},
        "gen_ai":{"refusal":false},"payload_ref":null}"#;
    assert_eq!(send(&mut relay, "predictions", &JSON, body), None);
    let out = relay.commit().unwrap();
    let key = partition_of(b"0192", 4);
    assert_eq!((out[0].topic, out[0].target, &out[0].key[..]), ("events", Target::Partition(key), &b"0192"[..]));
    let EventRecord::Prediction(found) = &decode(&out)[0] else { panic!() };
    assert_eq!((found.model.as_str(), found.version.as_str(), found.generation.0), ("fraud", "2", 17));
    assert_eq!((found.arm, found.assignment, found.origin), (Arm::Canary, Assignment::External, Origin::Intake));
    assert_eq!(found.completed_at, EventTime(999_500_000 + 12_400), "arrival plus latency");
    assert_eq!(found.unit, Some(serin_sketches::hash::unit("fraud", "h:9f2c")));
    assert_eq!((found.outputs["score"], found.outputs["sure"], found.classes["label"].as_str()), (0.83, 1.0, "fraud"));
    assert_eq!((found.segments["country"].as_str(), found.segments["tier"].as_str()), ("CA", "3"));
    assert_eq!(
        (found.writer.name.as_str(), found.writer.seq, found.writer.incarnation),
        ("intake-2", 1, NOW_MS * 1000)
    );
}

#[test]
fn every_envelope_is_parsed() {
    let mut relay = relay(IntakeConfig::default());
    let body = r#"{"request_id":"a","model":"m","version":"v1","outputs":{"p":0.5},"completed_at":7000000}"#;
    let structured = format!(
        r#"{{"specversion":"1.0","type":"dev.serin.prediction.v1","id":"x","source":"s","time":"1970-01-01T00:00:09Z","data":{body}}}"#
    );
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], body),
        (&[("content-type", "application/json")], body),
        (&[("Ce-Type", "dev.serin.prediction.v1"), ("Ce-Specversion", "0.3"), ("ce_null", "")], body),
        (&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")], &structured),
        (&[("content-type", "application/json")], &structured),
        (&[], &structured),
    ];
    for (headers, body) in cases {
        assert_eq!(send(&mut relay, "p.predictions", headers, body), None, "{headers:?}");
        let found = predicted(&mut relay);
        assert_eq!(
            (found.request_id.as_str(), found.completed_at, found.arm),
            ("a", EventTime(7_000_000), Arm::Stable)
        );
    }
}

#[test]
fn a_unit_has_the_same_hash_in_every_form() {
    let mut relay = relay(IntakeConfig::default());
    let mut unit = |unit: &str| {
        let body = format!(r#"{{"request_id":"a","model":"m","version":"v1","unit":{unit}}}"#);
        match send(&mut relay, "predictions", &[], &body) {
            None => Ok(predicted(&mut relay).unit),
            Some(code) => Err(code),
        }
    };
    let hash = |id: &str| Ok(Some(serin_sketches::hash::unit("m", id)));
    for same in ["\"42\"", "42", "42.0", "4.2e1"] {
        assert_eq!(unit(same), hash("42"), "{same}");
    }
    assert_eq!(unit("\"42.0\""), hash("42.0"), "a string is used verbatim");
    assert_eq!(unit("18446744073709551615"), hash("18446744073709551615"));
    assert_eq!(unit(&format!("\"{}\"", "u".repeat(256))), hash(&"u".repeat(256)));
    assert_eq!((unit("null"), unit("\"\"")), (Ok(None), Ok(None)));
    for bad in ["true", "[1]", "{}", &format!("\"{}\"", "u".repeat(257))] {
        assert_eq!(unit(bad), Err("bad_value"), "{bad}");
    }
    let (headers, body) = wire(&Prediction { unit: Some(-7), ..prediction() });
    let record = relay.record("predictions", 2, NOW_MS, "any", headers, Some(body));
    assert_eq!(relay.apply(&record).unwrap().poison, None);
    assert_eq!(predicted(&mut relay).unit, Some(-7), "an Avro writer hashes the unit itself");
}

#[test]
fn avro_records_are_renumbered() {
    let mut relay = relay(IntakeConfig::default());
    let claims = Prediction { origin: Origin::Router, ..prediction() };
    let (headers, body) = wire(&claims);
    let record = relay.record("predictions", 2, NOW_MS, "any", headers, Some(body));
    assert_eq!(relay.apply(&record).unwrap().poison, None);
    let found = predicted(&mut relay);
    assert_eq!((found.origin, found.assignment), (Origin::Intake, Assignment::External));
    assert_eq!(found.writer.name, "intake-2");
    let (headers, body) = wire(&feedback());
    let record = relay.record("feedback", 2, NOW_MS, "any", headers, Some(body));
    relay.apply(&record).unwrap();
    let EventRecord::Feedback(found) = one(&mut relay) else { panic!() };
    assert_eq!((found.revision, found.writer.seq, found.values["late"]), (3, 2, 1.0));
}

#[test]
fn feedback_in_every_form() {
    let mut relay = relay(IntakeConfig::default());
    let about = [("ce_type", "dev.serin.feedback.v1"), ("ce_correlationid", "b"), ("content-type", "application/json")];
    let mut values = |headers: &[(&str, &str)], body: &str| {
        assert_eq!(send(&mut relay, "feedback", headers, body), None, "{body}");
        let EventRecord::Feedback(found) = one(&mut relay) else { panic!() };
        (found.request_id.0.clone(), format!("{:?} {:?}", found.values, found.classes), found)
    };
    let (id, text, found) =
        values(&[], r#"{"prediction_id":"a","truth":true,"observed_at":"1970-01-01T00:00:05Z","revision":2}"#);
    assert_eq!((id.as_str(), text.as_str()), ("a", r#"{"truth": 1.0} {}"#));
    assert_eq!((found.observed_at, found.revision), (EventTime(5_000_000), 2));
    let (id, text, found) =
        values(&about, r#"{"reward":0.5,"label":"pass","score":{"name":"Relevance","value":4.0,"label":"pass"}}"#);
    assert_eq!((id.as_str(), text.as_str()), ("b", r#"{"Relevance": 4.0, "reward": 0.5} {"label": "pass"}"#));
    assert_eq!(found.observed_at, EventTime(NOW_MS * 1000), "without a time the log's time is used");
    let (_, text, _) =
        values(&about, r#"{"truth":{"late":false,"delay":-3.5,"why":"snow"},"values":{"x":1},"classes":{"c":"d"}}"#);
    assert_eq!(text, r#"{"delay": -3.5, "late": 0.0, "x": 1.0} {"c": "d", "why": "snow"}"#);
}

#[test]
fn nan_from_python_is_an_unusable_output_and_a_mirror_is_a_shadow() {
    let mut relay = relay(IntakeConfig::default());
    let body = r#"{"prediction_id":"a.m1","mirror_of":"a","model":"m","version":"v1","outputs":{"p":NaN,"q":1}}"#;
    assert_eq!(send(&mut relay, "predictions", &[], body), None);
    let found = predicted(&mut relay);
    assert_eq!(
        (found.request_id.as_str(), found.arm, found.invalid_output.as_deref()),
        ("a", Arm::Shadow, Some("null"))
    );
    assert_eq!(found.outputs.len(), 1);
}

/// Code, headers, body.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

#[test]
fn bad_input_has_its_code_and_the_relay_continues() {
    let mut relay = relay(IntakeConfig::default());
    let good = r#"{"prediction_id":"a","model":"m","version":"v1"}"#;
    let outputs: serde_json::Map<_, _> = (0..65).map(|n| (format!("o{n}"), 1.into())).collect();
    let many = serde_json::json!({"prediction_id": "a", "model": "m", "version": "v1", "outputs": outputs}).to_string();
    let huge = format!(r#"{{"prediction_id":"{}"}}"#, "x".repeat(10_000_000));
    let typed = |of: &'static str| -> Vec<(&'static str, &'static str)> {
        vec![("ce_type", of), ("content-type", "application/json")]
    };
    let avro = vec![("ce_type", "dev.serin.prediction.v1"), ("content-type", "application/avro")];
    let avro9 = vec![("ce_type", "dev.serin.prediction.v9"), ("content-type", "application/avro")];
    let cases: Vec<Case<'_>> = vec![
        ("garbage", vec![], "{not json"),
        ("garbage", avro.clone(), "\u{1}\u{2} no avro"),
        ("garbage", typed("dev.serin.prediction.v1"), "[1]"),
        ("garbage", vec![("content-type", "application/cloudevents+json")], good),
        ("garbage", vec![], r#"{"specversion":"1.0","data":"text"}"#),
        ("unknown_type", vec![], "plain words"),
        ("unknown_type", typed("org.example.other"), good),
        ("missing_id", typed("org.kubeflow.serving.inference.request"), good),
        ("unknown_schema_version", typed("dev.serin.prediction.v2"), good),
        ("unknown_schema_version", avro9, "\u{1}"),
        ("unknown_schema_version", vec![], r#"{"specversion":"2.0","data":{}}"#),
        ("too_large", vec![], &huge),
        ("too_many_values", vec![], &many),
        ("missing_id", vec![], r#"{"model":"m","version":"v1"}"#),
        ("missing_id", avro_missing(), "{}"),
        ("missing_model", vec![], r#"{"prediction_id":"a","version":"v1"}"#),
        ("missing_version", vec![], r#"{"prediction_id":"a","model":"m"}"#),
        ("negative_latency", vec![], r#"{"prediction_id":"a","model":"m","version":"v1","latency_ms":-1}"#),
        (
            "far_future",
            vec![],
            r#"{"prediction_id":"a","model":"m","version":"v1","completed_at":"2200-01-01T00:00:00Z"}"#,
        ),
        ("bad_value", vec![], r#"{"prediction_id":"a","model":"m","version":"v1","completed_at":"soon"}"#),
        ("bad_value", vec![], r#"{"prediction_id":"a","model":"m","version":"v1","arm":"left"}"#),
        ("bad_value", vec![], r#"{"prediction_id":"a","model":"m","version":"v1","outputs":{"p":[1]}}"#),
    ];
    for (code, headers, body) in &cases {
        assert_eq!(send(&mut relay, "predictions", headers, body), Some(*code), "{}", &body[..body.len().min(80)]);
    }
    assert_eq!(send(&mut relay, "feedback", &[], r#"{"prediction_id":"a","observed_at":1}"#), Some("no_truth"));
    let tombstone = relay.record("feedback", 2, NOW_MS, "any", Headers::default(), None);
    assert_eq!(relay.apply(&tombstone).unwrap().poison.unwrap().code.as_str(), "empty");
    assert_eq!(relay.commit().unwrap().len(), 0);
    assert_eq!(send(&mut relay, "predictions", &[], good), None);
    assert_eq!(predicted(&mut relay).writer.seq, 1, "refused records took no sequence number");
}

/// Headers of feedback whose body names no id.
fn avro_missing() -> Vec<(&'static str, &'static str)> {
    vec![("ce_type", "dev.serin.feedback.v1"), ("content-type", "application/json")]
}

fn beats(out: &[Outgoing]) -> Vec<(i32, i64, i64, bool)> {
    let place = |target: Target| match target {
        Target::Partition(partition) => partition,
        other => panic!("{other:?}"),
    };
    let beats = out.iter().zip(decode(out)).filter_map(|(record, event)| match event {
        EventRecord::Heartbeat(beat) => {
            Some((place(record.target), beat.writer.seq, beat.low_watermark.0 / 1_000_000, beat.leaving))
        }
        _ => None,
    });
    beats.collect()
}

#[test]
fn heartbeats_follow_the_records_and_stop_when_idle() {
    let mut relay = relay(IntakeConfig::default());
    assert!(!relay.tick(1_000_000).unwrap());
    let body = r#"{"prediction_id":"a","model":"m","version":"v1","completed_at":100000000}"#;
    let feedback = r#"{"prediction_id":"a","truth":1}"#;
    assert_eq!(send(&mut relay, "feedback", &[], feedback), None);
    assert!(!relay.tick(1_000_500).unwrap(), "feedback alone does not hold the watermark");
    assert_eq!(send(&mut relay, "predictions", &[], body), None);
    assert!(relay.tick(1_001_000).unwrap());
    let out = relay.commit().unwrap();
    let own = partition_of(b"a", 4);
    let seq = |partition| if partition == own { 2 } else { 0 };
    assert_eq!(beats(&out), (0..4).map(|p| (p, seq(p), 97, false)).collect::<Vec<_>>());
    // The sequence numbers and the outstanding heartbeat survive a crash.
    relay.crash().unwrap();
    assert!(!relay.tick(1_002_000).unwrap());
    assert!(!relay.tick(1_011_999).unwrap());
    assert!(relay.tick(1_012_000).unwrap());
    assert!(beats(&relay.commit().unwrap()).iter().all(|beat| beat.3), "intake leaves");
    assert!(!relay.tick(1_060_000).unwrap());
    assert_eq!(send(&mut relay, "predictions", &[], body), None);
    assert_eq!(predicted(&mut relay).writer.seq, 3);
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers are exact")]
fn of_the_labels_of_a_batch_those_of_the_drawn_row_are_relayed() {
    let mut relay = relay(IntakeConfig::default());
    let drawn = Batch::drawn("a", 3);
    for row in 0..3 {
        let label = format!(r#"{{"prediction_id":"a","label":{row},"row":{row},"rows":3}}"#);
        assert_eq!(send(&mut relay, "feedback", &[], &label), None);
    }
    let EventRecord::Feedback(found) = one(&mut relay) else { panic!("a label") };
    assert_eq!(found.values["label"], drawn as f64);
    assert_eq!(send(&mut relay, "feedback", &[], r#"{"prediction_id":"a","label":[0,1,2]}"#), None);
    let EventRecord::Feedback(found) = one(&mut relay) else { panic!("a label") };
    assert_eq!(found.values["label"], drawn as f64);
    assert_eq!(
        send(&mut relay, "feedback", &[], r#"{"prediction_id":"a","label":1,"row":3,"rows":3}"#),
        Some("bad_value")
    );
}

/// No event is dated later than its append time. Otherwise harm would be detected only when event time reaches a
/// wrong clock.
#[test]
fn the_log_time_replaces_a_time_that_is_ahead() {
    for clock in [IntakeClock::Wall, IntakeClock::Replay] {
        for off_s in [-300, -1, 0, 2, 3, 300, 599] {
            let mut relay = relay(IntakeConfig { clock, ..IntakeConfig::default() });
            let at = NOW_MS * 1000 + off_s * 1_000_000;
            let taken = if clock == IntakeClock::Wall && off_s > 2 { NOW_MS * 1000 } else { at };
            let call = format!(r#"{{"prediction_id":"a","model":"m","version":"v1","completed_at":{at}}}"#);
            assert_eq!(send(&mut relay, "predictions", &[], &call), None);
            assert_eq!(predicted(&mut relay).completed_at, EventTime(taken), "{off_s} s");
            let label = format!(r#"{{"prediction_id":"a","label":1,"observed_at":{at}}}"#);
            assert_eq!(send(&mut relay, "feedback", &[], &label), None);
            let EventRecord::Feedback(found) = one(&mut relay) else { panic!("a label") };
            assert_eq!(found.observed_at, EventTime(taken), "{off_s} s");
        }
    }
}

#[test]
fn a_replay_clock_suppresses_heartbeats() {
    let mut relay = relay(IntakeConfig { clock: IntakeClock::Replay, ..IntakeConfig::default() });
    let body = r#"{"prediction_id":"a","model":"m","version":"v1"}"#;
    assert_eq!(send(&mut relay, "predictions", &[], body), None);
    assert!(!relay.tick(1000).unwrap());
    assert_eq!(relay.commit().unwrap().len(), 1);
}

#[test]
fn the_topic_is_the_credential() {
    let topic = |feedback: &str, predictions: &str, models: &[&str]| IntakeTopic {
        feedback: Some(feedback.to_owned()),
        predictions: Some(predictions.to_owned()),
        models: models.iter().map(ToString::to_string).collect(),
    };
    let topics = vec![topic("team-a.feedback", "team-a.calls", &["team-a-*"])];
    let config = IntakeConfig { topics, ..IntakeConfig::default() };
    let mut relay =
        FoldDriver::new(move || Box::new(IntakeFold::new(config.clone(), 2, 4).prefixed("serin."))).unwrap();
    let mut stamped = |topic: &str, of: &[(&str, &str)], body: &str| {
        assert_eq!(send(&mut relay, topic, of, body), None, "{topic}");
        let EventRecord::Feedback(found) = one(&mut relay) else { panic!("{topic}") };
        found.credential.map(|stamp| (stamp.writer, stamp.models.join(" "))).unwrap()
    };
    let label = r#"{"prediction_id":"a","label":1,"credential":{"writer":"x","models":["*"]}}"#;
    let own = |writer: &str, models: &str| (writer.to_owned(), models.to_owned());
    assert_eq!(stamped("serin.team-a.feedback", &[], label), own("team-a.feedback", "team-a-*"));
    // The topic counts, whatever the record claims.
    let typed = [("ce_type", "dev.serin.feedback.v1"), ("content-type", "application/json")];
    assert_eq!(stamped("serin.team-a.calls", &typed, label), own("team-a.calls", "team-a-*"));
    assert_eq!(stamped("serin.feedback", &[], label), own("feedback", "*"));
    assert_eq!(stamped("serin.other.team-a.feedback", &[], label), own("feedback", "*"));
    let call = |model: &str| format!(r#"{{"prediction_id":"a","model":"{model}","version":"v1"}}"#);
    assert_eq!(send(&mut relay, "serin.team-a.calls", &[], &call("team-a-fraud")), None);
    assert_eq!(predicted(&mut relay).model.as_str(), "team-a-fraud");
    for topic in ["serin.team-a.calls", "serin.team-a.feedback"] {
        let typed = [("ce_type", "dev.serin.prediction.v1"), ("content-type", "application/json")];
        assert_eq!(send(&mut relay, topic, &typed, &call("team-b-fraud")), Some("not_allowed"));
    }
    assert_eq!(send(&mut relay, "serin.predictions", &[], &call("team-b-fraud")), None);
}

#[test]
fn a_claimed_credential_is_replaced_by_that_of_the_topic() {
    let mut relay = relay(IntakeConfig::default());
    let credential = Some(Credential { writer: "forged".to_owned(), models: vec!["flights".to_owned()] });
    let claims = Feedback { credential, ..feedback() };
    let (headers, body) = wire(&claims);
    let record = relay.record("feedback", 2, NOW_MS, "any", headers, Some(body));
    relay.apply(&record).unwrap();
    let EventRecord::Feedback(found) = one(&mut relay) else { panic!() };
    assert_eq!(found.credential, Some(Credential { writer: "feedback".to_owned(), models: vec!["*".to_owned()] }));
}

#[test]
fn reasons_name_the_member_and_a_confluent_prefix() {
    let mut relay = relay(IntakeConfig::default());
    let mut reason = |topic: &str, of: &[(&str, &str)], body: &str| {
        let record = relay.record(topic, 2, NOW_MS, "any", headers(of), Some(Bytes::copy_from_slice(body.as_bytes())));
        let poison = relay.apply(&record).unwrap().poison.unwrap();
        format!("{} {}", poison.code, poison.message)
    };
    let late = r#"{"prediction_id":"a","model":"m","version":"v1","latency_ms":-1}"#;
    assert_eq!(reason("predictions", &[], late), "negative_latency latency_ms: -1; a latency cannot be negative");
    let long = r#"{"prediction_id":"a","model":"m","version":"v1","latency_ms":1e300}"#;
    assert!(reason("predictions", &[], long).starts_with("bad_value latency_ms: "));
    let confluent = "\0\0\0\0\u{7}{\"prediction_id\":\"a\",\"label\":1}";
    for of in [
        &[][..],
        &[("content-type", "application/json")],
        &[("ce_type", "dev.serin.feedback.v1"), ("content-type", "application/avro")],
        &[("ce_type", "dev.serin.feedback.v1"), ("content-type", "application/json")],
    ] {
        let found = reason("feedback", of, confluent);
        assert!(found.contains("five bytes of Confluent") && found.contains("schema id 7"), "{of:?}: {found}");
    }
    let locked = r#"{"prediction_id":"a","label":1,"revision":9223372036854775807}"#;
    assert!(reason("feedback", &[], locked).starts_with("bad_revision revision: "));
}

#[test]
fn a_structured_event_may_carry_base64() {
    let mut relay = relay(IntakeConfig::default());
    // {"label":1}
    let event = r#"{"specversion":"1.0","type":"dev.serin.feedback.v1","id":"x","source":"s","correlationid":"p",
        "datacontenttype":"application/json","data_base64":"eyJsYWJlbCI6MX0="}"#;
    assert_eq!(send(&mut relay, "feedback", &[("content-type", "application/cloudevents+json")], event), None);
    let EventRecord::Feedback(found) = one(&mut relay) else { panic!() };
    assert_eq!((found.request_id.as_str(), found.values["label"]), ("p", 1.0));
}
