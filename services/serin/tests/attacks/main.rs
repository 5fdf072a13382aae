//! Attacks on verdicts and switches with the real binary: forged labels and events, web pages of other sites, callers that act against
//! one arm. Each attack has a permitted counterpart that succeeds, so that no attack fails for another reason.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod labels;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/world.rs"]
mod world;

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use reqwest::Method;
use serde_json::{Value, json};
use serin_tests::kafka::{Broker, unique_prefix};

use labels::{Callers, honest};
use support::{Answer, PATIENCE, Pipeline, SERIN, free_port, http, http_with, wait_until};
use world::{Behavior, MODEL, User, borrowed, infer, model_server, rollout, wall};

/// The token of the writer that may label the model's answers.
const APPS: &str = "token-of-the-applications";
/// The token of a writer for other models only.
const TEAM_A: &str = "token-of-another-team-a";
/// The token of the writer that may only send events about the model.
const LOGS: &str = "token-of-the-log-shipper";

/// Settings with three writers.
fn writers() -> Vec<String> {
    let of = |name: &str, models: &str, may: &str, token: &str| {
        [
            format!("writers.{name}.models={models}"),
            format!("writers.{name}.may={may}"),
            format!("writers.{name}.token={token}"),
        ]
    };
    let all = [
        of("apps", MODEL, "feedback", APPS),
        of("team-a", "team-a-*", "feedback,events", TEAM_A),
        of("logs", MODEL, "events", LOGS),
    ];
    all.concat()
}

/// POSTs JSON, with a bearer token unless it is empty.
fn post(url: &str, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
    http_with(Method::POST, url, headers, Some(body.to_string().into_bytes())).unwrap()
}

/// Calls a model and cancels the call as soon as the head of the answer names the canary.
async fn call_and_leave(router: String, left: Arc<AtomicU64>) {
    // The client has its own connection, which is closed on cancellation.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let request = client.post(format!("{router}/v2/models/{MODEL}/infer")).body(infer().to_string());
    let Ok(answer) = request.send().await else { return };
    if answer.headers().get("x-model-arm").is_some_and(|arm| arm == "canary") {
        left.fetch_add(1, Ordering::Relaxed);
    } else {
        drop(answer.bytes().await);
    }
}

#[test]
fn callers_that_cancel_calls_to_the_canary_do_not_roll_it_back() {
    let (v1, v2) = (model_server(Behavior::Streams), model_server(Behavior::Streams));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let callers = Callers::start(&pipeline.router(), 60, &[("", honest)]);
    let id = user.apply(&rollout("v2", "2h"));
    user.wait_for_phase(&id, "baking");
    let (left, stop, router) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), pipeline.router());
    let (count, asked) = (Arc::clone(&left), Arc::clone(&stop));
    let attacker = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(33));
            while !asked.load(Ordering::Relaxed) {
                pace.tick().await;
                tokio::spawn(call_and_leave(router.clone(), Arc::clone(&count)));
            }
        });
    });
    // Before cancellations were separate, 30 of 180 requests per second rolled a good canary back in two seconds.
    let cancelled = |verdict: &Value| {
        let arms = verdict["arms"].as_array().cloned().unwrap_or_default();
        arms.iter().filter(|arm| arm["arm"] == "canary").filter_map(|arm| arm["cancelled"].as_i64()).sum::<i64>()
    };
    let mut verdict = Value::Null;
    let seen = wait_until(PATIENCE, || {
        let run = user.run(&["explain", MODEL, "--output", "json"]);
        verdict = if run.code == 0 { run.json() } else { Value::Null };
        Ok(cancelled(&verdict) >= 60 || verdict["decision"] == "rollback")
    });
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    seen.unwrap_or_else(|error| panic!("{error}: {} left; {verdict:#}", left.load(Ordering::Relaxed)));
    assert_ne!(verdict["decision"], "rollback", "{verdict:#}");
    // The different shares of cancelled calls are reported, but neither roll the canary back nor hold the rollout. The rollout may be
    // held because the attacker's answers of control have no label, while those of the canary were cancelled.
    let issues = verdict["health"].as_array().cloned().unwrap_or_default();
    let leaving = issues.iter().filter(|issue| issue["reason"] == "cancelled_share_differs");
    assert!(leaving.clone().all(|issue| issue["policy"] == "warn"), "{verdict:#}");
    let phase = user.state(&id)["phase"].clone();
    let labels_differ = issues.iter().any(|issue| issue["reason"] == "labels_missing");
    assert!(phase == "baking" || phase == "held" && labels_differ, "{phase}: {verdict:#}");
    drop(callers);
}

#[test]
fn beyond_loopback_every_door_requires_a_credential() {
    let v1 = model_server(Behavior::Good);
    let port = free_port().unwrap();
    let mut settings = wall(&[("v1", &v1)]);
    settings.push(format!("router.listen=0.0.0.0:{port}"));
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let router = format!("http://127.0.0.1:{port}");
    let label = json!({"prediction_id": "chosen-by-the-caller", "label": true});
    let seldon = json!({"response": {"meta": {"puid": "p"}}, "reward": 1});
    let event = json!({"prediction_id": "p", "model": MODEL, "version": "v1", "arm": "canary", "status": 500});
    for (path, body) in [
        ("/v1/feedback", &label),
        ("/api/v1.0/feedback", &seldon),
        ("/seldon/a/b/api/v0.1/feedback", &seldon),
        ("/v1/events", &event),
    ] {
        for token in ["", APPS] {
            let answer = post(&format!("{router}{path}"), token, body);
            assert_eq!(answer.status, 401, "{path} {token}: {answer:?}");
            let error = answer.json().unwrap()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("writers") && error.contains("docs/trust.md"), "{error}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    // Callers of models need no credential.
    assert_eq!(post(&format!("{router}/v2/models/{MODEL}/infer"), "", &infer()).status, 200);
    for topic in ["events", "predictions"] {
        let written = pipeline.tail(topic).unwrap();
        let forged = written.iter().filter(|record| {
            let id = &record["value"]["request_id"];
            *id == "chosen-by-the-caller" || *id == "p"
        });
        assert_eq!(forged.count(), 0);
    }
}

#[test]
fn events_are_only_accepted_from_writers_for_that_model() {
    let v1 = model_server(Behavior::Good);
    let mut settings = wall(&[("v1", &v1)]);
    settings.extend(writers());
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let url = format!("{}/v1/events", pipeline.router());
    let event = |id: &str, model: &str| json!({"prediction_id": id, "model": model, "version": "v2", "arm": "canary", "status": 500});
    assert_eq!(post(&url, "", &event("forged", MODEL)).status, 401);
    assert_eq!(post(&url, "some-unknown-token", &event("forged", MODEL)).status, 401);
    assert_eq!(post(&url, APPS, &event("forged", MODEL)).status, 403, "it may send feedback only");
    let answer = post(&url, TEAM_A, &event("forged", MODEL));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json().unwrap()["problems"][0], "[0].model: writer team-a may not send data for flights");
    let mixed = json!([event("forged", MODEL), event("own", "team-a-fraud")]);
    let answer = post(&url, TEAM_A, &mixed);
    assert_eq!((answer.status, &answer.json().unwrap()["accepted"]), (207, &json!(1)), "{answer:?}");
    assert_eq!(post(&url, LOGS, &event("shipped", MODEL)).status, 202);
    let mut relayed = Vec::new();
    wait_until(PATIENCE, || {
        let events = pipeline.tail("events")?;
        let ids = events.iter().filter_map(|record| record["value"]["request_id"].as_str());
        relayed = ids.map(str::to_owned).collect();
        relayed.sort();
        Ok(relayed.len() >= 2)
    })
    .unwrap();
    assert_eq!(relayed, ["own", "shipped"]);
}

#[test]
fn on_kafka_the_topic_is_the_credential() {
    let broker = Broker::shared().unwrap();
    let prefix = unique_prefix("attacks");
    let settings = [
        "topology.partitions=2",
        "aggregator.intake.topics[0].feedback=team-a.feedback",
        "aggregator.intake.topics[0].predictions=team-a.predictions",
        "aggregator.intake.topics[0].models[0]=team-a-*",
    ];
    let pipeline = Pipeline::kafka_roles(broker.bootstrap(), &prefix, &settings, &["aggregator"]).unwrap();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let send = |topic: &str, body: Value| {
        let (topic, body) = (format!("{prefix}{topic}"), body.to_string());
        producer.send(BaseRecord::to(&topic).key("any").payload(&body)).map_err(|(error, _)| error).unwrap();
    };
    let call = |id: &str, model: &str| json!({"prediction_id": id, "model": model, "version": "v2", "arm": "canary", "status": 500});
    send("team-a.predictions", call("forged", MODEL));
    send("team-a.predictions", call("own", "team-a-fraud"));
    send("team-a.feedback", json!({"prediction_id": "label-a", "label": 1}));
    send("feedback", json!({"prediction_id": "label", "label": 1}));
    producer.flush(PATIENCE).unwrap();
    let mut seen = Vec::new();
    wait_until(PATIENCE, || {
        let events = pipeline.tail("events")?;
        let values = events.iter().map(|record| &record["value"]).filter(|value| value["request_id"].is_string());
        seen = values.map(|value| (value["request_id"].clone(), value["credential"].clone())).collect();
        seen.sort_by_key(|(id, _)| id.to_string());
        Ok(seen.len() >= 3)
    })
    .unwrap_or_else(|error| panic!("{error}: {seen:?}"));
    let stamp = |writer: &str, models: &str| json!({"writer": writer, "models": [models]});
    let wanted = [
        (json!("label"), stamp("feedback", "*")),
        (json!("label-a"), stamp("team-a.feedback", "team-a-*")),
        (json!("own"), Value::Null),
    ];
    assert_eq!(seen, wanted);
    let mut letters = Vec::new();
    wait_until(PATIENCE, || {
        letters = pipeline.tail("dead-letters")?;
        Ok(!letters.is_empty())
    })
    .unwrap();
    assert_eq!((letters.len(), &letters[0]["value"]["code"]), (1, &json!("not_allowed")), "{letters:?}");
}

#[test]
fn no_revision_and_no_time_prevents_later_labels() {
    let v1 = model_server(Behavior::Good);
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1)]))).unwrap();
    let url = format!("{}/v1/feedback", pipeline.router());
    let of = |name: &str, value: Value| {
        let mut body = json!({"prediction_id": "p", "values": {"late": 1}});
        body[name] = value;
        let answer = post(&url, "", &body);
        (answer.status, answer.json().unwrap()["problems"][0].as_str().unwrap_or_default().to_owned())
    };
    for revision in [json!(i64::MAX), json!(i64::MIN), json!(-1), json!(1_u64 << 62)] {
        let (status, problem) = of("revision", revision);
        assert!(status == 400 && problem.starts_with("[0].revision: "), "{status} {problem}");
    }
    for (time, unit) in [(1_764_480_000_i64, "seconds"), (1_764_480_000_000, "milliseconds")] {
        let (status, problem) = of("observed_at", json!(time));
        assert!(
            status == 400 && problem.starts_with("[0].observed_at: ") && problem.contains(unit),
            "{status} {problem}"
        );
    }
    let (status, problem) = of("observed_at", json!("2100-01-01T00:00:00Z"));
    assert!(status == 400 && problem.contains("ahead of the clock here"), "{status} {problem}");
    assert_eq!(of("revision", json!(3)).0, 202);
}

#[test]
fn web_pages_of_other_sites_can_neither_change_nor_read_anything() {
    let v1 = model_server(Behavior::Good);
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1)]))).unwrap();
    let switch = format!("{}/switch/all-stable", pipeline.admin());
    let is_on = || {
        http(Method::GET, &format!("{}/tables", pipeline.admin()), None).unwrap().json().unwrap()["all_stable"].clone()
    };
    let send = |method: Method, url: &str, headers: &[(&str, &str)], body: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut request = reqwest::Client::new().request(method, url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(body.to_owned()).send().await.unwrap().status().as_u16()
        })
    };
    let json = ("content-type", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    // The request of docs/router.md, as curl sends it.
    assert_eq!(send(Method::POST, &switch, &[form], r#"{"on":true}"#), 200);
    assert_eq!(is_on(), true);
    let off = r#"{"on":false}"#;
    let attacks: [(&[(&str, &str)], u16); 9] = [
        (&[("origin", "http://evil.example"), ("content-type", "text/plain")], 403),
        (&[("origin", "http://evil.example"), json], 403),
        (&[("origin", "http://localhost:3000"), json], 403),
        (&[("origin", "http://127.0.0.1"), json], 403),
        (&[("origin", "null"), form], 403),
        (&[("host", "evil.example"), json], 403),
        (&[("host", "127.0.0.1.evil.example"), json], 403),
        (&[("content-type", "text/plain;charset=UTF-8")], 415),
        (&[("content-type", "multipart/form-data; boundary=x")], 415),
    ];
    for (headers, status) in attacks {
        assert_eq!(send(Method::POST, &switch, headers, off), status, "{headers:?}");
        let stop = format!("{}/v1/stop-all", pipeline.api());
        assert_eq!(send(Method::POST, &stop, headers, "{}"), status, "{headers:?}");
        let clock = format!("{}/replay/clock", pipeline.admin());
        assert_eq!(send(Method::PUT, &clock, headers, r#"{"now_us":1}"#), status, "{headers:?}");
        let label = format!("{}/v1/feedback", pipeline.router());
        assert_eq!(send(Method::POST, &label, headers, r#"{"prediction_id":"p","label":1}"#), status, "{headers:?}");
    }
    assert_eq!(is_on(), true);
    for url in [
        format!("{}/tables", pipeline.admin()),
        format!("{}/readyz", pipeline.admin()),
        format!("{}/v1/rollouts", pipeline.api()),
        format!("{}/metrics", pipeline.telemetry("up")),
        format!("{}/readyz", pipeline.telemetry("up")),
    ] {
        for header in
            [("host", "rebound.example"), ("origin", "http://localhost:3000"), ("origin", "http://evil.example")]
        {
            assert_eq!(send(Method::GET, &url, &[header], ""), 403, "{url} {header:?}");
        }
        let own: SocketAddr = url["http://".len()..].split('/').next().unwrap().parse().unwrap();
        let origin = format!("http://{own}");
        assert_eq!(send(Method::GET, &url, &[("origin", &origin)], ""), 200, "{url}");
    }
}

#[test]
fn metrics_require_the_token_if_one_is_set() {
    let v1 = model_server(Behavior::Good);
    let mut settings = wall(&[("v1", &v1)]);
    settings.push("telemetry.token=token-of-prometheus".to_owned());
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let metrics = format!("{}/metrics", pipeline.telemetry("up"));
    let ask = |headers: &[(&str, &str)]| http_with(Method::GET, &metrics, headers, None).unwrap().status;
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[("authorization", "Bearer wrong-and-long-enough")]), 401);
    assert_eq!(ask(&[("authorization", "Bearer token-of-prometheus")]), 200);
    let foreign = [("authorization", "Bearer token-of-prometheus"), ("origin", "http://evil.example")];
    assert_eq!(ask(&foreign), 403);
    // `/readyz` needs no token: `ready` has requested it without one.
}

#[test]
fn short_or_missing_tokens_are_refused_at_the_start() {
    for (settings, place) in [
        (&["router.admin_listen=0.0.0.0:0", "router.admin_token=a"][..], "admin_token: shorter than 16 characters"),
        (&["router.admin_listen=0.0.0.0:0"], "admin_listen: 0.0.0.0:0 is not loopback"),
        (&["telemetry.token=short"], "telemetry.token: shorter than 16 characters"),
        (&["controller.listen=0.0.0.0:0"], "there are no tokens"),
        (&["writers.apps.models=*", "writers.apps.token=short"], "writers.apps: token: shorter than 16 characters"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(SERIN);
        let data = format!("data_dir={}", folder.path().display());
        command.args(["up", "--set", &data]);
        for port in ["router.listen", "router.admin_listen", "controller.listen", "telemetry.listen"] {
            command.args(["--set", &format!("{port}=127.0.0.1:0")]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(place), "{place} is missing in: {errors}");
        assert!(!errors.contains("=short"), "{errors}");
    }
}

#[test]
fn answers_do_not_name_the_arm_if_that_is_switched_off() {
    let (v1, dead) = (model_server(Behavior::Good), world::unreachable_url());
    let mut settings = wall(&[("v1", &v1), ("v2", &dead)]);
    settings.push("router.answers.arm_header=false".to_owned());
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let url = format!("{}/v2/models/{MODEL}/infer", pipeline.router());
    let body = infer().to_string().into_bytes();
    for (version, status) in [("v1", 200), ("v2", 502)] {
        let answer = http_with(Method::POST, &url, &[("x-model-version", version)], Some(body.clone())).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.headers.contains_key("x-prediction-id"), "{answer:?}");
        for name in ["x-model-arm", "x-model-version"] {
            assert!(!answer.headers.contains_key(name), "{answer:?}");
        }
        assert!(!answer.text.contains(version) && !answer.text.contains("\"arm\""), "{answer:?}");
    }
}
