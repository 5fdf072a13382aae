//! Gates for other tools: the current verdict on a model in the form that Flagger, Argo Rollouts and Kayenta ask for. See
//! `docs/gates-for-other-tools.md`.
//!
//! They change nothing, so a viewer may ask.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use serin_schemas::records::{Estimate, MetricResult, MetricVerdict, Role, Verdict};

use super::state::{ApiState, Failure};
use crate::{
    gates::{Answer, Gate, Known},
    view::RolloutView,
};

/// Largest request of Kayenta, in bytes. It contains all points of all metrics, which are not kept.
pub(super) const KAYENTA_MAX: usize = 16 << 20;
/// Name by which Kayenta knows a remote judge.
const KAYENTA_JUDGE: &str = "RemoteJudge-v1.0";
/// The one group of the result for Kayenta.
const KAYENTA_GROUP: &str = "serin";
/// Longest name of a model or version in a request, in bytes.
const NAME_MAX: usize = 500;

impl ApiState {
    /// The answer about a model, and its newest verdict.
    async fn gate(&self, model: &str, version: Option<&str>) -> Result<(Gate, Option<Arc<RolloutView>>), Failure> {
        if model.is_empty() || model.len() > NAME_MAX || version.is_some_and(|version| version.len() > NAME_MAX) {
            let error = format!("model and version: names of 1 to {NAME_MAX} bytes");
            return Err(Failure::new(StatusCode::BAD_REQUEST, error));
        }
        let view = match self.rollout(model).await {
            Ok(known) => known.view,
            Err(failure) if failure.status() == StatusCode::NOT_FOUND => {
                return Ok((Gate::without_rollout(model), None));
            }
            Err(failure) => return Err(failure),
        };
        let Some(state) = view.state.clone() else { return Ok((Gate::without_rollout(model), None)) };
        let written_ms = view.series.newest().map_or(0, |point| point.recorded_at().0 / 1000);
        let known = Known {
            state: &state,
            verdict: view.verdict.as_deref(),
            silent_ms: self.now_ms().saturating_sub(written_ms),
            stale_ms: self.config().settings().stale_ms,
        };
        Ok((Gate::of(known, version), Some(view)))
    }
}

/// `?model=&version=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    model: String,
    version: Option<String>,
}

/// `GET` and `POST /v1/gates/argo`: the web metric of Argo Rollouts. The answer is 200 whenever it is known, because Argo Rollouts takes
/// any other status for an error of the provider. A body is not read.
pub(super) async fn argo(State(state): State<ApiState>, Query(asked): Query<Asked>) -> Result<Json<Value>, Failure> {
    let (gate, _) = state.gate(&asked.model, asked.version.as_deref()).await?;
    Ok(Json(json!({"data": gate})))
}

/// A webhook of Flagger. Its version adds members from release to release.
#[derive(Debug, Deserialize)]
pub(super) struct Hook {
    name: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

impl Hook {
    fn read(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            let error = format!(
                "the body is not a webhook of Flagger ({{\"name\", \"namespace\", \"phase\", \"metadata\"}}): {error}"
            );
            Failure::new(StatusCode::BAD_REQUEST, error).coded("invalid_json")
        })
    }

    async fn gate(&self, state: &ApiState) -> Result<Gate, Failure> {
        let of = |name: &str| self.metadata.as_ref().and_then(|metadata| metadata.get(name)).map(String::as_str);
        Ok(state.gate(of("model").unwrap_or(&self.name), of("version")).await?.0)
    }
}

/// 200 for `expected`; otherwise 409 with the cause, which Flagger puts into its event.
fn if_answer(gate: Gate, expected: Answer) -> Response {
    if gate.answer == expected {
        return Json(gate).into_response();
    }
    let (code, reason) = (gate.code, gate.reason.clone());
    Failure::new(StatusCode::CONFLICT, reason).coded(code).with(json!({"gate": gate})).into_response()
}

/// `POST /v1/gates/flagger/advance`: 200 if the version passes.
pub(super) async fn flagger_advance(State(state): State<ApiState>, body: Bytes) -> Result<Response, Failure> {
    Ok(if_answer(Hook::read(&body)?.gate(&state).await?, Answer::Pass))
}

/// `POST /v1/gates/flagger/rollback`: 200 if the version fails.
pub(super) async fn flagger_rollback(State(state): State<ApiState>, body: Bytes) -> Result<Response, Failure> {
    Ok(if_answer(Hook::read(&body)?.gate(&state).await?, Answer::Fail))
}

/// A request of Kayenta's remote judge. The points of its metrics are checked to be JSON and dropped.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JudgeRequest {
    canary_config: CanaryConfig,
    #[serde(default)]
    score_thresholds: Option<Thresholds>,
    #[serde(default, rename = "metricSetPairList")]
    _pairs: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct CanaryConfig {
    #[serde(default)]
    judge: Option<JudgeConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JudgeConfig {
    #[serde(default)]
    judge_configurations: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Thresholds {
    #[serde(default)]
    pass: Option<f64>,
    #[serde(default)]
    marginal: Option<f64>,
}

/// What is asked, or all problems of the request.
fn read_kayenta(body: &[u8]) -> Result<(Asked, f64, f64), Failure> {
    let request: JudgeRequest = serde_json::from_slice(body).map_err(|error| {
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is not a request of Kayenta's remote judge: {error}"))
            .coded("invalid_json")
    })?;
    let mut problems = Vec::new();
    let configured = request.canary_config.judge.and_then(|judge| judge.judge_configurations).unwrap_or_default();
    let text = |name: &str| configured.get(name).and_then(Value::as_str).map(str::to_owned);
    let model = text("model").unwrap_or_else(|| {
        problems
            .push("canaryConfig.judge.judgeConfigurations.model: name the model, as in its rollout file".to_owned());
        String::new()
    });
    let Thresholds { pass, marginal } = request.score_thresholds.unwrap_or_default();
    let (pass, marginal) = (pass.unwrap_or(f64::NAN), marginal.unwrap_or(f64::NAN));
    // With any others, Kayenta could take a score for something else than the answer.
    if !(0.0 <= marginal && marginal < pass && pass <= 100.0) {
        problems.push("scoreThresholds: set 0 <= marginal < pass <= 100, such as 50 and 75".to_owned());
    }
    if problems.is_empty() {
        return Ok((Asked { model, version: text("version") }, pass, marginal));
    }
    Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problems.join("; ")).with(json!({"problems": problems})))
}

/// `POST /v1/gates/kayenta/judge`: the remote judge of Kayenta. A version that passes has the score 100, one that fails 0, and one that
/// waits a score between the thresholds, with which an analysis goes on and its last look does not pass.
pub(super) async fn kayenta(State(state): State<ApiState>, body: Bytes) -> Result<Json<Value>, Failure> {
    let (asked, pass, marginal) = read_kayenta(&body)?;
    let (gate, view) = state.gate(&asked.model, asked.version.as_deref()).await?;
    let (score, label) = match gate.answer {
        Answer::Pass => (100.0, "Pass"),
        Answer::Wait => (f64::midpoint(marginal, pass), "Marginal"),
        Answer::Fail => (0.0, "Fail"),
    };
    let reason = format!("Serin, {}: {}", gate.code, gate.reason);
    // A rollout of another version says nothing about this one.
    let verdict = view.as_ref().and_then(|view| view.verdict.as_deref()).filter(|_| gate.code != "other_version");
    Ok(Json(json!({
        "judgeName": KAYENTA_JUDGE,
        "results": verdict.map(results).unwrap_or_default(),
        "groupScores": [{"name": KAYENTA_GROUP, "score": score, "classification": label, "classificationReason": reason}],
        "score": {"score": score, "classification": label, "classificationReason": reason},
    })))
}

/// Serin's metrics as results for Kayenta: those over all traffic, and those that failed in a segment.
fn results(verdict: &Verdict) -> Vec<Value> {
    let shown = verdict.metrics.iter().filter(|metric| metric.segment.is_all() || metric.result == MetricResult::Fail);
    shown.map(result).collect()
}

fn result(metric: &MetricVerdict) -> Value {
    let name =
        if metric.segment.is_all() { metric.metric.clone() } else { format!("{} ({})", metric.metric, metric.segment) };
    let classification = match metric.result {
        MetricResult::Pass => "Pass",
        MetricResult::Fail if metric.effect.is_some_and(|effect| effect < 0.0) => "Low",
        MetricResult::Fail => "High",
        MetricResult::Undecided | MetricResult::NoData => "Nodata",
    };
    let stats = |estimate: &Estimate| json!({"stats": {"count": estimate.n, "mean": estimate.value}});
    let ratio = match (metric.canary.value, metric.control.value) {
        (Some(canary), Some(control)) if control != 0.0 => json!(canary / control),
        // Kayenta writes a ratio that is not a number as text.
        _ => json!("NaN"),
    };
    json!({
        "name": name,
        "id": format!("serin/{name}"),
        "tags": {},
        "classification": classification,
        "classificationReason": metric.sentence,
        "groups": [KAYENTA_GROUP],
        "experimentMetadata": stats(&metric.canary),
        "controlMetadata": stats(&metric.control),
        "resultMetadata": {"ratio": ratio},
        "critical": metric.role == Role::Gate,
        "muted": metric.role == Role::Watch,
    })
}
