//! The API over the controller's fold and a log in memory.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use serin_controller::{
    Config, Secret,
    api::{ApiState, api},
    config::{Policy, Role, Token},
    open,
    policies::Policies,
    view::View,
};
use serin_schemas::records::{Capture, Decision, Verdict};
use serin_stream::{
    log::{Log, LogError, WriteError, Writer},
    record::Outgoing,
    sim::SimLog,
};
use support::{SPEC, outgoing, verdict};
use tower::ServiceExt as _;
use world::{WAIT_MS, World, clock, send};

/// A model may have any name; each path takes it as one encoded part.
#[tokio::test]
async fn every_path_takes_every_name() {
    for name in
        ["org/model", "a%2Fb", "a%2fb", "50%off", "%", "a+b", "a?b#c", "modèle", "..", "a\\b", "llama3:8b", "promote"]
    {
        let world = World::new(Config::default());
        let spec = SPEC.replacen("model: flights", &format!("model: {}", json!(name)), 1);
        let id = world.apply(&spec).await;
        let part: Vec<String> = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let part = part.concat();
        let wait = format!("?wait_ms={WAIT_MS}");
        let (status, state) = world.get(&format!("/v1/rollouts/{part}")).await;
        assert_eq!((status, &state["id"]), (StatusCode::OK, &json!(id)), "{name}");
        for path in ["events", "examples", "profile", "contrasts"] {
            assert_eq!(world.get(&format!("/v1/rollouts/{part}/{path}")).await.0, StatusCode::OK, "{name} {path}");
        }
        let mut warm = verdict(&id, 1, 10, Decision::Promote);
        (warm.model, warm.frozen) = (name.into(), Some(r#"{"segments":{},"warmupEvents":1000}"#.into()));
        world.write(Outgoing { key: name.into(), ..outgoing::<Verdict>("verdicts", &warm) });
        let news = world.get(&format!("/v1/rollouts/{part}/events?after=1&wait_ms={WAIT_MS}")).await;
        assert_eq!(news.1["events"][0]["kind"], json!("advanced"), "{name}: {news:?}");
        assert_eq!(world.get(&format!("/v1/rollouts/{part}/verdict")).await.0, StatusCode::OK, "{name}");
        for verb in ["pause", "resume", "promote", "abort"] {
            let (status, answer) = world.post(&format!("/v1/rollouts/{part}/{verb}{wait}"), "").await;
            assert_eq!(status, StatusCode::OK, "{name} {verb}: {answer}");
            assert_eq!(answer["rollout"], json!(id), "{name} {verb}");
        }
    }
}

#[tokio::test]
async fn a_rollout_is_started_queried_and_acted_on() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;

    let (_, list) = world.get("/v1/rollouts").await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["phase"]), (1, &json!("warming")));
    let (_, state) = world.get("/v1/rollouts/flights").await;
    assert_eq!((&state["id"], &state["spec"]["metrics"][1]["name"]), (&json!(id), &json!("failed")));
    assert_eq!(world.get(&format!("/v1/rollouts/{id}/verdict")).await.0, StatusCode::NOT_FOUND);

    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(outgoing::<Verdict>("verdicts", &warm));
    let (status, news) = world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    assert_eq!((status, &news["next"], &news["events"][0]["kind"]), (StatusCode::OK, &json!(2), &json!("advanced")));
    assert_eq!(world.get("/v1/rollouts/flights/verdict").await.1["as_of"], json!(10_000_000));

    let wait = format!("?wait_ms={WAIT_MS}");
    let (status, paused) = world.post(&format!("/v1/rollouts/{id}/pause{wait}"), r#"{"reason": "lunch"}"#).await;
    assert_eq!((status, &paused["sentence"]), (StatusCode::OK, &json!("paused by operator: lunch")));
    let (status, refused) = world.post(&format!("/v1/rollouts/flights/pause{wait}"), "").await;
    assert_eq!((status, &refused["refused"]), (StatusCode::CONFLICT, &json!(true)));
    assert_eq!(refused["error"], json!("pause refused: operator has already paused it"));
    let (_, resumed) = world.post(&format!("/v1/rollouts/flights/resume{wait}"), "").await;
    assert_eq!(resumed["event"]["kind"], json!("resumed"));
    let (_, promoted) = world.post(&format!("/v1/rollouts/flights/promote{wait}"), r#"{"full": true}"#).await;
    assert_eq!(promoted["event"]["kind"], json!("completed"));
    let (_, tables) = world.get("/v1/routing").await;
    assert_eq!(
        tables[0]["routes"],
        json!([{"version": "v2", "arm": "stable", "share": 10_000, "url": "http://localhost:9002"}])
    );
    let (status, _) = world.post(&format!("/v1/rollouts/{id}/abort{wait}"), "").await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_rollout_is_found_by_the_start_of_its_id() {
    let world = World::new(Config::default());
    let of = |model: &str| SPEC.replace("model: flights", &format!("model: {model}"));
    let first = world.apply(&of("flights")).await;
    let second = world.apply(&of("fraud")).await;
    let shared = first.bytes().zip(second.bytes()).take_while(|(one, two)| one == two).count();
    let (unique, common) = (&second[..=shared], &second[..shared]);
    for path in ["", "/events"] {
        assert_eq!(world.get(&format!("/v1/rollouts/{unique}{path}")).await.0, StatusCode::OK, "{path}");
        let (status, body) = world.get(&format!("/v1/rollouts/{common}{path}")).await;
        assert_eq!(status, StatusCode::CONFLICT, "{path}");
        let error = body["error"].as_str().unwrap();
        assert!(error.contains("is the start of 2 rollout ids; give more"), "{error}");
        assert!(error.contains(&format!("\n  {second}  fraud, v1 -> v2\n  {first}  flights, v1 -> v2")), "{error}");
    }
    let wait = format!("?wait_ms={WAIT_MS}");
    assert_eq!(world.post(&format!("/v1/rollouts/{common}/abort{wait}"), "").await.0, StatusCode::CONFLICT);
    assert_eq!(world.get("/v1/rollouts/flights").await.1["phase"], "warming");
    let (_, aborted) = world.post(&format!("/v1/rollouts/{unique}/abort{wait}"), "").await;
    assert_eq!((&aborted["rollout"], &aborted["event"]["model"]), (&json!(second), &json!("fraud")));
    // A short text may be a typing error, and a model of that name takes precedence.
    assert_eq!(world.get(&format!("/v1/rollouts/{}", &second[..3])).await.0, StatusCode::NOT_FOUND);
    let third = world.apply(&of(common)).await;
    assert_eq!(world.get(&format!("/v1/rollouts/{common}")).await.1["id"], json!(third));
}

#[tokio::test]
async fn examples_are_those_of_the_rollout_and_disagreements_come_first() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let examples = format!("/v1/rollouts/{id}/examples");
    assert_eq!(world.get(&examples).await, (StatusCode::OK, json!([])));
    let capture = |request: &str, rollout: &str, differences: &[&str]| {
        let answer = |arm| json!({"version": "v1", "arm": arm, "status": 200, "error": null, "latency_us": 7, "body": "{}", "bytes": 2});
        let capture: Capture = serde_json::from_value(json!({
            "request_id": request, "model": "flights", "rollout": rollout, "generation": 2, "at": 5, "reason": "sample",
            "differences": differences, "request": null, "request_bytes": 9, "live": answer("control"), "shadow": answer("shadow"),
        }))
        .unwrap();
        world.write(outgoing("captures", &capture));
    };
    capture("a", &id, &["p: 1 against 2"]);
    capture("b", "another", &["p: 1 against 3"]);
    capture("c", &id, &[]);
    capture("d", &id, &["p: 1 against 4"]);
    let ids = |found: Value| found.as_array().unwrap().iter().map(|one| one["request_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(world.get(&examples).await.1), ["d", "a", "c"]);
    assert_eq!(ids(world.get(&format!("{examples}?limit=1")).await.1), ["d"]);
    assert_eq!(world.get("/v1/rollouts/unknown/examples").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn reports_of_a_rollout_without_windows_are_empty_and_say_what_was_read() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let (status, profile) = world.get(&format!("/v1/rollouts/{id}/profile?per=window&segments=true&from=1")).await;
    assert_eq!(
        (status, &profile["profiles"], &profile["read"]["complete"]),
        (StatusCode::OK, &json!([]), &json!(true))
    );
    assert_eq!(profile["rollout"], json!(id));
    let (status, contrasts) = world.get(&format!("/v1/rollouts/{id}/contrasts")).await;
    assert_eq!((status, &contrasts["looked"], &contrasts["strongest"]), (StatusCode::OK, &json!(0), &json!([])));
    assert!(contrasts["notes"].to_string().contains("set `capture:"), "{contrasts}");
    for path in ["profile?per=day", "profile?since=1", "contrasts?limit=1"] {
        assert_eq!(world.get(&format!("/v1/rollouts/{id}/{path}")).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    for path in ["profile", "contrasts"] {
        assert_eq!(world.get(&format!("/v1/rollouts/unknown/{path}")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_bad_spec_is_answered_with_all_its_problems_and_a_dry_run_starts_nothing() {
    let world = World::new(Config::default());
    let bad = SPEC.replace("weight: 25%", "weigth: 25%").replace("absolute: 0.02", "absolute: 2");
    let (status, body) = world.post("/v1/rollouts", bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let problems = body["problems"].as_array().unwrap();
    let errors: Vec<_> =
        problems.iter().filter(|problem| problem["severity"] == "error").map(|problem| &problem["path"]).collect();
    assert_eq!(errors, ["steps[1].weigth", "metrics[0].margin"], "{body:#}");
    assert!(problems.iter().all(|problem| problem["line"].as_u64() > Some(0)));

    let (status, body) = world.post("/v1/rollouts?dry_run=true&per_second=0.001", SPEC).await;
    assert_eq!((status, &body["spec"]["model"]), (StatusCode::OK, &json!("flights")));
    assert!(body["problems"].to_string().contains("shadow or blue-green"), "{body:#}");
    assert_eq!(world.get("/v1/rollouts").await.1, json!([]));
}

#[tokio::test]
async fn senseless_requests_are_refused_clearly() {
    let world = World::new(Config { max_body_bytes: 2048, ..Config::default() });
    assert_eq!(world.get("/v1/rollouts/unknown").await.0, StatusCode::NOT_FOUND);
    let nothing = world.get("/nothing").await.1;
    assert!(
        nothing["error"].as_str().unwrap().starts_with("there is no such path; see docs/api.md (in a path "),
        "{nothing}"
    );
    assert_eq!(world.post("/v1/rollouts", vec![0xff, 0xfe]).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.post("/v1/rollouts", "x".repeat(4096)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    world.apply(SPEC).await;
    assert_eq!(world.post("/v1/rollouts/flights/dance", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.post("/v1/rollouts/flights/pause", "{\"reson\": 1}").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(world.post("/v1/rollouts/flights/pause", "{\"full\": true}").await.0, StatusCode::BAD_REQUEST);
    let (status, body) = world.post(&format!("/v1/rollouts?wait_ms={WAIT_MS}"), SPEC).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(body["error"].as_str().unwrap().contains("abort it first"), "{body}");
}

#[tokio::test]
async fn stop_all_reaches_the_models_of_every_partition() {
    let world = World::new(Config::default());
    for model in ["flights", "fraud", "ranking", "search"] {
        world.apply(&SPEC.replace("model: flights", &format!("model: {model}"))).await;
    }
    let (status, body) = world.post(&format!("/v1/stop-all?wait_ms={WAIT_MS}"), r#"{"reason": "fire"}"#).await;
    // No router reports, so the answer does not claim that the traffic is on stable.
    assert_eq!((status, &body["sentence"]), (StatusCode::ACCEPTED, &json!("4 rollouts have stopped")));
    assert!(body["applied"]["waits_for"].as_str().unwrap().starts_with("no router reports"), "{body}");
    let (_, list) = world.get("/v1/rollouts").await;
    assert!(list.as_array().unwrap().iter().all(|state| state["phase"] == "aborted"));
}

/// A log that accepts everything.
struct Taken;

impl Writer for Taken {
    fn send(&self, _: Outgoing) -> Result<(), WriteError> {
        Ok(())
    }

    fn flush(&self, _: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn failed(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn stop_all_claims_nothing_before_the_api_has_read_its_topics() {
    let (_publish, view) = tokio::sync::watch::channel(Arc::new(View::new(1)));
    let policies = Policies::load(&Config::default().policies).unwrap();
    let routes = api(ApiState::new(Config::default(), policies, Arc::new(Taken), view, clock()));
    let (status, body) = send(&routes, Request::post("/v1/stop-all").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().starts_with("the stop is on the log, but"), "{body}");
}

#[tokio::test]
async fn with_tokens_viewers_read_and_operators_act() {
    let token = |role, text: &str| Token { role, token: Secret::new(text) };
    let tokens = [
        ("grafana".to_owned(), token(Role::Viewer, "viewer-0123456789")),
        ("ada".to_owned(), token(Role::Operator, "operator-0123456789")),
    ];
    let world = World::new(Config { tokens: tokens.into(), ..Config::default() });
    let request = |method: &str, token: &str| {
        let request = Request::builder().method(method).uri(format!("/v1/rollouts?wait_ms={WAIT_MS}"));
        let uri = if method == "GET" { request.uri("/v1/rollouts") } else { request };
        uri.header(header::AUTHORIZATION, format!("Bearer {token}")).body(Body::from(SPEC)).unwrap()
    };
    assert_eq!(world.get("/v1/rollouts").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.send(request("GET", "wrong-0123456789")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.send(request("GET", "viewer-0123456789")).await.0, StatusCode::OK);
    assert_eq!(world.send(request("POST", "viewer-0123456789")).await.0, StatusCode::FORBIDDEN);
    let (status, body) = world.send(request("POST", "operator-0123456789")).await;
    assert_eq!((status, &body["event"]["actor"]), (StatusCode::CREATED, &json!("ada")));
}

#[tokio::test]
async fn without_tokens_a_web_page_of_another_origin_is_refused() {
    let world = World::new(Config::default());
    let with = |name, value: &str| Request::post("/v1/stop-all").header(name, value).body(Body::empty()).unwrap();
    for (name, value) in
        [(header::HOST, "rebound.example.org"), (header::ORIGIN, "https://example.org"), (header::ORIGIN, "null")]
    {
        assert_eq!(world.send(with(name, value)).await.0, StatusCode::FORBIDDEN, "{value}");
    }
    let mut own = with(header::HOST, "localhost:8100");
    *own.uri_mut() = format!("/v1/stop-all?wait_ms={WAIT_MS}").parse().unwrap();
    assert_eq!(world.send(own).await.0, StatusCode::OK);
}

#[test]
fn a_wrong_configuration_is_refused_with_all_problems() {
    let log: Arc<dyn Log> = Arc::new(SimLog::new());
    let policies = [("fraud".to_owned(), Policy::default())].into();
    let config = Config { listen: ([0, 0, 0, 0], 1).into(), policies, ..Config::default() };
    let error = open(config, log, clock()).err().unwrap().to_string();
    assert!(error.contains("listen: ") && error.contains("policies.fraud: give either"), "{error}");
}

#[tokio::test]
async fn every_failure_is_json() {
    let world = World::new(Config { max_body_bytes: 1024, ..Config::default() });
    let request = |method: &str, path: &str, body: &str| {
        Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()
    };
    let large = "x".repeat(2000);
    let (mib, wrong) = ("y".repeat(1 << 20), "{");
    for (method, path, body, status) in [
        ("GET", "/v1/rollouts/r/events?nonsense=1", "", 400),
        ("GET", "/v1/rollouts/r/examples?limit=many", "", 400),
        ("POST", "/v1/rollouts?wait_ms=-1", "", 400),
        ("POST", "/v1/rollouts", large.as_str(), 413),
        ("POST", "/v1/stop-all", mib.as_str(), 413),
        ("POST", "/v1/stop-all", wrong, 400),
        ("DELETE", "/v1/rollouts", "", 405),
        ("PUT", "/hooks/mlflow", "", 405),
        ("GET", "/v1/rollouts/%ff/verdict", "", 400),
        ("GET", "/nowhere", "", 404),
    ] {
        let response = world.routes.clone().oneshot(request(method, path, body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::from_u16(status).unwrap(), "{method} {path}");
        let content = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        assert_eq!(content, "application/problem+json", "{method} {path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {body}");
    }
}
