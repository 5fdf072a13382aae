//! The load on the fleet: models, callers, feedback, and one rollout after the other.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use axum::{Json, Router, http::StatusCode, response::IntoResponse};
use reqwest::Client;
use serde_json::{Value, json};

const MODEL: &str = "flights";
/// The equal versions.
const GOOD: [&str; 2] = ["v1", "v2"];
/// The version that must be rolled back.
pub(crate) const BAD: &str = "v3";
/// One of this many answers of [`BAD`] is an error.
const BAD_EVERY: u64 = 5;
/// Calls per second.
const RATE: u32 = 40;
/// How long a rollout may take during the faults before it is aborted and counted as given up.
const ROLLOUT: Duration = Duration::from_mins(5);
/// Interval between two requests for the rollouts.
const LOOK: Duration = Duration::from_millis(500);

/// The model servers, one for each version.
#[derive(Debug)]
pub(crate) struct Models {
    urls: BTreeMap<&'static str, String>,
    /// Whether a version currently fails every call.
    turned_bad: BTreeMap<&'static str, Arc<AtomicBool>>,
}

impl Models {
    pub(crate) fn start() -> Result<Self> {
        let (mut urls, mut turned_bad) = (BTreeMap::new(), BTreeMap::new());
        for version in GOOD.into_iter().chain([BAD]) {
            let switch = Arc::new(AtomicBool::new(false));
            urls.insert(version, model(version == BAD, Arc::clone(&switch))?);
            turned_bad.insert(version, switch);
        }
        Ok(Self { urls, turned_bad })
    }

    /// The settings of a router with these models.
    pub(crate) fn settings(&self) -> Vec<String> {
        let versions = self.urls.iter().map(|(version, url)| format!("router.models.{MODEL}.versions.{version}={url}"));
        versions.chain([format!("router.models.{MODEL}.stable={}", GOOD[0])]).collect()
    }

    /// Sets whether a version fails every call.
    pub(crate) fn turn(&self, version: &str, bad: bool) {
        self.turned_bad[version].store(bad, Ordering::Relaxed);
    }
}

/// Starts a model server that ends with the test, and returns its URL.
fn model(bad: bool, turned_bad: Arc<AtomicBool>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?);
    let calls = Arc::new(AtomicU64::new(0));
    let answer = move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let fails = turned_bad.load(Ordering::Relaxed);
        async move {
            if fails || bad && call.is_multiple_of(BAD_EVERY) {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            let probability = (call % 10) as f64 / 10.0;
            let output = json!({"name": "probability", "shape": [1], "datatype": "FP64", "data": [probability]});
            Json(json!({"model_name": MODEL, "outputs": [output]})).into_response()
        }
    };
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let app = Router::new().fallback(answer);
        runtime.block_on(async { Ok(axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await?) })
    });
    Ok(url)
}

fn spec(stable: &str, canary: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1
kind: Rollout
model: {MODEL}
stable: {{version: {stable}}}
canary: {{version: {canary}}}
window: 2s
warmup: {{minEvents: 100}}
steps:
  - {{weight: 20%, bake: {{min: 6s, max: 10m}}}}
  - {{weight: 40%, bake: {{min: 10s, max: 10m}}, require: no_fail}}
segments:
  - {{name: origin, source: {{input: origin}}, top: 3}}
outputs:
  - {{name: probability, source: {{tensor: probability}}, min: 0, max: 1}}
metrics:
  - name: error_rate
    kind: rate
    source: error
    margin: {{absolute: 0.02}}
    segments: [origin]
  - name: wrong_rate
    kind: rate
    source: {{wrong: {{output: probability, label: late}}}}
    margin: {{absolute: 0.4}}
    segments: [origin]
    maturity: 4s
  - name: brier
    kind: {{mean: {{min: 0, max: 1}}}}
    source: {{squared_error: {{output: probability, label: late}}}}
    margin: {{absolute: 0.4}}
    role: watch
    maturity: 4s
  - name: latency
    kind: {{quantile: {{level: 0.99}}}}
    source: latency
    margin: {{relative: 1.0}}
    role: watch
# Faults of the pipeline are not findings, and none of them needs an operator.
decision: {{falseRollback: 0.0001}}
"
    )
}

/// Counts so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Number of calls that were answered.
    pub(crate) answered: u64,
    /// Number of calls that no router answered.
    pub(crate) unanswered: u64,
    /// Number of rollouts by last phase, and by whether the canary was the bad version.
    pub(crate) ended: BTreeMap<(String, bool), u64>,
    /// Number of rollouts that were aborted because they took too long.
    pub(crate) given_up: u64,
}

/// Callers and rollouts, until stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    last: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    callers: Option<JoinHandle<()>>,
    rollouts: Option<JoinHandle<Result<()>>>,
}

impl Load {
    pub(crate) fn start(routers: Vec<String>, apis: Vec<String>) -> Self {
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let tally = Arc::<Mutex<Tally>>::default();
        let (asked, counts) = (Arc::clone(&stop), Arc::clone(&tally));
        let callers = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(call_on(&routers, &asked, &counts));
        });
        let mut rollouts = Rollouts { apis, last: Arc::clone(&last), tally: Arc::clone(&tally), seen: None };
        let rollouts = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(rollouts.run())
        });
        Self { stop, last, tally, callers: Some(callers), rollouts: Some(rollouts) }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of the current rollout, then stops the callers.
    pub(crate) fn finish(&mut self) -> Result<Tally> {
        self.last.store(true, Ordering::Relaxed);
        let ended = self.rollouts.take().map(|rollouts| rollouts.join().expect("the rollouts' thread"));
        self.stop.store(true, Ordering::Relaxed);
        self.callers.take().map(JoinHandle::join);
        ended.transpose()?;
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.last.store(true, Ordering::Relaxed);
    }
}

async fn call_on(routers: &[String], asked_to_stop: &AtomicBool, tally: &Arc<Mutex<Tally>>) {
    let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut calls = Vec::new();
    for number in 0.. {
        if asked_to_stop.load(Ordering::Relaxed) {
            break;
        }
        pace.tick().await;
        // Every second call has feedback, so two consecutive calls use the same router.
        let router = &routers[number as usize / 2 % routers.len()];
        calls.push(tokio::spawn(call(client.clone(), router.clone(), number, Arc::clone(tally))));
        calls.retain(|call| !call.is_finished());
    }
}

/// Sends a call, and feedback for every second call. Most feedback is in time, some is too late.
async fn call(client: Client, router: String, number: u64, tally: Arc<Mutex<Tally>>) {
    let origin = ["LGA", "JFK", "EWR", "BOS", "ORD"][(number % 5) as usize];
    let input = json!({"name": "origin", "shape": [1], "datatype": "BYTES", "data": [origin]});
    let id = format!("call-{number}");
    let request = client.post(format!("{router}/v2/models/{MODEL}/infer")).header("x-prediction-id", &id);
    let answered = match request.json(&json!({"inputs": [input]})).send().await {
        Ok(answer) => answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        *(if answered { &mut tally.answered } else { &mut tally.unanswered }) += 1;
    }
    if answered && number.is_multiple_of(2) {
        let wait = if number.is_multiple_of(50) { 6000 } else { number % 7 * 300 };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let late = u8::from(number.is_multiple_of(6));
        let feedback = json!({"prediction_id": id, "values": {"late": late}});
        // If there is no router, the feedback is lost.
        client.post(format!("{router}/v1/feedback")).json(&feedback).send().await.ok();
    }
}

/// Starts a rollout whenever none is running, alternating between an equal version and the bad version.
struct Rollouts {
    apis: Vec<String>,
    last: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    /// The current rollout, and when it was first seen.
    seen: Option<(String, Instant)>,
}

impl Rollouts {
    async fn run(&mut self) -> Result<()> {
        let client = Client::builder().timeout(Duration::from_secs(15)).build()?;
        let mut bad = false;
        let mut waited = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(newest) = self.newest(&client).await else { continue };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (id, phase) = (text(&newest["id"]), text(&newest["phase"]));
            let canary = text(&newest["spec"]["canary"]["version"]);
            let over =
                newest.is_null() || ["completed", "rolled_back", "aborted", "superseded"].contains(&phase.as_str());
            if !over {
                if self.seen.as_ref().is_none_or(|(seen, _)| *seen != id) {
                    self.seen = Some((id.clone(), Instant::now()));
                }
                if self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() > ROLLOUT) {
                    self.post(
                        &client,
                        &format!("/v1/rollouts/{id}/abort?wait_ms=5000"),
                        &json!({"reason": "too long"}),
                    )
                    .await;
                    self.seen = None;
                    self.tally.lock().unwrap_or_else(PoisonError::into_inner).given_up += 1;
                }
                continue;
            }
            if self.seen.as_ref().is_some_and(|(seen, _)| *seen == id) {
                self.seen = None;
                bad = canary != BAD;
                let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
                *tally.ended.entry((phase.clone(), canary == BAD)).or_default() += 1;
            }
            if self.last.load(Ordering::Relaxed) {
                return Ok(());
            }
            let stable = if phase == "completed" { canary } else { text(&newest["spec"]["stable"]["version"]) };
            let stable = if stable.is_empty() { GOOD[0].to_owned() } else { stable };
            let good = GOOD.into_iter().find(|version| *version != stable).context("two good versions")?;
            let next = json!(spec(&stable, if bad { BAD } else { good }));
            match self.apply(&client, next.as_str().unwrap_or_default()).await {
                Ok(()) => waited = None,
                Err(error) => {
                    // Retry, because a controller may have been killed. The rollout may have been started nevertheless.
                    let since = *waited.get_or_insert_with(Instant::now);
                    if since.elapsed() > ROLLOUT {
                        bail!("no rollout can be started: {error}");
                    }
                }
            }
        }
    }

    /// The newest rollout, or null if there is none; `None` if no controller answers.
    async fn newest(&self, client: &Client) -> Option<Value> {
        let mut newest: Option<Value> = None;
        for api in &self.apis {
            let Ok(answer) = client.get(format!("{api}/v1/rollouts")).timeout(Duration::from_secs(3)).send().await
            else {
                continue;
            };
            let Ok(rollouts) = answer.json::<Value>().await else { continue };
            let first = rollouts.get(0).cloned().unwrap_or_default();
            // One of the controllers may not have read everything yet.
            let generation = |value: &Value| value["generation"].as_i64().unwrap_or(-1);
            if newest.as_ref().is_none_or(|newest| generation(&first) > generation(newest)) {
                newest = Some(first);
            }
        }
        newest
    }

    async fn apply(&self, client: &Client, spec: &str) -> Result<()> {
        let mut last = String::new();
        for api in &self.apis {
            let request = client.post(format!("{api}/v1/rollouts?wait_ms=5000")).body(spec.to_owned());
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
                Err(error) => last = error.to_string(),
            }
        }
        bail!("{last}")
    }

    async fn post(&self, client: &Client, path: &str, body: &Value) {
        for api in &self.apis {
            let answer = client.post(format!("{api}{path}")).json(body).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
        }
    }
}
