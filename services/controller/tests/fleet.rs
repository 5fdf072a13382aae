//! Marks of ended rollouts, and all rollouts in numbers.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use axum::http::StatusCode;
use serde_json::json;
use serin_controller::{Config, fleet::Fleet};
use support::SPEC;
use world::{NOW_MS, WAIT_MS, World};

#[tokio::test]
async fn a_mark_is_recorded_and_counted() {
    let world = World::new(Config::default());
    let act = async |id: &str, verb: &str, body: serde_json::Value| {
        world.post(&format!("/v1/rollouts/{id}/{verb}?wait_ms={WAIT_MS}"), body.to_string()).await
    };
    let first = world.apply(SPEC).await;
    let mark = json!({"was": "bad", "reason": "complaints a week later"});
    let (status, refused) = act(&first, "mark", mark.clone()).await;
    assert_eq!((status, &refused["refused"]), (StatusCode::CONFLICT, &json!(true)), "{refused}");
    assert_eq!(act(&first, "promote", json!({"full": true, "reason": "a test"})).await.0, StatusCode::OK);
    // A model's name means the newest rollout.
    let (status, marked) = act("flights", "mark", mark).await;
    assert_eq!((status, &marked["rollout"]), (StatusCode::OK, &json!(first)), "{marked}");
    assert_eq!((&marked["event"]["kind"], &marked["event"]["was_good"]), (&json!("marked"), &json!(false)));
    assert_eq!(marked.get("applied"), None, "a mark moves no calls");
    for (verb, body) in [
        ("mark", json!({"reason": "x"})),
        ("mark", json!({"was": "better", "reason": "x"})),
        ("pause", json!({"was": "good"})),
    ] {
        assert_eq!(act(&first, verb, body.clone()).await.0, StatusCode::BAD_REQUEST, "{verb} {body}");
    }
    // The state of the rollout is as before.
    assert_eq!(world.get(&format!("/v1/rollouts/{first}")).await.1["phase"], "completed");

    // The events of the test are recorded by the machine's clock, which is later than the clock of the API.
    let (status, answer) = world.get("/v1/fleet?from=0").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!((&answer["read"]["complete"], &answer["to"]), (&json!(true), &json!(NOW_MS * 1000)));
    let fleet: Fleet = serde_json::from_value(answer).unwrap();
    assert_eq!(fleet.from.0, 0);
    let future = (NOW_MS + 1) * 1000;
    assert_eq!(world.get(&format!("/v1/fleet?from={future}")).await.0, StatusCode::BAD_REQUEST);
}
