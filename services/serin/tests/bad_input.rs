//! Bad input from outside: each kind ends in a clear error or in a dead letter, and the pipeline goes on.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use reqwest::Method;
use serde_json::{Value, json};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    ids::{EventTime, Generation},
    records::{Arm, Heartbeat, Route, RoutingTable, Writer},
};
use serin_tests::kafka::{Broker, unique_prefix};

use support::{PATIENCE, Pipeline, http, http_with, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, infer, model_server, rollout, unreachable_url, wall};

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// A foreign producer.
struct ForeignProducer {
    producer: BaseProducer,
    prefix: String,
}

impl ForeignProducer {
    fn new(broker: &Broker, prefix: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap()).set("compression.type", "gzip");
        config.set("message.max.bytes", "20000000").set("message.timeout.ms", "20000");
        Self { producer: config.create().unwrap(), prefix: prefix.to_owned() }
    }

    fn send(&self, topic: &str, partition: Option<i32>, key: &str, headers: &[(&str, &str)], body: &[u8]) {
        let topic = format!("{}{topic}", self.prefix);
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(*value) });
        }
        let mut record = BaseRecord::to(&topic).key(key).payload(body).headers(owned);
        record.partition = partition;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn json(&self, topic: &str, key: &str, body: &Value) {
        self.send(topic, None, key, &[("content-type", "application/json")], body.to_string().as_bytes());
    }

    fn avro<R: Record>(&self, topic: &str, partition: Option<i32>, key: &str, record: &R) {
        let envelope = Envelope { id: "1", source: "/tests", subject: "", time: EventTime(now_us()) };
        let headers = envelope::headers::<R>(&envelope);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name, str::from_utf8(value).unwrap())).collect();
        self.send(topic, partition, key, &headers, &codec::encode(record).unwrap());
    }

    fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// Number of dead letters by source topic and code.
fn dead_letters(pipeline: &Pipeline) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for record in pipeline.tail("dead-letters").unwrap() {
        let text = |name: &str| record["value"][name].as_str().unwrap_or_default().to_owned();
        assert!(!text("message").is_empty() && !text("stage").is_empty(), "{record}");
        *found.entry((text("topic"), text("code"))).or_default() += 1;
    }
    found
}

/// Waits until there are the given numbers of dead letters. Panics with the missing ones on timeout.
fn wait_for_dead_letters(pipeline: &Pipeline, prefix: &str, wanted: &[(&str, &str, usize)]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = dead_letters(pipeline);
        let count =
            |topic: &str, code: &str| found.get(&(format!("{prefix}{topic}"), code.to_owned())).copied().unwrap_or(0);
        let missing: Vec<_> = wanted.iter().filter(|(topic, code, n)| count(topic, code) < *n).collect();
        if missing.is_empty() {
            assert!(wanted.iter().all(|(topic, code, n)| count(topic, code) == *n), "more than expected: {found:?}");
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            return;
        }
        assert!(Instant::now() < deadline, "missing: {missing:?}; there are {found:?}");
    }
}

/// Waits until a verdict includes windows from after the current time.
fn goes_on(user: &User) {
    let now = now_us();
    let mut seen = Value::Null;
    wait_until(PATIENCE, || {
        let run = user.run(&["explain", MODEL, "--output", "json"]);
        seen = if run.code == 0 { run.json()["as_of"].take() } else { Value::Null };
        Ok(seen.as_i64().is_some_and(|as_of| as_of > now))
    })
    .unwrap_or_else(|error| panic!("{error}: no window after {now} was judged; the last ended at {seen}"));
}

/// Sum of a metric's samples whose labels contain `label`.
fn metric(pipeline: &Pipeline, role: &str, name: &str, label: &str) -> f64 {
    let text = http(Method::GET, &format!("{}/metrics", pipeline.telemetry(role)), None).unwrap().text;
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn wait_for_metric(pipeline: &Pipeline, role: &str, name: &str, label: &str) {
    wait_until(PATIENCE, || Ok(metric(pipeline, role, name, label) > 0.0))
        .unwrap_or_else(|error| panic!("{error} for {name} {label}"));
}

/// All roles on Kafka, with a baking rollout and callers.
fn baking_on_kafka(prefix: &str) -> (Pipeline, User, Traffic, ForeignProducer) {
    let broker = Broker::shared().unwrap();
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let settings = wall(&[("v1", &v1), ("v2", &v2)]);
    let pipeline = Pipeline::kafka(broker.bootstrap(), prefix, &borrowed(&settings)).unwrap();
    let user = User(pipeline.api());
    let traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "2h"));
    user.wait_for_phase(&id, "baking");
    (pipeline, user, traffic, ForeignProducer::new(broker, prefix))
}

#[test]
fn foreign_records_on_kafka_become_dead_letters_and_the_pipeline_goes_on() {
    let prefix = unique_prefix("foreign");
    let (pipeline, user, traffic, foreigner) = baking_on_kafka(&prefix);
    traffic.wait_for("canary", 200, 1);
    let good =
        |id: &str| json!({"prediction_id": id, "model": MODEL, "version": "v2", "outputs": {"probability": 0.5}});
    let with = |id: &str, name: &str, value: Value| {
        let mut body = good(id);
        body[name] = value;
        body
    };
    let unknown_version =
        [("ce_specversion", "1.0"), ("ce_id", "x"), ("ce_source", "/x"), ("content-type", "application/avro")];
    let typed = |name: &'static str| [&unknown_version[..], &[("ce_type", name)]].concat();
    let large = vec![b'0'; 10_000_000];

    // The public topics.
    foreigner.send("predictions", None, "a", &[], b"\xff\x00 no event");
    foreigner.send("predictions", None, "a", &typed("dev.serin.prediction.v1"), b"\xff\x00 no event");
    foreigner.send("predictions", None, "a", &[("content-type", "application/json")], b"{\"prediction_id\": ");
    foreigner.send("predictions", None, "b", &typed("dev.serin.prediction.v99"), b"????");
    foreigner.json("predictions", "c", &with("c", "completed_at", json!(now_us() + 400_000_000_000)));
    foreigner.json("predictions", "d", &with("d", "latency_ms", json!(-1)));
    foreigner.send("predictions", None, "e", &[], &large);
    foreigner.send("feedback", None, "f", &[], b"\xff\x00 no event");
    foreigner.send("feedback", None, "g", &typed("dev.serin.feedback.v99"), b"????");
    foreigner.json("feedback", "h", &json!({"prediction_id": "h"}));
    // NaN does not cause a dead letter: the answer is counted as unusable.
    let nan = good("nan").to_string().replace("0.5", "NaN");
    foreigner.send("predictions", None, "nan", &[("content-type", "application/json")], nan.as_bytes());
    // Serin's own topics.
    foreigner.send("events", Some(0), "i", &[], b"garbage");
    foreigner.send("events", Some(0), "i", &typed("dev.serin.prediction.v1"), b"garbage");
    foreigner.send("events", Some(0), "j", &typed("dev.serin.prediction.v99"), b"????");
    foreigner.send("events", Some(1), "k", &typed("dev.serin.mystery.v1"), b"????");
    foreigner.send("events", Some(1), "l", &typed("dev.serin.prediction.v1"), &large);
    foreigner.send("commands", Some(0), "m", &typed("dev.serin.command.v1"), b"garbage");
    foreigner.send("windows", Some(0), "n", &typed("dev.serin.window_closed.v1"), b"garbage");
    foreigner.flush();
    // Kafka refuses a record that is too large, so it fails in the producer.
    let mut noise = Vec::with_capacity(10_000_000);
    let mut state = 1_u64;
    noise.resize_with(10_000_000, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    foreigner.send("predictions", None, "o", &[], &noise);
    foreigner.flush();

    wait_for_dead_letters(
        &pipeline,
        &prefix,
        &[
            ("predictions", "garbage", 2),
            ("predictions", "unknown_type", 1),
            ("predictions", "unknown_schema_version", 1),
            ("predictions", "far_future", 1),
            ("predictions", "negative_latency", 1),
            ("predictions", "too_large", 1),
            ("feedback", "unknown_type", 1),
            ("feedback", "unknown_schema_version", 1),
            ("feedback", "no_truth", 1),
            ("events", "garbage", 1),
            ("events", "unknown_schema_version", 1),
            ("events", "unknown_type", 2),
            ("events", "too_large", 1),
            ("commands", "garbage", 1),
            ("windows", "garbage", 1),
        ],
    );
    wait_for_metric(&pipeline, "aggregator", "serin_stream_dead_letter_codes_total", "unknown_schema_version");
    let relayed =
        |record: &Value| record["value"]["request_id"] == "nan" && record["value"]["invalid_output"] == "null";
    wait_until(PATIENCE, || Ok(pipeline.tail("events")?.iter().any(relayed))).unwrap();
    goes_on(&user);
}

#[test]
fn dead_routers_and_old_tables_change_nothing() {
    let prefix = unique_prefix("dead");
    let (pipeline, user, traffic, foreigner) = baking_on_kafka(&prefix);
    let beat = |name: &str, low_watermark| Heartbeat {
        writer: Writer { name: name.to_owned(), incarnation: 1, seq: 0 },
        low_watermark: EventTime(low_watermark),
        drops: Vec::new(),
        leaving: false,
        sent_at: None,
        relay: false,
    };
    // A predecessor of the running router, from the future, and an unknown router from 1970.
    for partition in 0..2 {
        foreigner.avro("events", Some(partition), "", &beat("router-0", now_us() + 86_400_000_000));
        foreigner.avro("events", Some(partition), "", &beat("router-ghost", 1));
    }
    foreigner.flush();
    wait_for_metric(&pipeline, "aggregator", "serin_skewed_heartbeats_total", "");
    goes_on(&user);

    // A table of an older generation, which would send all calls to an unreachable server, and garbage.
    let before = http(Method::GET, &format!("{}/tables", pipeline.admin()), None).unwrap().json().unwrap();
    let generation = before["tables"][0]["generation"].as_i64().unwrap();
    assert!(generation > 1, "{before:#}");
    let route = |arm, share, url: &str| Route { version: "v9".into(), arm, share, url: Some(url.to_owned()) };
    let old = RoutingTable {
        model: MODEL.into(),
        generation: Generation(generation - 1),
        lease_seq: 9,
        lease_ms: 0,
        rollout: None,
        salt: "x".to_owned(),
        sticky: None,
        routes: vec![route(Arm::Stable, 10_000, &unreachable_url())],
        segments: "[]".to_owned(),
        outputs: "[]".to_owned(),
        fallback: false,
        policy: String::new(),
        reason: "an old controller".to_owned(),
        decided_at: EventTime(now_us()),
    };
    let partition = Some(serin_stream::partition_of(MODEL.as_bytes(), 2));
    foreigner.avro("routing", partition, MODEL, &old);
    foreigner.send("routing", partition, "other", &[], b"garbage");
    foreigner.flush();
    for outcome in ["older", "garbage"] {
        wait_for_metric(&pipeline, "router", "serin_router_tables_total", outcome);
    }
    let after = http(Method::GET, &format!("{}/tables", pipeline.admin()), None).unwrap().json().unwrap();
    assert_eq!(after["tables"][0]["generation"], generation, "{after:#}");
    traffic.wait_for("canary", 200, 3);
    goes_on(&user);
}

#[test]
fn bad_http_is_refused_and_feedback_counts_once() {
    let v1 = model_server(Behavior::Good);
    let v2 = model_server(Behavior::Good);
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "2h"));
    user.wait_for_phase(&id, "baking");
    let post = |path: &str, body: &[u8]| {
        http_with(Method::POST, &format!("{}{path}", pipeline.router()), &[], Some(body.to_vec())).unwrap()
    };

    let large = vec![b' '; 10_000_000];
    for (path, body, status) in [
        ("/v1/feedback", &b"\xff\x00"[..], 400),
        ("/v1/feedback", b"{}", 400),
        ("/v1/feedback", &large, 413),
        ("/v1/events", b"\xff\x00", 400),
        ("/v1/events", &large, 413),
        ("/v2/models/unknown/infer", b"{}", 404),
    ] {
        let answer = post(path, body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json().unwrap()["error"].as_str().unwrap().len() > 10, "{answer:?}");
    }
    // The API answers before it has read the body. A body larger than the socket buffers would fail with a broken pipe.
    let spec = vec![b' '; 300_000];
    let answer = http_with(Method::POST, &format!("{}/v1/rollouts", pipeline.api()), &[], Some(spec)).unwrap();
    assert_eq!(answer.status, 413, "{answer:?}");

    // A label for an unknown prediction is accepted and waits. A repeated label counts once.
    assert_eq!(post("/v1/feedback", br#"{"prediction_id": "unknown", "label": true}"#).status, 202);
    let answer = post(&format!("/v2/models/{MODEL}/infer"), infer().to_string().as_bytes());
    let truth = json!({"prediction_id": answer.headers["x-prediction-id"], "values": {"late": 0}}).to_string();
    for _ in 0..2 {
        assert_eq!(post("/v1/feedback", truth.as_bytes()).status, 202);
    }
    wait_for_metric(&pipeline, "up", "serin_label_join_total", "joined");
    wait_for_metric(&pipeline, "up", "serin_label_join_total", "repeated");
    // Another value without a later revision is accepted, and counted as a contradiction.
    let other = json!({"prediction_id": answer.headers["x-prediction-id"], "values": {"late": "1"}}).to_string();
    assert_eq!(post("/v1/feedback", other.as_bytes()).status, 202);
    wait_for_metric(&pipeline, "up", "serin_label_contradictions_total", "");
    // The same for calls of the comparison is shown with the rollout.
    wait_until(PATIENCE, || {
        let answer = post(&format!("/v2/models/{MODEL}/infer"), infer().to_string().as_bytes());
        for late in [0, 1] {
            let label = json!({"prediction_id": answer.headers["x-prediction-id"], "values": {"late": late}});
            assert_eq!(post("/v1/feedback", label.to_string().as_bytes()).status, 202);
        }
        let shows = |verb: &str| {
            let page = user.run(&[verb, MODEL]).out.split_whitespace().collect::<Vec<_>>().join(" ");
            page.contains("name another value than an earlier label of the same prediction, and are ignored")
        };
        Ok(shows("get") && shows("explain"))
    })
    .unwrap();
    let reply = post("/v1/feedback", br#"{"prediction_id": "...", "values": {"late": 1}}"#);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.text.contains("has no letter or digit; send the `x-prediction-id` of the answer"), "{reply:?}");

    // Invalid events from model servers are refused one by one, and the good one is accepted.
    let odd = json!([
        {"prediction_id": "a", "model": MODEL, "version": "v2", "latency_ms": -3},
        {"prediction_id": "b", "model": MODEL, "version": "v2", "completed_at": now_us() + 400_000_000_000_i64},
        {"prediction_id": "c", "model": MODEL, "version": "v2", "outputs": {"probability": null}},
    ]);
    let answer = post("/v1/events", odd.to_string().as_bytes());
    assert_eq!(answer.status, 207, "{answer:?}");
    let reply = answer.json().unwrap();
    assert_eq!((&reply["accepted"], &reply["refused"]), (&json!(1), &json!(2)), "{reply}");
    let problems: Vec<_> = reply["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(problems[0].starts_with("[0].latency_ms: ") && problems[1].starts_with("[1].completed_at: "), "{reply}");
    traffic.wait_for("canary", 200, 1);
    goes_on(&user);
}

#[test]
fn failures_of_model_servers_are_reported_with_their_cause() {
    let (good, hangs, half) =
        (model_server(Behavior::Good), model_server(Behavior::Hangs), model_server(Behavior::HalfBody));
    let versions =
        [("v1", &*good), ("v2", &*good), ("hangs", &*hangs), ("half", &*half), ("refuses", &unreachable_url())];
    let pipeline = Pipeline::embedded(&borrowed(&wall(&versions))).unwrap();
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "2h"));
    user.wait_for_phase(&id, "baking");

    let call = |version: &str| {
        let headers = [("x-model-version", version), ("x-prediction-id", version)];
        let body = infer().to_string().into_bytes();
        http_with(Method::POST, &format!("{}/v2/models/{MODEL}/infer", pipeline.router()), &headers, Some(body))
    };
    let started = Instant::now();
    let answer = call("hangs").unwrap();
    assert_eq!((answer.status, &answer.json().unwrap()["cause"]), (504, &json!("timeout")), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    let answer = call("refuses").unwrap();
    assert_eq!((answer.status, &answer.json().unwrap()["cause"]), (502, &json!("connect")), "{answer:?}");
    // The head may have been forwarded before the failure. Then the caller sees an incomplete answer.
    assert!(call("half").is_err() || call("half").is_ok_and(|answer| answer.status == 502));

    let mut errors = BTreeMap::new();
    wait_until(PATIENCE, || {
        for record in pipeline.tail("events")? {
            let value = &record["value"];
            if let (Some(id), Some(error)) = (value["request_id"].as_str(), value["error"].as_str()) {
                errors.insert(id.to_owned(), error.to_owned());
            }
        }
        Ok(["hangs", "refuses", "half"].iter().all(|id| errors.contains_key(*id)))
    })
    .unwrap_or_else(|error| panic!("{error}: {errors:?}"));
    assert_eq!((errors["hangs"].as_str(), errors["refuses"].as_str()), ("timeout", "connect"));
    assert!(["truncated", "reset"].contains(&errors["half"].as_str()), "{errors:?}");
    goes_on(&user);
}

#[test]
fn all_mistakes_of_a_rollout_file_are_reported_at_once() {
    let spec = "apiVersion: serin.dev/v2
kind: Rolout
modle: flights
model: ''
stable: {version: v1, url: ftp://x}
canary: {version: '', url: nowhere}
mode: watch
traffic: sideways
window: soon
grace: -1s
warmup: {minEvents: -5}
controlRatio: -1
concurrency: maybe
steps:
  - {weight: 150%, bake: {min: 3h, max: 1h}}
  - {weight: 10, require: hope}
segments:
  - {name: origin, source: {crystal: ball}, top: 0}
outputs:
  - {name: p, source: {tensor: probability}, min: 1, max: 0}
metrics:
  - {name: m, kind: guess, source: latency}
  - {name: n, kind: rate, source: {wrong: {output: q, label: late}}, margin: {absolute: -1}, segments: [nowhere]}
decision: {falseRollback: 2, onInconclusive: shrug}
windwo: 1s
";
    let user = User(unreachable_url());
    let run = user.with_file(spec, &["lint", "-f", "{}", "--output", "json"]).expect(1);
    let problems = run.json()["problems"].as_array().unwrap().clone();
    let errors = problems.iter().filter(|problem| problem["severity"] == "error").count();
    assert!(errors >= 20, "{errors} errors: {problems:#?}");
    for problem in &problems {
        assert!(problem["line"].as_u64() > Some(0) && problem["message"].as_str().unwrap().len() > 5, "{problem}");
    }
    let text = user.with_file(spec, &["apply", "-f", "{}"]).expect(1).out;
    assert_eq!(text.lines().count(), problems.len() + 1, "{text}");
}
