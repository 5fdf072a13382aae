//! A decision is done when routers use its table, and an answer is about the rollout that was meant.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use serin_controller::Config;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{RouterStatus, TableApplied, TableRefused},
};
use support::{SPEC, outgoing};
use world::{WAIT_MS, World};

/// A report of `router-0` on `flights`: the generation that it uses, and one that it cannot use.
fn report(world: &World, applied: Option<i64>, refused: Option<i64>) {
    let applied = applied.map(|generation| TableApplied {
        model: "flights".into(),
        generation: Generation(generation),
        lease_seq: 0,
        apply_us: 1,
    });
    let refused = refused.map(|generation| TableRefused {
        model: "flights".into(),
        generation: Generation(generation),
        reason: "version \"v2\" has no URL".to_owned(),
    });
    let status = RouterStatus {
        router: "router-0".into(),
        incarnation: 1,
        at: EventTime(0),
        applied: applied.into_iter().collect(),
        shed: Vec::new(),
        undecided: Vec::new(),
        refused: refused.into_iter().collect(),
        configured: None,
        leaving: false,
        seen_outputs: Vec::new(),
        seen_labels: Vec::new(),
    };
    world.write(outgoing("router-status", &status));
}

/// The `applied` part of a rollout's state, as soon as it is `as_wanted`.
async fn applied(world: &World, id: &str, as_wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..10_000 {
        let (_, state) = world.get(&format!("/v1/rollouts/{id}")).await;
        if as_wanted(&state["applied"]) {
            return state["applied"].clone();
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never");
}

#[tokio::test]
async fn a_promotion_is_done_when_routers_use_it() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let unreported = applied(&world, &id, |_| true).await;
    assert!(unreported["done"] == false && unreported["waits_for"].as_str().unwrap().starts_with("no router reports"));
    report(&world, None, Some(1));
    let refused = applied(&world, &id, |applied| applied["refused"] == true).await;
    assert_eq!(refused["waits_for"], json!("router router-0 cannot use generation 1: version \"v2\" has no URL"));
    let (_, news) = world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    assert!(news["events"][0]["sentence"].as_str().unwrap().contains("cannot use the table of generation 1"), "{news}");

    report(&world, Some(1), None);
    assert_eq!(applied(&world, &id, |applied| applied["done"] == true).await["routers"], json!(["router-0"]));
    report(&world, Some(1), Some(2));
    let promote = format!("/v1/rollouts/flights/promote?wait_ms={WAIT_MS}");
    let (status, promoted) = world.post(&promote, r#"{"full": true}"#).await;
    assert_eq!((status, &promoted["event"]["kind"]), (StatusCode::OK, &json!("completed")));
    assert_eq!(promoted["applied"]["done"], false);
    let waits_for = promoted["applied"]["waits_for"].as_str().unwrap();
    assert!(
        waits_for.contains("cannot use generation 2") && waits_for.contains("keeps using generation 1"),
        "{promoted}"
    );
    report(&world, Some(2), None);
    applied(&world, &id, |applied| applied["done"] == true).await;
}

#[tokio::test]
async fn a_rollout_that_moves_no_calls_is_never_reported_as_applied() {
    let world = World::new(Config::default());
    report(&world, Some(9), None);
    let observed = world.apply(&(SPEC.to_owned() + "mode: observe\n")).await;
    let unapplied = applied(&world, &observed, |_| true).await;
    assert!(
        unapplied["done"] == false && unapplied["waits_for"].as_str().unwrap().contains("only observed"),
        "{unapplied}"
    );
    for body in ["", r#"{"full": true}"#] {
        let (status, refused) = world.post(&format!("/v1/rollouts/flights/promote?wait_ms={WAIT_MS}"), body).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(refused["error"].as_str().unwrap().contains("only observed"), "{refused}");
    }
    world.post(&format!("/v1/rollouts/flights/abort?wait_ms={WAIT_MS}"), "").await;
    let external = world.apply(&(SPEC.to_owned() + "traffic: external\n")).await;
    let (_, promoted) =
        world.post(&format!("/v1/rollouts/{external}/promote?wait_ms={WAIT_MS}"), r#"{"full": true}"#).await;
    assert_eq!(promoted["event"]["kind"], json!("completed"));
    assert!(promoted["applied"]["waits_for"].as_str().unwrap().contains("no actuator reports"), "{promoted}");
}

#[tokio::test]
async fn a_models_name_means_the_active_rollout_and_each_command_gets_its_own_sentence() {
    let world = World::new(Config::default());
    let running = world.apply(SPEC).await;
    let queue = |canary: &str, stable: &str| {
        let to = format!("canary: {{version: {canary}, url: 'http://{canary}:9001'}}");
        let spec = SPEC.replace("canary: {version: v2, url: 'http://localhost:9002'}", &to) + "concurrency: queue\n";
        if stable == "v1" { spec } else { spec.replace("{version: v1, url: 'http://localhost:9001'}", "{version: v2}") }
    };
    let waiting = world.apply(&queue("v3", "v2")).await;
    let dropped = world.apply(&queue("v4", "v1")).await;
    for path in ["/v1/rollouts/flights", "/v1/rollouts/flights/events"] {
        let (_, body) = world.get(path).await;
        assert!(body["id"] == json!(running) || body["events"][0]["rollout"] == json!(running), "{body}");
    }
    let wait = format!("?wait_ms={WAIT_MS}");
    let (_, promoted) = world.post(&format!("/v1/rollouts/flights/promote{wait}"), r#"{"full": true}"#).await;
    assert_eq!(promoted["rollout"], json!(running));
    assert_eq!(promoted["sentence"], json!("v2 is the new stable, promoted in full by operator"));
    assert_eq!(world.get("/v1/rollouts/flights").await.1["id"], json!(waiting));
    let (_, aborted) = world.post(&format!("/v1/rollouts/flights/abort{wait}"), "").await;
    assert_eq!(aborted["rollout"], json!(waiting));
    // A rollout that left the queue has an ending and a sentence.
    let state = world.get(&format!("/v1/rollouts/{dropped}")).await.1;
    assert_eq!((&state["phase"], &state["ending"]["outcome"]), (&json!("aborted"), &json!("aborted")), "{state}");
    assert!(state["sentence"].as_str().unwrap().starts_with("aborted when its turn came"), "{state}");
}
