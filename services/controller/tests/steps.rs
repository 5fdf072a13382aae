//! Stepping in over the API: weights, approvals, freezes, undo and retry.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::{Value, json};
use serin_controller::{
    Config, Secret,
    config::{Role, Token},
};
use serin_schemas::records::{Decision, Verdict};
use support::{SPEC, outgoing, verdict};
use world::{WAIT_MS, World};

/// Starts a rollout and its first step, and returns the rollout's id.
async fn baking(world: &World) -> String {
    let id = world.apply(SPEC).await;
    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(outgoing::<Verdict>("verdicts", &warm));
    let (_, news) = world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    assert_eq!(news["events"][0]["kind"], json!("advanced"), "{news}");
    id
}

async fn act(world: &World, path: &str, body: &Value) -> (StatusCode, Value) {
    world.post(&format!("/v1/{path}?wait_ms={WAIT_MS}"), body.to_string()).await
}

#[tokio::test]
async fn a_weight_is_set_with_a_reason_and_within_the_steps() {
    let world = World::new(Config::default());
    baking(&world).await;
    let path = "rollouts/flights/set-weight";
    for (body, error) in [
        (json!({"reason": "why"}), "needs a `weight`"),
        (json!({"weight": "ten", "reason": "why"}), "is not a share"),
        (json!({"weight": "7%", "from_step": 2}), "only valid for retry"),
        (json!({"weight": "7%", "full": true}), "only valid for promote"),
    ] {
        let (status, answer) = act(&world, path, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
    let (status, refused) = act(&world, path, &json!({"weight": "99%", "reason": "why"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("the steps of the file go up to"), "{refused}");
    let (status, set) = act(&world, path, &json!({"weight": "7%", "reason": "why"})).await;
    assert_eq!(status, StatusCode::OK, "{set}");
    assert!(set["sentence"].as_str().unwrap().contains(": 7% to v2, set by operator: why"), "{set}");
    let (_, state) = world.get("/v1/rollouts/flights").await;
    assert_eq!(
        (&state["canaryShare"], &state["byHand"]["weights"][0]),
        (&json!(700), &json!("7% in step 2 by operator"))
    );
}

#[tokio::test]
async fn a_freeze_reaches_every_partition_and_is_listed() {
    let world = World::new(Config::default());
    for model in ["flights", "fraud", "ranking", "search"] {
        world.apply(&SPEC.replace("model: flights", &format!("model: {model}"))).await;
    }
    let (status, refused) = act(&world, "freeze", &json!({"models": "*"})).await;
    assert_eq!((status, &refused["error"]), (StatusCode::CONFLICT, &json!("freeze refused: a freeze needs a reason")));
    for models in [String::new(), "f\n".to_owned(), "f".repeat(257)] {
        for verb in ["freeze", "unfreeze"] {
            let (status, _) = act(&world, verb, &json!({"models": models, "reason": "holidays"})).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{verb} {models:?}");
        }
    }
    let (status, frozen) = act(&world, "freeze", &json!({"models": "f*", "reason": "holidays"})).await;
    assert_eq!((status, &frozen["sentence"]), (StatusCode::OK, &json!("no steps of f*: frozen by operator: holidays")));
    let (_, freezes) = world.get("/v1/freezes").await;
    assert_eq!(
        (&freezes[0]["models"], &freezes[0]["reason"], &freezes[1]),
        (&json!("f*"), &json!("holidays"), &Value::Null)
    );
    for (model, is_frozen) in [("flights", true), ("fraud", true), ("ranking", false), ("search", false)] {
        let (_, state) = world.get(&format!("/v1/rollouts/{model}")).await;
        assert_eq!(state["freeze"].is_object(), is_frozen, "{model}: {state}");
    }
    let (status, _) = act(&world, "rollouts/flights/promote", &json!({"full": true})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = act(&world, "unfreeze", &json!({"models": "flights"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "only the pattern as it was frozen");
    let (status, _) = act(&world, "unfreeze", &json!({"models": "f*", "reason": "over"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.get("/v1/freezes").await.1, json!([]));
    assert_eq!(world.get("/v1/rollouts/fraud").await.1["freeze"], Value::Null);
}

#[tokio::test]
async fn a_promotion_is_undone_and_tried_again_with_the_steps_of_the_file() {
    let world = World::new(Config::default());
    let id = baking(&world).await;
    act(&world, "rollouts/flights/set-weight", &json!({"weight": "7%", "reason": "why"})).await;
    act(&world, "rollouts/flights/promote", &json!({"full": true})).await;
    let (status, undone) = act(&world, "rollouts/flights/undo", &json!({"reason": "complaints"})).await;
    assert_eq!((status, &undone["rollout"]), (StatusCode::OK, &json!(id)), "{undone}");
    assert_eq!(undone["sentence"], json!("undone by operator: complaints: v1 serves again"));
    let (_, tables) = world.get("/v1/routing").await;
    assert_eq!((&tables[0]["routes"][0]["version"], &tables[0]["routes"][1]), (&json!("v1"), &Value::Null));
    assert_eq!(act(&world, "rollouts/flights/undo", &json!({})).await.0, StatusCode::CONFLICT);
    assert_eq!(act(&world, "rollouts/flights/retry", &json!({"from_step": 0})).await.0, StatusCode::BAD_REQUEST);
    let (status, again) = act(&world, "rollouts/flights/retry", &json!({"from_step": 2})).await;
    assert_eq!(status, StatusCode::CREATED, "{again}");
    let (_, state) = world.get("/v1/rollouts/flights").await;
    assert_eq!(
        (&state["id"], &state["retry"]["of"], &state["retry"]["attempt"]),
        (&again["rollout"], &json!(id), &json!(2))
    );
    assert_eq!(state["spec"]["steps"][0]["weight"], json!("5%"));
    assert_ne!(state["spec"]["steps"][1]["weight"], json!("7%"));
}

/// An undo by the model's name is about its newest rollout.
#[tokio::test]
async fn an_undo_after_a_rollout_that_was_not_promoted_does_not_undo_the_promotion_before() {
    let world = World::new(Config::default());
    let promoted = baking(&world).await;
    act(&world, "rollouts/flights/promote", &json!({"full": true})).await;
    let next = SPEC.replace("version: v1", "version: v2").replace("canary: {version: v2", "canary: {version: v3");
    let next = next.replace("9002", "9003").replace("9001", "9002");
    let ended = world.apply(&next).await;
    let (status, answer) = act(&world, "rollouts/flights/undo", &json!({"reason": "one"})).await;
    assert_eq!((status, &answer["rollout"]), (StatusCode::OK, &json!(ended)), "{answer}");
    // The same request again, as after a timeout.
    let (status, refused) = act(&world, "rollouts/flights/undo", &json!({"reason": "one"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains(&promoted), "it names what can be undone: {refused}");
    let (_, tables) = world.get("/v1/routing").await;
    assert_eq!(tables[0]["routes"][0]["version"], json!("v2"));
    let (status, undone) = act(&world, &format!("rollouts/{promoted}/undo"), &json!({"reason": "two"})).await;
    assert_eq!(status, StatusCode::OK, "{undone}");
}

#[tokio::test]
async fn nothing_to_approve_is_refused_and_a_viewer_may_do_none_of_it() {
    let world = World::new(Config::default());
    baking(&world).await;
    for verb in ["approve", "reject"] {
        let (status, answer) = act(&world, &format!("rollouts/flights/{verb}"), &json!({})).await;
        assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("waits for no approval"), "{answer}");
    }
    let token = Token { role: Role::Viewer, token: Secret::new("viewer-0123456789") };
    let world = World::new(Config { tokens: [("grafana".to_owned(), token)].into(), ..Config::default() });
    for path in
        ["rollouts/x/set-weight", "rollouts/x/approve", "rollouts/x/undo", "rollouts/x/retry", "freeze", "unfreeze"]
    {
        let request = Request::post(format!("/v1/{path}")).header(header::AUTHORIZATION, "Bearer viewer-0123456789");
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.0, StatusCode::FORBIDDEN, "{path}");
    }
}
