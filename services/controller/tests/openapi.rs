//! `docs/openapi.json` describes the API as it is: the same routes and methods, and answers that have the documented shape.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use serin_controller::Config;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{RouterStatus, TableApplied, Verdict},
};
use support::{SPEC, outgoing};
use world::World;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

/// What is wrong with a value, by the schemas of the document. Understands the part of JSON Schema that the document uses.
fn wrong(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, rule) in schema.as_object().unwrap() {
        match key.as_str() {
            "$ref" => {
                let target = document.pointer(rule.as_str().unwrap().trim_start_matches('#'));
                found.extend(wrong(document, target.unwrap(), value, at));
            }
            "allOf" => {
                found.extend(rule.as_array().unwrap().iter().flat_map(|part| wrong(document, part, value, at)));
            }
            "oneOf" => {
                let parts: Vec<_> =
                    rule.as_array().unwrap().iter().map(|part| wrong(document, part, value, at)).collect();
                if parts.iter().all(|part| !part.is_empty()) {
                    found.extend(parts.concat());
                }
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{at}: an unknown type {other}"),
                };
                if !rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is)) {
                    found.push(format!("{at}: {value} is not of type {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{at}: {value} is not in {rule}"));
            }
            "const" if rule != value => found.push(format!("{at}: {value} is not {rule}")),
            "minimum" if value.as_f64() < rule.as_f64() => found.push(format!("{at}: {value} is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => found.push(format!("{at}: {value} is above {rule}")),
            "required" if value.is_object() => {
                let missing =
                    rule.as_array().unwrap().iter().filter(|name| value.get(name.as_str().unwrap()).is_none());
                found.extend(missing.map(|name| format!("{at}: {name} is missing")));
            }
            "properties" => {
                for (name, part) in rule.as_object().unwrap() {
                    let member = value.get(name).map(|member| wrong(document, part, member, &format!("{at}.{name}")));
                    found.extend(member.unwrap_or_default());
                }
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                found.extend(items.flat_map(|(index, item)| wrong(document, rule, item, &format!("{at}[{index}]"))));
            }
            "description" | "enum" | "const" | "minimum" | "maximum" | "required" | "maxLength" => {}
            other => panic!("{at}: the check does not know {other}"),
        }
    }
    found
}

/// The schema of an answer; `None` if its content is not described.
fn schema_of(document: &Value, path: &str, method: &str, status: StatusCode) -> Option<Value> {
    let mut response = &document["paths"][path][method]["responses"][status.as_str()];
    assert!(response.is_object(), "{method} {path} is answered with {status}, which is not described");
    if let Some(shared) = response["$ref"].as_str() {
        response = document.pointer(shared.trim_start_matches('#')).unwrap();
    }
    Some(response["content"].as_object()?.values().next()?["schema"].clone())
}

#[tokio::test]
async fn the_document_has_the_routes_of_the_api() {
    let document = document();
    let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let source = include_str!("../src/api/mod.rs");
    let routes: BTreeSet<&str> =
        source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(routes, described);

    let world = World::new(Config::default());
    for path in described {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            // The verb is one of several words; POST of an unknown one is not found.
            let uri = path.replace("{id}", "unknown").replace("{verb}", "pause");
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(world.routes.clone(), request).await.unwrap();
            let there = response.status() != StatusCode::METHOD_NOT_ALLOWED;
            let is_described = document["paths"][path].get(method.to_ascii_lowercase()).is_some();
            // `/v1/rollouts/{id}/verdict` is read, and as a verb it is unknown.
            let is_a_verb = method == "POST" && response.status() == StatusCode::NOT_FOUND;
            assert!(there == is_described || is_a_verb, "{method} {path}: {}", response.status());
        }
    }
}

#[tokio::test]
async fn answers_have_the_documented_shape() {
    let document = document();
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let golden: Verdict = serde_json::from_str(include_str!("../../../schemas/tests/golden/verdict.v5.json")).unwrap();
    let verdict = Verdict { model: "flights".into(), rollout: id.as_str().into(), ..golden };
    world.write(outgoing::<Verdict>("verdicts", &verdict));
    let applied = TableApplied { model: "flights".into(), generation: Generation(1), lease_seq: 0, apply_us: 1 };
    let status = RouterStatus {
        router: "router-0".into(),
        incarnation: 1,
        at: EventTime(0),
        applied: vec![applied],
        shed: Vec::new(),
        undecided: Vec::new(),
        refused: Vec::new(),
        configured: None,
        leaving: false,
        seen_outputs: Vec::new(),
        seen_labels: Vec::new(),
    };
    world.write(outgoing("router-status", &status));
    let until_read = async || {
        for _ in 0..20_000 {
            let (_, routers) = world.get("/v1/routers").await;
            let verdict = world.get(&format!("/v1/rollouts/{id}/verdict")).await.0;
            if routers != json!([]) && verdict == StatusCode::OK {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("the records were not read");
    };
    until_read().await;
    let mut checked = 0;
    let mut check = |method: &str, path: &str, (status, answer): (StatusCode, Value)| {
        if let Some(schema) = schema_of(&document, path, method, status) {
            assert_eq!(wrong(&document, &schema, &answer, path), Vec::<String>::new(), "{method} {path}: {answer}");
            checked += 1;
        }
    };
    for path in
        document["paths"].as_object().unwrap().keys().filter(|path| document["paths"][*path].get("get").is_some())
    {
        if path == "/v1/stream" {
            continue;
        }
        check("get", path, world.get(&path.replace("{id}", &id)).await);
        if path.contains("{id}") {
            check("get", path, world.get(&path.replace("{id}", "unknown")).await);
            check("get", path, world.get(&format!("{}?nonsense=1", path.replace("{id}", &id))).await);
        }
    }
    // A router that does not report is waited for; the answer 202 is described too.
    let wait = "?wait_ms=300";
    check("get", "/v1/rollouts/{id}/profile", world.get(&format!("/v1/rollouts/{id}/profile?metric=wrong")).await);
    check("post", "/v1/plan", world.post("/v1/plan?per_second=10", SPEC).await);
    check("post", "/v1/plan", world.post("/v1/plan", "model: x").await);
    check("post", "/v1/rollouts", world.post("/v1/rollouts", "model: x").await);
    check("post", "/v1/rollouts", world.post("/v1/rollouts?dry_run=true", SPEC).await);
    check("post", "/v1/rollouts", world.post(&format!("/v1/rollouts{wait}"), SPEC).await);
    check("post", "/v1/rollouts", world.post(&format!("/v1/rollouts{wait}"), SPEC.replace("flights", "fraud")).await);
    check("post", "/v1/rollouts", world.post("/v1/rollouts", SPEC.replace("flights", "later")).await);
    let act = "/v1/rollouts/{id}/{verb}";
    for verb in ["pause", "pause", "resume", "abort", "dance"] {
        check("post", act, world.post(&format!("/v1/rollouts/{id}/{verb}{wait}"), "").await);
    }
    check("post", act, world.post(&format!("/v1/rollouts/{id}/pause"), "{").await);
    check("post", "/v1/stop-all", world.post("/v1/stop-all?wait_ms=1", "").await);
    check("post", "/v1/session", world.post("/v1/session", r#"{"token": "x"}"#).await);
    check("post", "/v1/session", world.post("/v1/session", "{").await);
    check("post", "/hooks/mlflow", world.post("/hooks/mlflow", "{}").await);
    assert!(checked > 45, "{checked}");
}

/// The check finds what it looks for.
#[test]
fn a_wrong_answer_is_found() {
    let document = document();
    let schema = &document["components"]["schemas"]["Session"];
    let good = json!({"signed_in": false, "name": null, "role": null, "by": null, "ends_at": null, "tokens": true, "build": ""});
    assert_eq!(wrong(&document, schema, &good, "s"), Vec::<String>::new());
    for (member, value) in
        [("role", json!("root")), ("ends_at", json!(1.5)), ("signed_in", json!(null)), ("name", json!(7))]
    {
        let mut bad = good.clone();
        bad[member] = value;
        assert_eq!(wrong(&document, schema, &bad, "s").len(), 1, "{bad}");
    }
}
