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
/// A request that both versions answer late.
const LATE: &str = "LATE";
/// The delay of a late answer.
const DELAY: Duration = Duration::from_secs(1);
/// Callers who do not wait for a late answer leave after this time.
const LEAVES_AFTER: Duration = Duration::from_millis(250);

/// How a version answers.
#[derive(Clone, Copy)]
struct Version {
    /// Each `every`-th request fails, and each with [`POISON`].
    every: u64,
    /// All answers are late, not only those to [`LATE`].
    late: bool,
}

const HEALTHY: Version = Version { every: u64::MAX, late: false };

fn model_server(version: Version) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicU64::new(1));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let served = Arc::clone(&served);
            thread::spawn(move || drop(serve(&stream, version, &served)));
        }
    });
    url
}

fn serve(stream: &TcpStream, version: Version, served: &AtomicU64) -> std::io::Result<()> {
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
        let text = String::from_utf8_lossy(&body);
        let fails = served.fetch_add(1, Ordering::Relaxed).is_multiple_of(version.every) || text.contains(POISON);
        if version.late || text.contains(LATE) {
            thread::sleep(DELAY);
        }
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

fn request(client: &reqwest::Client, router: &str, user: &str, origin: &str) -> reqwest::RequestBuilder {
    let body = json!({"inputs": [{"name": "origin", "shape": [1], "datatype": "BYTES", "data": [origin]}]});
    client.post(format!("{router}/v2/models/{MODEL}/infer")).header("x-user", user).body(body.to_string())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Keys that are assigned to the canary. Answers contain the arm, so an attacker quickly finds them.
fn keys_of_canary(router: &str, count: usize) -> Vec<String> {
    let client = reqwest::Client::new();
    let arm = |user: &String| {
        let answer = runtime().block_on(request(&client, router, user, "LGA").send()).unwrap();
        answer.headers().get("x-model-arm").and_then(|arm| arm.to_str().ok()).unwrap_or_default().to_owned()
    };
    (0..).map(|number| format!("attacker-{number}")).filter(|user| arm(user) == "canary").take(count).collect()
}

/// Callers in turn, until dropped. Each leaves after [`LEAVES_AFTER`].
struct Users {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Users {
    /// 600 honest users.
    fn start(router: &str, per_second: u32) -> Self {
        let honest = (0_u64..600).map(|number| format!("user-{}", number.wrapping_mul(7919) % 600)).collect();
        Self::of(router, per_second, honest, "LGA")
    }

    fn of(router: &str, per_second: u32, users: Vec<String>, origin: &'static str) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, counted, router) = (Arc::clone(&stop), Arc::clone(&calls), router.to_owned());
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let client = reqwest::Client::builder().timeout(LEAVES_AFTER).build().unwrap();
                let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
                for user in users.iter().cycle() {
                    pace.tick().await;
                    if asked.load(Ordering::Relaxed) {
                        return;
                    }
                    let (call, counted) = (request(&client, &router, user, origin), Arc::clone(&counted));
                    tokio::spawn(async move {
                        if let Ok(answer) = call.send().await {
                            drop(answer.bytes().await);
                        }
                        counted.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        });
        Self { stop, calls, thread: Some(thread) }
    }

    /// Waits until `more` calls have ended.
    fn wait_for(&self, more: u64) {
        let before = self.calls.load(Ordering::Relaxed);
        wait_until(PATIENCE, || Ok(self.calls.load(Ordering::Relaxed) >= before + more)).unwrap();
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

/// Starts a pipeline with users and a rollout that bakes.
fn pipeline(canary: Version) -> (Pipeline, User, Users, String) {
    pipeline_with(canary, "0.02")
}

/// The same with another margin of the error rate.
fn pipeline_with(canary: Version, margin: &str) -> (Pipeline, User, Users, String) {
    let (v1, v2) = (model_server(HEALTHY), model_server(canary));
    let pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let (user, users) = (User(pipeline.api()), Users::start(&pipeline.router(), 150));
    let id = user.apply(&rollout("").replace("absolute: 0.02", &format!("absolute: {margin}")));
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

/// The finding of a health check in a verdict.
fn issue<'a>(verdict: &'a Value, reason: &str) -> Option<&'a Value> {
    verdict["health"].as_array()?.iter().find(|issue| issue["reason"] == reason)
}

/// The number of canary calls in a verdict that end in `outcome`, out of all canary calls.
fn of_canary(verdict: &Value, outcome: &str) -> (f64, f64) {
    let arms = verdict["arms"].as_array().map_or(&[][..], Vec::as_slice);
    let canary = arms.iter().find(|arm| arm["arm"] == "canary").unwrap_or(&Value::Null);
    (canary[outcome].as_f64().unwrap_or(0.0), canary["events"].as_f64().unwrap_or(0.0))
}

#[test]
fn three_users_that_fail_on_purpose_do_not_roll_back_an_equal_canary() {
    let (pipeline, user, users, id) = pipeline(HEALTHY);
    users.wait_for(300);
    let attackers = Users::of(&pipeline.router(), 60, keys_of_canary(&pipeline.router(), 3), POISON);
    attackers.wait_for(60);
    drop(attackers);
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
    let (_pipeline, user, _users, id) = pipeline(Version { every: 5, ..HEALTHY });
    let state = user.wait_for_phase(&id, "rolled_back");
    assert!(state.to_string().contains("error rate"), "{state:#}");
}

/// The first attack of docs/trust.md: three keys bring the failures of the canary above the ceiling. The margin is wide, so that only the
/// ceiling could hold the rollout.
#[test]
fn three_users_that_fail_on_purpose_do_not_reach_the_ceiling() {
    let (pipeline, user, _users, id) = pipeline_with(HEALTHY, "0.9");
    let _attackers = Users::of(&pipeline.router(), 60, keys_of_canary(&pipeline.router(), 3), POISON);
    let mut found = Value::Null;
    wait_until(PATIENCE, || {
        found = verdict(&user, &id);
        Ok(issue(&found, "outage").is_some())
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
    let issue = issue(&found, "outage").unwrap();
    let sentence = issue["sentence"].as_str().unwrap();
    assert_eq!(issue["policy"], "warn", "{found:#}");
    assert!(sentence.starts_with("too many of the canary's calls fail: "), "{sentence}");
    assert!(sentence.ends_with(" users, so it does not hold the rollout"), "{sentence}");
    assert_ne!(found["decision"], "rollback", "{found:#}");
}

/// The counterpart of the attack: failures that all users see hold the rollout at the ceiling.
#[test]
fn failures_of_all_users_above_the_ceiling_hold_the_rollout() {
    let (_pipeline, user, _users, id) = pipeline_with(Version { every: 2, ..HEALTHY }, "0.9");
    let mut found = Value::Null;
    wait_until(PATIENCE, || {
        found = verdict(&user, &id);
        Ok(issue(&found, "outage").is_some_and(|issue| issue["policy"] == "hold"))
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
}

/// The second attack of docs/trust.md: one key makes more than a third of the canary's calls, and leaves each of them early.
#[test]
fn one_user_who_leaves_early_does_not_hold_the_rollout() {
    let (pipeline, user, _users, id) = pipeline(HEALTHY);
    let _attacker = Users::of(&pipeline.router(), 40, keys_of_canary(&pipeline.router(), 1), LATE);
    let mut found = Value::Null;
    wait_until(PATIENCE, || {
        found = verdict(&user, &id);
        assert!(issue(&found, "cancelled_share_differs").is_none_or(|issue| issue["policy"] == "warn"), "{found:#}");
        let (cancelled, calls) = of_canary(&found, "cancelled");
        Ok(cancelled >= 300.0 && cancelled >= calls * 0.25)
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
    assert_ne!(found["decision"], "rollback", "{found:#}");
}

/// The counterpart of the attack: a canary whose callers all leave early holds the rollout.
#[test]
fn a_canary_that_all_users_leave_holds_the_rollout() {
    let (_pipeline, user, _users, id) = pipeline(Version { late: true, ..HEALTHY });
    let mut found = Value::Null;
    wait_until(PATIENCE, || {
        found = verdict(&user, &id);
        Ok(issue(&found, "cancelled_share_differs").is_some_and(|issue| issue["policy"] == "hold"))
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#}"));
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
