//! Principle 7 with the real binary: a gate without evidence does not pass, and no step is taken while stable itself fails.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use serde_json::Value;

use support::{PATIENCE, Pipeline, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, model_server, model_server_by, rollout, wall};

/// A model server that fails three of five calls while `outage` is on.
fn server(outage: &Arc<AtomicBool>) -> String {
    let (outage, calls) = (Arc::clone(outage), Arc::new(AtomicU32::new(0)));
    model_server_by(move || {
        let fails = calls.fetch_add(1, Ordering::Relaxed) % 5 < 3;
        if fails && outage.load(Ordering::Relaxed) { Behavior::Fails } else { Behavior::Good }
    })
}

fn pipeline(v1: &str, v2: &str) -> Pipeline {
    Pipeline::embedded(&borrowed(&wall(&[("v1", v1), ("v2", v2)]))).unwrap()
}

/// Waits until the state of a rollout is as expected.
fn wait_for(user: &User, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut state = Value::Null;
    wait_until(PATIENCE * 2, || {
        state = user.state(id);
        Ok(wanted(&state))
    })
    .unwrap_or_else(|error| panic!("{error}: {state:#}"));
    state
}

#[test]
fn an_outage_of_both_versions_does_not_pass() {
    let outage = Arc::new(AtomicBool::new(false));
    let (v1, v2) = (server(&outage), server(&outage));
    let pipeline = pipeline(&v1, &v2);
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 100);
    let id = user.apply(&rollout("v2", "10s"));
    user.wait_for_phase(&id, "baking");
    outage.store(true, Ordering::Relaxed);
    let state = wait_for(&user, &id, |state| state["phase"] == "held");
    let sentence = state["sentence"].as_str().unwrap();
    assert!(sentence.contains("stable is failing too, so the canary is not the cause"), "{sentence}");
    let step = state["step"].clone();
    // Both versions keep failing alike for longer than the step bakes, and no check passes.
    let before = state["verdict"]["asOf"].as_i64().unwrap_or_default();
    let later = |verdict: &Value| verdict["as_of"].as_i64().unwrap_or_default() > before + 15_000_000;
    let mut verdict = Value::Null;
    wait_until(PATIENCE, || {
        verdict = user.run(&["explain", MODEL, "--output", "json"]).expect(0).json();
        Ok(later(&verdict))
    })
    .unwrap_or_else(|error| panic!("{error}: {verdict:#}"));
    assert_eq!(verdict["decision"], "hold", "{verdict:#}");
    let state = user.state(&id);
    assert_eq!((&state["phase"], &state["step"]), (&Value::from("held"), &step), "{state:#}");
    // The exit status of a held rollout is not success.
    let status = user.run(&["status", &id]).expect(1);
    assert!(status.out.contains("the canary is not the cause"), "{status:?}");
    let get = user.run(&["get", &id]).expect(0);
    assert!(get.out.contains("Held:      for ") && get.out.contains("(policy: hold)"), "{}", get.out);
    // The rollout continues when both versions have recovered.
    outage.store(false, Ordering::Relaxed);
    wait_for(&user, &id, |state| state["phase"] != "held");
}

#[test]
fn a_gate_without_data_stops_the_rollout_before_the_canary_gets_a_call() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let pipeline = pipeline(&v1, &v2);
    let user = User(pipeline.api());
    let traffic = Traffic::start(&pipeline.router(), 100);
    // The servers' tensor is named `probability`, so the output is never found.
    let spec = rollout("v2", "1s").replace("tensor: probability}", "tensor: probabilities}, required: false")
        + "  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: probability}, margin: {absolute: 0.1}}\n";
    let applied = user.with_file(&spec, &["apply", "-f", "{}"]).expect(0);
    assert!(applied.out.contains("warning: steps[1].require: no step requires a pass"), "{}", applied.out);
    assert!(applied.out.contains(" accepted. "), "{}", applied.out);
    let waits =
        |state: &Value| state["sentence"].as_str().is_some_and(|sentence| sentence.contains("score has no data"));
    let state = wait_for(&user, MODEL, waits);
    assert_eq!((&state["phase"], &state["canaryShare"]), (&Value::from("warming"), &Value::from(0)), "{state:#}");
    let get = user.run(&["get", MODEL]).expect(0).out;
    assert!(get.contains("  ! score: 0 of ") && get.contains("carried the output \"probability\""), "{get}");
    user.run(&["status", MODEL]).expect(1);
    let explained = user.run(&["explain", MODEL]).expect(0).out;
    assert!(
        explained.contains("Decision: hold. warm-up continues and the canary gets no traffic: score has no data"),
        "{explained}"
    );
    assert_eq!(traffic.answers("canary", 200), 0);
}

#[test]
fn warm_up_learns_nothing_from_answers_that_fail() {
    let outage = Arc::new(AtomicBool::new(true));
    let failing = {
        let outage = Arc::clone(&outage);
        model_server_by(move || if outage.load(Ordering::Relaxed) { Behavior::Fails } else { Behavior::Good })
    };
    let v2 = model_server(Behavior::Good);
    let pipeline = pipeline(&failing, &v2);
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 100);
    let id = user.apply(&rollout("v2", "1s"));
    let waits = |state: &Value| {
        state["sentence"].as_str().is_some_and(|sentence| sentence.contains("answers of stable are bad"))
    };
    let state = wait_for(&user, &id, waits);
    assert_eq!(state["phase"], "warming", "{state:#}");
    outage.store(false, Ordering::Relaxed);
    wait_for(&user, &id, |state| state["phase"] != "warming");
}
