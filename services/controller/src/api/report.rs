//! `GET /v1/rollouts/{id}/report`: the report of a rollout, as JSON, as a page, or as Markdown.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{
    queries::{no_log, unknown},
    state::{ApiState, Failure},
};
use crate::report::{POLICY, Report, html, markdown, read};

/// `?format=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    format: Form,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    #[default]
    Json,
    Html,
    Markdown,
}

pub(super) async fn report(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(Wanted { format }): Query<Wanted>,
) -> Result<Response, Failure> {
    let known = state.rollout(&id).await?.view.state.clone().ok_or_else(|| unknown(&id))?;
    let now = state.wall_clock();
    let found = state.report(move |log| Ok(Report::of(read(log, (*known).clone())?, now))).await?;
    let report = found.ok_or_else(no_log)?;
    let text =
        |content_type: &'static str, text: String| ([(header::CONTENT_TYPE, content_type)], text).into_response();
    let mut response = match format {
        Form::Json => Json(report).into_response(),
        Form::Html => text("text/html; charset=utf-8", html(&report)),
        Form::Markdown => text("text/markdown; charset=utf-8", markdown(&report)),
    };
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
