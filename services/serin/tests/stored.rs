//! Opens the log and the state of an older binary, and checks that its rollouts end correctly.
//!
//! `stored/<commit>.tar.gz` is the directory of a `serin up` of that commit, stopped in the middle of three rollouts: `sticky` (a good
//! version, assigned by user), `counted` (a version with 50 % more complaints) and `labelled` (a version that is wrong five times as
//! often, with labels that have not arrived yet). `scripts/stored-log.sh <commit>` creates such a file with this test.

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use support::{PATIENCE, Pipeline, REPLAY, alone, http, http_with, wait_until};
use world::User;

/// Event time at which the recording starts. It is a replay clock, so the machine's clock does not matter.
const START: i64 = 1_767_225_600;
/// Length of a window, in seconds.
const WINDOW: i64 = 10;
/// Calls of each model in a window.
const CALLS: usize = 90;
/// Number of windows that the older binary folded, some of them after the start of the canary. One more waits for its grace and labels.
const RECORDED: i64 = 9;
/// Maximum number of windows, more than any of the rollouts needs.
const MOST: i64 = 150;

/// A model of the recording.
struct Model {
    name: &'static str,
    /// The rest of the model's rollout file.
    rest: &'static str,
    /// The expected outcome of the rollout, and the metric that decides it.
    ends: (&'static str, Option<&'static str>),
}

const MODELS: [Model; 3] = [
    Model { name: "sticky", rest: "assignment: {sticky: {header: x-user}}\nmetrics: []\n", ends: ("promoted", None) },
    Model {
        name: "counted",
        rest: "metrics:
  - name: complaints
    kind: count
    source: {feedback: complaints}
    maturity: 20s
    whenMissing: zero
    margin: {relative: 0.2}
",
        ends: ("evidence", Some("complaints")),
    },
    Model {
        name: "labelled",
        rest: "metrics:
  - name: wrong
    kind: rate
    source: {wrong: {output: probability, label: late}}
    maturity: 60s
    margin: {absolute: 0.05}
",
        ends: ("evidence", Some("wrong")),
    },
];

impl Model {
    fn file(&self) -> String {
        format!(
            "apiVersion: serin.dev/v1
kind: Rollout
model: {}
stable: {{version: v1}}
canary: {{version: v2}}
window: {WINDOW}s
warmup: {{minEvents: 200}}
steps:
  - {{weight: 50%, bake: {{min: 2m, max: 2h}}, require: pass}}
outputs:
  - {{name: probability, source: {{tensor: probability}}, min: 0, max: 1}}
{}",
            self.name, self.rest
        )
    }

    /// Feedback on the answer to call number `call`. The callers are 40 users.
    fn feedback(&self, arm: &str, call: usize) -> Value {
        let bad = arm == "canary";
        match self.name {
            "counted" => json!({"complaints": call % 3 + usize::from(bad && call % 2 == 1)}),
            "labelled" => json!({"late": u8::from(call % 10 < if bad { 5 } else { 1 })}),
            _ => json!({"seen": 1}),
        }
    }
}

/// Settings of both binaries. Both must support all of them.
fn settings(model_server: &str) -> Vec<String> {
    let mut settings: Vec<String> = REPLAY.map(Into::into).into();
    for Model { name, .. } in MODELS {
        settings.push(format!("router.models.{name}.stable=v1"));
        settings.extend(["v1", "v2"].map(|version| format!("router.models.{name}.versions.{version}={model_server}")));
    }
    settings
}

/// Sends one window of calls to each model with a running rollout, and the feedback on the calls of the previous window.
fn window(pipeline: &Pipeline, number: i64, before: &mut Vec<Value>, models: &[&Model]) -> Result<()> {
    let start = START + number * WINDOW;
    if !before.is_empty() {
        let labels = Value::Array(std::mem::take(before));
        let taken = http(Method::POST, &format!("{}/v1/feedback", pipeline.router()), Some(&labels))?;
        ensure!(taken.status == 202, "feedback: {} {}", taken.status, taken.text);
    }
    for model in models {
        let url = format!("{}/v2/models/{}/infer", pipeline.router(), model.name);
        for call in 0..CALLS {
            let at = (start * 1_000_000 + (call as i64) * 80_000).to_string();
            let id = format!("{}-{number}-{call}", model.name);
            let user = format!("user-{}", (call * 7 + number as usize * 11) % 40);
            let headers = [("x-serin-event-time", at.as_str()), ("x-prediction-id", &id), ("x-user", &user)];
            let body = world::infer().to_string().into_bytes();
            let answer = http_with(Method::POST, &url, &headers, Some(body))?;
            ensure!(answer.status == 200, "{}: {} {}", model.name, answer.status, answer.text);
            let arm = answer.headers.get("x-model-arm").context("no arm")?;
            before.push(json!({"prediction_id": id, "values": model.feedback(arm, call), "observed_at": (start + WINDOW) * 1_000_000}));
        }
    }
    set_clock(pipeline, start + WINDOW)
}

fn set_clock(pipeline: &Pipeline, second: i64) -> Result<()> {
    let url = format!("{}/replay/clock", pipeline.admin());
    let set = http(Method::PUT, &url, Some(&json!({"now_us": second * 1_000_000})))?;
    ensure!(set.status == 200, "the clock: {} {}", set.status, set.text);
    Ok(())
}

/// The outcome of a rollout that has ended, and the metric that decided it.
fn ending(state: &Value) -> Option<(String, Option<String>)> {
    let ending = state.get("ending").filter(|ending| !ending.is_null())?;
    let metric = ending["reasons"][0]["metric"].as_str().map(ToOwned::to_owned);
    Some((ending["outcome"].as_str()?.to_owned(), metric))
}

/// Continues from window `number` until every rollout has ended, and returns the states.
fn play(pipeline: &Pipeline, mut number: i64) -> Result<Vec<Value>> {
    let user = User(pipeline.api());
    let mut before = Vec::new();
    loop {
        let states: Vec<Value> = MODELS.iter().map(|model| user.state(model.name)).collect();
        let open: Vec<&Model> =
            MODELS.iter().zip(&states).filter(|(_, state)| ending(state).is_none()).map(|(model, _)| model).collect();
        if open.is_empty() {
            return Ok(states);
        }
        ensure!(number < MOST, "not ended after {MOST} windows: {states:#?}");
        window(pipeline, number, &mut before, &open)?;
        number += 1;
        // There is a second of grace between a window's end and its verdict.
        let planned = (START + (number - 1) * WINDOW) * 1_000_000;
        for model in open {
            wait_until(PATIENCE, || {
                let progress = pipeline.ask(&format!("/v1/rollouts/{}/progress", model.name));
                let through = progress.and_then(|progress| progress["planned_through"].as_i64());
                Ok(through.is_some_and(|through| through >= planned) || ending(&user.state(model.name)).is_some())
            })
            .with_context(|| format!("{} is not judged at window {number}", model.name))?;
        }
    }
}

fn stored() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "stored"].iter().collect()
}

fn tar(arguments: &[&str]) -> Result<()> {
    let done = Command::new("tar").args(arguments).output().context("tar")?;
    ensure!(done.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Creates the recording `SERIN_STORED_AS` with the binary `SERIN_STORED_BY`.
fn make(binary: &str, name: &str) -> Result<()> {
    let server = world::model_server(world::Behavior::Good);
    let settings = settings(&server);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut pipeline = Pipeline::embedded_by(Path::new(binary), &settings, |_| Ok(()))?;
    set_clock(&pipeline, START)?;
    let user = User(pipeline.api());
    for model in &MODELS {
        user.apply(&model.file());
    }
    let (mut before, models): (_, Vec<&Model>) = (Vec::new(), MODELS.iter().collect());
    for number in 0..RECORDED {
        window(&pipeline, number, &mut before, &models)?;
        let planned = (START + number * WINDOW) * 1_000_000;
        wait_until(PATIENCE, || {
            let through = |model: &&Model| {
                let progress = pipeline.ask(&format!("/v1/rollouts/{}/progress", model.name))?;
                progress["planned_through"].as_i64().filter(|through| *through >= planned)
            };
            Ok(number == 0 || models.iter().all(|model| through(model).is_some()))
        })?;
    }
    for model in &MODELS {
        let state = user.state(model.name);
        ensure!(state["phase"] == "baking", "{}: {state:#}", model.name);
    }
    pipeline.stop_all()?;
    let (folder, file) = (pipeline.data_dir("up"), stored().join(format!("{name}.tar.gz")));
    let (folder, file) = (folder.display().to_string(), file.display().to_string());
    // Logs and locks of the databases are not needed.
    tar(&["-czf", &file, "--exclude=LOG*", "--exclude=LOCK", "-C", &folder, "."])
}

#[test]
fn rollouts_of_an_older_binary_end_correctly() -> Result<()> {
    let _alone = alone();
    if let (Ok(binary), Ok(name)) = (std::env::var("SERIN_STORED_BY"), std::env::var("SERIN_STORED_AS")) {
        make(&binary, &name)?;
    }
    let mut found = 0;
    for entry in std::fs::read_dir(stored())? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "gz") {
            ends_all_three(&file).with_context(|| file.display().to_string())?;
            found += 1;
        }
    }
    ensure!(found > 0, "there is no recording in {}", stored().display());
    Ok(())
}

fn ends_all_three(file: &Path) -> Result<()> {
    let server = world::model_server(world::Behavior::Good);
    let settings = settings(&server);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let unpack = |folder: &Path| {
        std::fs::create_dir_all(folder)?;
        tar(&["-xzf", &file.display().to_string(), "-C", &folder.display().to_string()])
    };
    let mut pipeline = Pipeline::embedded_by(Path::new(support::SERIN), &settings, unpack)?;
    let states = play(&pipeline, RECORDED)?;
    for (model, state) in MODELS.iter().zip(&states) {
        let (outcome, metric) = ending(state).context("no ending")?;
        assert_eq!((outcome.as_str(), metric.as_deref()), model.ends, "{}: {state:#}", model.name);
        assert_eq!(state["rules"], 1, "{} started under the first rules: {state:#}", model.name);
    }
    pipeline.stop_all()?;
    // All records of the recording were read.
    let letters = pipeline.tail("dead-letters")?;
    ensure!(letters.is_empty(), "dead letters: {letters:#?}");
    let (events, windows) = (pipeline.tail("events")?, pipeline.tail("windows")?);
    // The tests' oracle only supports the current rules, so the binary replays the log.
    ensure!(
        !events.is_empty() && !windows.is_empty(),
        "the log has {} events and {} windows",
        events.len(),
        windows.len()
    );
    let replayed = pipeline.cli(&["replay"])?;
    let output = String::from_utf8_lossy(&replayed.stdout).into_owned();
    ensure!(replayed.status.success(), "{output}\n{}", String::from_utf8_lossy(&replayed.stderr));
    Ok(())
}
