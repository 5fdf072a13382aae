//! What the web page of the API needs: its files, sessions, verdicts over time, the matrix of segments, plans and the event stream.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use serin_controller::{
    Config, Secret,
    config::{Role, Token},
};
use serin_schemas::{
    ids::EventTime,
    records::{Decision, MetricVerdict, Segment, Verdict},
};
use support::{SPEC, outgoing, verdict};
use tower::ServiceExt as _;
use world::{NOW_MS, WAIT_MS, World};

const VIEWER: &str = "viewer-0123456789";
const OPERATOR: &str = "operator-0123456789";

fn with_tokens() -> Config {
    let token = |role, text: &str| Token { role, token: Secret::new(text) };
    let tokens =
        [("grafana".to_owned(), token(Role::Viewer, VIEWER)), ("ada".to_owned(), token(Role::Operator, OPERATOR))];
    Config { tokens: tokens.into(), ..Config::default() }
}

async fn answer(world: &World, request: Request<Body>) -> Response {
    world.routes.clone().oneshot(request).await.unwrap()
}

/// Signs in, and returns the cookie as a browser sends it back.
async fn sign_in(world: &World, token: &str) -> String {
    let body = json!({"token": token}).to_string();
    let request = Request::post("/v1/session").header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
    let response = answer(world, request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(token), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

fn with_cookie(method: &str, path: &str, cookie: &str, more: &[(&str, &str)]) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
    let request = request.header(header::HOST, "serin:8100");
    more.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_page_is_served_without_a_token_at_each_of_its_addresses() {
    let world = World::new(with_tokens());
    let page = world.get("/").await;
    assert!(page.0 == StatusCode::OK && page.1.as_str().unwrap().contains("/console/app.js"), "{page:?}");
    for path in [
        "/rollouts/01a2",
        "/rollouts/org%2Fmodel/evidence",
        "/models/fraud",
        "/plan",
        "/sign-in",
        "/console",
        "/console/",
        "/console/plan",
    ] {
        assert_eq!(world.get(path).await, page, "{path}");
    }
    for (path, kind) in [
        ("/console/app.js", "text/javascript; charset=utf-8"),
        ("/console/app.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let response = answer(&world, Request::get(path).body(Body::empty()).unwrap()).await;
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE].to_str().unwrap(), kind);
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
    // Nothing else is open.
    for path in ["/v1/rollouts", "/v1/stream", "/v1/routing", "/v1/schema"] {
        assert_eq!(world.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(world.get("/v1/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_has_the_role_of_its_token() {
    let world = World::new(with_tokens());
    let signed_out = json!({"signed_in": false, "name": null, "role": null, "by": null, "ends_at": null, "tokens": true,
        "build": env!("CARGO_PKG_VERSION")});
    assert_eq!(world.get("/v1/session").await, (StatusCode::OK, signed_out.clone()));
    let (viewer, operator) = (sign_in(&world, VIEWER).await, sign_in(&world, OPERATOR).await);
    let ends_at = (NOW_MS + 12 * 3_600_000) * 1000;
    let (_, session) = world.send(with_cookie("GET", "/v1/session", &viewer, &[])).await;
    let expected = json!({"signed_in": true, "name": "grafana", "role": "viewer", "by": "cookie", "ends_at": ends_at,
        "tokens": true, "build": env!("CARGO_PKG_VERSION")});
    assert_eq!(session, expected);

    let own = ("origin", "http://serin:8100");
    let stop = format!("/v1/stop-all?wait_ms={WAIT_MS}");
    for (cookie, headers, status, code) in [
        (&viewer, vec![own], 403, "forbidden"),
        (&operator, vec![], 403, "foreign_origin"),
        (&operator, vec![("origin", "http://serin.example")], 403, "foreign_origin"),
        (&operator, vec![("origin", "http://serin:8101")], 403, "foreign_origin"),
        (&operator, vec![("origin", "null")], 403, "foreign_origin"),
    ] {
        let (got, body) = world.send(with_cookie("POST", &stop, cookie, &headers)).await;
        assert_eq!((got.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
    }
    assert_eq!(world.send(with_cookie("GET", "/v1/rollouts", &viewer, &[])).await.0, StatusCode::OK);
    assert_eq!(world.send(with_cookie("POST", &stop, &operator, &[own])).await.0, StatusCode::OK);

    // The cookie is signed out, forged or of another token.
    let response = answer(&world, with_cookie("DELETE", "/v1/session", &operator, &[own])).await;
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().starts_with("serin_session=; "));
    let forged = operator.replacen("YWRh", "Z3JhZmFuYQ", 1);
    assert_ne!(forged, operator);
    for bad in [forged.as_str(), "serin_session=", "other=1"] {
        assert_eq!(world.send(with_cookie("GET", "/v1/session", bad, &[])).await, (StatusCode::OK, signed_out.clone()));
        assert_eq!(world.send(with_cookie("GET", "/v1/rollouts", bad, &[])).await.0, StatusCode::UNAUTHORIZED, "{bad}");
    }
    // Sessions survive a restart, and end when their token is replaced.
    let again = World::new(with_tokens());
    assert_eq!(again.send(with_cookie("GET", "/v1/rollouts", &viewer, &[])).await.0, StatusCode::OK);
    let mut config = with_tokens();
    config.tokens.get_mut("grafana").unwrap().token = Secret::new("replaced-0123456789");
    let replaced = World::new(config);
    let (status, body) = replaced.send(with_cookie("GET", "/v1/rollouts", &viewer, &[])).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("session_over")));
}

#[tokio::test]
async fn signing_in_needs_a_known_token_and_reveals_nothing() {
    let world = World::new(with_tokens());
    for (body, status, code) in [
        (r#"{"token": "wrong-0123456789"}"#, 401, "unknown_token"),
        (r#"{"token": ""}"#, 401, "unknown_token"),
        (r#"{"token": "operator-0123456789", "more": 1}"#, 400, "invalid_json"),
        ("operator-0123456789", 400, "invalid_json"),
        ("", 400, "invalid_json"),
    ] {
        let (got, answer) = world.post("/v1/session", body).await;
        assert_eq!((got.as_u16(), &answer["code"]), (status, &json!(code)), "{body}");
        assert!(!answer.to_string().contains("0123456789"), "{answer}");
    }
    let foreign = Request::post("/v1/session").header("host", "serin:8100").header("origin", "http://evil.example");
    let foreign = foreign.body(Body::from(json!({"token": OPERATOR}).to_string())).unwrap();
    assert_eq!(world.send(foreign).await.0, StatusCode::FORBIDDEN);

    // Without tokens, this machine is the operator.
    let local = World::new(Config::default());
    let (_, session) = local.get("/v1/session").await;
    assert_eq!(
        (&session["by"], &session["role"], &session["tokens"]),
        (&json!("local"), &json!("operator"), &json!(false))
    );
    let rebound = Request::get("/v1/session").header("host", "rebound.example").body(Body::empty()).unwrap();
    assert_eq!(local.send(rebound).await.0, StatusCode::FORBIDDEN);
}

/// A verdict at a time, with one metric over all traffic and in two segments.
fn judged(id: &str, generation: i64, secs: i64) -> Verdict {
    let golden: Verdict = serde_json::from_str(include_str!("../../../schemas/tests/golden/verdict.v5.json")).unwrap();
    let mut metrics = Vec::new();
    for segment in [Segment::all(), Segment::of("origin", "LGA"), Segment::of("origin", "JFK")] {
        let metric = MetricVerdict { segment, effect: Some(secs as f64), ..golden.metrics[0].clone() };
        metrics.push(MetricVerdict { metric: "late".to_owned(), ..metric.clone() });
        if metric.segment.value != "JFK" {
            metrics.push(metric);
        }
    }
    Verdict { metrics, ..verdict(id, generation, secs, Decision::Continue) }
}

async fn until(world: &World, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..20_000 {
        let (_, found) = world.get(path).await;
        if wanted(&found) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{path} never had it")
}

#[tokio::test]
async fn verdicts_over_time_are_thinned_and_have_the_weight() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let path = format!("/v1/rollouts/{id}/verdicts");
    let (status, none) = world.get(&path).await;
    assert_eq!((status, &none["points"], &none["complete"]), (StatusCode::OK, &json!([]), &json!(true)));
    assert_eq!(world.get(&format!("/v1/rollouts/{id}/segments")).await.1["code"], json!("no_verdict"));
    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(outgoing::<Verdict>("verdicts", &warm));
    let step = until(&world, &format!("/v1/rollouts/{id}"), |state| state["step"] == 0).await;
    let generation = step["generation"].as_i64().unwrap();
    for secs in 11..=400 {
        world.write(outgoing::<Verdict>("verdicts", &judged(&id, generation, secs)));
    }
    let last = EventTime::from_secs(400).0;
    let found = until(&world, &path, |found| found["seen"] == 391).await;
    let points = found["points"].as_array().unwrap();
    assert!((80..=160).contains(&points.len()) && found["every"] == 4, "{} of {}", points.len(), found["every"]);
    let newest = points.last().unwrap();
    assert_eq!((&newest["as_of"], &newest["canary_share"]), (&json!(last), &json!(500)));
    assert_eq!(
        (&points[0]["step"], &points[0]["canary_share"], &points[0]["metrics"]),
        (&json!(0), &json!(0), &json!([]))
    );
    let metrics = newest["metrics"].as_array().unwrap();
    assert_eq!((metrics.len(), &metrics[0]["metric"], &metrics[0]["effect"]), (2, &json!("late"), &json!(400.0)));
    let (_, rest) = world.get(&format!("{path}?from={}", EventTime::from_secs(399).0)).await;
    assert_eq!(rest["points"].as_array().unwrap().len(), 1);
    assert_eq!(world.get(&format!("{path}?since=1")).await.0, StatusCode::BAD_REQUEST);

    let (_, matrix) = world.get(&format!("/v1/rollouts/{id}/segments")).await;
    assert_eq!((&matrix["metrics"], &matrix["as_of"]), (&json!(["late", "brier"]), &json!(last)));
    let rows: BTreeMap<String, Vec<bool>> = matrix["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let there = row["cells"].as_array().unwrap().iter().map(|cell| !cell.is_null()).collect();
            (row["segment"]["value"].as_str().unwrap().to_owned(), there)
        })
        .collect();
    assert_eq!(matrix["rows"][0]["segment"]["dimension"], "");
    let expected = [("", [true, true]), ("JFK", [true, false]), ("LGA", [true, true])];
    assert_eq!(rows, expected.map(|(value, there)| (value.to_owned(), there.to_vec())).into());

    // A controller that starts now reads only the newest verdicts back, and the others on request.
    for secs in 401..=1000 {
        world.write(outgoing::<Verdict>("verdicts", &judged(&id, generation, secs)));
    }
    let again = world.restarted();
    let found = until(&again, &path, |found| found["points"].as_array().is_some_and(|points| !points.is_empty())).await;
    let times: Vec<i64> =
        found["points"].as_array().unwrap().iter().map(|point| point["as_of"].as_i64().unwrap()).collect();
    assert_eq!((times[0], times.last(), &found["complete"]), (10_000_000, Some(&1_000_000_000), &json!(true)));
    assert!(times.is_sorted_by(|one, two| one < two) && times.len() <= 160, "{times:?}");
}

#[tokio::test]
async fn a_plan_shows_problems_and_starts_nothing() {
    let world = World::new(with_tokens());
    let request = |query: &str, body: &str| {
        let request =
            Request::post(format!("/v1/plan{query}")).header(header::AUTHORIZATION, format!("Bearer {VIEWER}"));
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let (status, good) = world.send(request("?per_second=100", SPEC)).await;
    assert_eq!((status, &good["valid"], &good["spec"]["model"]), (StatusCode::OK, &json!(true), &json!("flights")));
    // The tests of the binary have the forecasts.
    assert_eq!(good["forecast_error"], json!("this controller has no forecasts"));
    let (status, bad) = world.send(request("", "model: x\nsteps: 3")).await;
    assert_eq!((status, &bad["valid"], &bad["spec"]), (StatusCode::OK, &json!(false), &json!(null)));
    assert!(bad["problems"].as_array().unwrap().iter().any(|problem| problem["path"] == "steps"), "{bad}");
    assert_eq!((&bad["forecast"], &bad["forecast_error"]), (&json!(null), &json!(null)));
    for query in ["?per_second=0", "?per_second=-1", "?per_second=NaN", "?per_second=x", "?traffic=3"] {
        assert_eq!(world.send(request(query, SPEC)).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
    let viewer = Request::get("/v1/rollouts").header(header::AUTHORIZATION, format!("Bearer {VIEWER}"));
    assert_eq!(world.send(viewer.body(Body::empty()).unwrap()).await.1, json!([]));
}

/// An event stream that is read message by message.
struct Messages {
    body: Body,
    read: String,
}

#[derive(Debug)]
struct Message {
    event: String,
    id: Option<String>,
    data: Value,
}

impl Messages {
    async fn open(world: &World, path: &str, last: Option<&str>) -> Self {
        let request = Request::get(path);
        let request = last.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        let response = answer(world, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self { body: response.into_body(), read: String::new() }
    }

    /// The next message; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = message.lines().filter_map(|line| line.split_once(": "));
                    lines.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
                };
                let data = serde_json::from_str(&field("data")?).unwrap();
                let message = Message { event: field("event")?, id: field("id"), data };
                let taken = self.read.len() - rest.len();
                self.read.drain(..taken);
                return Some(message);
            }
            let frame = self.body.frame().await?.unwrap();
            self.read.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    /// The next message that is not the time.
    async fn change(&mut self) -> Message {
        loop {
            let next = self.next().await.unwrap();
            if next.event != "time" {
                return next;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_sends_a_snapshot_then_changes_and_resumes() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let mut stream = Messages::open(&world, "/v1/stream", None).await;
    let first = stream.change().await;
    assert_eq!((first.event.as_str(), &first.data["rollouts"][0]["id"]), ("snapshot", &json!(id)));
    let summary = &first.data["rollouts"][0];
    for (member, value) in [
        ("model", json!("flights")),
        ("stable", json!("v1")),
        ("canary", json!("v2")),
        ("phase", json!("warming")),
        ("step", json!(-1)),
        ("steps", json!(2)),
        ("events", json!(1)),
        ("started_by", json!("operator")),
        ("needs", Value::Null),
        ("verdict", Value::Null),
    ] {
        assert_eq!(summary[member], value, "{member}: {summary}");
    }
    let known = first.id.unwrap();
    world.post(&format!("/v1/rollouts/{id}/pause?wait_ms={WAIT_MS}"), "").await;
    let paused = stream.change().await;
    assert_eq!(
        (paused.event.as_str(), &paused.data["needs"], &paused.data["events"]),
        ("rollout", &json!("resume"), &json!(2))
    );
    assert!(paused.id.is_some_and(|id| id != known));

    // What has changed since, without a snapshot; and a snapshot for an id of another process.
    let fraud = world.apply(&SPEC.replace("model: flights", "model: fraud")).await;
    let mut resumed = Messages::open(&world, "/v1/stream", Some(&known)).await;
    let mut changed = [resumed.change().await, resumed.change().await];
    changed.sort_by_key(|message| message.data["model"].to_string());
    let of = |message: &Message| (message.event.clone(), message.data["id"].clone());
    assert_eq!(changed.each_ref().map(of), [("rollout".into(), json!(id)), ("rollout".into(), json!(fraud))]);
    for other in ["0-1", "nonsense", "", known.replace('0', "1").as_str()] {
        let mut fresh = Messages::open(&world, "/v1/stream", Some(other)).await;
        assert_eq!(fresh.change().await.event, "snapshot", "{other}");
    }
    assert_eq!(world.get("/v1/stream?rollout=unknown").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stream_about_one_rollout_has_its_state_and_verdicts_and_ends_with_the_api() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let mut stream = Messages::open(&world, &format!("/v1/stream?rollout={id}"), None).await;
    assert_eq!(stream.change().await.event, "snapshot");
    let state = stream.change().await;
    assert_eq!((state.event.as_str(), &state.data["id"], state.id.is_some()), ("state", &json!(id), true));
    assert_eq!(state.data, world.get(&format!("/v1/rollouts/{id}")).await.1);
    world.write(outgoing::<Verdict>("verdicts", &judged(&id, 1, 10)));
    let mut seen = Vec::new();
    let verdict = loop {
        let next = stream.change().await;
        seen.push(next.event.clone());
        if next.event == "verdict" {
            break next.data;
        }
    };
    assert_eq!((&verdict["as_of"], &verdict["metrics"][0]["metric"]), (&json!(10_000_000), &json!("late")), "{seen:?}");
    let (_, series) = world.get(&format!("/v1/rollouts/{id}/verdicts")).await;
    assert_eq!(series["points"], json!([verdict]));
    drop(world);
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn streams_are_limited_and_their_places_are_returned() {
    let world = World::new(Config::default());
    let mut open = Vec::new();
    for _ in 0..128 {
        open.push(Messages::open(&world, "/v1/stream", None).await);
    }
    let (status, body) = world.get("/v1/stream").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("too_many_streams")));
    drop(open);
    for _ in 0..10_000 {
        let response = answer(&world, Request::get("/v1/stream").body(Body::empty()).unwrap()).await;
        if response.status() == StatusCode::OK {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("no place was returned");
}
