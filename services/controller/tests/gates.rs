//! Gates for other tools: the requests of Flagger, Argo Rollouts and Kayenta, as their documentation and classes have them, in each state of
//! a rollout. The bodies are in `tests/gates`.

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
use serin_schemas::records::{Arm, ArmSummary, Decision, Verdict};
use serin_stream::record::Outgoing;
use support::{SPEC, outgoing, verdict};
use world::{NOW_MS, WAIT_MS, World};

/// The payload of Flagger's documentation (usage/webhooks).
const FLAGGER: &str = include_str!("gates/flagger.json");
/// A request as Kayenta's classes `RemoteJudgeRequest`, `CanaryConfig` and `MetricSetPair` are written.
const KAYENTA: &str = include_str!("gates/kayenta.json");
const MINUTE: i64 = 60;

fn observed() -> String {
    SPEC.replace("model: flights", "model: podinfo\nmode: observe\ntraffic: external")
}

/// The rollout of `podinfo`, and what each tool is answered.
struct Asked {
    world: World,
    /// When verdicts are written, by the wall clock.
    written_ms: i64,
}

impl Asked {
    fn new() -> Self {
        Self { world: World::new(Config::default()), written_ms: NOW_MS }
    }

    async fn flagger(&self, hook: &str, body: &Value) -> (StatusCode, Value) {
        self.world.post(&format!("/v1/gates/flagger/{hook}"), body.to_string()).await
    }

    /// Both hooks of Flagger, without and with a version: the statuses and the code.
    async fn hooks(&self, version: Option<&str>) -> (u16, u16, Value) {
        let mut body: Value = serde_json::from_str(FLAGGER).unwrap();
        if let Some(version) = version {
            body["metadata"]["version"] = json!(version);
        }
        let (advance, one) = self.flagger("advance", &body).await;
        let (rollback, other) = self.flagger("rollback", &body).await;
        for (status, answer) in [(advance, &one), (rollback, &other)] {
            let reason = if status == StatusCode::OK { &answer["reason"] } else { &answer["error"] };
            assert!(reason.as_str().is_some_and(|reason| !reason.is_empty()), "{answer}");
        }
        assert_eq!(one["code"], other["code"]);
        (advance.as_u16(), rollback.as_u16(), one["code"].clone())
    }

    /// The member `data` of the answer to Argo Rollouts, asked with both methods.
    async fn argo(&self, version: &str) -> Value {
        let path = format!("/v1/gates/argo?model=podinfo&version={version}");
        let (status, got) = self.world.get(&path).await;
        let request = Request::post(&path).header(header::CONTENT_TYPE, "application/json");
        let (posted, same) = self.world.send(request.body(Body::from(r#"{"key": "string value"}"#)).unwrap()).await;
        assert_eq!((status, posted, &got), (StatusCode::OK, StatusCode::OK, &same));
        got["data"].clone()
    }

    /// Waits until the answer has this code.
    async fn until(&self, code: &str) {
        let has_code = async {
            while self.world.get("/v1/gates/argo?model=podinfo&version=v2").await.1["data"]["code"] != code {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_millis(WAIT_MS), has_code).await.unwrap();
    }

    async fn kayenta(&self) -> Value {
        let (status, answer) = self.world.post("/v1/gates/kayenta/judge", KAYENTA).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Writes a verdict on the present generation, and waits until it is shown.
    async fn judged(&self, minutes: i64, decision: Decision, more: impl FnOnce(&mut Verdict)) {
        let (_, state) = self.world.get("/v1/rollouts/podinfo").await;
        let mut judged = verdict(state["id"].as_str().unwrap(), 0, minutes * MINUTE, decision);
        judged.generation.0 = state["generation"].as_i64().unwrap();
        judged.model = "podinfo".into();
        more(&mut judged);
        let record = outgoing::<Verdict>("verdicts", &judged);
        self.world.write(Outgoing { key: "podinfo".into(), timestamp_ms: Some(self.written_ms), ..record });
        let read = async {
            while self.world.get("/v1/rollouts/podinfo/verdict").await.1["as_of"] != json!(minutes * MINUTE * 1_000_000)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_millis(WAIT_MS), read).await.unwrap();
    }

    /// Starts the rollout, and ends its warm-up with a verdict at minute 0.
    async fn baking(&self) -> String {
        let id = self.world.apply(&observed()).await;
        self.judged(1, Decision::Promote, |warm| {
            warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
        })
        .await;
        let (_, news) = self.world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
        assert_eq!(news["events"][0]["kind"], "advanced", "{news}");
        id
    }

    async fn act(&self, verb: &str) {
        let path = format!("/v1/rollouts/podinfo/{verb}?wait_ms={WAIT_MS}");
        let (status, answer) = self.world.post(&path, r#"{"reason": "a test"}"#).await;
        assert!(status.is_success(), "{answer}");
    }
}

#[tokio::test]
async fn only_complete_evidence_passes_and_only_a_finding_rolls_back() {
    let asked = Asked::new();
    assert_eq!(asked.hooks(None).await, (409, 409, json!("no_rollout")));
    asked.baking().await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("no_verdict")));
    asked.judged(5, Decision::Promote, |_| {}).await;
    // The step bakes for at least 10 minutes.
    assert_eq!(asked.hooks(None).await, (409, 409, json!("undecided")));
    asked.judged(20, Decision::Continue, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("undecided")));
    asked.judged(21, Decision::Promote, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (200, 409, json!("passed")));
    assert_eq!(asked.hooks(Some("v2")).await, (200, 409, json!("passed")));
    assert_eq!(asked.hooks(Some("v3")).await, (409, 409, json!("other_version")));
    asked.judged(22, Decision::Hold, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("unsound")));
    asked.act("pause").await;
    asked.judged(23, Decision::Promote, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("paused")));
    // A finding counts in any state.
    asked.judged(24, Decision::Rollback, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (409, 200, json!("failed")));
    assert_eq!(asked.hooks(Some("v3")).await, (409, 409, json!("other_version")));
    // An observed rollout that was ended says nothing any more.
    asked.act("abort").await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("version_needed")));
    assert_eq!(asked.hooks(Some("v2")).await, (409, 409, json!("ended")));
}

#[tokio::test]
async fn a_verdict_from_long_ago_a_freeze_and_an_older_step_do_not_pass() {
    let asked = Asked::new();
    asked.baking().await;
    asked.judged(20, Decision::Promote, |judged| judged.generation.0 -= 1).await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("no_verdict")));
    asked.judged(21, Decision::Promote, |_| {}).await;
    assert_eq!(asked.hooks(None).await, (200, 409, json!("passed")));
    let frozen = json!({"models": "pod*", "reason": "a test"}).to_string();
    let (status, answer) = asked.world.post(&format!("/v1/freeze?wait_ms={WAIT_MS}"), frozen).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    // Each partition answers, the model's own too.
    asked.until("frozen").await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("frozen")));

    let old = Asked { written_ms: NOW_MS - 600_000, ..Asked::new() };
    old.baking().await;
    old.judged(20, Decision::Promote, |_| {}).await;
    assert_eq!(old.hooks(None).await, (409, 409, json!("stale")));
}

#[tokio::test]
async fn a_rollout_that_serin_routes_passes_when_it_is_promoted() {
    let asked = Asked::new();
    asked.world.apply(&SPEC.replace("model: flights", "model: podinfo")).await;
    assert_eq!(asked.hooks(None).await, (409, 409, json!("warming")));
    asked
        .judged(1, Decision::Promote, |warm| {
            warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
        })
        .await;
    asked.until("baking").await;
    assert_eq!(asked.hooks(Some("v2")).await, (409, 409, json!("baking")));
    let full = format!("/v1/rollouts/podinfo/promote?wait_ms={WAIT_MS}");
    assert!(asked.world.post(&full, r#"{"full": true}"#).await.0.is_success());
    assert_eq!(asked.hooks(Some("v2")).await, (200, 409, json!("promoted")));
    // Without a version, the answer could be about another one.
    assert_eq!(asked.hooks(None).await, (409, 409, json!("version_needed")));

    let other = Asked::new();
    other.world.apply(&SPEC.replace("model: flights", "model: podinfo")).await;
    other.act("abort").await;
    assert_eq!(other.hooks(Some("v2")).await, (409, 200, json!("aborted")));
}

#[tokio::test]
async fn argo_rollouts_gets_a_value_for_its_conditions() {
    let asked = Asked::new();
    // `jsonPath: "{$.data.ok}"` and `result == true`, as in the documentation.
    let data = asked.argo("v2").await;
    assert_eq!((&data["ok"], &data["answer"], &data["rollout"]), (&json!(false), &json!("wait"), &json!(null)));
    asked.baking().await;
    asked.judged(20, Decision::Promote, |_| {}).await;
    let data = asked.argo("v2").await;
    assert_eq!((&data["ok"], &data["answer"], &data["version"]), (&json!(true), &json!("pass"), &json!("v2")));
    assert_eq!((&data["phase"], &data["step"], &data["decision"]), (&json!("baking"), &json!(0), &json!("promote")));
    asked.judged(21, Decision::Rollback, |judged| judged.sentence = "roll back: worse".into()).await;
    let data = asked.argo("v2").await;
    assert_eq!((&data["ok"], &data["answer"], &data["reason"]), (&json!(false), &json!("fail"), &json!("worse")));
    // Any other status than 200 is an error of the provider.
    for bad in ["", "?version=v2", "?model=", "?model=podinfo&verion=v2"] {
        let (status, answer) = asked.world.get(&format!("/v1/gates/argo{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {answer}");
    }
}

#[tokio::test]
async fn kayenta_gets_a_result_whose_score_it_classifies_as_the_answer() {
    let asked = Asked::new();
    let score = |answer: &Value| answer["score"]["score"].as_f64().unwrap();
    let missing = asked.kayenta().await;
    assert_eq!((score(&missing), &missing["results"]), (85.0, &json!([])));
    let id = asked.baking().await;
    let golden: Verdict = serde_json::from_str(include_str!("../../../schemas/tests/golden/verdict.v5.json")).unwrap();
    let arm = |arm| ArmSummary { arm, predictions: 5000, ..golden.arms[0].clone() };
    asked
        .judged(20, Decision::Promote, |judged| {
            judged.rollout = id.as_str().into();
            judged.metrics.clone_from(&golden.metrics);
            judged.arms = vec![arm(Arm::Canary), arm(Arm::Control)];
        })
        .await;
    let passed = asked.kayenta().await;
    assert_eq!((score(&passed), &passed["score"]["classification"]), (100.0, &json!("Pass")));
    assert_eq!(passed["judgeName"], "RemoteJudge-v1.0");
    let result = &passed["results"][0];
    // Members of Kayenta's class `CanaryAnalysisResult`.
    for member in
        ["name", "id", "tags", "classification", "groups", "experimentMetadata", "controlMetadata", "resultMetadata"]
    {
        assert!(!result[member].is_null(), "{member}: {result}");
    }
    assert!(result["controlMetadata"]["stats"]["count"].is_i64(), "{result}");
    asked.judged(21, Decision::Rollback, |_| {}).await;
    let failed = asked.kayenta().await;
    assert_eq!((score(&failed), &failed["score"]["classification"]), (0.0, &json!("Fail")));

    let mut request: Value = serde_json::from_str(KAYENTA).unwrap();
    request["canaryConfig"]["judge"]["judgeConfigurations"] = json!({});
    request["scoreThresholds"] = json!({"pass": 75.0, "marginal": 75.0});
    let (status, answer) = asked.world.post("/v1/gates/kayenta/judge", request.to_string()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let problems = answer["problems"].as_array().unwrap();
    assert!(problems.len() == 2 && problems[0].as_str().unwrap().contains("judgeConfigurations.model"), "{answer}");
}

#[tokio::test]
async fn requests_that_are_not_understood_are_refused_and_large_ones_of_kayenta_are_read() {
    let asked = Asked::new();
    for path in ["flagger/advance", "flagger/rollback", "kayenta/judge"] {
        for body in ["", "{", "[]", "{}", r#"{"name": 7}"#] {
            let (status, answer) = asked.world.post(&format!("/v1/gates/{path}"), body).await;
            assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_json")), "{path} {body}");
        }
    }
    let mut request: Value = serde_json::from_str(KAYENTA).unwrap();
    request["metricSetPairList"][0]["values"]["control"] = json!(vec![1.0; 500_000]);
    let body = request.to_string();
    assert!(body.len() > Config::default().max_body_bytes);
    assert_eq!(asked.world.post("/v1/gates/kayenta/judge", body.clone()).await.0, StatusCode::OK);
    assert_eq!(asked.world.post("/v1/gates/flagger/advance", body).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_viewer_may_ask_with_a_bearer_token_or_as_the_password_of_the_url() {
    let token = Token { role: Role::Viewer, token: Secret::new("viewer-0123456789") };
    let world = World::new(Config { tokens: [("flagger".to_owned(), token)].into(), ..Config::default() });
    let request = |path: &str, authorization: Option<&str>| {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = authorization.map_or_else(
            || Request::post(path).header(header::CONTENT_TYPE, "application/json"),
            |value| request.header(header::AUTHORIZATION, value),
        );
        request.body(Body::from(FLAGGER)).unwrap()
    };
    let advance = "/v1/gates/flagger/advance";
    // flagger:viewer-0123456789, and the same with another password.
    let (basic, wrong) = ("Basic ZmxhZ2dlcjp2aWV3ZXItMDEyMzQ1Njc4OQ==", "Basic ZmxhZ2dlcjp3cm9uZw==");
    for (authorization, status) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some(wrong), StatusCode::UNAUTHORIZED),
        (Some("Basic !"), StatusCode::UNAUTHORIZED),
        (Some("Bearer viewer-0123456789"), StatusCode::CONFLICT),
        (Some(basic), StatusCode::CONFLICT),
    ] {
        assert_eq!(world.send(request(advance, authorization)).await.0, status, "{authorization:?}");
    }
    // A password is a token for gates only.
    assert_eq!(world.send(request("/v1/plan", Some(basic))).await.0, StatusCode::UNAUTHORIZED);
}
