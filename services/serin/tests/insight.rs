//! Reports from the log with the real binary: profiles, captured examples behind a finding, contrasts, exposures.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use support::{PATIENCE, Pipeline, wait_until};
use world::{MODEL, User, borrowed, wall};

/// Starts a model server that answers with `bad` to requests whose body contains all of `when`, else with a probability of 0.1.
fn model_server(when: &'static [&'static str], bad: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || drop(serve(&stream, when, bad)));
        }
    });
    url
}

fn serve(stream: &TcpStream, when: &[&str], bad: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let (mut line, mut length) = (String::new(), 0_usize);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            length = text.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap_or(0));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body);
        let is_bad = !when.is_empty() && when.iter().all(|part| body.contains(part));
        let (status, number) = match bad {
            "500" if is_bad => ("500 Internal Server Error", "0"),
            number if is_bad => ("200 OK", number),
            _ => ("200 OK", "0.1"),
        };
        let body = format!(
            r#"{{"model_name":"{MODEL}","outputs":[{{"name":"probability","shape":[1],"datatype":"FP64","data":[{number}]}}]}}"#
        );
        let length = body.len();
        write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
    }
}

/// Calls of users from three airports on two carriers in turn, until dropped.
struct Callers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    fn start(router: &str, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, router) = (Arc::clone(&stop), router.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = reqwest::Client::new();
                let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
                for number in 0_usize.. {
                    pace.tick().await;
                    if asked.load(Ordering::Relaxed) {
                        return;
                    }
                    let text = |name: &str, value: &str| json!({"name": name, "shape": [1], "datatype": "BYTES", "data": [value]});
                    let body = json!({"inputs": [
                        text("origin", ["LGA", "JFK", "EWR"][number % 3]),
                        text("carrier", ["AA", "UA"][number / 3 % 2]),
                        text("plan", ["free", "pro"][number / 6 % 2]),
                        text("passenger", &format!("passenger-{number}")),
                    ]});
                    let url = format!("{router}/v2/models/{MODEL}/infer");
                    let user = format!("user-{}", number.wrapping_mul(7919) % 600);
                    let request = client.post(url).header("x-user", user).body(body.to_string());
                    tokio::spawn(async move { drop(request.send().await) });
                }
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn rollout(steps: &str, more: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1
kind: Rollout
model: {MODEL}
stable: {{version: v1}}
canary: {{version: v2}}
window: 1s
warmup: {{minEvents: 300}}
steps:
{steps}
segments:
  - {{name: origin, source: {{input: origin}}}}
  - {{name: carrier, source: {{input: carrier}}}}
outputs:
  - {{name: probability, source: {{tensor: probability}}, min: 0, max: 1}}
{more}"
    )
}

fn pipeline(when: &'static [&'static str], bad: &'static str) -> (Pipeline, User, Callers) {
    let (v1, v2) = (model_server(&[], ""), model_server(when, bad));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let (user, callers) = (User(pipeline.api()), Callers::start(&pipeline.router(), 200));
    (pipeline, user, callers)
}

fn json_of(user: &User, arguments: &[&str]) -> Value {
    user.run(&[arguments, &["--output", "json"]].concat()).expect(0).json()
}

fn entries<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().map_or(&[], Vec::as_slice)
}

/// A canary that fails for one carrier at one airport only, with sticky users.
#[test]
fn profiles_contrasts_and_exposures_of_a_rollout_that_fails_in_a_pair_of_segments() {
    let (pipeline, user, callers) = pipeline(&["LGA", "UA"], "500");
    let steps = "  - {weight: 40%, bake: {min: 1h, max: 2h}}\n  - {weight: 50%, bake: {min: 1h, max: 2h}}";
    let more = "assignment: {sticky: {header: x-user}}
metrics:
  - {name: failed, kind: rate, source: failed, margin: {absolute: 0.5}, segments: [origin]}
  - {name: latency, kind: distribution, source: latency, role: watch}
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: probability}, margin: {absolute: 0.5}, role: watch}
";
    let id = user.apply(&rollout(steps, more));
    user.wait_for_phase(&id, "baking");

    // The contrast: only the pair is bad, so both of its single values are weaker leads.
    let mut found = Value::Null;
    let places = |contrast: &Value| -> Vec<String> {
        let mut places: Vec<String> = entries(contrast, "place")
            .iter()
            .map(|one| format!("{}={}", one["dimension"].as_str().unwrap(), one["value"].as_str().unwrap()))
            .collect();
        places.sort();
        places
    };
    wait_until(PATIENCE, || {
        found = json_of(&user, &["explain", &id, "--contrasts"]);
        Ok(found["strongest"][0]["lead"] == true && entries(&found["strongest"][0], "place").len() == 2)
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
    let first = &found["strongest"][0];
    assert_eq!((first["metric"].as_str(), first["from"].as_str()), (Some("failed"), Some("events")), "{found:#}");
    assert_eq!(places(first), ["carrier=UA", "origin=LGA"], "{found:#}");
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&first["here"]["canary"]["value"]) > 0.9, "{first:#}");
    assert!(number(&first["elsewhere"]["canary"]["value"]) < 0.01, "{first:#}");
    let looked = number(&found["looked"]);
    let corrected = number(&first["p"]) * looked;
    assert!(looked >= 10.0 && (number(&first["p_corrected"]) - corrected).abs() <= corrected * 1e-9, "{found:#}");
    let notes = found["notes"].to_string();
    assert!(notes.contains("the rollout file has no `capture`, and no calls are mirrored; set `capture:"), "{notes}");
    let text = user.run(&["explain", &id, "--contrasts"]).expect(0).out;
    assert!(text.contains("It is not a verdict:") && text.contains("(Bonferroni)"), "{text}");

    // Without captures, `--examples` says what to set.
    let none = user.run(&["explain", &id, "--examples"]).expect(0).out;
    assert!(none.contains("no examples: the rollout file has no `capture`, and no calls are mirrored"), "{none}");
    let none = user.run(&["explain", &id, "--examples", "--output", "json"]).expect(0);
    assert!(none.json() == json!([]) && none.err.contains("set `capture"), "{none:?}");

    // The profile over all windows.
    let profile = json_of(&user, &["profile", &id, "--segments"]);
    assert_eq!(profile["format"], "serin.profile/v1");
    let canary = entries(&profile, "profiles").iter().find(|one| one["arm"] == "canary").unwrap();
    assert_eq!((canary["version"].as_str(), &profile["read"]["complete"]), (Some("v2"), &json!(true)), "{profile:#}");
    let metric = |name: &str, segment: &Value| {
        let found = entries(canary, "metrics").iter().find(|one| one["metric"] == name && one["segment"] == *segment);
        found.unwrap_or_else(|| panic!("no {name} in {segment}: {canary:#}"))
    };
    let latency = metric("latency", &Value::Null);
    assert_eq!((latency["distribution"]["type"].as_str(), latency["unit"].as_str()), (Some("histogram"), Some("ms")));
    let bins = entries(&latency["distribution"], "bins");
    let sum: f64 = bins.iter().map(|bin| number(&bin["count"])).sum();
    assert!((sum - number(&latency["count"])).abs() < 0.5 && sum > 50.0, "{latency:#}");
    assert!(bins.iter().all(|bin| number(&bin["from"]) < number(&bin["to"])), "{latency:#}");
    let score = metric("score", &Value::Null);
    assert_eq!(score["distribution"]["type"], "points");
    assert!((number(&score["distribution"]["mean"]) - 0.1).abs() < 0.01, "{score:#}");
    let failed = metric("failed", &json!({"dimension": "origin", "value": "LGA"}));
    assert!((0.3..0.7).contains(&number(&failed["distribution"]["share"])), "{failed:#}");
    let windows = json_of(&user, &["profile", &id, "--per-window", "--from", "1h"]);
    // The canary may be decided in its first window. Stable has at least the windows of warm-up.
    let of_arm = |arm: &str| entries(&windows, "profiles").iter().filter(|one| one["arm"] == arm).count();
    assert!(of_arm("canary") > 0 && of_arm("stable") > 1, "{windows:#}");
    assert!(entries(&windows, "profiles").iter().all(|one| one["windows"] == 1), "{windows:#}");
    let none = user.run(&["profile", &id, "--to", "2001-01-01T00:00:00Z"]).expect(0).out;
    assert!(none.contains("no profile: no window of the rollout in this range of time"), "{none}");
    let wrong = user.run(&["profile", &id, "--from", "yesterday"]).expect(2).err;
    assert!(wrong.contains("--from yesterday: write a time such as"), "{wrong}");

    // Exposures: every user of the events with the version, and no other. Events may still arrive while the log is read.
    drop(callers);
    let called = || -> BTreeSet<(String, String)> {
        let of_rollout = |event: &Value| {
            let value = &event["value"];
            event["type"] == "prediction" && value["rollout"] == json!(id) && value["assignment"] == "sticky"
        };
        let events = pipeline.tail("events").unwrap();
        let seen = |event: &Value| {
            let unit = event["value"]["unit"].as_i64().unwrap();
            (format!("{:016x}", unit as u64), event["value"]["version"].as_str().unwrap().to_owned())
        };
        events.iter().filter(|event| of_rollout(event)).map(seen).collect()
    };
    let before = called();
    let csv = pipeline.cli(&["export", "exposures", "--model", MODEL]).unwrap();
    let csv = String::from_utf8(csv.stdout).unwrap();
    assert_eq!(csv.lines().next(), Some("user_id,request_id,timestamp,experiment_id,variation_id,model,arm"));
    let exported = pipeline.cli(&["export", "exposures", "--rollout", &id, "--output", "json"]).unwrap();
    let rows: Vec<Value> = std::str::from_utf8(&exported.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let exposed: BTreeSet<_> = rows.iter().map(|row| (text(row, "user_id"), text(row, "variation_id"))).collect();
    assert!(exposed.is_superset(&before) && exposed.is_subset(&called()), "{exposed:?}");
    assert!(exposed.len() >= 100 && rows.iter().all(|row| row["experiment_id"] == json!(id)), "{}", exposed.len());
    for row in rows.iter().take(10) {
        let columns = ["user_id", "request_id", "timestamp", "experiment_id", "variation_id", "model", "arm"];
        let line = columns.map(|name| text(row, name)).join(",");
        assert!(csv.lines().any(|one| one == line), "{line}");
    }
}

/// A canary that gets mirrored calls, and answers `pro` customers at one airport differently.
#[test]
fn examples_show_the_calls_behind_a_finding_redacted() {
    let (_pipeline, user, _callers) = pipeline(&["LGA", "pro"], "0.9");
    let steps = "  - {mirror: 60%, bake: {min: 1h, max: 2h}}\n  - {weight: 50%, bake: {min: 1h, max: 2h}}";
    let more = "capture: {share: 30%, tolerance: 0.01, redact: [passenger], perMinute: 5000}
metrics:
  - {name: failed, kind: rate, source: failed, margin: {absolute: 0.5}, segments: [origin]}
  - {name: changed, kind: disagreement, source: {output: probability}, tolerance: 0.01, limit: {pass: 0.1, fail: 0.2},
     role: watch, segments: [origin]}
";
    let id = user.apply(&rollout(steps, more));
    user.wait_for_phase(&id, "shadowing");
    let mut found = Value::Null;
    wait_until(PATIENCE, || {
        found = json_of(&user, &["explain", &id, "--contrasts"]);
        let first = &found["strongest"][0];
        // With few captures, a place next to the right one can be the strongest.
        let is_found = ["LGA", "pro"].iter().all(|value| first["place"].to_string().contains(value));
        Ok(first["lead"] == true && first["from"] == "captures" && entries(first, "place").len() == 2 && is_found)
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
    // `plan` is not declared in the rollout file.
    let place = found["strongest"][0]["place"].to_string();
    assert!(place.contains("plan") && place.contains("pro") && place.contains("LGA"), "{place}");
    assert!(!found.to_string().contains("passenger-"), "{found:#}");

    let finding = json!({"dimension": "origin", "value": "LGA"});
    let mut shown = Value::Null;
    wait_until(PATIENCE, || {
        shown = json_of(&user, &["explain", &id, "--examples", "--metric", "changed"]);
        Ok(shown[0]["shows"][0]["segment"] == finding)
    })
    .unwrap_or_else(|error| panic!("{error}: {shown:#}"));
    let text = user.run(&["explain", &id, "--examples", "3"]).expect(0).out;
    assert_eq!(text.matches("  request  ").count(), 3, "{text}");
    assert!(text.starts_with("Shows changed (origin=LGA): "), "{text}");
    assert!(text.contains("[redacted]") && !text.contains("passenger-"), "{text}");
    assert!(text.contains("probability: 0.1 against 0.9") && text.contains("LGA"), "{text}");
    let unknown = user.run(&["explain", &id, "--examples", "--metric", "mood"]).expect(2).err;
    assert!(unknown.contains("the rollout has no metric \"mood\""), "{unknown}");
}
