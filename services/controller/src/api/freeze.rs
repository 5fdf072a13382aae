//! Freezes: commands about a pattern of models, which every partition keeps.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serin_schemas::{
    ids::{EventTime, ModelName},
    records::{Action, Command, EventKind},
};
use serin_stream::record::Target;
use serin_topology::COMMANDS;

use super::{
    actions::{Answer, WAIT_MAX, Wait, on_one_line, respond},
    auth::Caller,
    state::{ApiState, Failure},
};
use crate::{fold::MAX_NAME_BYTES, view::View};

/// The body of `freeze` and `unfreeze`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FreezeBody {
    /// A model, or a pattern of models: `*` matches any characters.
    models: String,
    #[serde(default)]
    reason: String,
    /// End of the freeze, in microseconds since 1970.
    until: Option<i64>,
}

pub(super) async fn freeze(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Query(wait): Query<Wait>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    send(&state, Action::Freeze, actor, &wait, &body).await
}

pub(super) async fn unfreeze(
    State(state): State<ApiState>,
    Extension(Caller { name: actor, .. }): Extension<Caller>,
    Query(wait): Query<Wait>,
    body: Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    send(&state, Action::Unfreeze, actor, &wait, &body).await
}

/// Writes the command to every partition, and waits until each of them has answered.
async fn send(
    state: &ApiState,
    action: Action,
    actor: String,
    wait: &Wait,
    body: &Bytes,
) -> Result<(StatusCode, Json<serde_json::Value>), Failure> {
    let body: FreezeBody = serde_json::from_slice(body).map_err(|error| {
        let form = r#"{"models": "...", "reason": "...", "until": 1764576000000000}"#;
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is not {form}: {error}"))
    })?;
    let reason = on_one_line(&body.reason)?;
    let bytes = body.models.len();
    if bytes == 0 || bytes > MAX_NAME_BYTES || body.models.chars().any(char::is_control) {
        let error = format!(
            "`models` is not a pattern of models; write 1 to {MAX_NAME_BYTES} bytes, for example \"flights\", \"team-a-*\" or \"*\""
        );
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let command = Command {
        reason,
        until: body.until.map(EventTime),
        ..state.command(action, ModelName::from(body.models.as_str()), actor)
    };
    let id = command.id.clone();
    state.write(command, Target::EveryPartition).await?;
    let partitions = state.report(|log| log.partitions(COMMANDS)).await?;
    let partitions = partitions.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    let answered = |view: &View| view.answers_about_pattern(&id).count() >= partitions;
    let view = state.wait_until(Duration::from_millis(wait.wait_ms).min(WAIT_MAX), answered).await;
    let event = view.answers_about_pattern(&id).next().filter(|_| answered(&view)).cloned();
    let status = if event.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let refused = event.as_ref().is_some_and(|event| event.kind == EventKind::Refused);
    let sentence = event.as_ref().map(|event| event.sentence.clone());
    respond(status, &Answer { command: id, refused, sentence, event, ..Answer::default() })
}
