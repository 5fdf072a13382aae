//! The admin API: tables, switch, replay clock and health. It works without the log.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use serin_access::{Refused, bearer, check_local, check_origin};
use serin_schemas::ids::EventTime;
use tokio::sync::Mutex;

use crate::{
    clock::SetError,
    config::span,
    state::Shared,
    tables::table::{Lease, Table},
};

/// State shared by the admin handlers.
struct Admin {
    shared: Arc<Shared>,
    /// Held while the replay clock is being changed.
    setting: Mutex<()>,
}

/// The admin routes.
pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    let admin = Arc::new(Admin { shared, setting: Mutex::new(()) });
    let guarded = Router::new()
        .route("/switch/all-stable", post(switch))
        .route("/replay/clock", put(set_clock).get(clock))
        .route("/tables", get(tables))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), authorise));
    let readiness = Router::new()
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), local_only));
    let routes =
        Router::new().route("/healthz", get(|| async { "ok\n" })).merge(readiness).merge(guarded).with_state(admin);
    routes.layer(middleware::map_response(serin_listener::in_json))
}

/// Requires the bearer token if one is set. Otherwise it accepts only requests from this machine, and none from web pages of other origins.
async fn authorise(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let config = admin.shared.config();
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let checked = if config.admin_token.is_empty() {
        check_local(method, uri, headers, "router.admin_token")
    } else if bearer(headers).is_some_and(|given| config.admin_token.is(given)) {
        check_origin(uri, headers)
    } else {
        let error = "send the router's admin_token as `Authorization: Bearer ...`".to_owned();
        Err(Refused { status: StatusCode::UNAUTHORIZED, code: "unauthenticated", error })
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refused) => serin_listener::problem(refused.status, refused.code, &refused.error),
    }
}

/// Rejects requests of other machines and of web pages of other origins where no token is set.
async fn local_only(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    if admin.shared.config().admin_token.is_empty()
        && let Err(refused) = check_local(request.method(), request.uri(), request.headers(), "router.admin_token")
    {
        return serin_listener::problem(refused.status, refused.code, &refused.error);
    }
    next.run(request).await
}

fn problem(status: StatusCode, text: &str) -> Response {
    serin_listener::problem(status, serin_listener::code_of(status), text)
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let details = admin.shared.details().into_iter();
    let lines: Vec<String> = details.map(|(good, text)| format!("{} {text}\n", if good { '+' } else { '-' })).collect();
    let details = lines.concat();
    match admin.shared.ready() {
        Ok(()) => (StatusCode::OK, format!("ready\n{details}")).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("router: {why}\n{details}")).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchIn {
    on: bool,
}

/// Reads a small JSON body. The content type was checked before.
fn read<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Box<Response>> {
    serde_json::from_slice(body)
        .map_err(|error| Box::new(problem(StatusCode::BAD_REQUEST, &format!("{error}; send for example {example}"))))
}

async fn switch(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let wanted: SwitchIn = match read(&body, r#"{"on": true}"#) {
        Ok(wanted) => wanted,
        Err(problem) => return *problem,
    };
    let shared = Arc::clone(&admin.shared);
    let kept = tokio::task::spawn_blocking(move || shared.switch.set(wanted.on)).await;
    tracing::warn!(on = wanted.on, "the switch `all stable` was set on the admin port");
    let kept = match kept {
        Ok(kept) => kept.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match kept {
        Ok(()) => Json(json!({"all_stable": wanted.on, "kept": true})).into_response(),
        Err(cause) => Json(json!({"all_stable": wanted.on, "kept": false, "warning":
            format!("the setting lasts until a restart: it could not be written to disk ({cause})")}))
        .into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockIn {
    now_us: i64,
}

async fn clock(State(admin): State<Arc<Admin>>) -> Response {
    Json(json!({"now_us": admin.shared.clock.now(), "replay": admin.shared.clock.is_replay()})).into_response()
}

/// Sets the replay clock. It answers after the heartbeats with the new time are on the log, behind all earlier events.
async fn set_clock(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let wanted: ClockIn = match read(&body, r#"{"now_us": 1767225600000000}"#) {
        Ok(wanted) => wanted,
        Err(problem) => return *problem,
    };
    let _one = admin.setting.lock().await;
    let shared = &admin.shared;
    let to = EventTime(wanted.now_us);
    if let Err(error) = shared.clock.set(to) {
        let status = if error == SetError::NotReplay { StatusCode::NOT_FOUND } else { StatusCode::CONFLICT };
        return problem(status, &error.to_string());
    }
    let settled = tokio::time::timeout(span(shared.config().timeouts.settle), shared.flying.none_before(to)).await;
    if settled.is_err() {
        tracing::warn!(
            now_us = to.0,
            "calls from before the new time are still in flight; they will be counted at the new time"
        );
    }
    let lost_before = shared.events.lost();
    let written = match shared.events.heartbeat(Some(to), false) {
        Ok(()) => shared.events.flush(lost_before).await,
        Err(error) => Err(error.to_string()),
    };
    match written {
        Ok(()) => Json(json!({"now_us": to, "settled": settled.is_ok()})).into_response(),
        Err(cause) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the log did not confirm the heartbeats ({cause}); send the same time again"),
        ),
    }
}

/// A table as shown by the admin API.
#[derive(Serialize)]
struct TableOut<'a> {
    model: &'a str,
    generation: i64,
    lease_seq: i64,
    lease: &'static str,
    lease_left_ms: Option<u128>,
    rollout: Option<&'a str>,
    routes: Vec<RouteOut<'a>>,
    apply_us: i64,
    reason: &'a str,
}

#[derive(Serialize)]
struct RouteOut<'a> {
    version: &'a str,
    arm: &'static str,
    share: i32,
}

async fn tables(State(admin): State<Arc<Admin>>) -> Response {
    let shared = &admin.shared;
    let now = shared.clock.source().steady();
    let tables = shared.tables.load();
    let mut list: Vec<&Arc<Table>> = tables.0.values().collect();
    list.sort_by(|a, b| a.record.model.cmp(&b.record.model));
    let list: Vec<TableOut<'_>> = list.into_iter().map(|table| describe(table, now)).collect();
    let refusals = shared.refusals().into_iter();
    let refused: Vec<_> = refusals
        .map(|(model, refused)| json!({"model": model, "generation": refused.generation, "reason": refused.reason}))
        .collect();
    let in_flight = shared.config().limits.in_flight - shared.calls.available_permits();
    Json(json!({"all_stable": shared.switch.is_on(), "in_flight": in_flight, "drops": shared.events.drops(),
        "tables": list, "refused": refused}))
    .into_response()
}

fn describe(table: &Table, now: std::time::Duration) -> TableOut<'_> {
    let record = &table.record;
    let (lease, left) = match table.lease {
        Lease::Forever => ("forever", None),
        Lease::Unconfirmed => ("unconfirmed", None),
        Lease::Until(end) => match end.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(left) => ("holds", Some(left.as_millis())),
            None => ("expired", None),
        },
    };
    TableOut {
        model: record.model.as_str(),
        generation: record.generation.0,
        lease_seq: record.lease_seq,
        lease,
        lease_left_ms: left,
        rollout: record.rollout.as_ref().map(serin_schemas::ids::RolloutId::as_str),
        routes: record
            .routes
            .iter()
            .map(|route| RouteOut { version: route.version.as_str(), arm: route.arm.as_str(), share: route.share })
            .collect(),
        apply_us: table.apply_us,
        reason: &record.reason,
    }
}
