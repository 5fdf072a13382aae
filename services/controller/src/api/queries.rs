//! Queries: the read-only part of the API.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
    ids::{EventTime, ModelName, RolloutId},
    records::{Capture, Estimate, EventKind, MetricResult, MetricVerdict, NoDataReason, Role, Segment, Verdict},
};

use super::state::{ApiState, Failure};
use crate::{
    examples::examples as examples_of,
    insight,
    progress::Progress,
    series::Point,
    verbs::{Headline, Line},
    view::{RolloutView, View},
};

/// Longest wait for new events.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How long a request waits after a start until the topics have been read.
const STARTING: Duration = Duration::from_secs(5);

/// Maximum number of rollouts that an error lists.
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

/// The state of a rollout, whether calls follow it, and both in words.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    state: Arc<RolloutState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Applied>,
    headline: Headline,
    progress: Vec<Line>,
}

impl Shown {
    /// `None` while the state is not known.
    pub(super) fn of(api: &ApiState, view: &View, rollout: &RolloutView) -> Option<Self> {
        let state = rollout.state.clone()?;
        let applied = api.applied(view, &state, state.generation);
        let first = rollout.events.iter().find(|event| event.kind == EventKind::Advanced && event.step == 0);
        let headline = (api.verbs().headline)(&state, applied.as_ref());
        let progress = (api.verbs().progress)(&state, rollout.verdict.as_deref(), first.map(|event| event.at));
        Some(Self { state, applied, headline, progress })
    }
}

pub(super) async fn state(State(api): State<ApiState>, Path(id): Path<String>) -> Result<Json<Shown>, Failure> {
    let known = api.rollout(&id).await?;
    Shown::of(&api, &api.view(), &known.view).map(Json).ok_or_else(|| unknown(&id))
}

/// A point of the series, with the share of the calls that the canary had.
#[derive(Serialize)]
pub(super) struct PointShown {
    #[serde(flatten)]
    point: Arc<Point>,
    canary_share: i32,
}

impl PointShown {
    pub(super) fn of(rollout: &RolloutView, point: &Arc<Point>) -> Self {
        Self { point: Arc::clone(point), canary_share: rollout.share_at(point.generation) }
    }
}

/// `?from=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Since {
    /// Only verdicts after this time, in microseconds since 1970.
    from: Option<i64>,
}

/// The verdicts over time, thinned.
#[derive(Serialize)]
pub(super) struct SeriesShown {
    format: &'static str,
    rollout: RolloutId,
    model: ModelName,
    seen: u64,
    every: u64,
    complete: bool,
    note: Option<String>,
    points: Vec<PointShown>,
}

pub(super) async fn verdicts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(Since { from }): Query<Since>,
) -> Result<Json<SeriesShown>, Failure> {
    // Right after a start, the series of a rollout that is known already may still be read.
    let has_read = state.wait_until(STARTING, View::caught_up).await.caught_up();
    let Known { id, view } = state.rollout(&id).await?;
    let (mut series, mut complete, mut note) = (view.series.clone(), has_read, None);
    if view.is_partial {
        let (model, rollout) = (view.model.clone(), id.clone());
        let found = state.report(move |log| insight::series(log, &model, &rollout)).await?;
        let (mut older, read) = found.ok_or_else(no_log)?;
        older.extend(&series);
        (series, complete, note) = (older, has_read && read.complete, read.note);
    }
    let points = series.points().filter(|point| from.is_none_or(|from| point.as_of.0 > from));
    Ok(Json(SeriesShown {
        format: "serin.verdicts/v1",
        rollout: id,
        model: view.model.clone(),
        seen: series.seen(),
        every: series.every(),
        complete,
        note,
        points: points.map(|point| PointShown::of(&view, point)).collect(),
    }))
}

/// The newest verdict as a matrix of segments and metrics.
#[derive(Serialize)]
pub(super) struct Matrix {
    rollout: RolloutId,
    as_of: EventTime,
    metrics: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    segment: Segment,
    /// One per metric; `None`: it is not judged in this segment.
    cells: Vec<Option<Cell>>,
}

#[derive(Clone, Serialize)]
struct Cell {
    role: Role,
    result: MetricResult,
    no_data: Option<NoDataReason>,
    canary: Estimate,
    control: Estimate,
    effect: Option<f64>,
    effect_low: Option<f64>,
    effect_high: Option<f64>,
    margin: Option<f64>,
    p_fail: f64,
    failed_at: Option<EventTime>,
    suspect: bool,
    sentence: String,
}

impl Cell {
    fn of(metric: &MetricVerdict, suspects: &[&MetricVerdict]) -> Self {
        Self {
            role: metric.role,
            result: metric.result,
            no_data: metric.no_data,
            canary: metric.canary.clone(),
            control: metric.control.clone(),
            effect: metric.effect,
            effect_low: metric.effect_low,
            effect_high: metric.effect_high,
            margin: metric.margin,
            p_fail: metric.p_fail,
            failed_at: metric.failed_at,
            suspect: suspects.iter().any(|suspect| std::ptr::eq(*suspect, metric)),
            sentence: metric.sentence.clone(),
        }
    }
}

impl Matrix {
    fn of(verdict: &Verdict, suspects: &[&MetricVerdict]) -> Self {
        let mut metrics: Vec<String> = Vec::new();
        // Segments in the order of their names, all traffic first.
        let mut rows: BTreeMap<(&str, &str), Vec<(usize, &MetricVerdict)>> = BTreeMap::new();
        for metric in &verdict.metrics {
            let place = metrics.iter().position(|name| *name == metric.metric).unwrap_or_else(|| {
                metrics.push(metric.metric.clone());
                metrics.len() - 1
            });
            let segment = (metric.segment.dimension.as_str(), metric.segment.value.as_str());
            rows.entry(segment).or_default().push((place, metric));
        }
        let width = metrics.len();
        let row = |((dimension, value), found): ((&str, &str), Vec<(usize, &MetricVerdict)>)| {
            let mut cells = vec![None; width];
            for (place, metric) in found {
                cells[place] = Some(Cell::of(metric, suspects));
            }
            Row { segment: Segment { dimension: dimension.to_owned(), value: value.to_owned() }, cells }
        };
        let rows = rows.into_iter().map(row).collect();
        Self { rollout: verdict.rollout.clone(), as_of: verdict.as_of, metrics, rows }
    }
}

pub(super) async fn segments(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Matrix>, Failure> {
    let rollout = state.rollout(&id).await?;
    let verdict = rollout.view.verdict.clone().ok_or_else(|| no_verdict(&id))?;
    Ok(Json(Matrix::of(&verdict, &(state.verbs().suspects)(&verdict))))
}

pub(super) async fn verdict(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Arc<Verdict>>, Failure> {
    let rollout = state.rollout(&id).await?;
    rollout.view.verdict.clone().map(Json).ok_or_else(|| no_verdict(&id))
}

fn no_verdict(id: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no verdict on {id} yet")).coded("no_verdict")
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

/// `?from=&to=&per=&segments=&metric=`.
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
    /// Only this metric.
    metric: Option<String>,
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
    let mut found = found.ok_or_else(no_log)?;
    if let Some(metric) = &query.metric {
        found.keep(metric);
    }
    Ok(Json(found))
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

pub(super) fn no_log() -> Failure {
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

/// What is frozen now.
pub(super) async fn freezes(State(state): State<ApiState>) -> Json<Value> {
    let view = state.wait_until(STARTING, View::caught_up).await;
    Json(json!(view.freezes(state.now_ms()).collect::<Vec<_>>()))
}

pub(super) async fn routers(State(state): State<ApiState>) -> Json<Value> {
    Json(json!(state.view().routers().collect::<Vec<_>>()))
}

pub(super) async fn schema() -> Json<Value> {
    Json(serin_rollout::json_schema())
}

pub(super) fn unknown(id: &str) -> Failure {
    let error = format!("there is no rollout {id:?}, and no model of that name with a rollout");
    Failure::new(StatusCode::NOT_FOUND, error).coded("unknown_rollout")
}

/// The error for a string that matches several rollouts. It lists at most [`NAMED`] of them, newest first.
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
                Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).coded("not_ready"))
            }
            Ok(_) => Err(unknown(text)),
            Err(several) => {
                let error = ambiguous(&view, text, &several);
                Err(Failure::new(StatusCode::CONFLICT, error).coded("ambiguous_rollout"))
            }
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
