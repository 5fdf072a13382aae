//! Sticky users with the real binary: a few users that fail on purpose do not affect the decision, while a failure for all users is
//! rolled back. Events of a foreign router only count if they contain the unit.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use support::{PATIENCE, Pipeline, http, wait_until};
use world::{MODEL, User, borrowed, wall};

/// A request that both versions fail.
const POISON: &str = "POISON";

/// Starts a model server that answers 500 to each `every`-th request, and to requests with [`POISON`].
fn model_server(every: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicU64::new(1));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let served = Arc::clone(&served);
            thread::spawn(move || drop(serve(&stream, every, &served)));
        }
    });
    url
}

fn serve(stream: &TcpStream, every: u64, served: &AtomicU64) -> std::io::Result<()> {
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
        let fails = served.fetch_add(1, Ordering::Relaxed).is_multiple_of(every)
            || String::from_utf8_lossy(&body).contains(POISON);
        let (status, body) = if fails {
            ("500 Internal Server Error", "{}".to_owned())
        } else {
            let output = json!({"name": "probability", "shape": [1], "datatype": "FP64", "data": [0.1]});
            ("200 OK", json!({"model_name": MODEL, "outputs": [output]}).to_string())
        };
        let length = body.len();
        write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
    }
}

fn call(router: &str, user: &str, origin: &str) -> String {
    let body = json!({"inputs": [{"name": "origin", "shape": [1], "datatype": "BYTES", "data": [origin]}]});
    let url = format!("{router}/v2/models/{MODEL}/infer");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = reqwest::Client::new().post(url).header("x-user", user).body(body.to_string());
        let answer = request.send().await.unwrap();
        answer.headers().get("x-model-arm").and_then(|arm| arm.to_str().ok()).unwrap_or_default().to_owned()
    })
}

/// Calls of 600 honest users in turn, until dropped.
struct Users {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Users {
    fn start(router: &str, per_second: u32) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, counted, router) = (Arc::clone(&stop), Arc::clone(&answers), router.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = reqwest::Client::new();
                let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
                for number in 0_u64.. {
                    pace.tick().await;
                    if asked.load(Ordering::Relaxed) {
                        return;
                    }
                    let url = format!("{router}/v2/models/{MODEL}/infer");
                    let user = format!("user-{}", number.wrapping_mul(7919) % 600);
                    let request = client.post(url).header("x-user", user).body(world::infer().to_string());
                    let counted = Arc::clone(&counted);
                    tokio::spawn(async move {
                        let Ok(answer) = request.send().await else { return };
                        counted.fetch_add(u64::from(answer.bytes().await.is_ok()), Ordering::Relaxed);
                    });
                }
            });
        });
        Self { stop, answers, thread: Some(thread) }
    }

    fn wait_for(&self, more: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_until(PATIENCE, || Ok(self.answers.load(Ordering::Relaxed) >= before + more)).unwrap();
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn rollout(more: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1
kind: Rollout
model: {MODEL}
stable: {{version: v1}}
canary: {{version: v2}}
{more}
window: 1s
assignment: {{sticky: {{header: x-user}}}}
warmup: {{minEvents: 300}}
steps:
  - {{weight: 30%, bake: {{min: 1h, max: 2h}}}}
  - {{weight: 50%, bake: {{min: 1h, max: 2h}}}}
metrics:
  - {{name: error_rate, kind: rate, source: error, margin: {{absolute: 0.02}}}}
"
    )
}

/// Starts a pipeline with users, whose canary fails each `every`-th request.
fn pipeline(every: u64) -> (Pipeline, User, Users, String) {
    let (v1, v2) = (model_server(u64::MAX), model_server(every));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let (user, users) = (User(pipeline.api()), Users::start(&pipeline.router(), 150));
    let id = user.apply(&rollout(""));
    user.wait_for_phase(&id, "baking");
    (pipeline, user, users, id)
}

fn verdict(user: &User, id: &str) -> Value {
    user.run(&["explain", id, "--output", "json"]).expect(0).json()
}

fn error_rate(verdict: &Value) -> &Value {
    let metrics = verdict["metrics"].as_array().map_or(&[][..], Vec::as_slice);
    metrics.iter().find(|metric| metric["metric"] == "error_rate").unwrap_or(&Value::Null)
}

#[test]
fn three_users_that_fail_on_purpose_do_not_roll_back_an_equal_canary() {
    let (pipeline, user, users, id) = pipeline(u64::MAX);
    users.wait_for(300);
    // Answers contain the arm, so an attacker quickly finds keys that are assigned to the canary.
    let router = pipeline.router();
    let mut attackers = (0..).map(|number| format!("attacker-{number}"));
    let own: Vec<String> = attackers.by_ref().filter(|name| call(&router, name, "LGA") == "canary").take(3).collect();
    for name in own.iter().cycle().take(60) {
        call(&router, name, POISON);
    }
    wait_until(PATIENCE, || Ok(error_rate(&verdict(&user, &id))["no_data"] == "few_units")).unwrap();
    users.wait_for(900);
    assert_eq!(user.state(&id)["phase"], "baking", "{:#}", verdict(&user, &id));
    let found = verdict(&user, &id);
    let sentence = error_rate(&found)["sentence"].as_str().unwrap();
    assert!(!found["decision"].as_str().unwrap().contains("rollback"), "{sentence}");
    let explained = user.run(&["explain", &id]).expect(0).out;
    assert!(explained.contains(" users"), "{explained}");
}

#[test]
fn a_canary_that_fails_for_all_sticky_users_is_rolled_back() {
    let (_pipeline, user, _users, id) = pipeline(5);
    let state = user.wait_for_phase(&id, "rolled_back");
    assert!(state.to_string().contains("error rate"), "{state:#}");
}

#[test]
fn events_of_a_foreign_router_count_if_they_contain_the_unit() {
    let url = world::unreachable_url();
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &url), ("v2", &url)]))).unwrap();
    let user = User(pipeline.api());
    let spec = rollout("traffic: external\nmode: observe");
    let id = user.apply(&spec);
    let url = format!("{}/v1/events", pipeline.router());
    let sent = AtomicU64::new(0);
    // Two of the canary's twenty users always fail, and no user of control.
    let batch = |named: bool| {
        let events: Vec<Value> = (0..60)
            .map(|unit| {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let canary = unit % 3 == 0;
                let mut event = json!({
                    "prediction_id": format!("event-{number}"), "model": MODEL,
                    "version": if canary { "v2" } else { "v1" },
                    "status": if canary && unit % 10 == 0 { 500 } else { 200 },
                });
                if named {
                    event["unit"] = json!(unit);
                }
                event
            })
            .collect();
        let answer = http(Method::POST, &url, Some(&json!(events))).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text);
    };
    wait_until(PATIENCE, || {
        batch(false);
        Ok(user.state(&id)["phase"] != "warming")
    })
    .unwrap();
    let wait = |named: bool, done: &dyn Fn(&Value) -> bool| {
        let mut found = Value::Null;
        wait_until(PATIENCE, || {
            batch(named);
            found = verdict(&user, &id);
            Ok(done(&found))
        })
        .unwrap_or_else(|error| panic!("{error}: {found:#}"));
        found
    };
    let found = wait(false, &|found| error_rate(found)["no_data"] == "few_units");
    assert_eq!(error_rate(&found)["design_effect"], Value::Null, "{found:#}");
    assert_eq!(found["health"][0]["reason"], "few_units", "{found:#}");
    assert_eq!(found["decision"], "hold", "{found:#}");
    // All answers without a unit count as one more user.
    wait(true, &|found| {
        let number = |name: &str| error_rate(found)[name].as_f64().unwrap_or(0.0);
        number("units") > 3.0 && number("design_effect") > 1.5
    });
}
