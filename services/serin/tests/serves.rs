//! The serving version with the real binary: no rollout file changes its servers by accident, every kind of rollback restores it, and a
//! refused command has no effect.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use reqwest::Method;
use serde_json::{Value, json};

use support::{PATIENCE, Pipeline, http, wait_until};
use world::{Behavior, User, infer, model_server, unreachable_url};

/// A pipeline whose router has no configured models.
fn pipeline() -> (Pipeline, User) {
    let settings = ["topology.partitions=2", "router.name=router-0", "router.heartbeat_every=100ms"];
    let pipeline = Pipeline::embedded(&settings).unwrap();
    let user = User(pipeline.api());
    (pipeline, user)
}

fn file(stable: &str, canary: &str, more: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable: {stable}
canary: {canary}
window: 1s
steps:
  - {{weight: 30%, bake: {{min: 1s, max: 2h}}, require: pass}}
metrics:
  - {{name: latency_p99, kind: {{quantile: {{level: 0.99}}}}, source: latency, margin: {{relative: 0.5}}}}
{more}"
    )
}

/// The version that answers one call, and its status.
fn call(pipeline: &Pipeline) -> (u16, String) {
    let url = format!("{}/v2/models/flights/infer", pipeline.router());
    let answer = http(Method::POST, &url, Some(&infer())).unwrap();
    (answer.status, answer.headers.get("x-model-version").cloned().unwrap_or_default())
}

/// The routes of the newest table.
fn routes(pipeline: &Pipeline) -> Value {
    let mut routes = Value::Null;
    wait_until(PATIENCE, || {
        routes = pipeline.ask("/v1/routing").map_or(Value::Null, |mut tables| tables[0]["routes"].take());
        Ok(!routes.is_null())
    })
    .unwrap();
    routes
}

#[test]
fn a_file_never_changes_the_serving_version_and_every_rollback_restores_it() {
    let (mut pipeline, user) = pipeline();
    let (old, new) = (model_server(Behavior::Good), model_server(Behavior::Good));
    user.apply(&file(&format!("{{version: '1', url: '{old}'}}"), &format!("{{version: '2', url: '{new}'}}"), ""));
    let promoted = user.run(&["promote", "flights", "--full"]).expect(0);
    assert!(promoted.out.starts_with("version 2 is the new stable"), "{promoted:?}");
    assert_eq!(user.run(&["status", "flights"]).code, 0);
    assert_eq!(call(&pipeline), (200, "2".to_owned()));
    let before = routes(&pipeline);
    assert_eq!(before, json!([{"version": "2", "arm": "stable", "share": 10_000, "url": new}]));

    // The same version at another address, at the previous address, and at an additional address.
    let canary = format!("{{version: '3', url: '{}'}}", unreachable_url());
    for url in [unreachable_url(), old.clone(), format!("{new},{old}")] {
        let moved = file(&format!("{{version: '2', url: '{url}'}}"), &canary, "");
        let refused = user.with_file(&moved, &["apply", "-f", "{}"]).expect(2);
        assert!(refused.err.contains("version 2 serves flights with `url`"), "{refused:?}");
        assert!(refused.err.contains("make it the canary"), "{refused:?}");
        assert_eq!((call(&pipeline), routes(&pipeline)), ((200, "2".to_owned()), before.clone()));
    }

    // Every kind of rollback.
    let left_out = file("{version: '2'}", &canary, "");
    let supersede = file("{version: '2'}", &canary.replace("'3'", "'4'"), "concurrency: supersede\n");
    for way in ["abort", "stop", "restart", "switch", "supersede"] {
        let id = user.apply(&left_out);
        match way {
            "abort" => drop(user.run(&["abort", &id]).expect(0)),
            "stop" => drop(user.run(&["stop", "--all"]).expect(0)),
            "restart" => {
                pipeline.kill("up").unwrap();
                pipeline.start("up").unwrap();
                pipeline.ready().unwrap();
                assert_eq!((call(&pipeline), routes(&pipeline)), ((200, "2".to_owned()), before.clone()), "{way}");
                user.run(&["abort", &id]).expect(0);
            }
            "switch" => {
                for on in [true, false] {
                    let url = format!("{}/switch/all-stable", pipeline.admin());
                    assert_eq!(http(Method::POST, &url, Some(&json!({"on": on}))).unwrap().status, 200);
                    assert_eq!(call(&pipeline), (200, "2".to_owned()));
                }
                user.run(&["abort", &id]).expect(0);
            }
            _ => {
                user.apply(&supersede);
                user.run(&["abort", "flights"]).expect(0);
            }
        }
        assert_eq!((call(&pipeline), routes(&pipeline)), ((200, "2".to_owned()), before.clone()), "{way}");
    }
    // A new address is rolled out like a new version.
    user.apply(&file("{version: '2'}", &format!("{{version: 2-moved, url: '{old}'}}"), ""));
    user.run(&["promote", "flights", "--full"]).expect(0);
    assert_eq!(call(&pipeline), (200, "2-moved".to_owned()));
}

#[test]
fn refused_commands_have_no_effect() {
    let (pipeline, user) = pipeline();
    let good = model_server(Behavior::Good);
    let stable = format!("{{version: '1', url: '{good}'}}");
    // Lint refuses every kind of invalid address.
    for url in ["http://a:1,b:2", "a:1", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://me:pw@a:1"] {
        let bad = file(&stable, &format!("{{version: '2', url: '{url}'}}"), "");
        let refused = user.with_file(&bad, &["apply", "-f", "{}"]).expect(1);
        assert!(refused.out.contains("error: canary.url: "), "{url}: {refused:?}");
    }
    // The canary has no URL and no router has reported one, so the rollout is refused before anything is written.
    wait_until(PATIENCE, || Ok(pipeline.ask("/v1/routers").is_some_and(|routers| routers[0]["configured"].is_array())))
        .unwrap();
    let nowhere = file(&stable, "{version: '2'}", "");
    let refused = user.with_file(&nowhere, &["apply", "-f", "{}"]).expect(2);
    assert!(refused.err.contains("no router knows where version 2 is served"), "{refused:?}");

    // An observed rollout is never promoted.
    let canary = format!("{{version: '2', url: '{good}'}}");
    let observed = user.apply(&file(&stable, &canary, "mode: observe\n"));
    for full in [&["promote", "flights", "--full"][..], &["promote", "flights"]] {
        let refused = user.run(full).expect(2);
        assert!(refused.err.contains("only observed (mode: observe)"), "{refused:?}");
    }
    let shown = user.run(&["get", "flights"]).expect(0).out;
    assert!(shown.contains("observed only") && shown.contains("no table: the rollout is only observed"), "{shown}");
    user.run(&["status", &observed]).expect(1);
    user.run(&["abort", &observed]).expect(0);

    // With external traffic, there is no report that the calls go to the canary.
    user.apply(&file(&stable, &canary, "traffic: external\n"));
    let promoted = user.run(&["promote", "flights", "--full"]).expect(1);
    assert!(promoted.out.contains("not applied yet: calls are split elsewhere"), "{promoted:?}");
    user.run(&["status", "flights"]).expect(1);
}
