//! Queries: the read-only part of the API.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serin_insight::profile::Asked;
use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Capture, Verdict},
};

use super::state::{ApiState, Failure};
use crate::{
    examples::examples as examples_of,
    insight,
    progress::Progress,
    view::{RolloutView, View},
};

/// Longest wait for new events.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How long a request waits after a start until the topics have been read.
const STARTING: Duration = Duration::from_secs(5);

/// Rollouts that an error lists.
const NAMED: usize = 5;

/// `?after=&wait_ms=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct After {
    /// Number of the last event that the client knows.
    after: usize,
    /// How long to wait for a newer one, in milliseconds.
    wait_ms: u64,
}

/// An empty query. Unknown parameters are refused, not ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

pub(super) async fn list(
    State(state): State<ApiState>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Json<Vec<Arc<RolloutState>>> {
    Json(state.view().rollouts().filter_map(|rollout| rollout.state.clone()).collect())
}

/// The state of a rollout, and whether calls follow it.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    state: Arc<RolloutState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Applied>,
}

pub(super) async fn state(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<Shown>, Failure> {
    let state = api.rollout(&id).await?.view.state.clone().ok_or_else(|| unknown(&id))?;
    let applied = api.applied(&api.view(), &state, state.generation);
    Ok(Json(Shown { state, applied }))
}

pub(super) async fn verdict(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Arc<Verdict>>, Failure> {
    let rollout = state.rollout(&id).await?;
    let none = || Failure::new(StatusCode::NOT_FOUND, format!("there is no verdict on {id} yet"));
    rollout.view.verdict.clone().map(Json).ok_or_else(none)
}

pub(super) async fn events(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(news): Query<After>,
) -> Result<Json<Value>, Failure> {
    let known = state.rollout(&id).await?;
    // A model's name means whichever rollout it has at the time, even if another one follows during the wait.
    let id = if known.view.model.as_str() == id { id } else { known.id.0 };
    let is_new = |view: &View| view.rollout(&id).is_some_and(|rollout| rollout.after(news.after).1 > news.after);
    let view = state.wait_until(Duration::from_millis(news.wait_ms).min(WAIT_MAX), is_new).await;
    let (events, next) = view.rollout(&id).ok_or_else(|| unknown(&id))?.after(news.after);
    Ok(Json(json!({"events": events, "next": next})))
}

/// `?limit=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limit {
    limit: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { limit: 10 }
    }
}

/// Most examples in one response.
const EXAMPLES_MAX: usize = 100;

/// Pairs of answers that routers captured, newest first.
pub(super) async fn examples(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(few): Query<Limit>,
) -> Result<Json<Vec<Capture>>, Failure> {
    let known = state.rollout(&id).await?.view.state.clone().ok_or_else(|| unknown(&id))?;
    let most = few.limit.min(EXAMPLES_MAX);
    let found = state.report(move |log| examples_of(log, &known.spec.model, &known.id, most)).await?;
    Ok(Json(found.unwrap_or_default()))
}

/// `?from=&to=&per=&segments=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProfileQuery {
    /// Only windows that start at this time or later, in microseconds since 1970.
    from: Option<i64>,
    /// Only windows that end at this time or earlier, in microseconds since 1970.
    to: Option<i64>,
    /// One profile per window, or one over all windows.
    per: Per,
    /// Distributions per segment value too.
    segments: bool,
}

/// What one profile covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Per {
    #[default]
    Range,
    Window,
}

/// The distribution of each metric's values per arm, from the windows on the log.
pub(super) async fn profile(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<ProfileQuery>,
) -> Result<Json<insight::Profiled>, Failure> {
    let known = state.rollout(&id).await?.view.state.clone().ok_or_else(|| unknown(&id))?;
    let asked = Asked {
        from: query.from.map(EventTime),
        to: query.to.map(EventTime),
        per_window: query.per == Per::Window,
        segments: query.segments,
    };
    let found = state.report(move |log| insight::profile(log, &known.spec, &known.id, asked)).await?;
    found.map(Json).ok_or_else(no_log)
}

/// The dimensions in which the arms differ most.
pub(super) async fn contrasts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Json<insight::Contrasts>, Failure> {
    let view = state.rollout(&id).await?.view;
    let known = view.state.clone().ok_or_else(|| unknown(&id))?;
    let verdict = view.verdict.clone();
    let found = state.report(move |log| insight::contrasts(log, &known.spec, &known.id, verdict.as_deref())).await?;
    found.map(Json).ok_or_else(no_log)
}

fn no_log() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "this controller has no log to read")
}

/// How far the model's partition is planned. Only the process that owns the partition knows this.
pub(super) async fn progress(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Progress>, Failure> {
    let rollout = state.rollout(&id).await?.view;
    let elsewhere = || Failure::new(StatusCode::NOT_FOUND, format!("{} is planned by another process", rollout.model));
    state.progress().of(&rollout.model).map(Json).ok_or_else(elsewhere)
}

pub(super) async fn routing(State(state): State<ApiState>) -> Json<Value> {
    Json(json!(state.view().tables().values().collect::<Vec<_>>()))
}

pub(super) async fn routers(State(state): State<ApiState>) -> Json<Value> {
    Json(json!(state.view().routers().collect::<Vec<_>>()))
}

pub(super) async fn schema() -> Json<Value> {
    Json(serin_rollout::json_schema())
}

fn unknown(id: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no rollout {id:?}, and no model of that name with a rollout"))
}

/// The error for a text that matches several rollouts. It lists at most [`NAMED`] of them, newest first.
fn ambiguous(view: &View, text: &str, several: &[&RolloutId]) -> String {
    let of = |id: &&RolloutId| {
        let state = view.rollout(id.as_str())?.state.clone()?;
        let (stable, canary) = (state.spec.stable.version.in_words(), state.spec.canary.version.in_words());
        Some(format!("\n  {id}  {}, {stable} -> {canary}", state.spec.model))
    };
    let named: String = several.iter().rev().take(NAMED).filter_map(of).collect();
    let more = several.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!("\n  and {more} older ones") } else { String::new() };
    format!(
        "{text:?} is the start of {} rollout ids; give more characters of the one you mean:{named}{rest}",
        several.len()
    )
}

/// A rollout that a request named.
pub(super) struct Known {
    /// The id of the rollout.
    pub(super) id: RolloutId,
    /// What the view has of it.
    pub(super) view: Arc<RolloutView>,
}

impl ApiState {
    /// A rollout by its id, its model or the start of its id. After a start, it is not known that there is none until the topics have
    /// been read.
    pub(super) async fn rollout(&self, text: &str) -> Result<Known, Failure> {
        let view = self.wait_until(STARTING, |view| view.caught_up() || view.rollout(text).is_some()).await;
        match view.find(text) {
            Ok(Some((id, rollout))) if view.caught_up() || view.rollout(text).is_some() => {
                Ok(Known { id: id.clone(), view: Arc::clone(rollout) })
            }
            _ if !view.caught_up() => {
                let error = "the controller has not read its topics yet; try again in a second";
                Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error))
            }
            Ok(_) => Err(unknown(text)),
            Err(several) => Err(Failure::new(StatusCode::CONFLICT, ambiguous(&view, text, &several))),
        }
    }

    /// The first snapshot for which `enough` is true, or the newest one after `wait`.
    pub(super) async fn wait_until(&self, wait: Duration, enough: impl Fn(&View) -> bool) -> Arc<View> {
        let mut view = self.0.view.clone();
        let found = tokio::time::timeout(wait, view.wait_for(|view| enough(view))).await;
        match found {
            Ok(Ok(found)) => Arc::clone(&found),
            // The time is up, or the reader has ended.
            _ => self.view(),
        }
    }
}
