//! Stepping in with the real binary: weights, freezes and approvals during a rollout, and the ways back after it.

mod support;
#[path = "support/world.rs"]
mod world;

use serde_json::Value;

use support::{PATIENCE, Pipeline, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, model_server, rollout, wall};

/// Waits until the state of the model's rollout is as expected.
fn wait_for(user: &User, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut state = Value::Null;
    wait_until(PATIENCE * 2, || {
        state = user.state(MODEL);
        Ok(wanted(&state))
    })
    .unwrap_or_else(|error| panic!("{error}: {state:#}"));
    state
}

fn asked(state: &Value) -> bool {
    state["hold"]["cause"] == "approval"
}

#[test]
fn people_step_in_and_go_back() {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let mut pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &v1), ("v2", &v2)]))).unwrap();
    let user = User(pipeline.api());
    let traffic = Traffic::start(&pipeline.router(), 100);
    let spec = rollout("v2", "4s").replace("max: 2h}, require", "max: 2h}, approve: {within: 2h}, require");
    let first = user.apply(&spec);
    user.wait_for_phase(&first, "baking");

    // Another weight is a step of its own, and its evidence starts over.
    let set = user.run(&["set-weight", MODEL, "12", "--reason", "the servers are small"]).expect(0);
    assert!(set.out.contains(": 12% to v2, set by operator: the servers are small"), "{set:?}");
    user.run(&["set-weight", MODEL, "80%", "--reason", "why"]).expect(2);
    let weights = |state: &Value| {
        let steps = state["spec"]["steps"].as_array().unwrap().iter().map(|step| step["weight"].to_string());
        steps.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(weights(&user.state(MODEL)), r#""30%" "12%" "30%" "50%""#);

    // A freeze stops the steps, survives a restart, and is visible.
    user.run(&["freeze", "fl*", "--for", "1h", "--reason", "incident 4711"]).expect(0);
    pipeline.kill("up").unwrap();
    pipeline.start("up").unwrap();
    pipeline.ready().unwrap();
    assert!(user.run(&["freeze"]).expect(0).out.starts_with("fl*: by operator (incident 4711), until "));
    let promote = user.run(&["promote", MODEL]).expect(2);
    assert!(promote.err.contains("unfreeze it first"), "{promote:?}");
    let shown = user.run(&["get", MODEL]).expect(0).out;
    assert!(shown.contains("Frozen:    no steps are taken; fl*: by operator (incident 4711)"), "{shown}");
    assert!(shown.contains("By hand:   12% in step 2 by operator"), "{shown}");
    user.run(&["unfreeze", "fl*", "--reason", "solved"]).expect(0);

    // The last step waits for its approval.
    let state = wait_for(&user, asked);
    assert_eq!((&state["step"], &state["canaryShare"]), (&Value::from(3), &Value::from(5_000)), "{state:#}");
    let shown = user.run(&["get", MODEL]).expect(0).out;
    assert!(shown.contains("You can:   serin approve flights, serin reject flights"), "{shown}");
    let approved = user.run(&["approve", MODEL, "--reason", "seen"]).expect(0);
    assert!(approved.out.contains("v2 is the new stable, approved by operator: seen"), "{approved:?}");
    assert!(approved.out.contains("set by hand: 12% in step 2 by operator"), "{approved:?}");
    user.run(&["status", &first]).expect(0);
    traffic.wait_for("stable", 200, 20);

    // The way back, once.
    let shown = user.run(&["get", MODEL]).expect(0).out;
    assert!(shown.contains("Way back:  serin undo flights goes back to v1, until "), "{shown}");
    let undone = user.run(&["rollback", MODEL, "--reason", "complaints"]).expect(0);
    assert!(undone.out.starts_with("undone by operator: complaints: v1 serves again"), "{undone:?}");
    user.run(&["status", &first]).expect(4);
    user.run(&["undo", MODEL]).expect(2);
    let confirmed = |kind: &str| user.run(&["events", &first]).expect(0).out.contains(kind);
    wait_until(PATIENCE, || Ok(confirmed("rollback confirmed: no calls go to v2 at router-0"))).unwrap();

    // Another attempt, from the second step of the file.
    let again = user.run(&["retry", MODEL, "--from-step", "2", "--output", "json"]).expect(0).json();
    let second = again["rollout"].as_str().unwrap().to_owned();
    let state = wait_for(&user, |state| state["phase"] == "baking");
    assert_eq!((&state["step"], state["id"].as_str()), (&Value::from(1), Some(second.as_str())), "{state:#}");
    assert_eq!(weights(&state), r#""30%" "50%""#);
    let shown = user.run(&["get", MODEL]).expect(0).out;
    assert!(shown.contains(&format!("Attempt:   2, after rollout {first}: undone by operator")), "{shown}");
    wait_for(&user, asked);
    let rejected = user.run(&["reject", MODEL, "--reason", "not now"]).expect(0);
    assert!(rejected.out.starts_with("rejected by operator: not now"), "{rejected:?}");
    wait_until(PATIENCE, || {
        Ok(user.run(&["events", &second]).expect(0).out.contains("rollback confirmed: no calls go to v2"))
    })
    .unwrap();
}
