//! Actions: each one is a command on the log, answered by its audit event.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serin_rollout::{RolloutState, Traffic, planner::Applied};
use serin_schemas::{
    envelope::Envelope,
    ids::{ModelName, RolloutId},
    records::{Action, Command, EventKind, RolloutEvent},
};
use serin_spec::{Mode, Problem, Share};
use serin_stream::record::{Outgoing, Target};
use serin_topology::COMMANDS;
use uuid::Uuid;

use super::{
    applied::moves_calls,
    auth::Caller,
    state::{ApiState, Failure},
};
use crate::{REASON_MAX, view::View};

/// Longest wait for an answer.
pub(super) const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long writing a command may take.
const FLUSH: Duration = Duration::from_secs(10);

/// The result of a command.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Answer {
    /// The command's id.
    pub(super) command: String,
    /// The rollout that the command is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<RolloutId>,
    /// Whether the command was refused.
    pub(crate) refused: bool,
    /// The result in one sentence; left out if there was none within the given time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sentence: Option<String>,
    /// The audit event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Arc<RolloutEvent>>,
    /// Which routers use the table that the command led to; left out if it led to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<Applied>,
    /// Warnings about the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Problem>,
}

/// `?dry_run=&wait_ms=&per_second=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ApplyOptions {
    /// Lint the spec, and write nothing.
    dry_run: bool,
    /// How long to wait for the answer, in milliseconds.
    wait_ms: u64,
    /// Requests of the model per second. With it, lint reports which margins the traffic can resolve.
    per_second: Option<f64>,
}

/// `?wait_ms=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wait {
    /// How long to wait for the answer, in milliseconds.
    pub(super) wait_ms: u64,
}

/// The body of an action.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ActBody {
    reason: String,
    /// For `promote`: to the end.
    full: bool,
    /// For `set-weight`: the canary's share.
    weight: Option<Share>,
    /// For `set-weight`: also beyond the steps of the file.
    force: bool,
    /// For `retry`: the number of the first step after warm-up, from 1.
    from_step: Option<i32>,
    /// For `mark`: how the version is judged afterwards.
    was: Option<Was>,
}

/// How a version is judged afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Was {
    Good,
    Bad,
}

/// The action of a verb.
///
/// # Errors
/// There is no such verb, or the body has something that it does not use.
fn action_of(verb: &str, body: &ActBody) -> Result<Action, Failure> {
    let wrong = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let action = match verb {
        "promote" if body.full => Action::PromoteFull,
        "promote" => Action::Promote,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "abort" => Action::Abort,
        "set-weight" => Action::SetWeight,
        "approve" => Action::Approve,
        "reject" => Action::Reject,
        "undo" => Action::Undo,
        "retry" => Action::Retry,
        "mark" => Action::Mark,
        _ => {
            let error = format!(
                "{verb:?} is not an action; the actions are promote, pause, resume, abort, set-weight, approve, reject, undo, \
                 retry and mark"
            );
            return Err(Failure::new(StatusCode::NOT_FOUND, error));
        }
    };
    if body.full && verb != "promote" {
        return Err(wrong("`full` is only valid for promote".to_owned()));
    }
    let sets = action == Action::SetWeight;
    if sets != body.weight.is_some() || (body.force && !sets) {
        return Err(wrong(
            "set-weight needs a `weight`, such as \"10%\"; `weight` and `force` are only valid for it".to_owned(),
        ));
    }
    if (action == Action::Mark) != body.was.is_some() {
        return Err(wrong("mark needs `was`, \"good\" or \"bad\"; `was` is only valid for it".to_owned()));
    }
    match body.from_step {
        Some(_) if action != Action::Retry => Err(wrong("`from_step` is only valid for retry".to_owned())),
        Some(..1) => Err(wrong("`from_step` is the number of a step, from 1".to_owned())),
        _ => Ok(action),
    }
}

pub(super) async fn apply(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Query(options): Query<ApplyOptions>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let text = std::str::from_utf8(&body).map_err(|_| {
        let error = "the spec is not UTF-8 text; send YAML or JSON";
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error).coded("invalid_spec")
    })?;
    let traffic = options.per_second.map(|per_second| Traffic { per_second, rates: BTreeMap::new() });
    let checked = serin_rollout::check(text, traffic.as_ref());
    let Some(spec) = checked.spec else {
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "the rollout spec has problems");
        return Err(failure.coded("invalid_spec").with(json!({"problems": checked.problems})));
    };
    let spec = spec.normalized();
    if options.dry_run {
        return Ok((StatusCode::OK, Json(json!({"problems": checked.problems, "spec": spec}))));
    }
    let rollout = RolloutId(Uuid::now_v7().to_string());
    let command = Command {
        rollout: Some(rollout.clone()),
        spec: Some(serde_json::to_string(&spec).map_err(|error| unwritten(&error))?),
        ..state.command(Action::Apply, spec.model.clone(), actor)
    };
    let answer = state.ask(command, options.wait_ms).await?;
    let answer = Answer { rollout: Some(rollout), problems: checked.problems, ..answer };
    let status = if answer.event.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    respond(status, &answer)
}

pub(super) async fn act(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Path((id, verb)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let why = read_body(&body)?;
    let action = action_of(&verb, &why)?;
    let known = state.rollout(&id).await?;
    // A model's name means the rollout that is active when the command is handled. An undo and a mark are about the newest rollout, so that
    // a second undo, or one after a rollback, does not undo an earlier promotion.
    let model = known.view.model.clone();
    let rollout = (model.as_str() != id || matches!(action, Action::Undo | Action::Mark)).then_some(known.id);
    let command = Command {
        rollout: rollout.clone(),
        reason: why.reason,
        weight: why.weight.map(|weight| weight.0),
        force: why.force,
        was_good: why.was.map(|was| was == Was::Good),
        ..state.command(action, model, actor)
    };
    let answer = state.ask(command, wait.wait_ms).await?;
    let rollout = answer.event.as_ref().and_then(|event| event.rollout.clone()).or(rollout);
    let status = if answer.event.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    respond(status, &Answer { rollout, ..answer })
}

/// Starts an ended rollout again, with the steps of its file.
pub(super) async fn retry(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let why = read_body(&body)?;
    action_of("retry", &why)?;
    let known = state.rollout(&id).await?;
    let none = || Failure::new(StatusCode::CONFLICT, format!("the file of rollout {} is not known any more", known.id));
    let spec = known.view.state.as_ref().ok_or_else(none)?.file();
    let rollout = RolloutId(Uuid::now_v7().to_string());
    let command = Command {
        rollout: Some(rollout.clone()),
        spec: Some(serde_json::to_string(&spec).map_err(|error| unwritten(&error))?),
        reason: why.reason,
        retries: Some(known.id),
        from_step: why.from_step.map(|number| number - 1),
        ..state.command(Action::Retry, spec.model.clone(), actor)
    };
    let answer = state.ask(command, wait.wait_ms).await?;
    let status = if answer.event.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    respond(status, &Answer { rollout: Some(rollout), ..answer })
}

pub(super) async fn stop_all(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Query(wait): Query<Wait>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let why = read_body(&body)?;
    let before = state.view();
    // Every partition gets the command, and each fold stops all its models.
    let command = Command { reason: why.reason, ..state.command(Action::StopAll, ModelName::from("*"), actor) };
    let id = command.id.clone();
    // An emergency stop is written to the log immediately. The running rollouts are determined afterwards.
    state.write(command, Target::EveryPartition).await?;
    let deadline = Instant::now() + Duration::from_millis(wait.wait_ms).min(WAIT_MAX);
    let before = if before.caught_up() {
        before
    } else {
        state.wait_until(deadline.saturating_duration_since(Instant::now()), View::caught_up).await
    };
    if !before.caught_up() {
        let error = "the stop is on the log, but the controller has not read its topics yet and does not know what has \
                     stopped; send it again";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).coded("not_ready"));
    }
    let running: Vec<RolloutId> =
        before.running().filter_map(|rollout| rollout.state.as_ref()).map(|state| state.id.clone()).collect();
    let left = |view: &View| {
        view.running().filter(|rollout| rollout.state.as_ref().is_some_and(|state| running.contains(&state.id))).count()
    };
    let ended = |view: &View| -> Vec<Arc<RolloutState>> {
        let rollouts =
            running.iter().filter_map(|id| view.rollout(id.as_str())).filter_map(|found| found.state.clone());
        rollouts.filter(|state| state.phase.is_final() && state.spec.mode == Mode::Act).collect()
    };
    // The table that is furthest from being in use.
    let applied = |view: &View| {
        let all = ended(view).into_iter().filter_map(|rollout| state.applied(view, &rollout, rollout.generation));
        all.min_by_key(|applied| (applied.done, applied.soon))
    };
    let settled = |view: &View| left(view) == 0 && applied(view).is_none_or(|applied| applied.done || !applied.soon);
    let view = state.wait_until(deadline.saturating_duration_since(Instant::now()), settled).await;
    let (left, applied) = (left(&view), applied(&view));
    let done = applied.as_ref().is_none_or(|applied| applied.done);
    let stopped = match (running.len(), left) {
        (0, _) => "no rollout is running".to_owned(),
        (1, 0) => "the only running rollout has stopped".to_owned(),
        (all, 0) => format!("{all} rollouts have stopped"),
        (all, left) => format!("{} of {all} rollouts have stopped; {left} have not answered yet", all - left),
    };
    let all_there = left == 0 && done;
    // A rollout that has not answered is not known to have stopped.
    let waits = || Applied { waits_for: "not every rollout has answered".to_owned(), soon: true, ..Applied::default() };
    let applied = if left > 0 { Some(waits()) } else { applied };
    let sentence = if all_there { format!("{stopped}; all traffic is on stable") } else { stopped };
    let status = if all_there { StatusCode::OK } else { StatusCode::ACCEPTED };
    respond(status, &Answer { command: id, sentence: Some(sentence), applied, ..Answer::default() })
}

fn read_body(body: &Bytes) -> Result<ActBody, Failure> {
    let wrong = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    if body.is_empty() {
        return Ok(ActBody::default());
    }
    let mut why: ActBody = serde_json::from_slice(body).map_err(|error| {
        wrong(format!("the body is not {{\"reason\": \"...\", \"full\": false}}: {error}")).coded("invalid_json")
    })?;
    why.reason = on_one_line(&why.reason)?;
    Ok(why)
}

/// A reason is printed on operators' terminals and in audit records, where a line end could imitate another line.
pub(super) fn on_one_line(reason: &str) -> Result<String, Failure> {
    if reason.len() > REASON_MAX {
        let error = format!("the reason is longer than {REASON_MAX} bytes");
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    Ok(reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}

pub(super) fn respond(status: StatusCode, answer: &Answer) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let body = serde_json::to_value(answer).map_err(|error| unwritten(&error))?;
    if answer.refused {
        let sentence = answer.sentence.clone().unwrap_or_default();
        return Err(Failure::new(StatusCode::CONFLICT, sentence).coded("refused").with(body));
    }
    Ok((status, Json(body)))
}

fn unwritten(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("the command could not be written: {error}; try again"))
}

impl ApiState {
    /// A command of `actor` without a rollout, a spec and options.
    pub(super) fn command(&self, action: Action, model: ModelName, actor: String) -> Command {
        Command::new(Uuid::now_v7().to_string(), action, model, actor, self.wall_clock())
    }

    /// Writes a command, waits for its answer, and then for routers to use the table that it led to.
    pub(crate) async fn ask(&self, command: Command, wait_ms: u64) -> Result<Answer, Failure> {
        let (id, about, action) = (command.id.clone(), command.rollout.clone(), command.action);
        self.write(command, Target::ByKey).await?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX);
        let answer = |view: &View| view.answer(&id, about.as_ref()).cloned();
        let left = deadline.saturating_duration_since(Instant::now());
        let view = self.wait_until(left, |view| answer(view).is_some()).await;
        let event = answer(&view);
        let refused = event.as_ref().is_some_and(|event| event.kind == EventKind::Refused);
        let sentence = event.as_ref().map(|event| event.sentence.clone());
        let applied = match &event {
            Some(event) if !refused && moves_calls(action) => self.applied_by(event, deadline).await,
            _ => None,
        };
        Ok(Answer { command: id, refused, sentence, event, applied, ..Answer::default() })
    }

    /// Writes a command. When this returns, the command is on the log.
    pub(super) async fn write(&self, command: Command, target: Target) -> Result<(), Failure> {
        let envelope =
            Envelope { id: &command.id, source: "/controller/api", subject: command.model.as_str(), time: command.at };
        let record = Outgoing::record(COMMANDS, target, command.model.0.clone(), &command, &envelope)
            .map_err(|error| unwritten(&error))?;
        let writer = Arc::clone(&self.0.writer);
        let written = tokio::task::spawn_blocking(move || {
            writer.send(record).map_err(|error| unwritten(&error))?;
            writer.flush(FLUSH).map_err(|error| unwritten(&error))
        });
        written.await.map_err(|error| unwritten(&error))?
    }
}
